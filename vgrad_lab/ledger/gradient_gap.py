"""Ledger entries of the gradient gap: identities, step bounds, collapse (G01-G04).

The gradient-gap paper (arXiv 2510.08539) is known through its abstract and secondary sources: "reported" marks what
those say that it states, "derived here" everything else.
"""

from vgrad_lab.ledger.gradient_gap_tokens import ALGORITHMS
from vgrad_lab.ledger.types import Statement, Status

_GAP = "vgrad_lab.experiments.verify_gradient_gap:"
_STEP = "vgrad_lab.experiments.verify_thresholds:"
_T1, _T2, _T3, _T4 = (f"tests/statements/test_g0{i}.py::test_" for i in range(1, 5))
_PAPER = "the gradient-gap paper"

GRADIENT_GAP: tuple[Statement, ...] = (
    Statement(
        id="G01",
        where=f"{_PAPER}, identity for ∇J (reported); derived here",
        claim="∇J = J(1−J)(g⁺ − g⁻), g⁺ and g⁻ the mean scores of correct and of wrong responses; g⁺ = (1−J)g, "
        "g⁻ = −Jg, and the gap g = g⁺ − g⁻ is the gradient of the log-odds log J/(1−J).",
        status=Status.HOLDS_UNDER,
        assumptions=("rewards are 0 or 1, and 0 < J < 1",),
        tests=(
            _T1 + "identity",
            _T1 + "real_rewards_break_the_identity",
            _T1 + "the_gap_is_the_slope_of_the_log_odds",
            _T1 + "a_tree_agrees_with_its_own_recursion",
            _T1 + "the_identity_finds_a_fault",
        ),
        evidence=(_GAP + "g01_gap",),
        note="That g is a gradient, and that g⁺ and g⁻ are multiples of it, is derived here.",
    ),
    Statement(
        id="G01.hessian",
        where="derived here",
        claim="∇² log J/(1−J) = E⁺[H] − E⁻[H] + Cov⁺(s) − Cov⁻(s), s the score and H its derivative.",
        status=Status.HOLDS,
        uses=("G01",),
        tests=(_T1 + "second_derivative",),
        evidence=(_GAP + "g01_hessian",),
    ),
    Statement(
        id="G01.step",
        where="derived here",
        claim="Over any finite step the log-odds change by log E⁺[ρ] − log E⁻[ρ], ρ = π'/π.",
        status=Status.HOLDS,
        tests=(_T1 + "finite_steps",),
        evidence=(_GAP + "g01_step",),
    ),
    Statement(
        id="G01.fisher",
        where="derived here",
        claim="J(1−J)‖g‖² ≤ λ_max(F), F the Fisher information of the responses; so arcsin √J is "
        "½√λ_max-Lipschitz in θ. Both are equalities for two responses.",
        status=Status.HOLDS,
        uses=("G01",),
        tests=(_T1 + "information_bounds_the_gap", _T1 + "information_bound_is_attained"),
        evidence=(_GAP + "g01_fisher",),
    ),
    Statement(
        id="G02",
        where=f"{_PAPER}, Theorem 1 (reported)",
        claim="With steps η_k ≤ [Δμ_k]₊/(2(L_o + 8G_o²)) along w_k, Δμ = ⟨w, g⟩, J never falls and "
        "J(K) ≥ J₀/(J₀ + (1−J₀)e^{−M/2}), M = Σ[Δμ_k]₊η_k.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "G_o and L_o bound scores and their derivatives on the whole segment of each step",
            "‖w_k‖ = 1",
            "the step stays under the threshold",
        ),
        uses=("G02.bound",),
        tests=(
            _T2 + "reported_theorem_and_its_converse",
            _T2 + "bounds_at_the_start_alone_are_not_enough",
            _T2 + "a_direction_that_is_not_of_norm_one_breaks_it",
            _T2 + "a_step_above_the_threshold_breaks_it",
            _T2 + "the_curves_of_the_theorem",
        ),
        evidence=(_GAP + "g02_theorem",),
        note="Constants as a secondary source reports them; the unit norm and the meaning of G_o and L_o are inferred. "
        "The threshold is 2 (curvature rules) to 32 times (scores rule) below the derived edge Δμ/(L_o + G_o²/2).",
    ),
    Statement(
        id="G02.bound",
        where="derived here",
        claim="For unit w the log-odds change by ηΔμ ± η²(L_o + G_o²/2) at most; neither coefficient can be lowered.",
        status=Status.HOLDS,
        uses=("G01.hessian",),
        tests=(_T2 + "two_sided_bound", _T2 + "neither_coefficient_can_be_lowered"),
        evidence=(_GAP + "g02_bound",),
    ),
    Statement(
        id="G02.converse",
        where="derived here",
        claim="Under the threshold of G02 J(K) ≤ J₀/(J₀ + (1−J₀)e^{−(1+ρ)M}), ρ = (L_o + G_o²/2)/(2(L_o + 8G_o²)) ≤ ½; "
        "J → 1 iff M → ∞, and J ≤ J* < 1 bounds M by 2(logit J* − logit J₀).",
        status=Status.HOLDS_UNDER,
        assumptions=("the assumptions of G02",),
        uses=("G02.bound",),
        tests=(
            _T2 + "reported_theorem_and_its_converse",
            _T2 + "a_step_above_the_threshold_may_exceed_the_ceiling",
            _T2 + "a_plateau_bounds_the_progress",
        ),
        evidence=(_GAP + "g02_converse",),
        note="So M → ∞ is a property of the policy class, not of the steps: it fails wherever sup J < 1.",
    ),
    Statement(
        id="G02.tabular",
        where="derived here",
        claim="For a tabular softmax ‖g‖² ≥ 1/n⁺ + 1/n⁻, n⁺ correct and n⁻ wrong responses, with equality where both "
        "classes are uniform: at the threshold of G02 M → ∞, though Σ‖∇J‖² is finite.",
        status=Status.HOLDS,
        uses=("G01",),
        tests=(
            _T2 + "tabular_gap_is_bounded_below",
            _T2 + "tabular_progress_diverges_though_the_gradients_can_be_summed",
        ),
        evidence=(_GAP + "g02_tabular",),
    ),
    Statement(
        id="G03",
        where=f"{_PAPER}, Theorem 2 (reported)",
        claim="Even with perfect alignment a step that is too large can lower J at every iteration and drive it to 0.",
        status=Status.HOLDS,
        tests=(
            _T3 + "washboard_collapses_with_perfect_alignment",
            _T3 + "the_collapse_is_far_above_the_threshold",
        ),
        evidence=(_STEP + "g03_collapse",),
        note="The theorem's own step condition could not be read; the instance is derived here: log-odds "
        "sin θ − εθ/2π and steps of 2π give exactly −εk. For ε = ½ bounds over the first step are G_o = .6626 and "
        "L_o = .7975, so the reported threshold is .1067 and the derived edge .905 (the audit's .0673 and .716 take "
        "suprema over a longer stretch; over all θ ≥ 0 the threshold is .0446).",
    ),
    Statement(
        id="G03.softmax",
        where="derived here",
        claim="On a finite linear softmax steps of bounded length along the gap cannot drive J to 0: where "
        "log J/(1−J) < −ln n⁻ − η‖g‖/2, n⁻ wrong responses, they shorten θ.",
        status=Status.HOLDS_UNDER,
        assumptions=("logits linear in θ, finitely many responses", "steps along the gap", "steps of bounded length"),
        uses=("G01",),
        tests=(
            _T3 + "rare_success_shortens_theta",
            _T3 + "other_parameters_collapse",
            _T3 + "misaligned_steps_collapse",
            _T3 + "growing_steps_collapse",
            _T3 + "bounded_gap_steps_on_linear_softmax_do_not_collapse",
        ),
        evidence=(_STEP + "g03_softmax",),
    ),
    Statement(
        id="G03.tabular",
        where="derived here",
        claim="With one logit per response, or two responses and linear logits, a step along the gap never lowers J, "
        "whatever its size; with one logit per response nor does the step of a sampled group.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "one logit per response, or two responses and linear logits",
            "the exact update, or advantages of a group that sum to zero",
        ),
        uses=("G01",),
        tests=(
            _T3 + "tabular_and_two_arms_never_fall",
            _T3 + "shared_features_fall",
            _T3 + "one_sample_without_a_baseline_falls_even_when_tabular",
        ),
        evidence=(_STEP + "g03_tabular",),
        note="So a demonstration of any threshold needs three responses and shared features, or curved logits.",
    ),
    Statement(
        id="G03.separable",
        where="derived here",
        claim="Where a unit direction separates the correct from the wrong features by γ, steps θ + c g from 0 exceed "
        "log-odds C within (2(C + ln n⁻)/c + D²)/γ² updates, for every c.",
        status=Status.HOLDS_UNDER,
        assumptions=("linear, separable features", "the gap itself, not J(1−J) of it"),
        uses=("G01",),
        tests=(
            _T3 + "separable_arms_are_learnt_at_any_multiple",
            _T3 + "arms_that_are_not_separable_are_not",
            _T3 + "an_update_scaled_by_the_success_rate_can_get_stuck",
        ),
        evidence=(_STEP + "g03_separable",),
        note="The perceptron's argument. A scaled update vanishes where an overshoot left J ≈ 0, and is stuck there.",
    ),
    Statement(
        id="G03.control",
        where="derived here",
        claim="A realisable linear contextual bandit shows no step-size threshold.",
        status=Status.EMPIRICAL,
        uses=("G03.separable",),
        tests=(
            _T3 + "control_has_no_threshold_at_moderate_rates",
            _T3 + "control_gets_stuck_at_large_rates_for_some_seeds",
        ),
        note="4 contexts, 10 arms, 6 features, 12 seeds, 200 exact updates: at rate 1 REINFORCE ends at J = .895 to "
        ".996 and population GRPO at .990 to 1.000, at rate 10 every run at .995 or more. At 30 three of twelve runs "
        "of either, at 100 three and five of them stand at .75 or .5, with contexts at J ≈ 0; of eleven stuck runs "
        "followed to 1500 updates one recovered. The audit saw no stuck run on three seeds: the control holds at "
        "moderate rates only.",
    ),
    Statement(
        id="G04",
        where="derived here",
        claim="Linear softmax: ∇²l = Cov⁺(x) − Cov⁻(x), l(θ+u) − l(θ) = K⁺ − K⁻ (cumulant generating functions of u·x "
        "in both classes), which is ⟨u, g⟩ ± ‖u‖²D²/8 at most; a step c g with c ≤ 8/D² never lowers J.",
        status=Status.HOLDS_UNDER,
        assumptions=("logits linear in θ",),
        uses=("G01.step",),
        tests=(
            _T4 + "cumulant_form_and_bound",
            _T4 + "logits_that_are_not_linear_break_the_bound",
            _T4 + "a_gap_step_below_eight_over_the_square_of_the_diameter_rises",
        ),
        evidence=(_STEP + "g04_linear",),
    ),
    Statement(
        id="G04.sharp",
        where="derived here",
        claim="8/D² is sharp: on three arms 0 (correct) and ±x a step c g lowers J from no start iff c ≤ 2/x² = 8/D²; "
        "above, the run ends in a two-cycle c x tanh(xθ*) = 2θ*. A unit step lowers J iff η > 2 abs θ.",
        status=Status.HOLDS,
        uses=("G04",),
        tests=(
            _T4 + "threshold_by_bisection",
            _T4 + "above_the_threshold_a_cycle_attracts",
            _T4 + "below_the_threshold_it_converges",
            _T4 + "a_unit_step_falls_from_twice_the_distance_on",
        ),
        evidence=(_STEP + "g04_sharp",),
    ),
    *ALGORITHMS,
)
"""Entries with ids G01-G06."""
