"""Cost of exact expectations over all groups of G answers, in processor milliseconds; one thread.

    python benchmarks/groups.py --json docs/results/groups.json

Rows: every ordered tuple of four of 15 answers; the same groups as multisets of labels (reward, or reward and length),
with the largest difference of means and variances between both; eight of 255 answers, rewards 0 and 1, by labels; the
closed form of leave-one-out for eight of 255 answers with real rewards, where no listing is possible. Medians over
repeats, for mean, variance and conditional coefficients together. The aim is 50 ms for the tuples.
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

from vgrad_lab.discrete.estimator_moments import exact_moments
from vgrad_lab.discrete.estimator_types import Problem, random_problem, reference_problem
from vgrad_lab.discrete.estimators import find, sample_coefficient
from vgrad_lab.discrete.groups import Moments, group_expectation, label_groups, labels
from vgrad_lab.discrete.u_statistic import leave_one_out_variance
from vgrad_lab.provenance import versions

AIM = 50.0
NAMES = ("rloo", "standardised", "token_mean")
COMMAND = "python benchmarks/groups.py --json docs/results/groups.json"


def by_tuples(problem: Problem, name: str, group: int) -> Moments:
    """Every ordered tuple of answers."""
    estimator = find(name)
    return group_expectation(
        problem.probability,
        problem.direction(1.0 * problem.tree.scored),
        lambda answers: sample_coefficient(estimator, problem, answers),
        group=group,
    )


def milliseconds(call: Callable[[], Any], repeats: int) -> float:
    """Median processor time of a call, after one that is not timed."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def small(name: str, repeats: int) -> list[dict[str, Any]]:
    """Four of 15 answers, by tuples and by labels."""
    problem, group = reference_problem(), 4
    tuples, listed = by_tuples(problem, name, group), exact_moments(find(name), problem, group=group)
    difference = max(float(np.abs(tuples.mean - listed.mean).max()), abs(tuples.variance - listed.variance))
    common = {"estimator": name, "answers": problem.tree.size, "group": group}
    return [
        common | {
            "listing": "tuples",
            "groups": problem.tree.size**group,
            "milliseconds": milliseconds(lambda: by_tuples(problem, name, group), repeats),
            "aim": AIM,
        },
        common | {
            "listing": "labels",
            "groups": count(problem, name, group),
            "milliseconds": milliseconds(lambda: exact_moments(find(name), problem, group=group), repeats),
            "difference": difference,
        },
    ]  # fmt: skip


def count(problem: Problem, name: str, group: int) -> int:
    """Number of multisets that are listed."""
    columns = (problem.reward, problem.tree.length) if name == "token_mean" else (problem.reward,)
    return len(label_groups(np.bincount(labels(*columns), problem.probability), group).weight)


def large(name: str, repeats: int) -> dict[str, Any]:
    """Eight of 255 answers with rewards 0 and 1."""
    problem, group = random_problem(3, 7, binary=True), 8
    return {
        "estimator": name,
        "answers": problem.tree.size,
        "group": group,
        "listing": "labels",
        "groups": count(problem, name, group),
        "milliseconds": milliseconds(lambda: exact_moments(find(name), problem, group=group), repeats),
    }


def closed(repeats: int) -> dict[str, Any]:
    """Variance of leave-one-out for eight of 255 answers with real rewards."""
    problem = random_problem(3, 7)
    return {
        "estimator": "rloo",
        "answers": problem.tree.size,
        "group": 8,
        "listing": "closed form",
        "milliseconds": milliseconds(lambda: leave_one_out_variance(problem, 8), repeats),
    }


def main() -> None:
    """Measure, print, and write JSON when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--repeats", type=int, default=15, help="timed repeats of each call (default 15)")
    options = parser.parse_args()
    rows = [row for name in NAMES for row in small(name, options.repeats)]
    rows += [large(name, options.repeats) for name in NAMES] + [closed(options.repeats)]
    for row in rows:
        size = f"{row['group']} of {row['answers']} answers, {row.get('groups', 0)} groups"
        print(f"{row['estimator']:14} {row['listing']:12} {size:38} {row['milliseconds']:8.2f} ms", flush=True)
    if options.json:
        result = {
            "command": COMMAND,
            "rows": rows,
            "repeats": options.repeats,
            "seed": "1 (15 answers), 0 (255 answers)",
            "device": f"{platform.machine()} CPU, one thread, processor milliseconds",
            "versions": {k: v for k, v in versions().items() if k in ("python", "numpy", "vgrad_lab")},
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
