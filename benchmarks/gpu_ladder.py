"""Part b of benchmarks/gpu.py: pretrain a ladder on the card, predict, run RL from every rung, correlate.

Stopped at any time, it goes on at the newest checkpoint and at the first unit without a record. The learning rates of
RL are chosen before any RL, by the forecast of one rung, with the rule of ``choose_rate``.
"""

import importlib.util
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gpu_rates import timed
from gpu_setup import Job, plain

from vgrad_lab.checkpoints import operations as op
from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.embedded import TINY as TINY_LADDER
from vgrad_lab.checkpoints.embedded import LadderSettings, pretrain
from vgrad_lab.checkpoints.embedded.corpus import licences
from vgrad_lab.checkpoints.executors import describe
from vgrad_lab.checkpoints.forecast import forecast_result, plan_of
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.reload import Bench
from vgrad_lab.checkpoints.report.scores import evaluate
from vgrad_lab.checkpoints.scene import ForecastSettings
from vgrad_lab.checkpoints.store import publish, read_records
from vgrad_lab.checkpoints.sweep import Unit, compute, device_name, make_units, training_facts
from vgrad_lab.checkpoints.tasks import LabelCopy
from vgrad_lab.experiments.forecast_records import Cell, cell, compact
from vgrad_lab.experiments.forecast_rivals import ALL, FORMULA_OF_PROBE, PROBE, probe, results
from vgrad_lab.experiments.forecast_scores import cell_row

Row = dict[str, Any]
PACKAGES = (
    "numpy", "scipy", "sympy", "pandas", "networkx", "matplotlib", "sklearn", "statsmodels", "jax", "transformers",
    "torch",
)  # fmt: skip
"""Installed packages whose docstrings are read, in this order; those that are not there are left out."""
THREADS = 4
RESERVE = 20.0
"""Seconds kept for the scores."""
TARGET = 0.3
"""R_before near which the rung lies whose forecast chooses the learning rate."""


@dataclass(frozen=True)
class Sizes:
    """The ladder, what is measured, and of each optimiser the protocol and the rates to choose from."""

    ladder: LadderSettings
    measures: MeasureSettings
    protocols: tuple[tuple[GrpoSettings, tuple[float, ...]], ...]
    forecast: ForecastSettings
    seeds: tuple[int, ...] = (0, 1)


FULL = Sizes(
    LadderSettings(
        hidden=768, layers=12, heads=12, intermediate=2048, vocab=16384, positions=512, batch=64, length=256,
        steps=2000, every=200, also=(25, 50, 75, 100, 125, 150, 175, 250, 300, 350), warmup=100, characters=16_000_000,
        documents=100_000, precision="bfloat16",
    ),
    MeasureSettings(),
    ((default_settings("adamw"), (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)), (default_settings("sgd"), (1e-3, 1e-2, 1e-1))),
    ForecastSettings(),
)  # fmt: skip
SMALL_RL = {"prompts": 4, "budgets": (1, 2, 10), "evaluation_prompts": 32}
TINY = Sizes(
    replace(TINY_LADDER, precision="bfloat16", every=20, also=(5,)),
    MeasureSettings(prompts=32, sampled_groups=4),
    ((replace(default_settings("adamw"), **SMALL_RL), (1e-4, 1e-3)),),
    ForecastSettings(prompts=8, micro_batch=4, evaluation_prompts=32, ray_prompts=8),
)


def run(job: Job) -> dict[str, Any]:
    """Pretrain, measure every rung, choose the rates, then each protocol: forecast and RL of every rung, scores."""
    sizes = TINY if job.tiny else FULL
    packages = () if job.tiny else tuple(name for name in PACKAGES if importlib.util.find_spec(name))
    settings = replace(sizes.ladder, device=job.device, packages=packages)
    store, task = job.work / "records", LabelCopy()
    result: Row = {"ladder": asdict(settings), "texts": licences(packages), "seeds": list(sizes.seeds)}
    job.save(result)
    before = len(list((job.work / "ladder").glob("step*")))
    rungs, row = timed(
        job.device, lambda: pretrain(settings, job.work / "ladder", progress=False, threads=1 if job.tiny else THREADS)
    )
    result["pretraining"] = pretrained(job, settings, rungs, row, whole=before == 0)
    job.save(result)
    bench = Bench(tuple(rung.path for rung in rungs))
    try:
        measures = make_units(rungs, task, measures=sizes.measures)
        perform(job, bench, store, measures)
        result["checkpoints"] = checkpoints(store, measures)
        job.save(result)
        to_do([u.id for u in measures if u.id not in read_records(store)])
        result["studies"] = []
        for protocol, rates in sizes.protocols:
            study: Row = {"optimizer": protocol.optimizer, "left": [rung.name for rung in rungs]}
            result["studies"].append(study)
            study |= kept_rate(job, bench, near(result["checkpoints"], rungs), sizes, protocol, rates)
            job.save(result)
            chosen = replace(protocol, learning_rate=study["learning_rate"])
            study_of(job, bench, store, measures, chosen, sizes, study)
            job.save(result)
    finally:
        bench.close()
    result["failed"] = [f"{r['unit']}: {r['error']}" for r in read_records(store).values() if r["status"] != "done"]
    job.save(result)
    to_do([f"{study['optimizer']} {name}" for study in result["studies"] for name in study["left"]])
    return result


def to_do(left: Sequence[str]) -> None:
    """Raises TimeoutError where something is left: the part is not done."""
    if left:
        raise TimeoutError(f"{len(left)} rungs are left ({left[0]}, …); call again to go on")


def kept_rate(job: Job, bench: Bench, rung: Rung, sizes: Sizes, protocol: GrpoSettings, rates: Sequence[float]) -> Row:
    """``choose_rate``, once for all calls: a GPU might choose otherwise the next time, and mix two protocols."""
    note = job.work / f"rate-{protocol.optimizer}.json"
    if not note.is_file():
        write_file(note, json.dumps(plain(choose_rate(job, bench, rung, sizes, protocol, rates))))
    return dict(json.loads(note.read_text(encoding="utf-8")))


def pretrained(job: Job, settings: LadderSettings, rungs: Sequence[Rung], row: Row, *, whole: bool) -> Row:
    """What pretraining wrote beside its checkpoints, and how fast it was where one call did the whole of it.

    FLOPs 3·(2·(L·block + V·d)·tokens + 4·L·d·T²·rows): forward and twice that backward, the head at every position.
    """
    facts = [training_facts(rung.path) for rung in rungs]
    shape = op.Shape(settings.layers, settings.hidden, settings.intermediate, settings.vocab, settings.hidden,
                     4 * settings.hidden)  # fmt: skip
    tokens, note = facts[-1]["tokens"], job.work / "pretraining.json"
    square = 4 * shape.layers * shape.width * settings.length * tokens
    flops = 3.0 * (2 * (shape.layers * shape.block + shape.vocab * shape.width) * tokens + square)
    if whole:
        share = flops / row["seconds"] / job.rates["matrix_bfloat16"]
        speed = {**row, "tokens_per_second": tokens / row["seconds"], "share_of_matrix_rate": share}
        write_file(note, json.dumps(speed))
    return {
        "parameters": shape.parameters,
        "tokens": tokens,
        "flops": flops,
        **(json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}),
        "corpus_sha256": facts[-1]["corpus_sha256"],
        "losses": [[f["step"], f["train_loss"], f["validation_loss"]] for f in facts],
    }


def perform(job: Job, bench: Bench, store: Path, units: Iterable[Unit]) -> None:
    """Do the units without a finished record, those of a rung together: one load of its weights serves all.

    It stops before the part's time is up, so that what there is can be scored; the next call goes on.
    """
    done = {k for k, r in read_records(store).items() if r["status"] == "done"}
    for unit in sorted((u for u in units if u.id not in done), key=lambda u: u.rung.step):
        if job.left < (1.0 if job.tiny else RESERVE):
            return
        start, record = time.perf_counter(), unit.failed("")
        try:
            found = compute(unit, bench.checkpoint(unit.rung.path, device=job.device), unit.settings)
            record |= {"status": "done", "error": None, "device": device_name(job.device), "result": found}
        except Exception as error:
            record["error"] = describe(error)
        publish(store, record, seconds=time.perf_counter() - start)


def checkpoints(store: Path, measures: Sequence[Unit]) -> list[Row]:
    """Step and measured reward of every rung."""
    found = ((unit.rung, read_records(store).get(unit.id, {}).get("result")) for unit in measures)
    return [{"name": r.name, "step": r.step, "reward_before": x["reward_before"],
             "reward_restricted": x["reward_restricted"]} for r, x in found if x]  # fmt: skip


def near(measured: Sequence[Row], rungs: Sequence[Rung]) -> Rung:
    """The rung whose reward is nearest TARGET. Raises ValueError where none was measured."""
    if not measured:
        raise ValueError("no rung could be measured; the records in the work folder say why")
    name = min(measured, key=lambda r: abs(r["reward_before"] - TARGET))["name"]
    return next(rung for rung in rungs if rung.name == name)


def choose_rate(
    job: Job, bench: Bench, rung: Rung, sizes: Sizes, protocol: GrpoSettings, rates: Sequence[float]
) -> Row:
    """The largest rate at which that rung's forecast ends at most half way from R_before to 1, else the smallest.

    So gains neither vanish nor saturate; no RL step is taken for it.
    """
    tried = []
    for rate in rates:
        plan = plan_of(replace(protocol, learning_rate=rate), sizes.forecast)
        found = forecast_result(bench.checkpoint(rung.path, device=job.device), LabelCopy(), plan)["reward"]
        tried.append({"learning_rate": rate, "before": found[0], "forecast": found[-1]})
    fit = [t["learning_rate"] for t in tried if t["forecast"] <= (1 + t["before"]) / 2]
    return {"learning_rate": max(fit, default=min(rates)), "chosen_at": rung.name, "tried": tried}


def study_of(
    job: Job, bench: Bench, store: Path, measures: Sequence[Unit], protocol: GrpoSettings, sizes: Sizes, study: Row
) -> None:
    """Forecast and RL of every rung under one protocol, with its scores."""
    rungs, task = [unit.rung for unit in measures], LabelCopy()
    plan = plan_of(protocol, sizes.forecast)
    units = make_units(rungs, task, rl=(protocol,), seeds=sizes.seeds, forecasts=(plan,))
    perform(job, bench, store, units)
    there = read_records(store)
    whole = [m for m in measures if m.id in there and all(u.id in there for u in units if u.rung == m.rung)]
    study["left"] = [m.rung.name for m in measures if m not in whole]
    rows = joined(there, whole, units, sizes.seeds)
    if not rows:
        return
    found = cell("gpu", protocol.optimizer, rows)
    study |= {"rungs": list(found.rungs), "failed": list(found.failed), "records": [compact(r) for r in rows]}
    if len(found.rungs) >= 3:
        study |= {"forecast": cell_row(found), "predictors": scored(found, resamples=50 if job.tiny else 1000)}


def joined(records: Row, measures: Sequence[Unit], units: Sequence[Unit], seeds: Sequence[int]) -> list[Row]:
    """One record per rung as the forecast's study has them: measure, forecast, and the runs of all seeds."""
    rows = []
    for unit in measures:
        own = [records[u.id] for u in units if u.rung == unit.rung]
        runs = [r for r in own if r["stage"] == "rl"]
        said = next(r for r in own if r["stage"] == "forecast")
        wrong = [r for r in (records[unit.id], said, *runs) if r["status"] != "done"]
        head = {**said, "unit": unit.rung.name, "ladder": "gpu", "protocol": said["settings"]["optimizer"],
                "settings": {"rl": runs[0]["settings"], "seeds": list(seeds)}}  # fmt: skip
        if wrong:
            rows.append({**head, "status": "failed", "error": wrong[0]["error"], "result": None})
            continue
        budgets, x = runs[0]["result"]["budgets"], said["result"]
        own_names = {"measured": {k: v for k, v in records[unit.id]["result"].items() if k != "per_prompt"},
                     "budgets": budgets, "forecast": x["reward"], "cost": x["prompts"]}  # fmt: skip
        found = {**x, **own_names, "reward_before": runs[0]["result"]["reward_before"]}
        found |= {key: [found[key][b] for b in budgets] for key in ("forecast", "lower", "upper")}
        rows.append({**head, "result": {**found, "reward_after": [r["result"]["reward_after"] for r in runs]}})
    return rows


def scored(found: Cell, *, resamples: int) -> list[Row]:
    """Every predictor against the mean gain: Spearman with its interval over rungs, with R_after, regret, R²."""
    after = found.after.mean((1, 2))
    rows = evaluate(results(found), found.gain, after, predictors=ALL, resamples=resamples)
    table = [
        {"predictor": r.name, "formula": r.formula, "kind": r.kind, "spearman": r.gain.value, "low": r.gain.low,
         "high": r.gain.high, "spearman_after": r.after, "spearman_combined": r.combined, "partial": r.partial,
         "regret": r.regret, "r_squared": r.r_squared}
        for r in rows
    ]  # fmt: skip
    short = probe(found)
    table.append({"predictor": PROBE, "formula": FORMULA_OF_PROBE, "kind": "probe", **short})
    return plain(table)
