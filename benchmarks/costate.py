"""NumPy rollouts with costates against torch's autograd through the same unrolled rollout; one thread, float64.

    python benchmarks/costate.py --json docs/results/benchmark-costate.json

For each environment and size, median processor seconds of (a) rollout and costates, (b) rollout, costates and the
batch-mean parameter gradient, and (c) torch, which gives both in one backward pass: batched operations, step after
step, rewards computed in the loop or after it, whichever is faster. Calls are interleaved, so that drift of the
machine hits all alike. Aims: c/a ≥ 3, and ≥ 1.2 at (1024, 64, 32, 8), where matrix products dominate; their share of
the time at the measured product rate is printed too. Last, the log-log slopes of (a) in T and in B.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is imported

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vgrad_lab.continuous import environments, policies
from vgrad_lab.continuous.costate import costate
from vgrad_lab.continuous.environments import Environment
from vgrad_lab.continuous.estimators import mean_pathwise_gradient
from vgrad_lab.continuous.policies import ShiftPolicy
from vgrad_lab.continuous.rollout import rollout

SIZES = ((1, 64, 4, 2), (64, 64, 4, 2), (1024, 64, 8, 4), (4096, 128, 8, 4), (1024, 64, 32, 8))
"""(B, T, S, A)."""
AIM = {(1024, 64, 32, 8): 1.2}
DISCOUNT = 0.99


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


def torch_parameters(environment: Environment, policy: ShiftPolicy) -> dict[str, torch.Tensor | None]:
    """The system's arrays as tensors."""
    dynamics, payoff, mean, size = (
        environment.dynamics,
        environment.payoff,
        policy.mean_map(policy.theta),
        environment.state_size,
    )
    arrays = {
        "K": mean.inner, "b": mean.shift, "F_s": dynamics.inner[:, :size], "F_a": dynamics.inner[:, size:],
        "c": dynamics.shift, "V": dynamics.outer, "Q": payoff.state_cost, "R": payoff.action_cost, "goal": payoff.goal,
    }  # fmt: skip
    return {name: None if x is None else torch.tensor(np.ascontiguousarray(x)) for name, x in arrays.items()}


def torch_reward(p: dict[str, Any], state: torch.Tensor, action: torch.Tensor, exponential: bool) -> torch.Tensor:
    """−c or exp(−c) of the quadratic cost."""
    e = state if p["goal"] is None else state - p["goal"]
    cost = ((e @ p["Q"]) * e).sum(-1) + ((action @ p["R"]) * action).sum(-1)
    return torch.exp(-cost) if exponential else -cost


def torch_costates(
    p: dict[str, Any], start: torch.Tensor, noise: torch.Tensor, *, exponential: bool, stacked: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """γ^{t−1}λ_t (T,B,S) and the summed gradients of K and b, by autograd through the rollout; noise (T,B,A)."""
    linear = torch.nn.functional.linear
    K, b = p["K"].clone().requires_grad_(), p["b"].clone().requires_grad_()
    states, actions, total = [start.clone().requires_grad_()], [], 0.0
    for t, draw in enumerate(noise):
        state, action = states[t], linear(states[t], K, b) + draw
        if not stacked:
            total = total + DISCOUNT**t * torch_reward(p, state, action, exponential)
        if p["V"] is None:
            following = torch.addmm(state @ p["F_s"].T, action, p["F_a"].T)
        else:
            following = linear(torch.tanh(torch.addmm(linear(state, p["F_s"], p["c"]), action, p["F_a"].T)), p["V"])
        actions.append(action)
        states.append(following)
    if stacked:
        weight = DISCOUNT ** torch.arange(len(noise), dtype=torch.float64)
        total = weight @ torch_reward(p, torch.stack(states[:-1]), torch.stack(actions), exponential)
    gradients = torch.autograd.grad(total.sum(), [*states[:-1], K, b])
    return torch.stack(gradients[:-2]), gradients[-2], gradients[-1]


def draw_case(name: str, size: tuple[int, int, int, int]) -> tuple[Environment, ShiftPolicy, np.ndarray, np.ndarray]:
    """Environment, linear policy, initial states (B,S) and noise (B,T,A)."""
    batch, horizon, states, actions = size
    rng = np.random.default_rng(0)
    make = environments.random_linear_quadratic if name == "linear-quadratic" else environments.random_tanh_network
    environment = make(rng, states, actions)
    policy = policies.linear_policy(0.1 * rng.standard_normal((actions, states)), 0.1 * rng.standard_normal(actions))
    noise = rng.standard_normal((horizon, actions, batch)).transpose(2, 0, 1)  # the layout that sample_rollout draws
    return environment, policy, rng.standard_normal((batch, states)), noise


def check(case: tuple[Environment, ShiftPolicy, np.ndarray, np.ndarray]) -> float:
    """Largest relative difference between both programs' costates and gradients."""
    environment, policy, start, noise = case
    gradient, found = mean_pathwise_gradient(
        environment, policy, rollout(environment, policy, start, noise), discount=DISCOUNT
    )
    p, draws = torch_parameters(environment, policy), torch.tensor(np.ascontiguousarray(noise.transpose(1, 0, 2)))
    expected, *by_theta = torch_costates(
        p, torch.tensor(start), draws, exponential=environment.payoff.exponential, stacked=False
    )
    weight = DISCOUNT ** np.arange(noise.shape[1])
    ours = found[:, :-1].transpose(1, 0, 2) * weight[:, None, None]
    theirs = torch.cat([g.reshape(-1) for g in by_theta]).numpy() / len(start)
    return max(
        float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in ((ours, expected.numpy()), (gradient, theirs))
    )


def product_rate(size: tuple[int, int, int, int]) -> float:
    """Measured flop/s of the product of one step, (S, S+A) times (S+A, B)."""
    batch, _, states, actions = size
    left, right = np.ones((states, states + actions)), np.ones((states + actions, batch))
    out = np.empty((states, batch))
    seconds = median_seconds({"product": lambda: [np.matmul(left, right, out) for _ in range(50)]}, 9)["product"] / 50
    return 2 * states * (states + actions) * batch / seconds


def products(size: tuple[int, int, int, int], hidden: int | None) -> float:
    """Flops in matrix products of one rollout with costates, forward and backward alike."""
    batch, horizon, states, actions = size
    dynamics = states * (states + actions) if hidden is None else hidden * (2 * states + actions)
    costs = states**2 + actions**2 if hidden is None else 0  # the tanh network's default costs are diagonal
    return 2.0 * 2 * batch * horizon * (dynamics + states * actions + costs)


def measure(name: str, size: tuple[int, int, int, int], repeats: int) -> dict[str, Any]:
    """One row of the table."""
    case = draw_case(name, size)
    environment, policy, start, noise = case
    p, exponential = torch_parameters(environment, policy), environment.payoff.exponential
    starts, draws = torch.tensor(start), torch.tensor(np.ascontiguousarray(noise.transpose(1, 0, 2)))
    seconds = median_seconds(
        {
            "costate": lambda: costate(
                environment, policy, rollout(environment, policy, start, noise), discount=DISCOUNT
            ),
            "gradient": lambda: mean_pathwise_gradient(
                environment, policy, rollout(environment, policy, start, noise), discount=DISCOUNT
            ),
            "torch": lambda: torch_costates(p, starts, draws, exponential=exponential, stacked=False),
            "torch_stacked": lambda: torch_costates(p, starts, draws, exponential=exponential, stacked=True),
        },
        repeats,
    )
    reference = min(seconds["torch"], seconds["torch_stacked"])
    flops = products(size, None if environment.dynamics.outer is None else len(environment.dynamics.inner))
    return {
        "environment": name,
        "size": size,
        "seconds": seconds,
        "ratio": reference / seconds["costate"],
        "ratio_with_gradient": reference / seconds["gradient"],
        "aim": AIM.get(size, 3.0),
        "product_share": flops / seconds["costate"] / product_rate(size),
        "difference": check(case),
    }


def slope(axis: str, lengths: tuple[int, ...], repeats: int) -> float:
    """Log-log slope of the seconds of rollout and costates along T (B = 1024) or B (T = 32)."""
    calls = {}
    for n in lengths:
        environment, policy, start, noise = draw_case(
            "linear-quadratic", (1024, n, 8, 4) if axis == "T" else (n, 32, 8, 4)
        )
        calls[str(n)] = lambda e=environment, q=policy, s=start, x=noise: costate(e, q, rollout(e, q, s, x))
    seconds = median_seconds(calls, repeats)
    return float(np.polyfit(np.log(lengths), np.log([seconds[str(n)] for n in lengths]), 1)[0])


def main() -> None:
    """Measure, print, and write JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--repeats", type=int, default=9, help="timed repeats of each call (default 9)")
    parser.add_argument("--tiny", action="store_true", help="two small sizes, two repeats: for tests")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes, repeats = (SIZES[:2], 2) if options.tiny else (SIZES, options.repeats)
    print(
        "environment        (B, T, S, A)           costates  +gradient      torch  ratio  with grad.  products  "
        "difference"
    )
    rows = []
    for name in ("linear-quadratic", "tanh network"):
        for size in sizes:
            row = measure(name, size, repeats)
            rows.append(row)
            times = [row["seconds"][k] for k in ("costate", "gradient")]
            times.append(min(row["seconds"]["torch"], row["seconds"]["torch_stacked"]))
            cells = "".join(f"{1e3 * t:8.2f} ms" for t in times)
            print(
                f"{name:18} {size!s:20}{cells}{row['ratio']:7.2f} {row['ratio_with_gradient']:10.2f}"
                f"{row['product_share']:10.0%} {row['difference']:11.1e}"
            )
    lengths = (
        {"T": (16, 32), "B": (64, 128)} if options.tiny else {"T": (32, 64, 128, 256), "B": (256, 512, 1024, 2048)}
    )
    slopes = {axis: slope(axis, values, repeats) for axis, values in lengths.items()}
    print(f"log-log slope of rollout and costates: {slopes['T']:.2f} in T, {slopes['B']:.2f} in B")
    if options.json:
        versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"rows": rows, "slopes": slopes, "repeats": repeats, "versions": versions}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
