"""`vgrad estimators` and its page: the table's numbers, one clear line per mistake, the committed results."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tests.cli.test_cli import assert_one_clear_line, vgrad
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.discrete.estimator_types import random_problem, reference_problem
from vgrad_lab.discrete.estimators import ESTIMATORS
from vgrad_lab.experiments import estimator_figure, estimator_page, estimator_table, estimators_command
from vgrad_lab.ledger import LEDGER
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

ROOT = Path(__file__).parents[2]
COMMITTED = json.loads((ROOT / "docs" / "results" / "estimators.json").read_text(encoding="utf-8"))


def run(*arguments: object) -> Any:
    """The command in this process: its result, or the UserError it raises."""
    app = typer.Typer()
    app.command()(estimators_command.estimators)
    found = CliRunner().invoke(app, [*map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def numbers(value: Any, name: str = "") -> dict[str, float]:
    """Every number of nested JSON by its path."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if parts:
        return {k: x for key, item in parts for k, x in numbers(item, f"{name}/{key}").items()}
    return {name: float(value)} if isinstance(value, int | float) else {}


def test_as_a_user_meets_it() -> None:
    shown = vgrad("estimators", "--names", "rloo,grpo", "--group", 2)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^rloo +1\.0000 +1\.0000 +1\.0000 +0 .* unbiased$", shown.stdout, re.MULTILINE)
    assert re.search(r"^grpo .* biased$", shown.stdout, re.MULTILINE)
    assert_one_clear_line(vgrad("estimators", "--names", "rlo"), "'rlo'", "did you mean rloo?")


def test_every_estimator_and_what_it_says() -> None:
    out = run("--json").stdout
    result = json.loads(out, parse_constant=pytest.fail)
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == list(ESTIMATORS)
    assert result["left_out"] == {}
    assert result["command"] == "vgrad estimators --vocab 3 --horizon 3 --group 4 --end 0 --spread 1.0 --seed 0"
    assert {"python", "numpy"} <= set(result["versions"])
    for row in rows.values():
        right = row["residual"] <= ALGEBRA
        assert right is (row["verdict"] != "biased"), row["name"]
        if right:
            assert row["scale"] == pytest.approx(row["expected"], rel=ALGEBRA)
    text = run().stdout
    assert "15 answers of 1 to 3 tokens, real rewards, groups of 4" in text
    assert all(f"\n{name} " in text for name in ESTIMATORS)


def test_the_command_gives_the_same_again(tmp_path: Path) -> None:
    first = run("--binary", "--vocab", 2, "--horizon", 4, "--end", -1, "--seed", 7, "--names", "grpo, RLOO", "--json")
    result = json.loads(first.stdout)
    again = run(*result["command"].split()[2:], "--out", tmp_path / "new" / "t.json")
    assert json.loads((tmp_path / "new" / "t.json").read_text(encoding="utf-8")) == result
    assert f"written to {tmp_path / 'new' / 't.json'}" in again.stdout
    assert result["problem"]["binary"]
    assert result["problem"]["answers"] == 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--names", "grop"), ("'grop'", "did you mean grpo?")),
        (("--names", "qqqq"), ("choose one of", "rloo")),
        (("--names", " , "), ("--names is empty",)),
        (("--group", 1, "--names", "rloo"), ("rloo needs G ≥ 2", "G = 1")),
        (("--group", 0, "--names", "reinforce"), ("needs G ≥ 1", "G = 0")),
        (("--vocab", 30, "--horizon", 6), ("616067011 answers", "give a smaller --group, --vocab")),
        (("--group", 12, "--names", "rloo"), ("9.66e+06 groups", "--binary")),
        (("--vocab", 1), ("vocab ≥ 2",)),
        (("--end", 3), ("--end is 3", "0 … 2", "-1")),
        (("--spread", -1), ("--spread is -1",)),
        (("--spread", "nan"), ("--spread is nan",)),
        (("--full", "--names", "rloo"), ("--full and --names", "choose")),
    ],
)
def test_mistakes(arguments: tuple[object, ...], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        run(*arguments)
    for word in words:
        assert word in str(error.value)


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder"):
        run("--out", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        run("--out", tmp_path / "file" / "t.json")


def test_rows_that_cannot_be_had_are_named_with_their_reason() -> None:
    text = run("--group", 1).stdout
    assert "left out, needs G ≥ 2 answers per group, got G = 1: rloo, u_statistic, group_mean" in text
    assert "\nreinforce " in text
    assert "give a smaller" not in text
    large = run("--group", 8, "--binary", "--vocab", 4).stdout
    assert "left out, 40 answers, G = 8, make 6.55e+12 groups, more than 2000000: ppo_coded\n" in large
    assert large.rstrip().endswith(
        "give a smaller --group, --vocab or --horizon, or --binary, which has fewer distinct rewards"
    )


def test_a_policy_without_a_gradient() -> None:
    """A policy that is certain: nothing to compare with, dashes and nulls instead of NaN."""
    result = json.loads(run("--spread", 1e9, "--json").stdout, parse_constant=pytest.fail)
    row = {r["name"]: r for r in result["rows"]}["rloo"]
    assert row["cosine"] is None
    assert "–" in run("--spread", 1e9, "--names", "rloo").stdout


def test_the_committed_numbers_are_those_of_the_code() -> None:
    found = {k: v for k, v in COMMITTED.items() if k not in ("command", "versions", "device", "seed")}
    expected, got = numbers(estimator_table.study()), numbers(found)
    assert got == pytest.approx(expected, rel=1e-9, abs=ALGEBRA)
    planted = {k: v * (1 + PLANTED_FAULT) for k, v in got.items()}
    assert planted != pytest.approx(expected, rel=1e-9, abs=ALGEBRA)


def test_the_reference_numbers() -> None:
    """Scale and cosine on 15 answers, to the digits of the project's reference table."""
    for problem, group, name, scale, cosine in (
        (reference_problem(), 2, "standardised", 0.347, 0.9766),
        (reference_problem(), 4, "standardised", 0.635, 0.9892),
        (reference_problem(), 2, "sequence_mean", 0.222, 0.9421),
        (reference_problem(), 4, "grpo", 0.290, 0.9342),
        (reference_problem(), 4, "token_mean", 0.344, 0.9987),
        (reference_problem(), 2, "trl_default", 0.160, 0.9574),
        (reference_problem(binary=True), 4, "standardised", 1.414, 1.0),
        (reference_problem(binary=True), 4, "grpo", 0.657, 0.9292),
    ):
        (row,) = estimator_table.table(problem, group=group, names=[name])["rows"]
        assert row["scale"] == pytest.approx(scale, abs=6e-4), name
        assert row["cosine"] == pytest.approx(cosine, abs=6e-5), name
    critic = {(r["error"], r["decay"]): r["bias"] for r in COMMITTED["critic"]}
    assert [critic[0.5, d] for d in (0.0, 0.5, 0.95, 1.0)] == pytest.approx([0.256, 0.176, 0.022, 0], abs=5e-4)
    weight = {(r["p"], r["group"]): r for r in COMMITTED["weights"]}
    assert [weight[p, 8]["weight"] for p in (0.02, 0.1, 0.5)] == pytest.approx([2.407, 2.177, 1.736], abs=5e-4)
    assert weight[0.1, 8]["mixed"] == pytest.approx(3.823, abs=5e-4)
    assert weight[0.1, 8]["limit"] == pytest.approx(1 / 0.3)
    real = {r["group"]: r for r in COMMITTED["variance"]["real"]}
    assert (real[2]["rloo"], real[4]["rloo"]) == pytest.approx((1.958798, 0.648748), abs=5e-7)
    single = {
        "reinforce": 1.880,
        "expected_baseline": 1.934,
        "remax": 2.478,
        "value_baseline": 1.064,
        "theorem_2": 0.665,
    }
    assert {name: 2 * real[2][name] for name in single} == pytest.approx(single, abs=6e-4)
    for part in COMMITTED["tables"]:
        rows = {r["name"]: r for r in part["rows"]}
        assert rows["gspo"]["scale"] == rows["grpo"]["scale"]
        assert rows["group_mean"]["scale"] == pytest.approx(1 - 1 / part["group"], rel=ALGEBRA)


def test_the_ledger_quotes_the_table() -> None:
    """Numbers in the notes of E06 to E09 against the committed results."""

    def quoted(id: str, *values: str) -> None:
        assert all(value in LEDGER[id].note for value in values), (id, values)

    rows = {part["title"]: {r["name"]: r for r in part["rows"]} for part in COMMITTED["tables"]}
    two, four = rows["real rewards, G = 2"], rows["real rewards, G = 4"]
    quoted("E06", *(f"{part['standardised']['cosine']:.4f}" for part in (two, four)))
    quoted("E07", f"{two['sequence_mean']['cosine']:.4f}", f"{four['grpo']['cosine']:.4f}")
    quoted(
        "E07.token_mean", *(f"{part[n]['cosine']:.4f}" for part in (two, four) for n in ("token_mean", "trl_default"))
    )
    quoted("E08.mse", f"{two['rloo']['variance']:.4f}", f"{four['rloo']['variance']:.4f}")
    alone = {name: 2 * COMMITTED["variance"]["real"][0][name] for name in ("reinforce", "expected_baseline", "remax")}
    quoted("E08.oracle", *(f"{value:.3f}" for value in alone.values()))
    biases = [f"{100 * r['bias']:.1f}" for r in COMMITTED["critic"] if r["error"] == 0.5 and r["decay"] < 1]
    quoted("E09", ", ".join(biases))


def test_the_page_is_that_of_the_committed_numbers() -> None:
    text = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
    assert estimator_page.page(COMMITTED) == text, "docs/estimators.md is stale; run `make docs`"
    assert all(f"`{name}`" in text for name in ESTIMATORS)
    links = set(re.findall(r"\]\(ledger\.md#([a-z0-9]+)\)", text))
    assert links <= {i.lower().replace(".", "") for i in LEDGER}
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target
    assert set(estimator_table.STATEMENTS) <= set(LEDGER)


def test_the_figure(tmp_path: Path) -> None:
    """Drawn from the committed numbers, twice the same; its error curve against the definition."""
    first, again = (estimator_figure.draw(COMMITTED, tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == again.read_bytes()
    part = next(part for part in COMMITTED["tables"] if part["title"] == "real rewards, G = 4")
    norm = part["problem"]["gradient_norm"]
    for row in part["rows"]:
        found = estimator_figure.relative_error(row, norm)
        angle = np.arcsin(min(1.0, row["residual"]))
        expected = np.tan(angle) ** 2 + row["variance"] / row["scale"] ** 2 / norm**2 / estimator_figure.BATCHES
        np.testing.assert_allclose(found**2, expected, rtol=1e-9)
    with pytest.raises(UserError, match="give --full too"):
        run("--figures", tmp_path)


def test_the_readers_own_estimators(capsys: pytest.CaptureFixture[str]) -> None:
    """The page's code runs as it stands: a residual, and the complaint about a false claim."""
    text = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(block, "estimators.md", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"residual 0\.[0-9]{4}", first)
    assert float(first.split()[1]) > 0.01
    assert second.startswith("discounted claims E D = 1 ∇J")


def test_text_of_small_numbers() -> None:
    assert [estimator_table.small(x) for x in (None, 0.0, 1e-13, 2e-5, 0.25)] == ["–", "0", "0", "2.0e-05", "0.2500"]
    assert estimator_table.number(None) == "–"
    assert estimator_table.finite(float("nan")) is None
    assert estimator_table.finite(1.5) == 1.5
    problem = random_problem(2, 2, seed=3)
    described = estimator_table.describe_problem(problem)
    assert described["answers"] == 3
    assert described["mean_length"] == pytest.approx(float(problem.probability @ np.array([1, 2, 2])))
