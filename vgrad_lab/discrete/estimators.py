"""On-policy estimators by name: what each computes per sample, and the scale its expectation is known to have.

A group of G answers gives the ascent direction D = (1/G) Σ_i Σ_t w_{i,t} g_{i,t}; ``token_advantage`` is w, the
per-sample output of every estimator. Nothing here is differentiated: advantages are data. Exact moments are in
``estimator_moments``.
"""

import difflib

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from vgrad_lab.discrete import estimator_rules as rules
from vgrad_lab.discrete import trajectory_gradient as response_level
from vgrad_lab.discrete.estimator_types import Estimator, Options, Problem, Verdict
from vgrad_lab.impact import grpo_scale

_GROUP = "2402.03300"
_STD = ("ddof", "eps")
_INTERPOLATED = rules.trepo_reading("adv_interp")

_ALL = (
    Estimator(
        "reinforce", "(R − b) g, b = baseline", "Williams 1992; in arXiv 2402.14740", "unbiased",
        token=rules.constant_baseline, reads=("baseline",),
    ),
    Estimator(
        "expected_baseline", "(R − E R) g", "derived here: RLOO as G → ∞", "unbiased", token=rules.expected_baseline
    ),
    Estimator(
        "optimal_baseline", "(R − b*) g, b* = E[‖g‖²R]/E‖g‖²", "folklore", "unbiased",
        token=rules.best_constant_baseline,
    ),
    Estimator("remax", "(R − R(greedy)) g", "arXiv 2310.10505", "unbiased", token=rules.greedy_baseline),
    Estimator("rloo", "(R_i − mean_{j≠i} R_j) g_i", "arXiv 2402.14740", "unbiased", group="leave_one_out"),
    Estimator("u_statistic", "½ (R_i − R_j)(g_i − g_j) over pairs", "arXiv 2603.01162", "unbiased", group="pairs"),
    Estimator("group_mean", "(R_i − R̄) g_i", "arXiv 2503.20783, without its length", "scaled", group="group_mean"),
    Estimator(
        "dr_grpo", "(R_i − R̄) g_i / L", "arXiv 2503.20783", "scaled", group="group_mean", aggregation="constant",
        reads=("longest",),
    ),
    Estimator("standardised", "(R_i − R̄)/(s + ε) g_i", "GRPO's advantage, tokens summed", "biased",
              group="standardised", reads=_STD),
    Estimator(
        "dynamic_sampling", "the same, groups of equal rewards drawn again", "DAPO's constraint alone", "biased",
        group="standardised", mixed_only=True, reads=_STD,
    ),
    Estimator("sequence_mean", "(R_i − R̄) g_i / |o_i|", "GRPO without its std", "biased", group="group_mean",
              aggregation="sequence_mean"),
    Estimator(
        "grpo", "(R_i − R̄)/(s + ε) g_i / |o_i|", f"arXiv {_GROUP}", "biased", group="standardised",
        aggregation="sequence_mean", reads=_STD,
    ),
    Estimator(
        "gspo", "Â_i ∇(π/π_old)^{1/|o_i|} at π = π_old", "arXiv 2507.18071", "biased", group="standardised",
        aggregation="sequence_mean", reads=_STD,
    ),
    Estimator("token_mean", "G (R_i − R̄) g_i / Σ_j|o_j|", "DAPO without its std", "biased", group="group_mean",
              aggregation="token_mean"),
    Estimator(
        "dapo", "G (R_i − R̄)/(s + ε) g_i / Σ_j|o_j|, mixed groups", "arXiv 2503.14476", "biased", group="standardised",
        aggregation="token_mean", mixed_only=True, reads=_STD,
    ),
    Estimator(
        "trl_default", "G (R_i − R̄)/(s + ε) g_i / Σ_j|o_j|", "TRL, loss types dapo and bnpo", "biased",
        group="standardised", aggregation="token_mean", reads=_STD, defaults=Options(eps=1e-4),
    ),
    Estimator(
        "verl_default", "the same with verl's ε", "verl, adv_estimator grpo, token-mean", "biased",
        group="standardised", aggregation="token_mean", reads=_STD, defaults=Options(eps=1e-6),
    ),
    Estimator(
        "trl_dr_grpo", "(R_i − R̄)/(s + ε) g_i / L: the std stays on", "TRL, loss type dr_grpo alone", "biased",
        group="standardised", aggregation="constant", reads=(*_STD, "longest"), defaults=Options(eps=1e-4),
    ),
    Estimator(
        "ppo", "Σ_t GAE(λ)_t g_t", "arXiv 1707.06347, 1506.02438", "unbiased", token=rules.gae,
        reads=("decay", "critic_error", "token_reward"),
    ),
    Estimator(
        "ppo_coded", "whitened GAE(λ), mean over the group's tokens", "PPO libraries", "biased", token=rules.gae,
        aggregation="token_mean", whitened=True, reads=("decay", "critic_error", "token_reward"),
        defaults=Options(decay=0.95),
    ),
    Estimator("reward_to_go", "Σ_t (Σ_{k≥t} r_k) g_t", "folklore", "unbiased", token=rules.reward_to_go,
              reads=("token_reward",)),
    Estimator(
        "value_baseline", "Σ_t (R − E[R|o_<t]) g_t", "arXiv 2506.02553, its first mean by one sample", "unbiased",
        token=lambda p, o: response_level.value_baseline_advantage(p.tree, p.logits, p.reward),
    ),
    Estimator(
        "best_prefix_baseline", "Σ_t (R − b*(o_<t)) g_t", "derived here", "unbiased",
        token=lambda p, o: response_level.response_advantage(
            p.tree, p.reward, baseline=response_level.best_baseline(p.tree, p.logits, p.reward)
        ),
    ),
    Estimator(
        "theorem_2", "Σ_t (E[R|o_≤t] − E[R|o_<t]) g_t", "arXiv 2506.02553, eq. 28", "unbiased",
        token=lambda p, o: response_level.theorem_2_advantage(p.tree, p.logits, p.reward),
    ),
    Estimator(
        "vineppo", "Σ_t (v(end of its step) − v(start)) g_t", "arXiv 2410.01679, exact values", "unbiased",
        token=rules.vine_advantage, reads=("step",),
    ),
    Estimator(
        "trepo_anchors", "Σ_{t chosen} A_t g_t/P(t chosen)", "arXiv 2506.02553; this reading: derived here", "unbiased",
        sets=rules.trepo_reading("anchors_ht"), reads=("keep",),
    ),
    Estimator(
        "trepo_segments", "Σ_t (v(next chosen) − v(last chosen)) g_t", "arXiv 2506.02553; this reading: derived here",
        "unbiased", sets=rules.trepo_reading("segment"), reads=("keep",),
    ),
    Estimator(
        "trepo_advantages", "Σ_t g_t times A interpolated between chosen t", "arXiv 2506.02553, to the letter",
        "biased", sets=_INTERPOLATED, reads=("keep",),
    ),
    Estimator(
        "trepo_values", "Σ_t g_t times differences of v interpolated", "arXiv 2506.02553; another reading", "biased",
        sets=rules.trepo_reading("value_interp"), reads=("keep",),
    ),
)  # fmt: skip
ESTIMATORS: dict[str, Estimator] = {e.name: e for e in _ALL}
"""Every estimator of this package, by name."""


def find(name: str) -> Estimator:
    """The estimator of that name; ValueError that suggests the nearest name for any other."""
    if name in ESTIMATORS:
        return ESTIMATORS[name]
    plain = name.strip().lower().replace("-", "_").replace(" ", "_").replace(".", "")
    near = [plain] if plain in ESTIMATORS else difflib.get_close_matches(plain, ESTIMATORS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(ESTIMATORS)}"
    raise ValueError(f"unknown estimator {name!r}; {hint}")


def sample_coefficient(
    estimator: Estimator, problem: Problem, answers: Int[ndarray, "Q G"], *, options: Options | None = None
) -> Float[ndarray, "Q G"]:
    """c_i of every sample: its group's advantage times the factor of the aggregation."""
    chosen = estimator.defaults if options is None else options
    longest = problem.tree.horizon if chosen.longest is None else chosen.longest
    factor = rules.length_factor(estimator.aggregation, problem.tree.length[answers], longest=longest)
    return rules.group_advantage(estimator, problem.reward[answers], chosen) * factor


def token_factor(estimator: Estimator, problem: Problem, *, options: Options | None = None) -> Float[ndarray, "B T"]:
    """a_t of every answer of the tree: what does not depend on the group; 1 on drawn tokens without a rule."""
    chosen = estimator.defaults if options is None else options
    if estimator.sets is not None:
        return np.einsum("kb,kbt->bt", *estimator.sets(problem, chosen))
    return 1.0 * problem.tree.scored if estimator.token is None else estimator.token(problem, chosen)


def token_advantage(
    estimator: Estimator, problem: Problem, answers: Int[ndarray, "Q G"], *, options: Options | None = None
) -> Float[ndarray, "Q G T"]:
    """w of every token of sampled groups: the estimator's per-sample output, data for a loss −Σ w log π.

    w_{i,t} = c_i a_{i,t}, and D = (1/G) Σ_i Σ_t w_{i,t} g_{i,t} is the group's ascent direction; zero after an answer's
    end. What else is drawn (``sets``) is averaged over. answers: rows of the tree, one group per row. options: the
    estimator's defaults if None.

    Raises ValueError for rows outside the tree, groups too small for the rule, and options that don't fit.
    """
    if answers.ndim != 2 or answers.min(initial=0) < 0 or answers.max(initial=0) >= problem.tree.size:
        raise ValueError(f"answers must be groups (Q, G) of rows 0 … {problem.tree.size - 1}, got {answers.shape}")
    weight = token_factor(estimator, problem, options=options)[answers]
    if estimator.whitened:
        weight = rules.whiten(weight, problem.tree.length[answers])
    return weight * sample_coefficient(estimator, problem, answers, options=options)[:, :, None]


def _token_scale(estimator: Estimator, problem: Problem, options: Options) -> float | None:
    if estimator.sets is _INTERPOLATED:
        return options.keep if np.ptp(problem.tree.length) == 0 else None
    if estimator.token is rules.gae:
        critic_exact = options.critic_error is None or not np.any(options.critic_error)
        return 1.0 if options.decay == 1 or critic_exact else None
    return 1.0 if estimator.verdict == "unbiased" else None


def _advantage_scale(estimator: Estimator, problem: Problem, group: int, options: Options) -> float | None:
    if estimator.group is None:
        return _token_scale(estimator, problem, options)
    if estimator.token is not None or estimator.sets is not None:
        return None
    if estimator.group in ("leave_one_out", "pairs"):
        return 1.0
    if estimator.group == "group_mean":
        return (group - 1) / group
    values = np.unique(problem.reward)
    if estimator.group != "standardised" or len(values) != 2:
        return None
    distance = float(values[1] - values[0])
    rarer = min(float(problem.probability @ (problem.reward == r)) for r in values)  # κ(p) = κ(1 − p)
    found = grpo_scale(np.array([rarer]), group, ddof=options.ddof, eps=options.eps / distance)
    return float(found[0]) / distance


def mixed_probability(problem: Problem, group: int) -> float:
    """Probability that the rewards of a group are not all equal, 1 − Σ_r P(R = r)^G, accurate however small."""
    _, value = np.unique(problem.reward, return_inverse=True)
    share = np.bincount(value, problem.probability)
    others = (1 - np.eye(len(share))) @ share
    with np.errstate(divide="ignore"):
        return float(-share @ np.expm1((group - 1) * np.log1p(-np.minimum(others, 1.0))))


def expected_scale(
    estimator: Estimator, problem: Problem, *, group: int, options: Options | None = None
) -> float | None:
    """The c of E D = c ∇J in closed form, or None where no such c is known and the direction is biased in general.

    1; (G−1)/G; w_G(p) = ``impact.grpo_scale`` for two reward values, divided by their distance; over L, over T where
    all answers have T tokens, and over P(mixed) where other groups are drawn again; ``keep`` for interpolated
    advantages on answers of one length. A rule per token of a reader's own counts as what its ``verdict`` says,
    unbiased or not; a group rule of a reader's own has no closed form.

    Raises ValueError for G < 2 in a group's baseline, and where no group is mixed.
    """
    chosen = estimator.defaults if options is None else options
    least = 1 if estimator.group is None else 2
    if group < least:
        raise ValueError(f"{estimator.name} needs G ≥ {least} answers per group, got G = {group}")
    scale = None if estimator.whitened else _advantage_scale(estimator, problem, group, chosen)
    if scale is None:
        return None
    if estimator.mixed_only:
        mixed = mixed_probability(problem, group)
        if not mixed > 0:
            raise ValueError("no group is mixed: all answers that ever come have one reward; give rewards that differ")
        scale /= mixed
    if estimator.aggregation == "constant":
        return scale / (problem.tree.horizon if chosen.longest is None else chosen.longest)
    if estimator.aggregation == "sum":
        return scale
    length = problem.tree.length
    return scale / float(length[0]) if np.ptp(length) == 0 else None


def verdict(estimator: Estimator, problem: Problem, *, group: int, options: Options | None = None) -> Verdict:
    """What ``expected_scale`` says for this problem: unbiased (c = 1), scaled (another c), or biased (no c)."""
    scale = expected_scale(estimator, problem, group=group, options=options)
    return "biased" if scale is None else "unbiased" if scale == 1 else "scaled"
