"""Units of work over a ladder and the local executor: a pool of one-thread processes, failures kept to their unit."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.executors import DIED, describe
from vgrad_lab.checkpoints.forecast import ForecastPlan, forecast_result
from vgrad_lab.checkpoints.grpo import GrpoSettings, facts, train
from vgrad_lab.checkpoints.ladders import Rung
from vgrad_lab.checkpoints.loading import content_identity, load_checkpoint
from vgrad_lab.checkpoints.probe import MeasureSettings, measure
from vgrad_lab.checkpoints.store import digest, publish, read_records
from vgrad_lab.checkpoints.tasks import LabelCopy, task_identity
from vgrad_lab.provenance import versions

PROTOCOL_VERSION = 1
"""Raise it whenever the same settings would mean different work: old records then stay apart."""
Stage = Literal["measure", "rl", "forecast"]
Settings = MeasureSettings | GrpoSettings | ForecastPlan


@dataclass(frozen=True)
class Unit:
    """One piece of work: a stage on one checkpoint with one seed."""

    stage: Stage
    rung: Rung
    sha256: str
    task: LabelCopy
    settings: Settings
    seed: int

    @property
    def protocol(self) -> str:
        """Hash of the stage, its settings and the protocol version."""
        return digest([self.stage, recorded(self.settings), PROTOCOL_VERSION])

    @property
    def id(self) -> str:
        """Readable id that ends in a hash of everything the result depends on."""
        key = digest([self.sha256, task_identity(self.task), self.protocol, self.seed])
        return f"{self.rung.name}-{self.stage}-s{self.seed}-{key}"

    def run(self, *, halvings: int = 0, device: str = "cpu") -> dict[str, Any]:
        """The finished record; a halved micro-batch is named in it. Raises what went wrong."""
        settings = halved(self.settings, halvings)
        result = compute(self, settings, device)
        record = {**_record(self), "status": "done", "device": device, "result": result}
        return {**record, "micro_batch": micro_batch(settings)} if halvings else record

    def can_halve(self, halvings: int) -> bool:
        """Whether the micro-batch can be halved so many times."""
        return micro_batch(self.settings) >> halvings >= 1

    def failed(self, error: str) -> dict[str, Any]:
        """The record of a failure."""
        return {**_record(self), "error": error}


def micro_batch(settings: Settings) -> int:
    """Prompts that go through the model at a time."""
    return settings.rl.micro_batch if isinstance(settings, ForecastPlan) else settings.micro_batch


def halved(settings: Settings, times: int) -> Settings:
    """The same settings with the micro-batch halved so many times, at least 1."""
    size = max(micro_batch(settings) >> times, 1)
    if isinstance(settings, ForecastPlan):
        return replace(settings, rl=replace(settings.rl, micro_batch=size))
    return replace(settings, micro_batch=size)


def recorded(settings: Settings) -> dict[str, Any]:
    """Settings as a record holds them and as its hash takes them."""
    if isinstance(settings, GrpoSettings):
        return facts(settings)
    if isinstance(settings, ForecastPlan):
        return {**facts(settings.rl), "forecast": asdict(settings.settings)}
    return asdict(settings)


def make_units(
    rungs: Iterable[Rung],
    task: LabelCopy,
    *,
    measures: MeasureSettings | None = None,
    rl: Iterable[GrpoSettings] = (),
    seeds: Iterable[int] = (0,),
    forecasts: Iterable[ForecastPlan] = (),
) -> list[Unit]:
    """Units of a sweep in the order of the ladder: measuring once, RL once per setting and seed, forecasts once each.

    Raises UserError when two rungs hold identical weights (a ladder that lies).
    """
    units: list[Unit] = []
    seen: dict[str, str] = {}
    rl, seeds, forecasts = tuple(rl), tuple(seeds), tuple(forecasts)
    for rung in rungs:
        sha = content_identity(rung.path)
        if sha in seen:
            raise UserError(
                f"{rung.name} has the same weights as {seen[sha]}: a ladder must not hold one checkpoint twice; "
                "remove or download one of them again"
            )
        seen[sha] = rung.name
        if measures is not None:
            units.append(Unit("measure", rung, sha, task, measures, 0))
        units += [Unit("rl", rung, sha, task, settings, seed) for settings in rl for seed in seeds]
        units += [Unit("forecast", rung, sha, task, plan, plan.settings.seed) for plan in forecasts]
    return units


def training_facts(rung: Path) -> dict[str, Any]:
    """What a pretraining run wrote beside its weights (``training.json``); empty for a checkpoint from elsewhere."""
    file = rung / "training.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _record(unit: Unit) -> dict[str, Any]:
    checkpoint = {"name": unit.rung.name, "step": unit.rung.step, "sha256": unit.sha256}
    return {
        "unit": unit.id,
        "stage": unit.stage,
        "status": "failed",
        "error": None,
        "checkpoint": {**checkpoint, "training": training_facts(unit.rung.path)},
        "task": f"label-copy-{task_identity(unit.task)[:8]}",
        "protocol": unit.protocol,
        "seed": unit.seed,
        "settings": recorded(unit.settings),
        "versions": versions(),
        "device": "cpu",
        "result": None,
    }


def compute(unit: Unit, settings: Settings, device: str = "cpu") -> dict[str, Any]:
    """Result of a unit under its settings (or those with a smaller micro-batch). Raises ValueError for NaN in it."""
    checkpoint = load_checkpoint(unit.rung.path, device=device)
    if isinstance(settings, MeasureSettings):
        result = measure(checkpoint, unit.task, settings, seed=unit.seed)
    elif isinstance(settings, ForecastPlan):
        result = forecast_result(checkpoint, unit.task, settings)
    else:
        result = train(checkpoint, unit.task, settings, seed=unit.seed)
    digest(result)  # refuses NaN and infinity before anything is published
    return result


def run_unit(unit: Unit) -> dict[str, Any]:
    """Do one unit; an exception becomes a failed record with its text, never a lost sweep."""
    try:
        return unit.run()
    except Exception as error:
        return unit.failed(describe(error))


def _run_and_publish(folder: Path, unit: Unit) -> str:
    start = time.perf_counter()
    record = run_unit(unit)
    publish(folder, record, seconds=time.perf_counter() - start)
    return str(record["status"])


def _start_worker(threads: int) -> None:
    """Set the threads and follow the parent into the grave, so that a killed sweep leaves no orphan at work."""
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent alone answers it
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _thread_environment(threads: int) -> Iterator[None]:
    """OMP_NUM_THREADS for the processes spawned inside; it must be set before they import torch."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def run_sweep(
    units: list[Unit], folder: Path, *, workers: int = 2, threads: int = 1, progress: bool = True
) -> dict[str, int]:
    """Run every unit that has no finished record yet; count what is done, failed and was there before.

    A worker that dies (out of memory, a signal) breaks its pool: the rest then runs one unit per process, and the unit
    that kills its process again is recorded as failed. Failed units are tried again by the next sweep.
    """
    published = read_records(folder)
    todo = [u for u in units if published.get(u.id, {}).get("status") != "done"]
    counts = {"done": 0, "failed": 0, "kept": len(units) - len(todo)}
    quiet = None if progress else True
    bar = tqdm(total=len(units), initial=counts["kept"], desc="measure and RL", unit="unit", disable=quiet)
    with _thread_environment(threads), bar:
        for unit, status in _run_pool(todo, folder, min(workers, max(len(todo), 1)), threads):
            counts[status] += 1
            bar.set_postfix_str(unit.rung.name, refresh=False)
            bar.update()
    return counts


def _pool(workers: int, threads: int) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(threads,))


def _run_pool(todo: list[Unit], folder: Path, workers: int, threads: int) -> Iterator[tuple[Unit, str]]:
    """Statuses as they come; units whose process died are run again alone, then given up."""
    if not todo:
        return
    unfinished: list[Unit] = []
    with _pool(workers, threads) as pool:
        futures: dict[Future[str], Unit] = {pool.submit(_run_and_publish, folder, u): u for u in todo}
        try:
            for future in as_completed(futures):
                try:
                    yield futures[future], future.result()
                except BrokenProcessPool:
                    unfinished.append(futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    done = {k for k, r in read_records(folder).items() if r["status"] == "done"}
    for unit in sorted(unfinished, key=todo.index):
        if unit.id in done:
            yield unit, "done"
            continue
        try:
            with _pool(1, threads) as pool:
                yield unit, pool.submit(_run_and_publish, folder, unit).result()
        except BrokenProcessPool:
            publish(folder, unit.failed(DIED))
            yield unit, "failed"
