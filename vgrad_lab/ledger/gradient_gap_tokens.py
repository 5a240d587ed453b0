"""Ledger entries of the gradient gap: token-level steps and algorithms (G05, G06)."""

from vgrad_lab.ledger.types import Statement, Status

_CHECK = "vgrad_lab.experiments.verify_token_steps:"
_T5, _T6 = (f"tests/statements/test_g0{i}.py::test_" for i in (5, 6))
_PAPER = "the gradient-gap paper"

ALGORITHMS: tuple[Statement, ...] = (
    Statement(
        id="G05",
        where=f"{_PAPER}, Theorem 3 (reported by its scaling only)",
        claim="The admissible step shrinks with the response's length, with the failure rate 1 − J and with the "
        "tokens' bounds.",
        status=Status.OPEN,
        tests=(_T5 + "threshold_falls_like_one_over_the_length",),
        corrected_by=("G05.tokens", "G05.azuma", "G05.linear"),
        note="Formula and constants could not be read. That steps shrunk in this way suffice is G05.tokens; that they "
        "need not shrink in proportion to 1 − J is G05.azuma and G05.linear.",
    ),
    Statement(
        id="G05.tokens",
        where="derived here",
        claim="η ≤ min{(1−J)Δμ/(2T(L_p + G_p²)), √(1−J)/(2√T G_p)} raises the log-odds by at least ηΔμ/2.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "G_p and L_p bound every token's score and its derivative on the segment",
            "no answer is longer than T tokens",
        ),
        uses=("G01.hessian", "G01.fisher", "G05.length"),
        tests=(
            _T5 + "steps_within_the_token_threshold_gain_half_the_first_order",
            _T5 + "bounds_that_are_too_small_break_it",
            _T5 + "answers_longer_than_told_break_it",
        ),
        evidence=(_CHECK + "g05_tokens",),
        note="The scaling that is reported for Theorem 3, with a reason for 1 − J in place of J(1 − J): only the "
        "variance over wrong answers lowers the curvature. `step_safety` turns it into learning rates.",
    ),
    Statement(
        id="G05.random",
        where="derived here",
        claim="For answers of random length T G_p² may be replaced by N G_p² and T L_p by N± L_p in G05.tokens, N ≥ "
        "E[length] and N± ≥ its means over correct and over wrong answers.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "G_p and L_p bound every token's score and its derivative on the segment",
            "N and N± bound the mean lengths on the segment",
        ),
        uses=("G05.tokens", "G05.length"),
        tests=(
            _T5 + "mean_lengths_are_enough",
            _T5 + "bounds_that_are_too_small_break_it",
            _T5 + "mean_lengths_that_are_too_short_break_it",
            _T5 + "steps_by_mean_lengths_are_longer",
        ),
        evidence=(_CHECK + "g05_random",),
        note="Without more knowledge the mean over wrong answers is at most E[length]/(1 − J).",
    ),
    Statement(
        id="G05.length",
        where="derived here",
        claim="E⟨u, s⟩² = Σ_t E⟨u, s_t⟩² ≤ G_p² E[length] for unit u: the mean length counts, not its square.",
        status=Status.HOLDS,
        tests=(
            _T5 + "scores_of_tokens_are_orthogonal",
            _T5 + "orthogonality_is_checked_to_the_last_digits",
        ),
        evidence=(_CHECK + "g05_length",),
    ),
    Statement(
        id="G05.azuma",
        where="derived here",
        claim="With at most T tokens of score ≤ G_p the variance of ⟨u, s⟩ over wrong answers is at most "
        "min{T G_p²/(1−J), 2T G_p²(1 + ln(2/(1−J)))}: it need only grow with a logarithm.",
        status=Status.HOLDS,
        uses=("G05.length",),
        tests=(_T5 + "variance_of_wrong_answers", _T5 + "the_logarithm_is_the_smaller_bound_near_success"),
        evidence=(_CHECK + "g05_azuma",),
    ),
    Statement(
        id="G05.linear",
        where="a reading of Theorem 3: the shrinkage is needed",
        claim="The threshold of a gap step is proportional to 1 − J.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(
            _T5 + "a_threshold_in_proportion_to_the_failure_rate_is_refuted",
            _T5 + "table_of_sixty_four_tokens",
            _T5 + "threshold_by_bisection",
            _T5 + "threshold_falls_like_one_over_the_length",
        ),
        counterexample=_CHECK + "g05_linear",
        corrected_by=("G05.azuma",),
        note="T independent tokens, c* = 2(1−J)/(T − Var⁺): from 1 − J = .90 to .0016 at T = 64 c*T/(1−J) grows from "
        "2 to 120 and c*T(1 + ln(2/(1−J))) falls from 3.24 to 1.53.",
    ),
    Statement(
        id="G06",
        where=f"abstract of {_PAPER}",
        claim="With a fixed learning rate, dividing by the standard deviation (GRPO) makes J stagnate below 1.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "the standard deviation of the policy, not of a finite group",
            "a threshold of the gap step that vanishes like 1 − J",
        ),
        uses=("G06.scale",),
        tests=(
            _T6 + "population_grpo_stagnates_where_predicted",
            _T6 + "finite_groups_do_not_stagnate_at_the_same_rate",
            _T6 + "tabular_policies_do_not_stagnate",
            _T6 + "the_many_runs_are_the_bandits_runs",
        ),
        evidence=(_CHECK + "g06_stagnation",),
        note="An instance derived here: three responses with (1−J)y'² → V. REINFORCE reaches J = 1 for lr < 2/V; "
        "population GRPO stands at √q/(1−q)^{3/2} = lr V cosh(y₀)/y₀², q = 1 − J: .10219, .24403, .42640 at lr = .2, "
        ".4, .8 for V = 2. Expected updates; a lone failing group still makes a noisy step.",
    ),
    Statement(
        id="G06.scale",
        where="derived here",
        claim="Expected update = lr ω(J) g: ω = J(1−J) for REINFORCE and leave-one-out, (1−1/G) of it for the group's "
        "mean, √(J(1−J)) for infinite groups, E√(p̂(1−p̂)) for groups of G (ddof 0), and that over 1 − J^G − (1−J)^G "
        "with dynamic sampling.",
        status=Status.HOLDS,
        uses=("G01",),
        tests=(
            _T6 + "multiple_of_the_gap_by_enumeration",
            _T6 + "closed_forms_of_the_multiple",
            _T6 + "how_the_multiple_vanishes",
        ),
        evidence=(_CHECK + "g06_scale",),
    ),
    Statement(
        id="G06.groups",
        where="derived here",
        claim="As J → 1 groups of G take ω → √(G−1)(1−J), so on the instance of G06 the ridge repels only from "
        "lr √(G−1) V = 2 on; with dynamic sampling ω → √(G−1)/G does not vanish, and every fixed rate stagnates.",
        status=Status.HOLDS,
        uses=("G06.scale",),
        tests=(
            _T6 + "rates_below_the_edge_converge_and_above_it_do_not",
            _T6 + "dynamic_sampling_stagnates_at_every_rate",
            _T6 + "reinforce_above_the_edge_can_stagnate",
        ),
        evidence=(_CHECK + "g06_groups",),
    ),
    Statement(
        id="G06.length",
        where=f"{_PAPER}: 1/T in GRPO matches the stability requirement (reported)",
        claim="Dividing each answer's loss by its own length still ascends: ⟨E update, g⟩ ≥ 0.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(
            _T6 + "dividing_by_each_answers_length_can_turn_the_update_round",
            _T6 + "dividing_by_one_length_only_rescales",
        ),
        counterexample=_CHECK + "g06_length",
        corrected_by=("E07.equal",),
        note="Answers of one and two tokens, one parameter: ∇J = (f₁ − f₂)/8 and the update (6f₁ − 4f₂)/64, of "
        "opposite signs for f₁ < f₂ < 3f₁/2. A constant divisor rescales only.",
    ),
)
"""Entries with ids G05 and G06."""
