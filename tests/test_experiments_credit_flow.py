"""The credit study: fair contestants, exact measures, honest intervals, records that survive, pages from records."""

import copy
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from tests import credit_workers
from tests.helpers import unchecked
from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.experiments import credit_flow
from vgrad_lab.experiments.credit_flow_costate import GROUPS, costate_moments, costate_quality, value_gradients
from vgrad_lab.experiments.credit_flow_figure import draw
from vgrad_lab.experiments.credit_flow_measure import Measures, measure, ratio, rounded, sampling_share
from vgrad_lab.experiments.credit_flow_models import MODELS, Sizes, contestant, flops_per_step, parameters
from vgrad_lab.experiments.credit_flow_page import collect, page
from vgrad_lab.experiments.credit_flow_pool import in_processes
from vgrad_lab.experiments.credit_flow_summary import STATEMENTS, estimate, score, summarise
from vgrad_lab.experiments.credit_flow_words import number, plain, ratio_word, span
from vgrad_lab.ledger import LEDGER
from vgrad_lab.sequence.credit_flow import credit_norms, hidden_jacobian
from vgrad_lab.sequence.enumeration import continuations, expected_costate, value_gradient
from vgrad_lab.sequence.recurrent import GRU, RecurrentSpec, TokenOnly
from vgrad_lab.sequence.sampling import relaxed_total_jacobian, relaxed_trace
from vgrad_lab.sequence.tasks import DelayedTask, LabelTask, RecallTask, Task
from vgrad_lab.sequence.tasks import draw as draw_cases
from vgrad_lab.sequence.trace import SequenceModel, trace
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

ROOT = Path(__file__).parents[1]
TINY = replace(credit_flow.TINY, tasks={"label copying": LabelTask(fill=2, labels=3, markers=1, fillers=2)})
Json = dict[str, Any]


def random_model(kind: str, vocab: int, seed: int) -> SequenceModel:
    if kind == "gru":
        return GRU(RecurrentSpec(vocab, width=4, layers=2), seed=seed)
    if kind == "token-only":
        return TokenOnly(RecurrentSpec(vocab, width=4, layers=2), seed=seed)
    return Transformer(
        TransformerSpec(vocab, width=4, head_width=2, norm="pre" if kind == "pre" else "post"), seed=seed
    )


KINDS = ("pre", "post", "gru", "token-only")


@pytest.fixture(scope="module")
def records() -> list[Json]:
    return [credit_flow.run_unit(unit) for unit in credit_flow.make_units(TINY)]


# Contestants


@pytest.mark.parametrize(
    "task", [DelayedTask(), RecallTask(pairs=3, keys=6, values=6), LabelTask()], ids=lambda t: type(t).__name__
)
def test_equal_is_equal(task: Task) -> None:
    who = {name: contestant(name, task, Sizes(), seed=0) for name in MODELS}
    reference = who["transformer"]
    assert who["gru-parameters"].parameters == pytest.approx(reference.parameters, rel=0.02)
    assert who["gru-parameters"].steps == reference.steps
    assert who["gru-compute"].flops == pytest.approx(reference.flops, rel=0.002)
    assert who["gru-compute"].model.width == reference.model.width
    width = who["gru-parameters"].model.width
    for other in (width - 1, width + 1):
        model = GRU(RecurrentSpec(task.vocab, width=other, layers=2), seed=0)
        miss = abs(parameters(model) - reference.parameters)
        assert miss >= abs(who["gru-parameters"].parameters - reference.parameters), "the nearest width"


def test_flops_by_hand() -> None:
    task, batch, d, heads = DelayedTask(delay=4, values=5), 3, 8, 2
    model = contestant("transformer", task, Sizes(width=d, heads=heads), seed=0).model
    t, v = task.length, task.vocab
    products = 2 * (4 * d * d + 8 * d * d) + d * v
    attention = 2 * 2 * t * d
    assert flops_per_step(model, task, batch) == 3 * 2 * batch * t * (products + attention)


def test_contestants_differ_by_seed_alone() -> None:
    task = DelayedTask(delay=2, values=3)
    one, same, other = (contestant("gru-compute", task, Sizes(width=8, heads=2), seed=s).model for s in (0, 0, 1))
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    with pytest.raises(ValueError, match="give one of transformer"):
        contestant("lstm", task, Sizes(), seed=0)


# Measures


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_value_gradients_are_those_of_patching(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_model(kind, 3, seed)
    cases = continuations(3, rng.integers(0, 3, 3).tolist(), remaining=2)
    reward = rng.standard_normal(9)
    found, value = value_gradients(model, cases, reward)
    right = value_gradient(model, cases, reward)
    assert float((found - right).norm()) <= ALGEBRA * float(right.norm())
    planted, _ = value_gradients(model, cases, reward * (1 + PLANTED_FAULT * (np.arange(9) == 4)))
    assert float((planted - right).norm()) > ALGEBRA * float(right.norm()), "the comparison sees a planted fault"
    assert abs(value) <= np.abs(reward).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", GROUPS)
def test_moments_against_every_group(kind: str, rule: str) -> None:
    """All 4³ groups of three, one by one, against the moments over the number of successes among the others."""
    model, group = random_model(kind, 2, 3), 3
    cases = continuations(2, [0, 1, 1], remaining=2)
    reward = np.array([1.0, 0.0, 0.0, 1.0])
    moments = costate_moments(model, cases, reward, group=group)
    probability = np.array([float(p) for p in _probability(model, cases)])
    score = [expected_costate(model, cases, row / probability) for row in np.eye(4)]
    mean, square = torch.zeros_like(score[0]), np.zeros(len(score[0]))
    for index in np.ndindex(4, 4, 4):
        chance = float(np.prod(probability[list(index)]))
        advantage = float(from_group(reward[list(index)][None], GROUPS[rule], ddof=0, eps=0.0)[0, 0])
        costate = advantage * score[index[0]]
        mean += chance * costate
        square += chance * costate.square().sum((1, 2)).numpy()
    assert float((moments[rule].mean - mean).norm()) <= ALGEBRA * float(mean.norm())
    assert moments[rule].square == pytest.approx(square, rel=1e-11)
    assert moments[rule].square != pytest.approx(square * (1 + PLANTED_FAULT), rel=1e-11)
    plain_costate = expected_costate(model, cases, reward)
    assert float((moments["no baseline"].mean - plain_costate).norm()) <= ALGEBRA * float(plain_costate.norm())


def _probability(model: SequenceModel, cases: Any) -> torch.Tensor:
    logits = model(cases.inputs).logits.log_softmax(-1).detach()
    chosen = logits.gather(-1, cases.targets.unsqueeze(-1)).squeeze(-1)
    return chosen[:, cases.sampled].sum(1).exp()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_bias_and_noise(kind: str, seed: int) -> None:
    task = LabelTask(fill=2, labels=3, markers=1, fillers=2)
    found = costate_quality(random_model(kind, task.vocab, seed), task, prompts=2, group=4, seed=seed)
    assert found["leave-one-out"]["bottom"]["bias"] < 1e-11
    assert found["no baseline"]["bottom"]["bias"] < 1e-11
    assert found["standardised"]["bottom"]["bias"] > 1e-3
    assert found["standardised"]["bottom"]["cosine"] == pytest.approx(1, abs=1e-11)
    assert found["own token only"]["top"]["bias"] < 1e-11 or kind == "gru"
    assert (found["own token only"]["bottom"]["bias"] < 1e-11) == (kind == "token-only")
    assert all(layer["noise"] > 0 for rule in found.values() for layer in rule.values())


def test_a_gradient_that_vanishes_leaves_bias_undefined() -> None:
    task = LabelTask(fill=2, labels=3, markers=1, fillers=2)
    model = random_model("pre", task.vocab, 0)
    torch.nn.init.zeros_(model.head.weight)
    found = costate_quality(model, task, prompts=2, group=4, seed=0)
    assert found["leave-one-out"]["bottom"] == {"bias": None, "cosine": None, "noise": None}


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_share_is_that_of_eq_20(kind: str) -> None:
    task = DelayedTask(delay=2, values=3)
    model = random_model(kind, task.vocab, 1)
    found = sampling_share(model, task, 3, seed=5)
    cases = draw_cases(task, 3, rng=np.random.default_rng([5, 2]))
    q, last = task.queries[-1], model.layers
    inputs = torch.cat([cases.inputs, cases.targets[:, -1:]], dim=1)
    whole = relaxed_total_jacobian(model, inputs, position=q, target=(last, q + 1))
    kept = hidden_jacobian(relaxed_trace(model, inputs, position=q), source=(last, q), target=(last, q + 1))
    missing = (whole - kept).flatten(1).norm(dim=1)
    assert found["missing"] == pytest.approx(missing.tolist(), rel=1e-10)
    share = missing / (missing + kept.flatten(1).norm(dim=1))
    assert found["top"] == pytest.approx(share.tolist(), rel=1e-10)
    relaxed = relaxed_trace(model, inputs, position=q)
    upwards = hidden_jacobian(relaxed, source=(0, q), target=(last, q))
    below = hidden_jacobian(relaxed, source=(0, q), target=(last, q + 1)).flatten(1).norm(dim=1)
    carried = ((whole - kept) @ upwards).flatten(1).norm(dim=1)
    assert found["bottom"] == pytest.approx((carried / (carried + below)).tolist(), rel=1e-10)
    assert (found["top"] == [1.0] * 3) == (kind != "gru")
    assert (found["bottom"] == [1.0] * 3) == (kind == "token-only")
    assert all(0 < x <= np.log(task.vocab) for x in found["entropy"])


def test_a_step_without_any_path_has_no_share() -> None:
    task = DelayedTask(delay=2, values=3)
    model = random_model("token-only", task.vocab, 1)
    torch.nn.init.zeros_(model.maps[0].weight)
    found = sampling_share(model, task, 2, seed=0)
    assert found["top"] == found["bottom"] == [None, None]


@pytest.mark.parametrize(
    "task", [RecallTask(pairs=2, keys=3, values=3), LabelTask(fill=2, labels=3)], ids=lambda t: type(t).__name__
)
def test_selectivity_and_crossing_by_loops(task: Task) -> None:
    model = random_model("post", task.vocab, 2)
    reads = Measures(scored=8, measured=6, jacobians=2, prompts=1, group=4)
    found = measure(model, task, reads, seed=9)
    cases = draw_cases(task, 6, rng=np.random.default_rng([9, 1]))
    result = trace(copy.deepcopy(model), cases.inputs)
    asked, other, crossed, everything = [], [], 0.0, 0.0
    for number_, k in enumerate(task.queries):
        norms = credit_norms(result, cases.targets, position=k)
        everything += float((norms[0] ** 2).sum())
        crossed += float((norms[0, :, :k] ** 2).sum())
        for b in range(6):
            source = int(cases.source[b, number_])
            asked.append(norms[0, b, source])
            other += [norms[0, b, t] for t in np.flatnonzero(cases.shown.numpy()) if t != source]
    assert found["selectivity"] == pytest.approx(np.mean(asked) / np.mean(other), rel=1e-5)
    assert found["crossing"][0] == pytest.approx(crossed / everything, rel=1e-5)
    assert found["crossing"][-1] == 0.0


def test_the_control_sends_nothing_and_says_undefined() -> None:
    task = DelayedTask(delay=2, values=3)
    found = measure(random_model("token-only", task.vocab, 0), task, Measures(8, 6, 2, 1, 4), seed=0)
    assert found["selectivity"] is None
    assert found["crossing"] == [0.0] * 3
    assert found["asked"] == found["other"] == 0.0


def test_measuring_leaves_the_model_alone() -> None:
    task = DelayedTask(delay=2, values=3)
    model = contestant("transformer", task, Sizes(width=8, heads=2), seed=0).model
    before = copy.deepcopy(model.state_dict())
    first, second = (measure(model, task, Measures(8, 6, 2, 1, 4), seed=0) for _ in range(2))
    assert first == second
    assert all(torch.equal(before[k], v) and v.dtype is torch.float32 for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_rounding_refuses_what_is_not_a_number() -> None:
    assert rounded({"a": [1.23456789, None, 3]}) == {"a": [1.23457, None, 3]}
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="write None"):
            rounded([bad])
    assert ratio(1.0, 0.0) is None


# Intervals


def test_estimate_is_students_interval() -> None:
    x = [0.2, 0.5, 0.3, 0.9]
    found = unchecked(estimate)(x)
    low, high = scipy_stats.t.interval(0.95, 3, np.mean(x), scipy_stats.sem(x))
    assert (found["value"], found["low"], found["high"]) == pytest.approx((np.mean(x), low, high))
    logs = unchecked(estimate)(x, log=True)
    assert logs["value"] == pytest.approx(scipy_stats.gmean(x))
    cut = unchecked(estimate)(x, low=0.1, high=0.6)
    assert (cut["low"], cut["high"]) == pytest.approx((max(low, 0.1), 0.6))


def test_intervals_cover() -> None:
    """Of 2000 intervals from 5 normal draws 95 % hold the mean; 6 standard errors of a share are 2.9 %."""
    rng = np.random.default_rng(0)
    found = [unchecked(estimate)(row.tolist()) for row in rng.standard_normal((2000, 5)) + 3]
    assert np.mean([f["low"] <= 3 <= f["high"] for f in found]) == pytest.approx(0.95, abs=0.029)


def test_undefined_is_never_averaged_away() -> None:
    for values, log in (([0.2, None, 0.3], False), ([0.2, 0.0, 0.3], True), ([], False)):
        found = unchecked(estimate)(values, log=log)
        assert found["value"] is found["low"] is found["high"] is None
        assert found["undefined"] == min(len(values), 1)
    one = unchecked(estimate)([0.4])
    assert one["value"] == 0.4
    assert one["low"] is None
    assert unchecked(estimate)([-0.4, -0.2])["value"] == pytest.approx(-0.3), "negative is not undefined"


def test_words() -> None:
    assert number({"value": None, "undefined": 2, "seeds": 5}) == "undefined (2 of 5 seeds)"
    assert number({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.5 [0.25, 0.75]"
    assert number({"value": 0.5, "low": None, "high": None}) == "0.5 (one seed)"
    assert number({"value": 1.0, "low": 1.0, "high": 1.0}) == "1"
    assert plain(-0.00012) == "−1.2e−04"
    assert plain(1234.6) == "1235"
    assert ratio_word({"value": 2.0, "low": 1.5, "high": 2.5}).startswith("larger")
    assert ratio_word({"value": 2.0, "low": 0.5, "high": 2.5}).startswith("not told apart")
    assert span([{"value": 1.0}, {"value": None}]) == "1 (1 undefined)"


# Records, scores, pages


def test_a_unit_repeats_and_holds_what_it_must(records: list[Json]) -> None:
    unit = credit_flow.make_units(TINY)[1]
    assert credit_flow.run_unit(unit) == records[1]
    assert [r["status"] for r in records] == ["done"] * 8
    for r in records:
        json.dumps(r, allow_nan=False)
        assert [s["share"] for s in r["result"]["stages"]] == [0.0, 0.5, 1.0]
        assert r["result"]["stages"][-1]["step"] == r["result"]["steps"]
    assert len({r["unit"] for r in records}) == 8


def test_the_id_depends_on_what_matters() -> None:
    unit = credit_flow.make_units(TINY)[0]
    changed = [
        replace(unit, seed=7),
        replace(unit, model="gru-compute"),
        replace(unit, settings=replace(TINY, steps=21)),
    ]
    harder = replace(TINY, tasks={"label copying": LabelTask(fill=3)})
    changed.append(replace(unit, settings=harder))
    assert len({u.id for u in [unit, *changed]}) == 5
    assert replace(unit, settings=replace(TINY, seeds=(0, 1, 2))).id == unit.id, "more seeds leave what is done alone"


def test_what_it_shows_and_that_the_score_can_fail(records: list[Json]) -> None:
    assert set(STATEMENTS) <= set(LEDGER)
    found = score(records)
    assert set(found) == set(STATEMENTS)
    assert all(f["seen"] == f["looked"] > 0 for f in found.values()), found
    swapped = copy.deepcopy(records)
    names = dict(zip(MODELS, ("gru-parameters", "token-only", "gru-compute", "transformer"), strict=True))
    for r in swapped:
        r["model"] = names[r["model"]]
    wrong = score(swapped)
    assert all(wrong[i]["seen"] < wrong[i]["looked"] for i in ("S13.depth", "S15", "S15.token"))
    biased = copy.deepcopy(records)
    biased[0]["result"]["stages"][0]["costate"]["leave-one-out"]["bottom"]["bias"] = PLANTED_FAULT
    assert score(biased)["S21.exact"]["seen"] == found["S21.exact"]["looked"] - 1
    biased[0]["result"]["stages"][0]["costate"]["leave-one-out"]["bottom"]["bias"] = None
    assert score(biased)["S21.exact"]["looked"] == found["S21.exact"]["looked"] - 1, "undefined is not looked at"


def test_summary_reads_the_records(records: list[Json]) -> None:
    summary = summarise(records)
    json.dumps(summary, allow_nan=False)
    stage = summary["cells"]["label copying"]["gru-compute"]["stages"][1]
    values = [r["result"]["stages"][1]["accuracy"] for r in records if r["model"] == "gru-compute"]
    assert stage["accuracy"]["value"] == pytest.approx(np.mean(values))
    control = summary["cells"]["label copying"]["token-only"]["stages"][1]
    assert (control["selectivity"]["value"], control["selectivity"]["undefined"]) == (None, 2)
    paired = summary["differences"]["label copying"]["gru-parameters"][-1]
    both = [[r["result"]["stages"][-1] for r in records if r["model"] == m] for m in ("gru-parameters", "transformer")]
    gaps = [a["accuracy"] - b["accuracy"] for a, b in zip(*both, strict=True)]
    assert paired["accuracy"]["value"] == pytest.approx(np.mean(gaps))
    ratios = [a["selectivity"] / b["selectivity"] for a, b in zip(*both, strict=True)]
    assert paired["selectivity"]["value"] == pytest.approx(scipy_stats.gmean(ratios))
    assert summary["ranks"]["transformer"]["top"]["value"] is None, "a constant share has no rank correlation"


def test_a_page_can_be_written_from_anything(records: list[Json], tmp_path: Path) -> None:
    failed = {**records[0], "status": "failed", "error": "ValueError: planted", "result": None}
    for rows in ([], [failed], records[:1], [failed, *records[1:]]):
        text = page(collect(rows, command="vgrad credit"), images="i", results="r", names=("a", "b"))
        assert "nan" not in text.lower()
        assert ("planted" in text) == (failed in rows)
    first, second = (draw(summarise(rows), rows, tmp_path / name) for name in ("a", "b"))
    assert [p.suffix for p in first] == [".svg", ".png"] * 3
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert draw(summarise([]), [], tmp_path / "empty")[0].is_file()


def test_run_keeps_what_is_done_and_shows_what_failed(tmp_path: Path) -> None:
    """A task too large to enumerate fails; a lost and a torn record are done again; the rest is kept."""
    tasks = {**TINY.tasks, "delayed recall": DelayedTask(delay=2, values=400)}
    settings = replace(TINY, tasks=tasks, stages=(1.0,), steps=2, seeds=(0, 1))
    first = credit_flow.run(tmp_path, settings, progress=False)
    assert (first["done"], first["failed"], first["kept"]) == (8, 8, 0)
    assert all("at most 100000" in e for e in first["errors"].values())
    assert "FAILED delayed-recall" in credit_flow.describe(first)
    rows = (tmp_path / "records.jsonl").read_bytes()
    assert [json.loads(line)["status"] for line in rows.splitlines()].count("failed") == 8
    assert "## Failed" in (tmp_path / "report.md").read_text(encoding="utf-8")
    good = replace(settings, tasks=TINY.tasks)
    done = sorted((tmp_path / "units").glob("label-copying-*.json"))
    done[0].unlink()
    done[1].write_text('{"unit": ', encoding="utf-8")
    second = credit_flow.run(tmp_path, good, progress=False, workers=1)
    assert (second["done"], second["failed"], second["kept"]) == (2, 0, 6)
    again = (tmp_path / "records.jsonl").read_bytes().splitlines()
    assert again == [line for line in rows.splitlines() if b"label copying" in line]
    for name in ("report.md", "summary.json", "figures/credit_lag.svg", "figures/credit_sampling.png"):
        assert (tmp_path / name).stat().st_size > 500


def test_the_pool_outlives_its_processes(tmp_path: Path) -> None:
    todo = ["a", "dies", "b", "c"]
    found = dict(in_processes(credit_workers.leave_a_file, tmp_path, todo, workers=2, total=5, bar=False))
    assert found == {"a": "done", "b": "done", "c": "done", "dies": None}
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", "c"}
    with pytest.raises(RuntimeError, match="planted"):
        list(in_processes(credit_workers.leave_a_file, tmp_path, ["raises"], workers=1, total=1, bar=False))


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2"):
        credit_flow.with_seeds(TINY, 1)
    assert credit_flow.with_seeds(TINY, 3, first=4).seeds == (4, 5, 6)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write"):
        credit_flow.run(blocked, TINY, progress=False)


# What is committed


def docs_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_page_is_the_generated_one() -> None:
    committed = (ROOT / "docs" / "credit.md").read_text(encoding="utf-8")
    assert docs_tool().credit_page() == committed, "docs/credit.md is stale; run `make docs`"
    for link in ("results/credit.json", "results/credit.records.jsonl", "images/credit_lag.svg"):
        assert link in committed
        assert (ROOT / "docs" / link).is_file()


def test_committed_numbers_are_those_of_the_records() -> None:
    lines = (ROOT / "docs" / "results" / "credit.records.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    committed = json.loads((ROOT / "docs" / "results" / "credit.json").read_text(encoding="utf-8"))
    again = json.loads(json.dumps(collect(rows, command="vgrad credit")))
    assert again.keys() == committed.keys()
    assert _close(again, committed)
    assert len(committed["seeds"]) >= 5
    assert not committed["failed"]
    assert [r["unit"] for r in rows] == [u.id for u in credit_flow.make_units(credit_flow.SETTINGS)]
    seen = committed["score"]
    assert all(s["seen"] == s["looked"] > 0 for s in seen.values()), seen


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_close, a, b))
    return a == pytest.approx(b, rel=1e-9) if isinstance(a, float) else a == b
