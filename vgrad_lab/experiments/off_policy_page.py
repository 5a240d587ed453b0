"""Ratios, clips, KL terms and float32 groups as a page of markdown; every number from the committed results."""

from typing import Any

from vgrad_lab.experiments.estimator_table import number, small
from vgrad_lab.experiments.forecast_page import table

Json = dict[str, Any]
INTRODUCTION = (
    "An update seldom sees answers of the very policy that it changes, and it seldom has only a reward: there are "
    "importance ratios, clips and KL terms. Each changes the expected direction. On a small token tree every "
    "expectation is a finite sum, so by how much is exact to rounding. Statements and proofs: [K01](ledger.md#k01) to "
    "[K11](ledger.md#k11); on-policy estimators: [estimators.md](estimators.md). TRL's own losses are compared with "
    "these formulas, gradient against gradient, in [a test](../tests/integrations/test_trl_losses.py).",
    "",
    "- **cosine** of the expected direction and the true gradient; **bend**: the share of the direction that points "
    "elsewhere, which no learning rate absorbs; **error**: ‖direction − gradient‖/‖gradient‖; 0 is below 1e-12.",
    "- **over c²**: trace of the covariance of one update, after rescaling to the length of the true gradient.",
)
OLDER = (
    "Answers come from β, the gradient is taken at π, whose logits differ from β's by a normal number of the given "
    "standard deviation (0: on-policy). The truth is ∇J of π. GRPO, DAPO and GSPO stand here with their standard "
    "deviation and lengths, which bend the direction on-policy already ([E06](ledger.md#e06), [E07](ledger.md#e07)).",
)
READ = (
    "What to read off:",
    "",
    "- Only the ratio of the whole answer is exact ([K05](ledger.md#k05)), and only without its clip.",
    "- The ratio of a token is better than none, but leaves an error of first order in the shift: what came before the "
    "token and what follows it are still β's ([K06](ledger.md#k06)).",
    "- Clips do nothing near β and bend most where the policy has moved most ([K08](ledger.md#k08)); a bounded ratio "
    "that counts as data leaves out nothing, which mostly bends less.",
    "- GSPO's ratio is no importance weight ([K07](ledger.md#k07)). On the short answers here "
    "its published bounds, 3e-4 and 4e-4, cut off nearly every answer that moved towards its advantage.",
)
TERMS = {
    ("k1", "loss"): "k1 in the loss",
    ("k2", "loss"): "k2 in the loss",
    ("k3", "loss"): "k3 in the loss (GRPO, TRL, verl)",
    ("k3", "token_ratio"): "ρ_t k3 in the loss (TRL, use_bias_correction_kl)",
    ("k3", "geometric_ratio"): "the same at TRL's sequence level",
    ("k3", "sequence_ratio"): "ρ(o) Σ_t k3 in the loss",
    ("k1", "own_reward"): "a token's own k1 in its reward",
    ("k1", "reward_to_go"): "k1 to go in the reward",
    ("k1", "reward"): "Σ_t k1 in the reward (RLOO)",
    ("k3", "reward"): "Σ_t k3 in the reward",
}
KL = (
    "On-policy, one answer, against ∇KL(π‖ref) between the laws of whole answers; the reference's logits differ from "
    "π's by a normal number of the given standard deviation.",
)
KL_READ = (
    "k1 in the loss is noise without a gradient. k3 in the loss descends KL(ref‖π), token by token "
    "([K02](ledger.md#k02)). What is per token ignores how the policy changes the prefixes that it meets "
    "([K04](ledger.md#k04)). Exact are k1 in the reward and the sum over the answer before the ratio of the answer; of "
    "these ρ(o) Σ k3 has the smallest variance here. k3 in the reward does next to nothing near the reference "
    "([K03.third](ledger.md#k03third)).",
)
EQUAL = (
    "Largest |Â| of a group whose rewards are all equal, in float32. *two passes*: the spread from the rounded "
    "deviations, as TRL; *exact*: a spread of 0, as `torch.std` over the rows of a matrix finds it. "
    "`vgrad_lab.advantage` gives 0 throughout ([K11](ledger.md#k11)).",
)
LIMITS = (
    "- One tree of 15 answers, a table of logits as policy, normal shifts. How much a direction bends in a model and a "
    "run is another number; that it need not be straight is not.",
    "- An expectation of one step says nothing about how clipping steadies a run of many.",
)


def page(result: Json) -> str:
    """docs/off_policy.md from docs/results/off_policy.json."""
    v = result["versions"]
    source = (
        f"From `{result['command']}` on {result['device']}, seed {result['seed']}: Python {v.get('python')}, NumPy "
        f"{v.get('numpy')}. [Numbers](results/off_policy.json)."
    )
    p = result["problem"]
    about = (
        f"{p['answers']} answers of 1 to {p['horizon']} tokens, real rewards, groups of {result['group']}; the problem "
        "of [estimators.md](estimators.md)."
    )
    parts = [
        "# Older answers, KL terms and rounding",
        "",
        source,
        "",
        *INTRODUCTION,
        "",
        "## Answers of an older policy",
    ]
    parts += [
        *OLDER,
        "",
        about,
        "",
        *_updates(result),
        "",
        *READ,
        "",
        "## KL terms",
        *KL,
        "",
        *_divergences(result),
        "",
    ]
    parts += [*KL_READ, "", "## Equal rewards", *EQUAL, "", *_equal(result), "", "## What this is not", *LIMITS, ""]
    return "\n".join(parts)


def _updates(result: Json) -> list[str]:
    """Bend at each shift, cosine and variance at the ends, and the cosine's span over other shifts."""
    last = result["shifts"][-1]
    head = [
        "update",
        *(f"bend at {s}" for s in result["shifts"]),
        f"cosine at {last}",
        "over c²: on-policy",
        f"at {last}",
    ]
    rows = []
    for row in result["updates"]:
        first, end = row["at"][0], row["at"][-1]
        low, high = row["others"]
        spread = [number(a["variance"] / a["scale"] ** 2) for a in (first, end)]
        cosine = f"{number(end['cosine'])} ({low:.3f} to {high:.3f})"
        rows.append([row["title"], *(small(a["bend"]) for a in row["at"]), cosine, *spread])
    return [
        *table(head, rows),
        "",
        "*In brackets: the lowest and highest cosine over four other directions of the shift.*",
    ]


def _divergences(result: Json) -> list[str]:
    at = result["divergences"][0]["at"]
    head = ["term", *(f"error at {a['distance']} (KL {a['kl']:.4f})" for a in at), "cosine", "variance"]
    rows = []
    for row in result["divergences"]:
        end = row["at"][-1]
        title = TERMS[(row["term"], row["place"])]
        rows.append([title, *(small(a["error"]) for a in row["at"]), number(end["cosine"]), number(end["variance"])])
    return [*table(head, rows), "", f"*Cosine and variance at a distance of {at[-1]['distance']}.*"]


def _equal(result: Json) -> list[str]:
    names = {"trl": "TRL, ε = 1e-4", "verl": "verl, ε = 1e-6", "oat": "Dr. GRPO repository, ε = 1e-8"}
    head = ["group", *(f"{title}: {how}" for title in names.values() for how in ("two passes", "exact"))]
    rows = [
        [
            f"{g['group']} times {g['reward']:g}",
            *(f"{g[f'{n}_{how}']:.3g}" for n in names for how in ("two_pass", "exact")),
        ]
        for g in result["equal"]
    ]
    return table(head, rows)
