"""Ledger entries of the estimator table: group baselines (E05) and the group's standard deviation (E06)."""

from vgrad_lab.ledger.types import Statement, Status

_CHECK = "vgrad_lab.experiments.verify_estimators:"
_T5 = "tests/statements/test_e05.py::"
_T6 = "tests/statements/test_e06.py::"

BASELINES: tuple[Statement, ...] = (
    Statement(
        id="E05",
        where="RLOO, arXiv 2402.14740",
        claim=(
            "E[(1/G) Σ_i (R_i − mean_{j≠i} R_j) g_i] = ∇J, g_i = Σ_t ∂log π(o_t|o_<t): any reward, any lengths, any G "
            "≥ 2."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=(
            "the answers of a group are independent draws",
            "they are drawn from the differentiated policy itself",
            "every drawn token is scored, the end token too",
        ),
        uses=("S02.dominated",),
        tests=(
            _T5 + "test_holds",
            _T5 + "test_draws_without_replacement_break_it",
            _T5 + "test_another_temperature_breaks_it",
            _T5 + "test_an_end_that_is_not_scored_breaks_it",
        ),
        evidence=(_CHECK + "e05_leave_one_out",),
        note="The source states it for the whole answer as one action; summed over tokens it is the same score.",
    ),
    Statement(
        id="E05.mean",
        where="Dr. GRPO, arXiv 2503.20783; derived here",
        claim=(
            "With the group's own mean as baseline the expectation is (G−1)/G ∇J; divided by a length L as in Dr. "
            "GRPO, (G−1)/(G L) ∇J."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("the conditions of E05", "L is a constant and not the longest answer of the batch"),
        uses=("E05",),
        tests=(
            _T5 + "test_holds",
            _T5 + "test_another_temperature_breaks_it",
            _T5 + "test_the_longest_answer_is_no_constant",
        ),
        evidence=(_CHECK + "e05_own_mean",),
        note=(
            "R_i − R̄ = (G−1)/G (R_i − mean_{j≠i} R_j) in every group. Stated by the source as unbiased; the factor is "
            "derived here. A library that divides by the padded length of the batch drops the last assumption."
        ),
    ),
    Statement(
        id="E05.greedy",
        where="ReMax, arXiv 2310.10505",
        claim="E[(R(o) − R(ō)) g(o)] = ∇J for the greedy answer ō, as for any number that does not look at o.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "o is drawn from the whole policy, no top-k or top-p",
            "the difference is not clamped",
            "token scores are summed, not averaged over the answer",
        ),
        uses=("S02.dominated",),
        tests=(
            _T5 + "test_holds",
            _T5 + "test_truncated_sampling_breaks_it",
            _T5 + "test_a_clamped_difference_breaks_it",
            _T5 + "test_a_mean_over_tokens_breaks_it",
        ),
        evidence=(_CHECK + "e05_greedy",),
        note="The authors' code drops all three: top-p 0.9, clamp at ±5, token mean. On its variance see E08.oracle.",
    ),
    Statement(
        id="E06",
        where="GRPO, arXiv 2402.03300; folklore",
        claim="Divided by the group's standard deviation, the expected direction stays parallel to ∇J.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T6 + "test_counterexample", _T6 + "test_real_rewards_bend_the_direction"),
        counterexample=_CHECK + "e06_real_reward",
        corrected_by=("E06.effective", "E06.binary", "E06.ddof", "E06.mixed"),
        note=(
            "S10.nonbinary shows it for one token. Here answers differ in length and every token is scored once: the "
            "bend comes from the spread alone. It fades as the group grows: on the reference tree of 15 answers the "
            "cosine is 0.9766 at G = 2 and 0.9892 at G = 4."
        ),
    ),
    Statement(
        id="E06.effective",
        where="derived here",
        claim=(
            "The expected direction is the policy gradient of the effective reward w(R) = E[Â_1 | R_1 = R], held "
            "fixed: Σ_o π(o) w(R(o)) g(o), with w nondecreasing and E[w] = 0, for any ε ≥ 0 and either ddof."
        ),
        status=Status.HOLDS,
        uses=("S02.dominated",),
        tests=(
            _T6 + "test_effective_reward",
            _T6 + "test_a_wrong_effective_reward_is_seen",
        ),
        evidence=(_CHECK + "e06_effective",),
        note="So no answer is pushed down for earning more. The order survives, the sizes do not.",
    ),
    Statement(
        id="E06.binary",
        where="derived here",
        claim=(
            "For rewards 0 and 1 the expectation is w_G(p) ∇p, w_G(p) = Σ_k C(G−1,k) p^k (1−p)^{G−1−k} "
            "[(1−(k+1)/G)/(s(k+1)+ε) + (k/G)/(s(k)+ε)], terms with s = 0 left out; w_G(p) → 1/√(p(1−p)), the gradient "
            "of 2 arcsin √p, as G → ∞ with ε = 0."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("two rewards only", "the answers of a group belong to one prompt"),
        uses=("S10", "E06.effective"),
        tests=(
            _T6 + "test_binary_scale",
            _T6 + "test_reference_values",
            _T6 + "test_the_limit_is_that_of_the_arcsine",
            _T6 + "test_real_rewards_bend_the_direction",
            "tests/statements/test_s10.py::test_mixing_prompts_in_a_group_breaks_it",
        ),
        evidence=(_CHECK + "e06_binary",),
        note=(
            "The same number as κ_G(p) of S10. Each prompt keeps its direction; a batch of prompts is reweighted and "
            "ascends E_q[2 arcsin √p_q] in the limit. For rewards ±1 advantages are the same and ∇J is twice ∇p."
        ),
    ),
    Statement(
        id="E06.ddof",
        where="derived here",
        claim=(
            "With the sample standard deviation (ddof 1: torch.std, TRL, verl) each direction is √((G−1)/G) times that "
            "with the population one."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("ε = 0",),
        tests=(_T6 + "test_sample_and_population", _T6 + "test_an_epsilon_breaks_the_ratio"),
        evidence=(_CHECK + "e06_ddof",),
        note="Group by group, not only on average; a constant that a learning rate absorbs.",
    ),
    Statement(
        id="E06.mixed",
        where="DAPO, arXiv 2503.14476; derived here",
        claim=(
            "Drawing again until the rewards of a group differ (dynamic sampling) multiplies the expectation by "
            "1/P(they differ), for rewards 0 and 1 by 1/(1 − p^G − (1−p)^G)."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("a group of equal rewards has the direction zero",),
        tests=(_T6 + "test_mixed_groups", _T6 + "test_without_a_baseline_mixed_groups_bend_it"),
        evidence=(_CHECK + "e06_mixed",),
        note=(
            "The factor differs from prompt to prompt, so leave-one-out, which weighs prompts alike, no longer does. "
            "At p = .1, G = 8, ddof 1: w_G(p)/P = 3.823."
        ),
    ),
)
"""E05 and E06 with what belongs to them."""
