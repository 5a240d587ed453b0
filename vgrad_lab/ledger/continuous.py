"""Ledger entries of the continuous floor: S01–S09, S11, S12 and their corrections (S10 is one of advantages)."""

from vgrad_lab.ledger.one_step import ONE_STEP
from vgrad_lab.ledger.types import Statement, Status

_ROLLOUT = "vgrad_lab.experiments.verify_continuous:"
_THETA = "vgrad_lab.experiments.verify_continuous_theta:"
_STEP = "vgrad_lab.experiments.verify_continuous_one_step:"
_TESTS = "tests/statements/"

CONTINUOUS: tuple[Statement, ...] = (
    Statement(
        id="S01",
        where="Def. 1",
        claim="Differentiable π, f, r and a noise law free of θ suffice for ∂J/∂θ = E[∂R_1/∂θ].",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_TESTS + "test_s01.py::test_counterexample",),
        counterexample=_STEP + "s01_gelbaum_olmsted",
        corrected_by=("S01.dominated", "S01.dependent"),
    ),
    Statement(
        id="S01.dominated",
        where="derived here",
        claim="∂J/∂θ = E[∂R_1/∂θ] along a rollout.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "near θ, R_1(·, ξ) is Lipschitz with a constant L(ξ) of finite mean, and differentiable for almost every ξ",
            "the laws of ξ and s_1 and the reward are free of θ",
        ),
        uses=("S05",),
        tests=(
            _TESTS + "test_s01.py::test_interchange_holds",
            _TESTS + "test_s01.py::test_counterexample",
            _TESTS + "test_s01.py::test_without_a_fixed_noise_law_it_fails",
        ),
        evidence=(_STEP + "s01_interchange",),
        note="The first assumption is dropped by the counterexample of S01, the second by a noise of mean θ.",
    ),
    Statement(
        id="S02",
        where="eq. 2",
        claim="The score-function form is valid whenever p(x; θ) is differentiable in θ.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_TESTS + "test_s02.py::test_counterexample", _TESTS + "test_s02.py::test_sign_density"),
        counterexample=_STEP + "s02_moving_support",
        corrected_by=("S02.dominated",),
    ),
    Statement(
        id="S02.dominated",
        where="derived here",
        claim="∂E[c(x)] = E[c(x) ∂log p(x; θ)], whatever the jumps of c; over finitely many x it is always exact.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "the support of p does not move with θ",
            "near θ, |c ∂_θ p| is bounded by one integrable function",
        ),
        tests=(
            _TESTS + "test_s02.py::test_holds",
            _TESTS + "test_s02.py::test_counterexample",
            _TESTS + "test_s02.py::test_sign_density",
        ),
        evidence=(_STEP + "s02_dominated",),
        note="U(0, θ) drops the first assumption, the density ½(1 + sgn x·ψ(θ/|x|)) the second.",
    ),
    Statement(
        id="S03",
        where="eq. 3",
        claim="The pathwise derivative is valid if c(x(z, θ)) is differentiable almost everywhere.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_TESTS + "test_s03.py::test_counterexample",),
        counterexample=_STEP + "s03_heaviside",
        corrected_by=("S03.continuous", "S03.variance"),
    ),
    Statement(
        id="S03.continuous",
        where="derived here",
        claim="∂E[c(θ + z)] = E[c'(θ + z)], with c' almost everywhere.",
        status=Status.HOLDS_UNDER,
        assumptions=("c is locally absolutely continuous with a slope that is integrable, uniformly near θ",),
        tests=(_TESTS + "test_s03.py::test_holds", _TESTS + "test_s03.py::test_counterexample"),
        evidence=(_STEP + "s08_lemma",),
        note="The Heaviside cost of S03 drops the assumption.",
    ),
    Statement(
        id="S03.variance",
        where="after eq. 3, derived here",
        claim="For c = sin ωx, x ~ N(θ, 1) at θ = 0, the pathwise variance is the smaller one below ω = 1.109 only.",
        status=Status.HOLDS,
        tests=(_TESTS + "test_s03.py::test_variances", _TESTS + "test_s03.py::test_flip"),
        evidence=(_STEP + "s03_variance",),
        note="The paper calls the pathwise form typically of lower variance. Crossing at ω = 1.10899 by bisection.",
    ),
    Statement(
        id="S04",
        where="Prop. 1, eq. 6",
        claim="λ_t = Dr_t + γ Df_tᵀ λ_{t+1} with λ_{T+1} = 0 is ∂R_t/∂s_t along every differentiable rollout.",
        status=Status.HOLDS,
        tests=(
            _TESTS + "test_s04.py::test_costates_equal_autograd",
            _TESTS + "test_s04.py::test_taylor_rate_is_two",
            _TESTS + "test_s04.py::test_recursion_holds_at_each_step",
            _TESTS + "test_s04.py::test_every_environment_and_noise",
        ),
        evidence=(_ROLLOUT + "s04_adjoint",),
    ),
    Statement(
        id="S05",
        where="Prop. 1, eq. 7",
        claim="∂R_1/∂θ = Σ_t γ^{t−1} (γ f_θᵀ λ_{t+1} + ā_θᵀ (r_a + γ f_aᵀ λ_{t+1})).",
        status=Status.HOLDS_UNDER,
        assumptions=("s_1 is free of θ", "r has no direct dependence on θ"),
        uses=("S04",),
        tests=(
            _TESTS + "test_s05.py::test_gradient_equals_autograd",
            _TESTS + "test_s05.py::test_taylor_rate_is_two",
            _TESTS + "test_s05.py::test_each_assumption_is_needed",
        ),
        evidence=(_ROLLOUT + "s05_parameter_gradient",),
        counterexample=_ROLLOUT + "s05_initial_state",
        corrected_by=("S05.extra",),
    ),
    Statement(
        id="S05.extra",
        where="derived here",
        claim="With θ in s_1 and r as well, (∂s_1/∂θ)ᵀ λ_1 + Σ_t γ^{t−1} r_θ is to be added to eq. 7.",
        status=Status.HOLDS,
        uses=("S04",),
        tests=(
            _TESTS + "test_s05.py::test_extra_terms",
            _TESTS + "test_s05.py::test_all_terms_are_the_true_derivative",
            _TESTS + "test_s05.py::test_equation_7_is_off_by_the_missing_terms",
            _TESTS + "test_s05.py::test_mean_return_by_differences",
        ),
        evidence=(_ROLLOUT + "s05_extra", _THETA + "s05_terms"),
        note=(
            "`systems.shared_point_mass` shows it: actuator gain (f_θ, in eq. 7), price of an action and start (not in "
            "eq. 7) depend on the policy's θ; `estimators.pathwise_terms` gives each term."
        ),
    ),
    Statement(
        id="S06",
        where="eq. 8",
        claim="∂V_t/∂s = E[Dr_t + γ Df_tᵀ G_{t+1}(s_{t+1}) | s_t = s].",
        status=Status.HOLDS_UNDER,
        assumptions=("the interchange in s: S01.dominated with s_t in the place of θ",),
        uses=("S04", "S01.dominated"),
        tests=(_TESTS + "test_s06.py::test_holds", _TESTS + "test_s06.py::test_without_domination_it_fails"),
        evidence=(_ROLLOUT + "s06_bellman",),
        note="It differentiates the value recursion; the paper writes that it differentiates eq. 6.",
    ),
    Statement(
        id="S07",
        where="eq. 9",
        claim="E[λ_t | s_t = s] = ∂V_t/∂s: the costate is an unbiased sample of the value gradient.",
        status=Status.HOLDS_UNDER,
        assumptions=("the interchange in s, as in S06", "ξ_t, …, ξ_T are independent of s_t"),
        uses=("S04", "S01.dominated"),
        tests=(
            _TESTS + "test_s07.py::test_antithetic_pair_is_exact",
            _TESTS + "test_s07.py::test_noise_that_knows_the_state",
            _TESTS + "test_s06.py::test_without_domination_it_fails",
        ),
        evidence=(_ROLLOUT + "s07_value_gradient",),
        counterexample=_ROLLOUT + "s07_dependent_noise",
    ),
    Statement(
        id="S08",
        where="Lemma 1, eq. 10",
        claim="For a shift policy E[r ∂log π] = ā_θᵀ E[r_a].",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "r(ā + ·)ν is locally absolutely continuous",
            "rν', r'ν and rν are integrable",
        ),
        tests=(
            _TESTS + "test_s08.py::test_lemma",
            _TESTS + "test_s08.py::test_uniform_noise",
            _TESTS + "test_s08.py::test_slope_without_a_mean",
        ),
        evidence=(_STEP + "s08_lemma",),
        counterexample=_STEP + "s08_uniform",
        corrected_by=("S08.jump", "S08.surface", "S08.singular"),
        note=(
            "The paper's hypotheses are too strong (Laplace noise and |a| are fine, no boundary term needs to vanish "
            "separately) and too weak (Gaussian ν and the bounded smooth r = sin(a e^{a²/2}) have E|r'| = ∞)."
        ),
    ),
    Statement(
        id="S08.jump",
        where="derived here",
        claim="For piecewise absolutely continuous r and ν, PD = SF − Σ_x [r(ā + ·)ν]_x, the sum over the jumps of rν.",
        status=Status.HOLDS,
        tests=(
            _TESTS + "test_s08.py::test_jump_formula",
            _TESTS + "test_s08.py::test_truth_in_closed_form",
            _TESTS + "test_s08.py::test_reference_numbers",
            _TESTS + "test_s08.py::test_both_forms_agree_and_are_wrong",
        ),
        evidence=(_STEP + "s08_jump",),
        note="Agreement proves neither form: under U(−1, 1) and the Heaviside reward both are 0, and ∂E r is ½.",
    ),
    Statement(
        id="S09",
        where="eq. 11",
        claim="E[Â r ∂log π] = ā_θᵀ E[∂(Â r)/∂a] with Â a stop-gradient scalar is the GRPO update.",
        status=Status.FAILS_AS_WRITTEN,
        uses=("S08",),
        tests=(_TESTS + "test_s09.py::test_counterexample",),
        counterexample=_STEP + "s09_stopped",
        corrected_by=("S09.unstopped", "S09.standardised"),
        note="GRPO's term is Â ∂log π: eq. 11 counts the reward twice. With Â independent of a, E[Â ∂log π] = 0.",
    ),
    Statement(
        id="S09.unstopped",
        where="derived here",
        claim=(
            "E[Â_i ∂log π(a_i)] = ā' E[∂Â_i/∂a_i] = c ∂μ, c = 1 leave-one-out, c = 1 − 1/n group mean; "
            "and E[Â r ∂log π] = ∂Var(r) + μ∂μ leave-one-out."
        ),
        status=Status.HOLDS,
        tests=(_TESTS + "test_s09.py::test_holds",),
        evidence=(_STEP + "s09_unstopped",),
        note="Checked for polynomial rewards under Gaussian noise, groups of 2 to 4; divided by s: S09.standardised.",
    ),
    Statement(
        id="S11",
        where="eq. 12",
        claim="The quantity that GRPO's backward pass propagates is the costate λ_t = ∂R_t/∂s_t, with mean G_t.",
        status=Status.FAILS_AS_WRITTEN,
        uses=("S07",),
        tests=(_TESTS + "test_s11.py::test_counterexample",),
        counterexample=_ROLLOUT + "s11_direct_reward",
        corrected_by=("S11.direct",),
    ),
    Statement(
        id="S11.direct",
        where="derived here",
        claim=(
            "With actions held fixed in ℓ_k, G_t = E λ̂_t + E Σ_k γ^{k−t} (∂s_k/∂s_t)ᵀ r_s; the second term vanishes "
            "when the reward sees actions only."
        ),
        status=Status.HOLDS,
        uses=("S07", "S08"),
        tests=(_TESTS + "test_s11.py::test_holds", _TESTS + "test_s11.py::test_reward_of_actions_only"),
        evidence=(_ROLLOUT + "s11_direct_path",),
        note="Under the conditions of S07 and S08; an outcome reward of a token sequence sees actions only.",
    ),
    Statement(
        id="S12",
        where="Cor. 1",
        claim="The terms of eq. 11 with h = r(s_t, a_t) sum to the BPTT adjoint update in expectation.",
        status=Status.FAILS_AS_WRITTEN,
        uses=("S09", "S11"),
        tests=(_TESTS + "test_s12.py::test_counterexample",),
        counterexample=_ROLLOUT + "s12_myopic",
        corrected_by=("S12.per_step",),
    ),
    Statement(
        id="S12.per_step",
        where="derived here",
        claim="For each t, E[R_t ∂log π(a_t|s_t)] = E[ā_θᵀ (r_a + γ f_aᵀ λ_{t+1})]; γ^{t−1} times it sums to eq. 7.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "a shift policy whose noise meets S08 for a ↦ Q_t(s, a)",
            "f is free of θ",
            "the conditions of S07",
        ),
        uses=("S05", "S07", "S08"),
        tests=(
            _TESTS + "test_s12.py::test_holds",
            _TESTS + "test_s12.py::test_uniform_noise_breaks_it",
            _TESTS + "test_s12.py::test_dynamics_that_know_theta_break_it",
            _TESTS + "test_s07.py::test_noise_that_knows_the_state",
        ),
        evidence=(_ROLLOUT + "s12_per_step",),
    ),
    *ONE_STEP,
)
"""S01–S09, S11, S12 with corrections."""
