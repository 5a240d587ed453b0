"""NumPy rollouts with costates against torch's autograd through the same unrolled rollout; one thread, float64.

    python benchmarks/costate.py --json docs/results/benchmark-costate.json

For each environment and size, median processor seconds of (a) rollout and costates, (b) rollout, costates and the
batch-mean parameter gradient, and (c) torch, which gives both in one backward pass, and (d) torch asked for costates
only. torch runs as rows (B,S) or columns (S,B), with rewards in the loop or after it (``costate_torch``); ``ratio`` is
c/a against the fastest of the four, ``ratio_rows`` against the faster of the two in torch's usual layout. Calls are
interleaved, so that drift of the machine hits all alike. Aims: 3, and 1.2 at (1024, 64, 32, 8), where matrix products
dominate; for array systems their share of the time at the measured product rate is recorded too. Environments with
sizes of their own run at the table's (B, T). The environment that shares θ with its policy runs without its own
parameter terms.

Then, for each environment, the log-log slopes of (a) in T (at ``B``) and in B (at ``T``) over ranges in which the work
dominates the fixed cost, and the peak memory of rollout and costates beyond their inputs, with both results alive, in
arrays (B,T1,S) of float64 at B = 1024, T = 64.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is imported

import argparse
import json
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import costate_torch
import numpy as np
import torch

from vgrad_lab.continuous import environments, policies, systems
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.estimators import mean_pathwise_gradient
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import rollout

SIZES = ((1, 64, 4, 2), (64, 64, 4, 2), (1024, 64, 8, 4), (4096, 128, 8, 4), (1024, 64, 32, 8))
"""(B, T, S, A)."""
AIM = {(1024, 64, 32, 8): 1.2}
DISCOUNT = 0.99
TARGET = np.array([[0.6, -0.3, 0.2, 0.1], [0.1, 0.4, -0.5, 0.3]])
OWN_SIZES = {"bandit": (4, 2), "pendulum": (3, 1), "obstacle": (4, 2), "shared point mass": (2, 1)}
"""(S, A) of the environments that choose them."""
NAMES = ("linear-quadratic", "tanh network", *OWN_SIZES)
VARIANTS = {"rows": (-1, False), "rows_stacked": (-1, True), "columns": (-2, False), "columns_stacked": (-2, True)}
"""Layout and stacked of torch's variants."""
RANGES = {"T": (256, 512, 1024, 2048), "B": (4096, 8192, 16384, 32768)}
FIXED = {"T": 512, "B": 16}
"""B while T varies, and T while B varies."""


@dataclass(frozen=True)
class Case:
    """A system with linear policy, initial states (B,S) and noise (B,T,A), and the same in torch."""

    environment: Environment
    policy: ShiftPolicy
    start: np.ndarray
    noise: np.ndarray
    system: costate_torch.TorchSystem

    def costates(self) -> Any:
        """(a)."""
        played = rollout(self.environment, self.policy, self.start, self.noise)
        return costate(self.environment, self.policy, played, discount=DISCOUNT)

    def gradient(self) -> Any:
        """(b)."""
        played = rollout(self.environment, self.policy, self.start, self.noise)
        return mean_pathwise_gradient(self.environment, self.policy, played, discount=DISCOUNT)

    def torch_call(self, variant: str, *, parameters: bool) -> Callable[[], tuple[torch.Tensor, ...]]:
        """(c) and (d), inputs laid out beforehand."""
        axis, stacked = VARIANTS[variant]
        mean = self.policy.mean_map(self.policy.theta)
        weights = torch.tensor(mean.inner), torch.tensor(mean.shift)
        start = torch.tensor(np.ascontiguousarray(self.start if axis == -1 else self.start.T))
        order = (1, 0, 2) if axis == -1 else (1, 2, 0)
        noise = torch.tensor(np.ascontiguousarray(self.noise.transpose(order)))
        options = {"discount": DISCOUNT, "axis": axis, "stacked": stacked, "parameters": parameters}
        return lambda: costate_torch.costates(self.system, weights, start, noise, **options)


def median_seconds(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each call, interleaved; each timed call follows an untimed one of its kind."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            call()
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def build(name: str, states: int, actions: int) -> tuple[Environment, costate_torch.TorchSystem]:
    """An environment in NumPy and in torch."""
    if name in ("linear-quadratic", "tanh network"):
        make = environments.random_linear_quadratic if name == "linear-quadratic" else environments.random_tanh_network
        environment = make(np.random.default_rng(0), states, actions)
        return environment, costate_torch.from_arrays(environment.dynamics, environment.payoff)
    if name == "bandit":
        return systems.bandit(TARGET), costate_torch.bandit(TARGET)
    if name == "pendulum":
        return systems.pendulum(), costate_torch.pendulum()
    if name == "obstacle":
        return systems.obstacle(), costate_torch.obstacle()
    theta, gain = np.array([0.1, -0.2, 0.3]), np.array([0.5, -0.1, 0.2])
    shared = replace(systems.shared_point_mass(theta, gain=gain, price=gain), parameters=None)
    return shared, costate_torch.point_mass(0.2 * np.exp(gain @ theta), 0.05 * np.exp(gain @ theta))


def draw_case(name: str, size: tuple[int, int, int, int]) -> Case:
    """A case of size (B, T, S, A)."""
    batch, horizon, states, actions = size
    rng = np.random.default_rng(1)
    environment, system = build(name, states, actions)
    policy = policies.linear_policy(0.1 * rng.standard_normal((actions, states)), 0.1 * rng.standard_normal(actions))
    noise = rng.standard_normal((horizon, actions, batch)).transpose(2, 0, 1)  # the layout that sample_rollout draws
    start = environment.initial(rng, batch)
    return Case(environment, policy, start, noise, system)


def check(case: Case) -> float:
    """Largest relative difference between both programs' costates and gradients, over all variants."""
    gradient, found = case.gradient()
    weight = DISCOUNT ** np.arange(case.noise.shape[1])
    ours = found[:, :-1].transpose(1, 0, 2) * weight[:, None, None]
    differences = []
    for variant, (axis, _) in VARIANTS.items():
        for parameters in (True, False):
            expected, *by_theta = (x.numpy() for x in case.torch_call(variant, parameters=parameters)())
            pairs = [(ours, expected if axis == -1 else expected.transpose(0, 2, 1))]
            if parameters:
                pairs.append((gradient, np.concatenate([g.ravel() for g in by_theta]) / len(case.start)))
            differences += [float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs]
    return max(differences)


def product_rate(size: tuple[int, int, int, int]) -> float:
    """Measured flop/s of the product of one step, (S, S+A) times (S+A, B)."""
    batch, _, states, actions = size
    left, right = np.ones((states, states + actions)), np.ones((states + actions, batch))
    out = np.empty((states, batch))
    seconds = median_seconds({"product": lambda: [np.matmul(left, right, out) for _ in range(50)]}, 9)["product"] / 50
    return 2 * states * (states + actions) * batch / seconds


def product_share(case: Case, size: tuple[int, int, int, int], seconds: float) -> float | None:
    """Share of the time that the matrix products of rollout and costates need; None for systems without arrays."""
    batch, horizon, states, actions = size
    dynamics = case.environment.dynamics
    if dynamics is None:
        return None
    network = dynamics.outer is not None
    products = len(dynamics.inner) * (2 * states + actions) if network else states * (states + actions)
    costs = 0 if network else states**2 + actions**2  # the tanh network's default costs are diagonal
    flops = 2.0 * 2 * batch * horizon * (products + states * actions + costs)
    return flops / seconds / product_rate(size)


def measure(name: str, size: tuple[int, int, int, int], repeats: int) -> dict[str, Any]:
    """One row of the table."""
    case = draw_case(name, size)
    calls: dict[str, Callable[[], Any]] = {"costate": case.costates, "gradient": case.gradient}
    for variant in VARIANTS:
        calls[f"torch_{variant}"] = case.torch_call(variant, parameters=True)
        calls[f"torch_only_{variant}"] = case.torch_call(variant, parameters=False)
    seconds = median_seconds(calls, repeats)
    both, only = (min(seconds[f"torch_{kind}{v}"] for v in VARIANTS) for kind in ("", "only_"))
    rows = min(seconds["torch_rows"], seconds["torch_rows_stacked"])
    return {
        "environment": name,
        "size": size,
        "seconds": seconds,
        "torch": both,
        "ratio_rows": rows / seconds["costate"],
        "ratio": both / seconds["costate"],
        "ratio_with_gradient": both / seconds["gradient"],
        "ratio_costates_only": only / seconds["costate"],
        "aim": AIM.get(size, 3.0),
        "product_share": product_share(case, size, seconds["costate"]),
        "difference": check(case),
    }


def slope(name: str, axis: str, lengths: tuple[int, ...], repeats: int) -> float:
    """Log-log slope of the seconds of rollout and costates along T or B."""
    states, actions = OWN_SIZES.get(name, (8, 4))
    sizes = [(FIXED["T"], n) if axis == "T" else (n, FIXED["B"]) for n in lengths]
    calls = {str(n): draw_case(name, (*size, states, actions)).costates for n, size in zip(lengths, sizes, strict=True)}
    seconds = median_seconds(calls, repeats)
    return float(np.polyfit(np.log(lengths), np.log([seconds[str(n)] for n in lengths]), 1)[0])


def memory(name: str, batch: int, horizon: int) -> float:
    """Peak memory of rollout and costates beyond their inputs, in arrays (B,T1,S) of float64."""
    states, actions = OWN_SIZES.get(name, (8, 4))
    case = draw_case(name, (batch, horizon, states, actions))
    case.costates()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    played = rollout(case.environment, case.policy, case.start, case.noise)
    found = costate(case.environment, case.policy, played, discount=DISCOUNT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (peak - before) / found.nbytes


def table(sizes: tuple[tuple[int, int, int, int], ...], repeats: int) -> list[dict[str, Any]]:
    """Measure and print every row."""
    print(
        "environment        (B, T, S, A)           costates  +gradient      torch  "
        "ratio   rows  with grad.  costates only"
    )
    rows = []
    for name in NAMES:
        for batch, horizon, states, actions in sizes:
            if name in OWN_SIZES and (batch, horizon, states, actions) in AIM:
                continue  # the same (B, T) as an earlier size
            size = (batch, horizon, *OWN_SIZES.get(name, (states, actions)))
            row = measure(name, size, repeats)
            rows.append(row)
            times = row["seconds"]["costate"], row["seconds"]["gradient"], row["torch"]
            cells = "".join(f"{1e3 * t:8.2f} ms" for t in times)
            names = ("ratio", "ratio_rows", "ratio_with_gradient", "ratio_costates_only")
            ratios = "".join(f"{row[key]:{w}.2f}" for key, w in zip(names, (7, 7, 11, 15), strict=True))
            print(f"{name:18} {size!s:20}{cells}{ratios}   difference {row['difference']:.1e}", flush=True)
    return rows


def main() -> None:
    """Measure, print, and write JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--repeats", type=int, default=7, help="timed repeats of each call (default 7)")
    parser.add_argument("--tiny", action="store_true", help="two small sizes, one repeat: for tests")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes, repeats = (SIZES[:2], 1) if options.tiny else (SIZES, options.repeats)
    ranges = {"T": (16, 32), "B": (64, 128)} if options.tiny else RANGES
    rows = table(sizes, repeats)
    print(
        f"log-log slopes of rollout and costates in T {ranges['T']} and B {ranges['B']}; peak memory in arrays (B,T1,S)"
    )
    slopes, peaks = {}, {}
    for name in NAMES:
        slopes[name] = {axis: slope(name, axis, lengths, repeats) for axis, lengths in ranges.items()}
        peaks[name] = memory(name, 1024, 64)
        print(
            f"{name:18} {slopes[name]['T']:.2f} in T, {slopes[name]['B']:.2f} in B, {peaks[name]:.2f} arrays",
            flush=True,
        )
    if options.json:
        result = {
            "command": "python benchmarks/costate.py --json docs/results/benchmark-costate.json",
            "rows": rows,
            "slopes": slopes,
            "slope_ranges": ranges,
            "slope_fixed": {"B while T varies": FIXED["T"], "T while B varies": FIXED["B"]},
            "memory": peaks,
            "repeats": repeats,
            "seed": "0 (random systems), 1 (policy, noise)",
            "device": f"{platform.machine()} CPU, one thread, processor seconds",
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
