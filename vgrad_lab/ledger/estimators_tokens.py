"""Ledger entries of the estimator table: lengths (E07), the U-statistic (E08), PPO with any critic (E09)."""

from vgrad_lab.ledger.types import Statement, Status

_CHECK = "vgrad_lab.experiments.verify_estimators_tokens:"
_T7 = "tests/statements/test_e07.py::"
_T8 = "tests/statements/test_e08.py::"
_T9 = "tests/statements/test_e09.py::"

TOKENS: tuple[Statement, ...] = (
    Statement(
        id="E07",
        where="GRPO, arXiv 2402.03300",
        claim="The factor 1/|o_i| before the sum over tokens leaves the expected direction parallel to ∇J.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T7 + "test_counterexample", _T7 + "test_lengths_bend_the_direction"),
        counterexample=_CHECK + "e07_length",
        corrected_by=("E07.effective", "E07.equal"),
        note=(
            "On the reference tree the cosine is 0.9421 at every G, 0.9342 with the standard deviation at G = 4. With "
            "shared parameters the step can go downhill (G06.length). For costates the same is S21.length."
        ),
    ),
    Statement(
        id="E07.effective",
        where="derived here",
        claim=(
            "With 1/|o_i| and the group's mean as baseline the expectation is (G−1)/G E[(R − J)/|o| g], the policy "
            "gradient of the reward (R − J)/|o|, J held fixed. Its direction does not depend on G."
        ),
        status=Status.HOLDS,
        uses=("E05.mean",),
        tests=(_T7 + "test_effective_reward", _T7 + "test_the_bend_does_not_fade_with_the_group"),
        evidence=(_CHECK + "e07_effective",),
        note="A wrong answer is pushed down the less the longer it is, and a right one up the less.",
    ),
    Statement(
        id="E07.equal",
        where="derived here",
        claim="1/|o_i| and the mean over the group's tokens both divide the direction of every group by T, no more.",
        status=Status.HOLDS_UNDER,
        assumptions=("all answers have T tokens",),
        tests=(_T7 + "test_equal_lengths", _T7 + "test_lengths_bend_the_direction"),
        evidence=(_CHECK + "e07_equal",),
    ),
    Statement(
        id="E07.gspo",
        where="GSPO, arXiv 2507.18071; derived here",
        claim=(
            "The gradient of Σ_i Â_i s_i, s_i = (π(o_i)/π_old(o_i))^{1/|o_i|}, is that of GRPO's original loss, Σ_i "
            "Â_i (1/|o_i|) Σ_t g_{i,t}: GSPO inherits the length factor."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("on-policy: π = π_old, so nothing is clipped",),
        tests=(_T7 + "test_gspo_is_the_original_grpo", _T7 + "test_off_policy_they_differ"),
        evidence=(_CHECK + "e07_gspo",),
    ),
    Statement(
        id="E07.token_mean",
        where="DAPO, arXiv 2503.14476, and TRL's default",
        claim="Dividing by the tokens of the whole group, Σ_i |o_i|, leaves the expected direction parallel to ∇J.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T7 + "test_token_mean_counterexample", _T7 + "test_lengths_bend_the_direction"),
        counterexample=_CHECK + "e07_token_mean",
        corrected_by=("E07.ratio", "E07.equal"),
        note=(
            "A ratio of two random sums: the divisor knows the answers whose scores it divides. On the reference tree "
            "the cosine is 0.9953 at G = 2 and 0.9987 at G = 4; as TRL runs it, with the standard deviation, 0.9574 "
            "and 0.9823."
        ),
    ),
    Statement(
        id="E07.ratio",
        where="derived here",
        claim=(
            "With the token mean and a centred reward the expectation is (1 − 1/G) ∇J/μ + b/G + O(1/G²), μ = E|o|, b = "
            "Var|o| ∇J/μ³ − E[(R − J)(|o| − μ) g]/μ²: unlike that of 1/|o_i| the bend fades as the group grows."
        ),
        status=Status.HOLDS,
        uses=("E05.mean",),
        tests=(_T7 + "test_the_bias_of_the_token_mean_fades", _T7 + "test_bias_times_group_size_settles"),
        evidence=(_CHECK + "e07_ratio",),
    ),
    Statement(
        id="E08",
        where="arXiv 2603.01162, Lemma 1 (as reported)",
        claim="In every group (1/G) Σ_i (R_i − mean_{j≠i} R_j) g_i = C(G,2)⁻¹ Σ_{i<j} ½ (g_i − g_j)(R_i − R_j).",
        status=Status.HOLDS,
        tests=(_T8 + "test_pointwise", _T8 + "test_another_kernel_is_seen"),
        evidence=(_CHECK + "e08_pointwise",),
        note="The source calls this GRPO: leave-one-out, no standard deviation, no clip, no length factor.",
    ),
    Statement(
        id="E08.mse",
        where="derived here, sharper than Theorem 2 of arXiv 2603.01162 (as reported)",
        claim=(
            "E‖ĝ − ∇J‖² = v/G + 2ζ/(G(G−1)) exactly: v the variance of (R − J) g, ζ = Var(h) − v/2 ≥ 0 with h = ½ (g_1 "
            "− g_2)(R_1 − R_2)."
        ),
        status=Status.HOLDS,
        uses=("E05", "E08"),
        tests=(_T8 + "test_mean_squared_error", _T8 + "test_a_planted_error_is_seen"),
        evidence=(_CHECK + "e08_mse",),
        note=(
            "The source bounds the second term by O(E‖g‖²/G²). On the reference tree 1.9588, 0.9752, 0.6487 at G = 2, "
            "3, 4."
        ),
    ),
    Statement(
        id="E08.oracle",
        where="folklore",
        claim="The exact value J of the prompt, or the greedy answer's reward, as baseline never adds variance.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T8 + "test_the_oracle_can_lose", _T8 + "test_the_best_constant_never_loses"),
        counterexample=_CHECK + "e08_oracle",
        corrected_by=("E08.constant",),
        note="On the reference tree 1.880 without, 1.934 with the exact value, 2.478 with the greedy reward.",
    ),
    Statement(
        id="E08.constant",
        where="derived here",
        claim=(
            "Of the constant baselines b* = E[R‖g‖²]/E‖g‖² has the least variance, lower than b's by (b − b*)² E‖g‖²; "
            "it is J where R and ‖g‖² are uncorrelated."
        ),
        status=Status.HOLDS,
        tests=(_T8 + "test_the_best_constant_never_loses", _T8 + "test_a_planted_error_is_seen"),
        evidence=(_CHECK + "e08_constant",),
        note="For which b a constant helps at all: R07.constant. With b of the prefix: R05.optimal.",
    ),
    Statement(
        id="E09",
        where="PPO, arXiv 1707.06347, with GAE, arXiv 1506.02438",
        claim="E[Σ_t Â_t g_t] = ∇J for GAE at λ = 1 and any critic, and for any λ and the exact critic.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "λ = 1, or the critic is the exact value function",
            "the critic reads the prefix and not the token it judges",
            "tokens are summed, not averaged over the batch",
            "advantages are not whitened",
        ),
        uses=("S02.dominated",),
        tests=(
            _T9 + "test_holds",
            _T9 + "test_a_shorter_lambda_needs_the_exact_critic",
            _T9 + "test_a_critic_that_sees_the_token_breaks_it",
            _T9 + "test_a_mean_over_tokens_breaks_it",
            _T9 + "test_whitening_breaks_it",
        ),
        evidence=(_CHECK + "e09_any_critic",),
        note=(
            "γ = 1, the reward at the end, no clipping. With a critic that is off by 0.5 (standard deviation) the bias "
            "on the reference tree is 25.6, 17.6, 2.2, 0 % at λ = 0, .5, .95, 1. For costates the same is S21.gae."
        ),
    ),
)
"""E07, E08 and E09 with what belongs to them."""
