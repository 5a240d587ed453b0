"""Part rates of benchmarks/gpu.py: what the card, its memory and the disk do at best; timing tools for the others."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from gpu_setup import Job

from vgrad_lab.checkpoints.operations import Work, floor_seconds

PIECE = 1 << 24
"""Bytes read or written at a time."""


def run(job: Job) -> dict[str, Any]:
    """Matrix rates, copy bandwidth, host to device, disk."""
    result: dict[str, Any] = {"card": card(job.device), "memory_bytes": memory(job.device)}
    size = 256 if job.tiny else 8192
    result["matrix_size"] = size
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        result[f"matrix_{name}"] = matrix_rate(job.device, size, dtype)
        job.save(result)
    result["copy"] = copy_bandwidth(job.device, 1 << (23 if job.tiny else 32))
    result["host_to_device"] = upload_rate(job.device, 1 << (22 if job.tiny else 30))
    job.save(result)
    job.work.mkdir(parents=True, exist_ok=True)
    return {**result, **disk_rates(job.work / "rates.bin", 1 << (22 if job.tiny else 32))}


def card(device: str) -> str:
    """Name of the device."""
    return torch.cuda.get_device_name(device) if on_gpu(device) else "cpu"


def memory(device: str) -> int | None:
    """Bytes of the card's memory; None on a CPU."""
    return torch.cuda.get_device_properties(device).total_memory if on_gpu(device) else None


def on_gpu(device: str) -> bool:
    """Whether torch's CUDA runs it."""
    return torch.device(device).type == "cuda"


def wait(device: str) -> None:
    """Until all that was asked of the device is done."""
    if on_gpu(device):
        torch.cuda.synchronize(device)


def timed(device: str, call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """What a call gave, and its seconds and peak memory (None on a CPU)."""
    wait(device)
    if on_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    value = call()
    wait(device)
    seconds = time.perf_counter() - start
    return value, {
        "seconds": seconds,
        "peak_memory": torch.cuda.max_memory_allocated(device) if on_gpu(device) else None,
    }


def repeated(device: str, call: Callable[[], Any], *, repeats: int = 10, warm: int = 3) -> float:
    """Median seconds of a call, after some that do not count."""
    for _ in range(warm):
        call()
    return median(timed(device, call)[1]["seconds"] for _ in range(repeats))


def against_floor(row: dict[str, Any], work: Work, rates: dict[str, Any]) -> dict[str, Any]:
    """The row with its counted work, the floor at the measured rates, how often it fits into the time, and shares."""
    floor = floor_seconds(work, flops=rates["matrix_bfloat16"], bandwidth=rates["copy"], disk=rates["disk_read"])
    counted = {"flops": work.flops, "bytes": work.bytes, "disk_bytes": work.disk, "floor_seconds": floor}
    shares = {
        "share_of_matrix_rate": work.flops / row["seconds"] / rates["matrix_bfloat16"],
        "share_of_copy_bandwidth": work.bytes / row["seconds"] / rates["copy"],
    }
    return {**row, **counted, **shares, "gap": row["seconds"] / floor if floor > 0 else None}


def guarded(device: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row of a stage, or what went wrong in it: the others go on."""
    try:
        return call()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    finally:
        if on_gpu(device):
            torch.cuda.empty_cache()


def matrix_rate(device: str, size: int, dtype: torch.dtype) -> float:
    """FLOP/s of a square product of random matrices; two pairs in turn, so that no cache serves."""
    generator = torch.Generator(device=device).manual_seed(0)
    drawn = [torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(4)]
    out = torch.empty(size, size, device=device, dtype=dtype)

    def products() -> None:
        torch.matmul(drawn[0], drawn[1], out=out)
        torch.matmul(drawn[2], drawn[3], out=out)

    return 2 * 2 * size**3 / repeated(device, products)


def copy_bandwidth(device: str, size: int) -> float:
    """Bytes/s of a copy within the memory, reads and writes counted."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / repeated(device, lambda: target.copy_(source))


def upload_rate(device: str, size: int) -> float:
    """Bytes/s from the host's (pinned) memory to the device."""
    source = torch.ones(size, dtype=torch.uint8, pin_memory=on_gpu(device))
    target = torch.empty(size, dtype=torch.uint8, device=device)
    return size / repeated(device, lambda: target.copy_(source, non_blocking=True), repeats=5)


def disk_rates(path: Path, size: int) -> dict[str, float]:
    """Bytes/s written (to the disk) and read (not from the cache of pages, where the system lets go of it)."""
    block = np.random.default_rng(0).bytes(min(PIECE, size))
    start = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    written = size / (time.perf_counter() - start)
    try:
        return {"disk_write": written, "disk_read": size / read_cold(path)}
    finally:
        path.unlink()


def read_cold(*paths: Path) -> float:
    """Seconds to read files whole, after their pages were given back."""
    for path in paths:
        forget(path)
    piece = bytearray(PIECE)
    start = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(piece):
                pass
    return time.perf_counter() - start


def forget(path: Path) -> None:
    """Ask the system to drop a file's pages."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
