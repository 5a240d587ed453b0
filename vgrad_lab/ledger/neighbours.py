"""Ledger entries of soft tokens (K09), particles of value gradient flow (K10), equal rewards in float32 (K11)."""

from vgrad_lab.ledger.types import Statement, Status

_CHECK = "vgrad_lab.experiments.verify_neighbours:"
_T9 = "tests/statements/test_k09.py::"
_T10 = "tests/statements/test_k10.py::"
_T11 = "tests/statements/test_k11.py::"
_SOFT = "SofT-GRPO, arXiv 2511.06411"
_FLOW = "value gradient flow, arXiv 2604.14265 (secondary source)"

NEIGHBOURS: tuple[Statement, ...] = (
    Statement(
        id="K09",
        where=f"{_SOFT}; derived here",
        claim=(
            "g = log p + Gumbel noise, y = softmax(g/τ): E[f(y) ∂Σ_j(−z_j − e^{−z_j})] = ∂E[f(y)] for bounded f, "
            "z = g − log p with the drawn g held fixed. A likelihood ratio, not a pathwise derivative."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("the log density is the sum over all entries", "the noise is not clamped", "its scale is 1"),
        uses=("S02.dominated",),
        tests=(
            _T9 + "test_holds",
            _T9 + "test_the_average_is_a_fraction",
            _T9 + "test_a_clamp_breaks_it",
            _T9 + "test_another_scale_breaks_it",
        ),
        evidence=(_CHECK + "k09_density",),
        note="By quadrature: x_j = e^{−g_j} are exponential variables, and y only sees their ratios.",
    ),
    Statement(
        id="K09.average",
        where=f"{_SOFT}, its code",
        claim="The log density averaged over the entries with log p > −3 has the same expected gradient.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T9 + "test_the_average_is_a_fraction", _T9 + "test_dropped_entries_turn_it"),
        counterexample=_CHECK + "k09_average",
        corrected_by=("K09",),
        note=(
            "With k entries everywhere it is 1/k of it, a learning rate; as k differs between tokens it weighs them "
            "differently, and entries that are dropped turn it within a token."
        ),
    ),
    Statement(
        id="K09.clamp",
        where=f"{_SOFT}, its code",
        claim="With the noise clamped to [−1.5, 3] the gradient of that log density stays unbiased.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T9 + "test_a_clamp_breaks_it",),
        counterexample=_CHECK + "k09_clamp",
        corrected_by=("K09",),
        note=(
            "Clamped noise has atoms at both bounds: shifted, its law has no density with respect to the old one, and "
            "so no likelihood ratio exists (compare S08). Stopping the derivative at the bounds is worse: 0.158 "
            "against 0.199 and the true 0.219."
        ),
    ),
    Statement(
        id="K09.scale",
        where="derived here",
        claim="For noise sG the log density of G at z = sG serves as well.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T9 + "test_another_scale_breaks_it",),
        counterexample=_CHECK + "k09_scale",
        corrected_by=("K09",),
        note="Its derivative has the mean 1 − Γ(1 + s). The log density of sG is −z/s − e^{−z/s} and a constant.",
    ),
    Statement(
        id="K09.marginal",
        where="derived here",
        claim=(
            "The density of y itself has the same expected gradient, s_j = 1 − V p_j e^{−g_j}/Σ_k p_k e^{−g_k} in "
            "log p_j, and a second moment smaller by E[f² (1 − s_j)²]/V."
        ),
        status=Status.HOLDS,
        tests=(_T9 + "test_marginal", _T9 + "test_holds"),
        evidence=(_CHECK + "k09_marginal",),
        note="Given y the derivative for g is s_j plus noise that no reward of y can tell from zero.",
    ),
    Statement(
        id="K10",
        where=f"{_FLOW}, read as KL regularisation",
        claim=(
            "Particles that follow φ(x) = E_j[k(a_j, x) ∂R(a_j)/α + ∂k(a_j, x)] come to rest spread as the "
            "KL-regularised optimum ref(a) e^{R(a)/α}."
        ),
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T10 + "test_reference_is_forgotten",),
        counterexample=_CHECK + "k10_reference",
        corrected_by=("K10.rest", "K10.target"),
        note="The flow holds no ∂log ref: the reference enters through the start and the number of steps only.",
    ),
    Statement(
        id="K10.rest",
        where=f"{_FLOW}; derived here",
        claim="The mean direction φ vanishes everywhere when the particles are spread as e^{R(a)/α}.",
        status=Status.HOLDS_UNDER,
        assumptions=("e^{R/α} is a density that vanishes at the border of the action space",),
        uses=("S08",),
        tests=(_T10 + "test_rest", _T10 + "test_a_border_breaks_it"),
        evidence=(_CHECK + "k10_rest",),
        note="Integration by parts (Stein's identity). The source is said to state this target, ∝ e^{R/α}.",
    ),
    Statement(
        id="K10.target",
        where="folklore",
        claim="ref e^{R/α}, normalised, maximises E[R] − α KL(·‖ref), by α KL(q‖it) over any other q.",
        status=Status.HOLDS,
        tests=(_T10 + "test_target",),
        evidence=(_CHECK + "k10_target",),
        note="Over finitely many actions; the value is α log Σ ref e^{R/α}, eq. 28's tilt (S24).",
    ),
    Statement(
        id="K10.budget",
        where=_FLOW,
        claim=(
            "L steps of size ε: MMD² between start and end ≤ (2εL/(σ√e))(c/α + 1/(σ√e)), c a bound on ‖∂R‖. Sharper, "
            "derived here: 2 − 2e^{−D²/2σ²} with D = εL(c/α + 1/(σ√e))."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("‖∂R‖ ≤ c where the particles go", "flow and MMD share a Gaussian kernel of bandwidth σ"),
        tests=(
            _T10 + "test_budget",
            _T10 + "test_a_steeper_reward_breaks_the_budget",
            _T10 + "test_another_bandwidth_breaks_the_budget",
        ),
        evidence=(_CHECK + "k10_budget",),
        note="For small D the stated bound is linear in D, the sharper one quadratic.",
    ),
    Statement(
        id="K10.best_of_n",
        where=_FLOW,
        claim="Without a step it is best of N: the expected reward is Σ_r r (P(R ≤ r)^N − P(R < r)^N).",
        status=Status.HOLDS,
        tests=(_T10 + "test_best_of_n",),
        evidence=(_CHECK + "k10_best_of_n",),
        note="The particles independent draws of the reference.",
    ),
    Statement(
        id="K10.ascent",
        where="derived here",
        claim="As α → 0 a small step raises the mean reward: its slope is (1/N²) Σ_ij k_ij ∂R_i·∂R_j ≥ 0.",
        status=Status.HOLDS_UNDER,
        assumptions=("no repulsion",),
        tests=(_T10 + "test_ascent", _T10 + "test_repulsion_breaks_the_ascent"),
        evidence=(_CHECK + "k10_ascent",),
        note="The kernel matrix is positive semidefinite.",
    ),
    Statement(
        id="K10.summit",
        where="folklore",
        claim="More steps never lose what best of N found: the largest reward does not fall.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T10 + "test_summit",),
        counterexample=_CHECK + "k10_summit",
        corrected_by=("K10.ascent",),
        note="The kernel hands a particle on the summit its neighbours' slopes; the mean rises all the same.",
    ),
    Statement(
        id="K11",
        where="folklore; advantages in TRL, verl and the Dr. GRPO repository",
        claim="A group whose rewards are equal has zero advantages: (r − r̄)/(s + ε) in float32.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T11 + "test_three_conventions", _T11 + "test_zero_and_one"),
        counterexample=_CHECK + "k11_equal",
        corrected_by=("K11.exact",),
        note=(
            "|Â| with ε = 1e-4 (TRL), 1e-6 (verl), 1e-8 (Dr. GRPO repository): eight times 0.7: 6e-4, 0.056, 0.81; "
            "eight times 0.1: 7e-5, 7e-3, 0.41; five times 123.456: 0.07, 0.80, 0.89. torch.std over the rows of a "
            "matrix finds a spread of exactly 0, and then 5.96, 0.75, 763 with 1e-8."
        ),
    ),
    Statement(
        id="K11.exact",
        where="derived here",
        claim="With Â = 0 wherever max r = min r the advantages of equal rewards are zero, in every float type.",
        status=Status.HOLDS,
        tests=(_T11 + "test_ours",),
        evidence=(_CHECK + "k11_exact",),
        note="Comparison does not round. Rewards of 0 and 1 are exact in all conventions.",
    ),
)
"""K09–K11."""
