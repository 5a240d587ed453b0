"""The paper's experiment at GPU scale, measured against its floors: five parts, one JSON file, one table.

    python benchmarks/gpu.py                      all parts on the GPU, results to docs/results/gpu-<card>.json
    python benchmarks/gpu.py --out "$OUT"         the same on a machine whose $OUT comes back
    python benchmarks/gpu.py --part a,d --minutes 5
    python benchmarks/gpu.py --tiny               the same code on a CPU, in a minute: no numbers to show, a test

    rates  FLOP/s of a bf16 product, bytes/s of a copy, of the disk: what the floors are computed from
    a      OLMo-2 1B with random weights, saved as a sharded float32 ladder on the disk: seconds a rung for reading,
           loading, measuring, forecasting, 30 GRPO updates, each with its counted floor; forward + backward alone
    b      a ladder of 110 M parameters (OLMo-2, own tokenizer) pretrained here from text that is installed here, then
           predict, RL with two seeds and two optimisers, correlate
    c      credit flow in (b): by lag, the share that crosses positions, norms without a Jacobian
    d      the same run twice; bfloat16 against float32; this device against the CPU

It needs one GPU, this checkout, torch ≥ 2.11, transformers ≥ 5.17 and no network; ``gpu_setup.REQUIRED`` lists all, and
a missing package is named at once. Each part runs in a process of its own: one that fails, runs out of memory or passes
its limit is a row with its error and what it had found so far, and the others go on. The file is written after every
part. A second call keeps parts that are done (--again does them anew); checkpoints and records stay in --work, so that
part b goes on where it was stopped.

Where a command may take ten minutes at most and what is left running goes on, start it in a session of its own and look
again and again (``runs/`` is not tracked, and kept while the machine is):

    mkdir -p runs; setsid nohup python3 -u benchmarks/gpu.py --out runs/gpu-out >runs/gpu.log 2>&1 &
    sleep 570; cp runs/gpu-out/*.json "$OUT"; cat runs/gpu.log          (until it says "results:")
"""

import argparse
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import gpu_setup
from gpu_setup import ROOT, Job

SCHEMA = 1
PARTS = {"rates": "gpu_rates", "a": "gpu_rungs", "b": "gpu_ladder", "c": "gpu_credit", "d": "gpu_again"}
"""Part -> module with its ``run(job)``."""
MINUTES = {"rates": 1.0, "a": 6.0, "b": 12.0, "c": 2.5, "d": 2.0}
"""Limits of the parts: less than 25 minutes together."""
Json = dict[str, Any]


def perform(name: str, job: Job) -> None:
    """In the part's process: run it; its last word is done or failed."""
    gpu_setup.prepare()
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()  # no orphans
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent answers it
    try:
        job.save(importlib.import_module(PARTS[name]).run(job), status="done")
    except Exception as error:
        found = read(job.report).get("result") or {}
        job.save(found, status="failed", error=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
        raise


def run_part(name: str, job: Job, start_method: str) -> Json:
    """Row of one part: done, failed, out of time or died, with what it had found."""
    job.report.unlink(missing_ok=True)
    start = time.monotonic()
    process = multiprocessing.get_context(start_method).Process(target=perform, args=(name, job))
    process.start()
    try:
        process.join(max(job.left, 0))
        late = process.is_alive()
    finally:
        end(process)
    row = read(job.report) or {"status": "running", "error": None, "result": {}}
    if row["status"] == "running":
        row["status"] = "out of time" if late else "died"
        how = f"stopped after {job.until - start:.0f} s" if late else f"the process ended with code {process.exitcode}"
        row["error"] = how + (" (killed: out of memory?)" if process.exitcode == -signal.SIGKILL and not late else "")
    return {**row, "seconds": round(time.monotonic() - start, 1)}


def end(process: Any) -> None:
    """Stop a part's process, gently first."""
    for stop, patience in ((process.terminate, 5), (process.kill, 5)):
        if process.is_alive():
            stop()
            process.join(patience)


def read(path: Path) -> Json:
    """A JSON file; empty where there is none, or none that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def slug(name: str) -> str:
    """A card's name for a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def choose_device(asked: str, *, tiny: bool) -> str:
    """The device, found by a process of its own, so that CUDA never starts in this one; leaves without a GPU."""
    device = asked
    if asked != "cpu":
        with multiprocessing.get_context("fork").Pool(1) as pool:
            there = pool.apply(has_gpu)
        device = "cpu" if asked == "auto" and not there else "cuda" if asked == "auto" else asked
        if device != "cpu" and not there:
            sys.exit(f"no GPU here that torch can use, but --device {asked} was given; leave it out, or give cpu")
    if device == "cpu" and not tiny:
        sys.exit("no GPU here: run with --tiny to try the code on a CPU, or on a machine with a CUDA GPU")
    return device


def has_gpu() -> bool:
    """Whether torch sees one."""
    import torch

    return torch.cuda.is_available()


def new_file(options: argparse.Namespace, device: str, stand_ins: tuple[str, ...]) -> Json:
    """A results file without parts."""
    from vgrad_lab.provenance import versions

    flags = "".join(f" --{name}" for name in ("tiny",) if getattr(options, name))
    return {
        "schema": SCHEMA, "command": f"python benchmarks/gpu.py{flags}", "device": device, "card": None,
        "tiny": options.tiny, "versions": versions(), "stand_ins": list(stand_ins), "parts": {},
    }  # fmt: skip


def run(options: argparse.Namespace, names: list[str], device: str, stand_ins: tuple[str, ...]) -> tuple[Path, Json]:
    """Do the parts that are asked for and not done; the file is written after each."""
    from vgrad_lab.checkpoints.atomic import require_writable, write_file

    work = options.work or ROOT / "runs" / ("gpu-tiny" if options.tiny else "gpu")
    out = options.out or (work if options.tiny else ROOT / "docs" / "results")
    for folder in (work, out):
        require_writable(folder)
    if options.again and "b" in names:
        forget_ladder(work)
    result, rates = new_file(options, device, stand_ins), {}
    for name in ["rates", *(n for n in names if n != "rates")]:
        minutes = MINUTES[name] if options.minutes is None else options.minutes
        job = Job(device, options.tiny, work, time.monotonic() + 60 * minutes, rates, work / f"part-{name}.json")
        if result["parts"].get(name, {}).get("status") != "done" or options.again:
            print(f"part {name}: at most {minutes:g} min …", flush=True)
            result["parts"][name] = {**run_part(name, job, options.start), "limit_minutes": minutes}
        rates = result["parts"]["rates"]["result"]
        if name == "rates":
            result["card"] = rates.get("card") or device
            path = out / f"gpu-{slug(result['card'])}{'-tiny' if options.tiny else ''}.json"
            result = joined(result, read(path), again=options.again)
            rates = result["parts"]["rates"]["result"]
        write_file(path, json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
        print(table({name: result["parts"][name]}), flush=True)
    return path, result


def forget_ladder(work: Path) -> None:
    """Delete what part b goes on from: its checkpoints, records and choices."""
    for folder in ("ladder", "records"):
        shutil.rmtree(work / folder, ignore_errors=True)
    for note in (work / "pretraining.json", *work.glob("rate-*.json")):
        note.unlink(missing_ok=True)


def joined(new: Json, old: Json, *, again: bool) -> Json:
    """This run with the parts of the file that is there, if that was made by the same versions."""
    if again or any(old.get(k) != new[k] for k in ("schema", "versions", "tiny", "card")):
        return new
    return {**new, "parts": {**old["parts"], **new["parts"]}}


def table(parts: Json) -> str:
    """Status of the parts and, of each, the lines that its module wants to be read."""
    lines = []
    for name, row in parts.items():
        lines.append(f"{name:6} {row['status']:12} {row['seconds']:7.1f} s  {row['error'] or ''}".rstrip())
        if row["result"]:
            lines += [f"       {line}" for line in importlib.import_module("gpu_table").lines(name, row["result"])]
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Options and the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the results file (docs/results; runs/gpu-tiny with --tiny)")
    parser.add_argument("--work", type=Path, help="folder of checkpoints and records (default runs/gpu)")
    parser.add_argument("--part", default=",".join(PARTS), help=f"parts, by commas: {','.join(PARTS)} (default all)")
    parser.add_argument("--minutes", type=float, help="limit of each part, instead of its own")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cuda, cpu")
    parser.add_argument(
        "--start",
        default="auto",
        choices=("auto", "fork", "spawn"),
        help="how a part's process begins: afresh (spawn, for a GPU) or forked (quicker, for a CPU)",
    )
    parser.add_argument("--tiny", action="store_true", help="toy sizes, for a test on a CPU")
    parser.add_argument("--again", action="store_true", help="do parts anew that are done, part b from its first step")
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.part.split(",") if name.strip()]
    if not names or (unknown := [name for name in names if name not in PARTS]):
        parser.error(f"no part {unknown[0] if names else options.part!r}; choose from {','.join(PARTS)}")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device):
        parser.error(f"device is {options.device!r}; give auto, cpu, cuda, or one card such as cuda:1")
    if options.minutes is not None and not options.minutes > 0:
        parser.error(f"minutes is {options.minutes:g}; give a positive number")
    return options, sorted(set(names), key=list(PARTS).index)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 1 where a part is not done."""
    options, names = parse(arguments)
    stand_ins = gpu_setup.prepare()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    device = choose_device(options.device, tiny=options.tiny)
    options.start = ("fork" if device == "cpu" else "spawn") if options.start == "auto" else options.start
    if options.start == "fork":  # then these are imported once, for all parts
        import torch  # noqa: F401
        import transformers  # noqa: F401

    from vgrad_lab.checkpoints.errors import UserError

    try:
        path, result = run(options, names, device, stand_ins)
    except UserError as error:
        sys.exit(str(error))
    print(f"results: {path}")
    return int(any(result["parts"][name]["status"] != "done" for name in names))


if __name__ == "__main__":
    sys.exit(main())
