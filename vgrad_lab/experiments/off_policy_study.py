"""Exact numbers of docs/off_policy.md: answers of an older policy, clipping, KL terms, equal rewards in float32.

python -m vgrad_lab.experiments.off_policy_study writes docs/results/off_policy.json; about a minute on one core.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.discrete.estimator_types import Problem, reference_problem
from vgrad_lab.discrete.estimators import find
from vgrad_lab.discrete.float_groups import EPSILON, naive_advantage
from vgrad_lab.discrete.kl import Place, Term, kl_term_gradient, kl_term_variance, sequence_kl, sequence_kl_gradient
from vgrad_lab.discrete.off_policy import Clip, Ratio, shifted
from vgrad_lab.discrete.off_policy_moments import compared, off_policy_moments
from vgrad_lab.experiments.estimator_table import describe_problem, document, finite

Json = dict[str, Any]
SHIFTS = (0.0, 0.05, 0.2, 0.5)
"""Standard deviation of the change of each logit between the policy that answered and the one that is updated."""
GROUP, SEED = 4, 7
OTHERS = (0, 1, 2, 3)
"""Seeds of other directions of the shift."""
DISTANCES = (0.1, 0.5, 1.0)
"""The same between policy and reference."""
KL_ROWS: tuple[tuple[Term, Place], ...] = (
    ("k1", "loss"), ("k2", "loss"), ("k3", "loss"), ("k3", "token_ratio"), ("k3", "geometric_ratio"),
    ("k3", "sequence_ratio"), ("k1", "own_reward"), ("k1", "reward_to_go"), ("k1", "reward"), ("k3", "reward"),
)  # fmt: skip
EQUAL = ((0.7, 8), (0.1, 8), (123.456, 5), (1.0, 8))
"""Reward and size of the groups of equal rewards."""


class Update(NamedTuple):
    """A row: an estimator of the table, the ratio before it, and how the ratio is bounded."""

    title: str
    name: str
    ratio: Ratio
    clip: Clip | None = None
    most: float | None = None


UPDATES = (
    Update("leave-one-out, no ratio", "rloo", "none"),
    Update("leave-one-out, ratio of the answer", "rloo", "sequence"),
    Update("the same, clipped 0.2 (TRL's RLOO)", "rloo", "sequence", Clip(0.2, 0.2)),
    Update("leave-one-out, ratio of the token", "rloo", "token"),
    Update("the same, clipped 0.2", "rloo", "token", Clip(0.2, 0.2)),
    Update("Dr. GRPO, token, clipped 0.2", "dr_grpo", "token", Clip(0.2, 0.2)),
    Update("GRPO, token, clipped 0.2", "grpo", "token", Clip(0.2, 0.2)),
    Update("DAPO, token, clip-higher 0.2, 0.28", "dapo", "token", Clip(0.2, 0.28)),
    Update("the same advantages, min(ρ, 1.28) as data (CISPO)", "dapo", "token", None, 1.28),
    Update("GSPO, not clipped", "gspo", "geometric"),
    Update("GSPO, clipped 3e-4, 4e-4", "gspo", "geometric", Clip(3e-4, 4e-4)),
)


def one(update: Update, problem: Problem, *, size: float, seed: int) -> Json:
    """One update's exact direction at a shift, against ∇J of the shifted policy."""
    logits = shifted(problem.logits, size, np.random.default_rng(seed))
    settings: Json = {"ratio": update.ratio, "clip": update.clip, "most": update.most}
    mean, variance = off_policy_moments(find(update.name), problem, logits, group=GROUP, **settings)
    found = asdict(compared(mean, replace(problem, logits=logits).gradient, variance))
    return {"shift": size, **{k: finite(v) for k, v in found.items()}}


def updates(problem: Problem) -> list[Json]:
    """Every row at every shift, and the span of the cosine over other directions of the largest shift."""
    rows = []
    for update in UPDATES:
        others = [one(update, problem, size=SHIFTS[-1], seed=seed)["cosine"] for seed in OTHERS]
        at = [one(update, problem, size=size, seed=SEED) for size in SHIFTS]
        rows.append({"title": update.title, "at": at, "others": [min(others), max(others)]})
    return rows


def divergences(problem: Problem) -> list[Json]:
    """KL terms against ∇KL(π‖ref) of whole answers, the reference at three distances."""
    rows = []
    for term, place in KL_ROWS:
        at = []
        for distance in DISTANCES:
            reference = shifted(problem.logits, distance, np.random.default_rng(SEED))
            case = (problem.tree, problem.logits, reference)
            mean = kl_term_gradient(*case, term=term, place=place)
            variance = kl_term_variance(*case, term=term, place=place)
            found = asdict(compared(mean, sequence_kl_gradient(*case), variance))
            at.append({"distance": distance, "kl": sequence_kl(*case), **{k: finite(v) for k, v in found.items()}})
        rows.append({"term": term, "place": place, "at": at})
    return rows


def equal_groups() -> list[Json]:
    """Largest |Â| of equal rewards by each library's ε, two ways to compute the spread."""
    return [
        {
            "reward": value,
            "group": count,
            **{
                f"{library}_{spread}": float(np.abs(naive_advantage(reward, library, spread=spread)).max())
                for library in EPSILON
                for spread in ("two_pass", "exact")
            },
        }
        for value, count in EQUAL
        for reward in [np.full(count, value, np.float32)]
    ]


def run() -> Json:
    """Everything, with where it comes from."""
    problem = reference_problem()
    content = {
        "problem": describe_problem(problem),
        "group": GROUP,
        "shifts": list(SHIFTS),
        "updates": updates(problem),
        "divergences": divergences(problem),
        "equal": equal_groups(),
    }
    return document("python -m vgrad_lab.experiments.off_policy_study", seed=SEED, content=content)


def main(arguments: list[str] | None = None) -> None:
    """Write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/off_policy.json"))
    options = parser.parse_args(arguments)
    write_file(options.out, json.dumps(run(), indent=1, allow_nan=False) + "\n")
    sys.stdout.write(f"{options.out}\n")


if __name__ == "__main__":
    main()
