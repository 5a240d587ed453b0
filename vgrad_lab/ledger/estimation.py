"""Ledger entries of estimation: value-gradient learning, hybrid estimators and variances (E01–E04)."""

from vgrad_lab.ledger.types import Statement, Status

_CHECK = "vgrad_lab.experiments.verify_estimation:"
_TESTS = "tests/statements/"

ESTIMATION: tuple[Statement, ...] = (
    Statement(
        id="E01",
        where="VGL(λ), Fairbank and Alonso 2012; derived here",
        claim=(
            "g'_t = Dr_t + γ Df_tᵀ(λ g'_{t+1} + (1−λ) g_w(s_{t+1})) is the costate for λ = 1, whatever g_w, and for "
            "every λ E[g'_t|s_t] = ∂V_t/∂s."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("λ = 1, or g_w is the value gradient", "the conditions of S07"),
        uses=("S04", "S06", "S07"),
        tests=(
            _TESTS + "test_e01.py::test_holds",
            _TESTS + "test_e01.py::test_a_poor_critic_is_biased",
            _TESTS + "test_s07.py::test_noise_that_knows_the_state",
        ),
        evidence=(_CHECK + "e01_exact_critic",),
        counterexample=_CHECK + "e01_poor_critic",
        note="The critic g_w = 0 with λ = ½ drops the first assumption.",
    ),
    Statement(
        id="E02",
        where="derived here",
        claim=(
            "At each step r_t and γR_{t+1} may each take either form: E[r_t ∂log π] = E[ā_θᵀ r_a] and "
            "E[γR_{t+1} ∂log π] = E[γ ā_θᵀ f_aᵀ λ_{t+1}]; all four mixtures have the mean ∂J/∂θ."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=(
            "a shift policy whose noise meets S08 for a ↦ r(s, a) and for a ↦ V_{t+1}(f(s, a))",
            "f is free of θ",
            "the conditions of S07",
        ),
        uses=("S07", "S08", "S12.per_step"),
        tests=(
            _TESTS + "test_e02.py::test_holds",
            _TESTS + "test_e02.py::test_uniform_noise_breaks_it",
            _TESTS + "test_s12.py::test_dynamics_that_know_theta_break_it",
            _TESTS + "test_s07.py::test_noise_that_knows_the_state",
        ),
        evidence=(_CHECK + "e02_hybrids",),
        counterexample=_CHECK + "e02_uniform",
        note="With the score form for r_t alone, a reward that jumps in its own action is allowed.",
    ),
    Statement(
        id="E03",
        where="after eq. 3, derived here",
        claim=(
            "One Gaussian step, a ~ N(θ, σ²): Var(pathwise), Var(score function) are 0, θ²/σ² + 2 for r = a and 4σ², "
            "θ⁴/σ² + 14θ² + 15σ² for r = a²; both in closed form for sin ωa and for a linear-quadratic step."
        ),
        status=Status.HOLDS,
        tests=(
            _TESTS + "test_e03.py::test_holds",
            _TESTS + "test_e03.py::test_order_of_the_variances",
        ),
        evidence=(_CHECK + "e03_variances",),
        note=(
            "For a and a² the pathwise variance is the smaller one at every θ and σ; for the sine see S03.variance. A "
            "constant baseline b adds (b² − 2bb*)/σ² to the score function's, least at b* = E[r u²]/E[u²], u the score."
        ),
    ),
    Statement(
        id="E04",
        where="derived here",
        claim=(
            "Linear-quadratic system, features φ = Cz of z = (s, 1): VGL(λ) learns an affine critic, and the gradient "
            "through it has the mean Σ_t γ^{t−1}(−2RK + γBᵀY_{t+1}M) E[z_t z_tᵀ], Y_t = λX_t + (1−λ)W_t: its bias is "
            "exact, 0 for φ = z or λ = 1."
        ),
        status=Status.HOLDS,
        uses=("S05", "S06"),
        tests=(
            _TESTS + "test_e04.py::test_holds",
            _TESTS + "test_e04.py::test_bias_falls_with_decay",
        ),
        evidence=(_CHECK + "e04_bias",),
        note="In the limit of many rollouts for the fit; the value_gradient_learning experiment fits on few.",
    ),
)
"""E01–E04."""
