"""Ledger entries on policy gradients from response-level rewards (arXiv 2506.02553): R01–R07, with R08 and R09."""

from vgrad_lab.ledger.trajectory_readings import READINGS
from vgrad_lab.ledger.types import Statement, Status

_CHECK = "vgrad_lab.experiments.verify_trajectory:"
_VARIANCE = "vgrad_lab.experiments.verify_trajectory_variance:"
_T = "tests/statements/test_"
_ON_POLICY = "tokens are drawn from the policy that is differentiated"
_ADDITIVE = "RM(o) = Σ_t γ^{t−1} r(o_<t, o_t), up to a constant of the prompt and noise of mean zero given o"
_EXACT = "RM(o) = Σ_t γ^{t−1} r(o_<t, o_t), up to a constant of the prompt"

TRAJECTORY: tuple[Statement, ...] = (
    Statement(
        id="R01",
        where="response-level paper: Lemma 1 (its eq. 4)",
        claim="∇J = E Σ_t γ^{t−1} Q(o_<t, o_t) ∇log π(o_t|o_<t) for J = E Σ_t γ^{t−1} r(o_<t, o_t): an equality.",
        status=Status.HOLDS_UNDER,
        assumptions=(_ON_POLICY, "the token rewards do not depend on the parameters"),
        tests=(
            _T + "r01.py::test_it_is_the_gradient_of_the_discounted_objective",
            _T + "r01.py::test_any_tree_and_discount",
            _T + "r01.py::test_top_k_sampling_breaks_it",
            _T + "r01.py::test_rewards_that_depend_on_the_parameters_break_it",
            _T + "r01.py::test_evidence_sees_a_planted_fault",
        ),
        evidence=(_CHECK + "r01_lemma_1",),
        note="Stated by the source, proved here. The source's reason, that a prefix is reached by one path only, is "
        "not needed: in any finite-horizon process with transitions free of θ the past reward is a baseline of the "
        "history.",
    ),
    Statement(
        id="R02",
        where="response-level paper: Lemma 2",
        claim="E Σ_t c(o_<t) ∇log π(o_t|o_<t) = 0, so c may be added to γ^{t−1} Q in R01.",
        status=Status.HOLDS_UNDER,
        assumptions=("c is a function of the prefix alone, not of o_t nor of what follows", _ON_POLICY),
        tests=(
            _T + "r02.py::test_offsets_of_the_prefix",
            _T + "r02.py::test_an_offset_that_reads_the_token_breaks_it",
            _T + "r02.py::test_an_offset_that_reads_the_future_breaks_it",
            _T + "r02.py::test_top_k_sampling_breaks_it",
            _T + "r02.py::test_evidence",
        ),
        evidence=(_CHECK + "r02_offsets",),
        note="Stated by the source, proved here.",
    ),
    Statement(
        id="R03",
        where="response-level paper: Theorem 1 (its eq. 21)",
        claim="∇J = E Σ_t E[RM | o_≤t] ∇log π(o_t|o_<t), and RM itself may stand for its mean, whatever r and γ are.",
        status=Status.HOLDS_UNDER,
        assumptions=(_ADDITIVE, _ON_POLICY),
        uses=("R01", "R02"),
        tests=(
            _T + "r03.py::test_the_response_is_enough",
            _T + "r03.py::test_whatever_the_discount",
            _T + "r03.py::test_other_token_rewards_with_the_same_sum",
            _T + "r03.py::test_noise_with_mean_zero_given_the_answer",
            _T + "r03.py::test_rewards_that_are_no_sum_break_it",
            _T + "r03.py::test_top_k_sampling_breaks_it",
            _T + "r03.py::test_a_discounted_reward_at_the_end_is_another_objective",
            _T + "r03.py::test_evidence_sees_a_planted_fault",
        ),
        evidence=(_CHECK + "r03_theorem_1",),
        note="Stated by the source, proved here; the step that takes past rewards for c is the source's. It is the "
        "identity ∇E[RM] = E[RM ∇log π(o)]; new is that r need not be known. Cosine with ∇J on the tree of 15 answers: "
        "RM/T .878, 1[RM > 0] .964, tanh RM .991, last token alone −.208; two of three tokens sampled .881 (RM centred "
        "under the sampler), .850 (not centred), .072 (RM + 5). γ^(T−1) RM at the end is another objective: .997 at "
        "γ = .9 and .838 at .5, and .975 and .602 with RM + 2.",
    ),
    Statement(
        id="R03.only",
        where="derived here",
        claim="E Σ_t RM ∇log π(o_t|o_<t) = ∇J only for RM = Σ_t γ^{t−1} r + const: the direction determines RM, "
        "RM(o) − E[RM] = Σ_t [∂J/∂z(o_<t, o_t)]/P(o_≤t).",
        status=Status.HOLDS_UNDER,
        assumptions=("every prefix has logits z of its own", "every token has positive probability"),
        uses=("R03", "R06"),
        tests=(
            _T + "r03.py::test_the_direction_fixes_the_reward",
            _T + "r03.py::test_parameters_that_prefixes_share_may_not_see_a_difference",
            _T + "r03.py::test_a_token_that_never_comes_is_not_seen",
            _T + "r03.py::test_evidence_sees_a_planted_fault",
        ),
        evidence=(_CHECK + "r03_only",),
        note="So no violation of R03's first assumption is harmless for all policies.",
    ),
    Statement(
        id="R03.zero_reward",
        where="response-level paper: REINFORCE under zero rewards (as its repository prints it)",
        claim="∇J = E Σ_t γ^{t−1} RM ∇log π(o_t|o_<t), with the whole reward on the last token.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T + "r03.py::test_the_printed_zero_reward_form",),
        counterexample=_CHECK + "r03_zero_reward",
        corrected_by=("R03",),
        note="True at γ = 1. Otherwise it is parallel neither to ∇E[RM] (.9993 at γ = .9, .9859 at .5) nor to "
        "∇E[γ^(T−1) RM].",
    ),
    Statement(
        id="R04",
        where="response-level paper: eq. 26",
        claim="With γ ≠ 1 one gets E Σ_t γ^{−(t−1)} E[RM | o_≤t] ∇log π(o_t|o_<t): later tokens weigh more.",
        status=Status.HOLDS_UNDER,
        assumptions=("the factor γ^{t−1} of R01 is left out, as implementations do", _ADDITIVE),
        uses=("R01", "R02"),
        tests=(
            _T + "r04.py::test_it_is_the_mean_of_the_action_values",
            _T + "r04.py::test_with_the_factor_kept_it_is_another_direction",
            _T + "r04.py::test_a_reward_that_is_no_discounted_sum",
            _T + "r04.py::test_without_a_discount_it_is_theorem_1",
            _T + "r04.py::test_evidence_sees_a_planted_fault",
        ),
        evidence=(_CHECK + "r04_equation_26",),
        note="Stated by the source; how it arises is this project's reading: it equals E Σ_t Q ∇log π. So it speaks "
        "against leaving out γ^{t−1}, not against discounting: with the factor R03 holds for every γ. Cosine with "
        "∇E[RM]: .9993 (γ = .9) and .9854 (.5) for RM = Σ γ^{t−1} r, .9991 and .9162 for RM = Σ r.",
    ),
    Statement(
        id="R05",
        where="response-level paper: Theorem 2 (its eq. 28)",
        claim="∇J = E Σ_t A_t ∇log π(o_t|o_<t), A_t = E[RM | o_≤t] − E[RM | o_<t].",
        status=Status.HOLDS_UNDER,
        assumptions=(_ADDITIVE, _ON_POLICY),
        uses=("R02", "R03"),
        tests=(
            _T + "r05.py::test_theorem_2",
            _T + "r05.py::test_theorem_2_whatever_the_discount",
            _T + "r05.py::test_rewards_that_are_no_sum_break_it",
            _T + "r05.py::test_top_k_sampling_breaks_it",
        ),
        evidence=(_CHECK + "r05_theorem_2",),
        note="Stated by the source, proved here.",
    ),
    Statement(
        id="R05.near_optimal",
        where="response-level paper: the name of Theorem 2",
        claim="E[RM | o_<t] is a near-optimal baseline.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T + "r05.py::test_the_best_baseline_may_leave_nothing",),
        counterexample=_VARIANCE + "r05_near_optimal",
        corrected_by=("R05.optimal",),
        note="No factor bounds it: one token of two with probabilities p and 1 − p has variance 2p(1−p)(1−2p)² with "
        "this baseline and 0 with the best. On the tree of 15 answers the two are close, 1.064 and 1.053.",
    ),
    Statement(
        id="R05.optimal",
        where="derived here",
        claim="E[‖g_t‖²(RM−b)²] = E[‖g_t‖²(RM−b*)²] + E[‖g_t‖²(b−b*)²] for every b(o_<t), "
        "b* = E[‖g_t‖² RM | o_<t]/E[‖g_t‖² | o_<t].",
        status=Status.HOLDS_UNDER,
        assumptions=("b is a function of the prefix alone",),
        tests=(
            _T + "r05.py::test_second_moments_split_at_the_best_baseline",
            _T + "r05.py::test_a_baseline_that_reads_the_token_does_not_split",
        ),
        evidence=(_VARIANCE + "r05_optimal",),
        note="b* is best for each token by itself, and for their sum where prefixes have logits of their own. It is "
        "E[RM | o_<t] where ‖g_t‖² and RM are uncorrelated given the prefix.",
    ),
    Statement(
        id="R06",
        where="derived here",
        claim="On every answer A_t = γ^{t−1}(Q − V) and Σ_t A_t = RM − E[RM]: Theorem 2 splits GRPO's advantage over "
        "the tokens as a martingale.",
        status=Status.HOLDS_UNDER,
        assumptions=(_EXACT,),
        tests=(
            _T + "r06.py::test_differences_are_advantages_and_add_up",
            _T + "r06.py::test_differences_of_a_mean_are_other_advantages",
            _T + "r06.py::test_evidence_sees_a_planted_fault",
        ),
        evidence=(_CHECK + "r06_pointwise",),
        note="The sum needs no assumption. Of a failed answer (RM = 0) it is −E[RM].",
    ),
    Statement(
        id="R06.hidden",
        where="derived here",
        claim="On every answer RM − E[RM | o_<t] = γ^{t−1}(G_t − V(o_<t)): with a baseline of the prefix, hidden token "
        "rewards add nothing to the response-level reward.",
        status=Status.HOLDS_UNDER,
        assumptions=(_EXACT, "the baseline is that of the prefix"),
        tests=(
            _T + "r06.py::test_hidden_rewards_say_nothing_more",
            _T + "r06.py::test_hidden_rewards_of_another_sum_differ",
            _T + "r06.py::test_hidden_rewards_say_more_at_the_prompts_baseline",
        ),
        evidence=(_CHECK + "r06_hidden",),
    ),
    Statement(
        id="R06.gae",
        where="derived here",
        claim="For each λ, GAE(λ) gives the same advantages whether rewards are paid at their tokens or at the end.",
        status=Status.HOLDS_UNDER,
        assumptions=("the two critics differ by what is already paid, as exact ones do", "γ = 1"),
        tests=(
            _T + "r06.py::test_gae_does_not_see_when_rewards_are_paid",
            _T + "r06.py::test_gae_with_one_error_in_both_critics_does_not_see_it",
            _T + "r06.py::test_gae_with_one_wrong_critic_for_both_does_see_it",
            _T + "r06.py::test_gae_with_a_discount_does_see_it",
        ),
        evidence=(_CHECK + "r06_gae",),
    ),
    Statement(
        id="R07",
        where="response-level paper: its title (read for the variance)",
        claim="Nothing is lost without token-level rewards.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(
            _T + "r07.py::test_token_rewards_help_where_the_baseline_is_of_the_prompt",
            _T + "r07.py::test_the_published_table",
        ),
        counterexample=_VARIANCE + "r07_prompt_baseline",
        corrected_by=("R06.hidden", "R07.order"),
        note="The source claims it of the mean, where it holds (R03). Variance on the tree of 15 answers (in brackets "
        "with 2 more for each first token): RM 1.880 (8.199), G_t 1.480 (4.881), RM − E[RM] 1.934, RM − RM(greedy) "
        "2.478, G_t − E[G_t] 1.283, RM − E[RM|o_<t] 1.064, RM − b* 1.053, Theorem 2 with both means exact .665.",
    ),
    Statement(
        id="R07.order",
        where="derived here",
        claim="E[RM|o_≤t] in the place of RM lowers the variance by Σ_t E[Var(RM|o_≤t) ‖g_t‖²], whatever baseline of "
        "the prefix is subtracted.",
        status=Status.HOLDS_UNDER,
        assumptions=("every prefix has logits of its own",),
        tests=(
            _T + "r07.py::test_means_in_the_place_of_samples",
            _T + "r07.py::test_theorem_2_varies_least_where_prefixes_share_nothing",
            _T + "r07.py::test_where_prefixes_share_parameters_the_order_may_be_reversed",
            _T + "r07.py::test_evidence_sees_a_planted_fault",
        ),
        evidence=(_VARIANCE + "r07_order",),
        note="With shared parameters the opposite can hold: two tokens, one parameter, variance 0 for RM − E[RM|o_<t] "
        "and 3/64 for Theorem 2 with exact means, ∇J = 3/16 for both.",
    ),
    Statement(
        id="R07.centring",
        where="response-level paper: on standardised rewards",
        claim="Subtracting the mean reward does not reduce the variance.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_T + "r07.py::test_centring_helps_or_hurts",),
        counterexample=_VARIANCE + "r07_centring",
        corrected_by=("R07.constant",),
        note="Stated by the source; true of the reward's own variance, not of the gradient's: 8.199 to 1.934 with 2 "
        "more for each first token, 1.880 to 1.934 without.",
    ),
    Statement(
        id="R07.constant",
        where="derived here",
        claim="Var(RM − b) = Var(RM) + E‖g‖²(b² − 2 b b°), b° = E[‖g‖² RM]/E‖g‖², for constants b: centring helps iff "
        "|E[RM] − b°| < |b°|.",
        status=Status.HOLDS,
        tests=(
            _T + "r07.py::test_constants",
            _T + "r07.py::test_centring_helps_or_hurts",
            _T + "r07.py::test_evidence_sees_a_planted_fault",
        ),
        evidence=(_VARIANCE + "r07_constant",),
    ),
    *READINGS,
)
