"""The table of estimators as a page of markdown; every number from the committed results."""

from typing import Any

from vgrad_lab.experiments.estimator_table import ALONE, COLUMNS, FADING, cells_of, number, small
from vgrad_lab.experiments.forecast_page import table

Json = dict[str, Any]
INTRODUCTION = (
    "Which of the policy-gradient estimators that are used for language models is biased, and by how much? On a small "
    "token tree this is a matter of finite sums: every answer, every group of $G$ answers and its probability are "
    "listed, so the expectation and the variance of each update are exact to rounding. `vgrad estimators` prints such "
    "a table for any small tree; [tutorial 03](../tutorials/03_estimators.ipynb) works through it; the statements are "
    "[E05](ledger.md#e05) to [E09](ledger.md#e09), with [proofs](proofs/README.md).",
    "",
    "## How to read the tables",
    "An estimator turns a group into an ascent direction $D = \\frac1G \\sum_i \\sum_t w_{i,t} g_{i,t}$, where "
    "$g_{i,t} = \\partial \\log \\pi(o_{i,t} \\mid o_{i, \\lt t})$ is the score of a token and $w$ its weight: the "
    "advantage with whatever divides it. The true direction is $\\nabla J$, $J = E R$.",
    "",
    "- **scale c**: $\\langle E[D], \\nabla J\\rangle / \\lVert \\nabla J \\rVert^2$. A learning rate absorbs it.",
    "- **closed form**: what theory says $c$ is; a dash where there is none, because the direction is wrong.",
    "- **cosine** of $E[D]$ and $\\nabla J$; **residual**: the share of $E[D]$ that points elsewhere, the sine of the "
    "angle; 0 is below 1e-12. Neither a learning rate nor more groups absorb it.",
    "- **variance**: trace of the covariance of $D$ for one group; **over c²**: the same after rescaling to $c = 1$, "
    "the fair comparison.",
    "- **verdict** on this problem: unbiased ($c = 1$), scaled (a known other $c$), biased.",
    "",
    "All of it is on-policy, one update, nothing clipped; for importance ratios and KL terms see the K entries of the "
    "[ledger](ledger.md), for response-level rewards the R entries.",
)
CODE = """import numpy as np

from vgrad_lab.advantage import group_mean
from vgrad_lab.discrete.estimator_moments import check_estimator, row
from vgrad_lab.discrete.estimator_types import Estimator, reference_problem

problem = reference_problem()
mine = Estimator(
    "mine",
    "clip(R_i − R̄) g_i",
    "a reader",
    "biased",
    group=lambda reward, options: group_mean(reward).clip(-1, 1),  # (groups, G) -> (groups, G)
)
print(f"residual {row(mine, problem, group=4).residual:.4f}")

per_token = Estimator(
    "discounted",
    "Σ_t γ^t R g_t",
    "a reader",
    "unbiased",  # a claim, which is checked
    token=lambda p, options: p.reward[:, None] * 0.9 ** np.arange(p.tree.horizon) * p.tree.scored,  # (answers, tokens)
)
try:
    check_estimator(per_token, problem, group=1)
except AssertionError as error:
    print(error)"""
"""The example of a reader's own estimators."""
READING = {
    "real rewards, G = 2": "Groups of two with the standard deviation know only which answer was better.",
    "real rewards, G = 4": "Leave-one-out and its kin are exact; the standard deviation, 1/|o| and the token mean bend "
    "the direction, each by itself ([E06](ledger.md#e06), [E07](ledger.md#e07)).",
    "binary rewards, G = 4": "With rewards 0 and 1 the standard deviation only rescales, by $w_G(p)$ "
    "([E06.binary](ledger.md#e06binary)); lengths bend as before.",
    "real rewards, G = 4, every answer of 3 tokens": "The control: without differences in length, 1/|o| and the token "
    "mean divide by 3 and do no harm ([E07.equal](ledger.md#e07equal)).",
}
DEFAULTS = (
    ("TRL `GRPOConfig`, nothing set", 'loss_type "dapo", scale_rewards "group", ε = 1e-4, sample std', "trl_default"),
    ('TRL, loss_type "dr_grpo" alone', 'scale_rewards stays "group": the std stays on', "trl_dr_grpo"),
    ('TRL, loss_type "dr_grpo" and scale_rewards "none"', "Dr. GRPO as published", "dr_grpo"),
    ('TRL, loss_type "grpo"', "1/\\|o_i\\|, std, ε = 1e-4 (the row has 0)", "grpo"),
    ('TRL, importance_sampling_level "sequence", loss_type "grpo"', "GSPO", "gspo"),
    ("TRL `RLOOConfig`, nothing set", "G = 2; a KL term of 0.05 in the reward besides", "rloo"),
    ('verl, adv_estimator "grpo"', "token-mean, std on, ε = 1e-6, sample std", "verl_default"),
    ("TRL PPO (experimental)", "λ = 0.95, always whitened, token mean", "ppo_coded"),
    ("the Dr. GRPO authors' code, drgrpo", "group mean over a constant length", "dr_grpo"),
)
OWN = (
    "## Your own estimator",
    "",
    "A rule for the rewards of a group, or numbers per token, is enough. `row` gives its line of the table; "
    "`check_estimator` raises where an estimator that calls itself unbiased is not. Hypothesis draws trees for you: "
    "`vgrad_lab.discrete.strategies`.",
    "",
    "```python",
    *CODE.splitlines(),
    "```",
    "",
)
LIMITS = (
    "- The trees are tiny and the policies free tables of logits. That a direction is biased is shown by one case; how "
    "much it is bent in a large model is not measured here.",
    "- A bent direction may still learn, and a standard deviation may help an optimiser in ways that an expectation of "
    "one step does not see. The tables say what is optimised, not what wins.",
    "- Library defaults change: the table names what their sources said when they were read (TRL at f2cd57710ae3, July "
    "2026; verl at 1dda039b9c63, August 2026; understand-r1-zero at dfca49dd).",
    "- DAPO's clip-higher and GSPO's clipping do nothing on-policy; they enter off-policy, in the K entries.",
)


def page(result: Json) -> str:
    """docs/estimators.md from docs/results/estimators.json."""
    v = result["versions"]
    source = (
        f"From `{result['command']}` on {result['device']}, seed {result['seed']}: Python {v.get('python')}, NumPy "
        f"{v.get('numpy')}. [Numbers](results/estimators.json)."
    )
    parts = ["# Estimators: which is biased, and by how much", "", source, "", *INTRODUCTION, ""]
    for part in result["tables"]:
        title = part["title"]
        parts += [f"## {title[0].upper()}{title[1:]}", "", _about(part), "", READING[title], "", *_rows(part), ""]
    parts += [*_formulas(result), *_fading(result), *_weights(result), *_variance(result), *_critic(result)]
    return "\n".join([*parts, *_defaults(result), *OWN, "## What this is not", "", *LIMITS, ""])


def _about(part: Json) -> str:
    p = part["problem"]
    lengths = f"1 to {p['horizon']}" if p["end"] is not None else f"{p['horizon']}"
    return (
        f"{p['answers']} answers of {lengths} tokens over {p['vocab']}, mean length {p['mean_length']:.3f}; "
        f"J = {p['mean_reward']:.4f}, ‖∇J‖ = {p['gradient_norm']:.4f}."
    )


def _rows(part: Json) -> list[str]:
    return table(("estimator", *COLUMNS), [[f"`{r['name']}`", *cells_of(r)] for r in part["rows"]])


def _formulas(result: Json) -> list[str]:
    rows = result["tables"][0]["rows"]
    body = [[f"`{r['name']}`", "`" + r["formula"].replace("|", "\\|") + "`", r["source"]] for r in rows]
    return ["## What each one is", "", *table(("estimator", "weight of a sample or token", "from"), body), ""]


def _fading(result: Json) -> list[str]:
    groups, residual = result["fading"]["groups"], result["fading"]["residual"]
    body = [[f"`{name}`", *(small(x) for x in residual[name])] for name in FADING]
    return [
        "## What a larger group cures", "",
        "The residual by group size, real rewards. The bends of the standard deviation and of the token mean fade, "
        "that of the token mean as 1/G ([E07.ratio](ledger.md#e07ratio)); that of 1/|o| is the same in every group "
        "([E07.effective](ledger.md#e07effective)), so a larger group leaves GRPO's original loss where it was.",
        "", *table(("estimator", *(f"G = {g}" for g in groups)), body), "",
        "![What a larger group cures, and when a bias outweighs the noise](images/estimators.svg)", "",
        "*Left: the table. Right: error of the mean of N groups of four, each estimator at its best rate: noise falls "
        "as 1/√N, a bend stays. One prompt; a batch of many prompts averages bends of many directions.*", "",
    ]  # fmt: skip


def _weights(result: Json) -> list[str]:
    rows = result["weights"]
    sizes = sorted({r["group"] for r in rows})
    body = []
    for p in sorted({r["p"] for r in rows}):
        mine = [r for r in rows if r["p"] == p]
        cells = [f"{r['weight']:.3f} / {r['mixed']:.3f}" for r in mine]
        body.append([f"{p:g}", *cells, f"{mine[0]['limit']:.3f}"])
    return [
        "## How standardising weighs prompts", "",
        "For rewards 0 and 1 each prompt's gradient is multiplied by $w_G(p)$ (sample standard deviation), and by "
        "$w_G(p)/P(\\text{mixed})$ when groups without a difference are drawn again "
        "([E06.mixed](ledger.md#e06mixed)). Prompts that are nearly always or nearly never solved count more.",
        "", *table(("p", *(f"G = {g}: plain / mixed" for g in sizes), "G → ∞"), body), "",
    ]  # fmt: skip


def _variance(result: Json) -> list[str]:
    parts = [
        "## Variance of the unbiased ones", "",
        "Leave-one-out pays for its borrowed baseline with $2\\zeta/(G(G-1))$ ([E08.mse](ledger.md#e08mse)). The exact "
        "value as baseline is not the best constant, and the greedy answer's reward can be worse than nothing "
        "([E08.oracle](ledger.md#e08oracle)). Baselines that read the prefix are another matter.", "",
    ]  # fmt: skip
    for kind, rows in result["variance"].items():
        names = ("rloo", *ALONE)
        body = [[f"`{name}`", *(number(r[name]) for r in rows)] for name in names]
        parts += [f"**{kind} rewards**", "", *table(("estimator", *(f"G = {r['group']}" for r in rows)), body), ""]
    return parts


def _critic(result: Json) -> list[str]:
    rows = result["critic"]
    decays = sorted({r["decay"] for r in rows})
    body = []
    for error in sorted({r["error"] for r in rows}):
        mine = {r["decay"]: r for r in rows if r["error"] == error}
        cells = [f"{100 * mine[d]['bias']:.1f} % / {mine[d]['variance']:.3f}" for d in decays]
        body.append([f"{error:g}", *cells])
    return [
        "## PPO: what a wrong critic costs", "",
        "Bias ‖E[D] − ∇J‖/‖∇J‖ and variance of one answer for GAE(λ), tokens summed, no whitening; one error per "
        "prefix is drawn and scaled. At λ = 1 any critic is a baseline ([E09](ledger.md#e09)); below, its error enters "
        "the mean.",
        "", *table(("error of the critic", *(f"λ = {d:g}: bias / variance" for d in decays)), body), "",
    ]  # fmt: skip


def _defaults(result: Json) -> list[str]:
    by_name = {
        kind: {
            r["name"]: r for part in result["tables"] if part["title"] == f"{kind} rewards, G = 4" for r in part["rows"]
        }
        for kind in ("real", "binary")
    }
    body = [
        [who, what, f"`{name}`", *(small(by_name[kind][name]["residual"]) for kind in ("real", "binary"))]
        for who, what, name in DEFAULTS
    ]
    head = ("setting", "which means", "row", "residual, real rewards", "residual, binary rewards")
    advice = (
        'For a direction that is right up to scale, set both loss_type="dr_grpo" and scale_rewards="none" in TRL\'s '
        "GRPOConfig. With rewards 0 and 1 the standard deviation only weighs prompts; the length factor bends all the "
        "same."
    )
    return ["## What libraries run", "", "At G = 4, on the tree above.", "", *table(head, body), "", advice, ""]
