"""Ledger entries on TRePO's and VinePPO's readings of Theorem 2 (R08) and on costates of token trees (R09)."""

from vgrad_lab.ledger.types import Statement, Status

_CHECK = "vgrad_lab.experiments.verify_trepo:"
_COSTATE = "vgrad_lab.experiments.verify_tree_costates:"
_T = "tests/statements/test_"
_EQUAL = ("positions are drawn independently of the answer", "all answers have the same length")
_STOPPING = "boundaries are stopping times: o_<t and draws made before the answer decide whether a segment starts at t"

READINGS: tuple[Statement, ...] = (
    Statement(
        id="R08",
        where="response-level paper: TRePO",
        claim="Advantages by rollouts at random positions, those between by interpolation, do for all positions.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(
            _T + "r08.py::test_interpolation_loses_what_it_stands_for",
            _T + "r08.py::test_interpolated_values_are_biased",
            "tests/discrete/test_trepo.py::test_the_published_table",
        ),
        counterexample=_CHECK + "r08_interpolation",
        corrected_by=("R08.anchors", "R08.segment"),
        note="The source gives no formula; that advantages, or values, are interpolated linearly is this project's "
        "reading. Four tokens, each position kept with probability ½: advantages give ½ ∇J, variance 2.76 (11.1 at the "
        "scale of ∇J); values .5533, cosine .9997, variance 1.48 (answers that end: .743, .9948). Chosen tokens over "
        "their inclusion probability and segments give ∇J, variances 8.53 and 3.76.",
    ),
    Statement(
        id="R08.zero",
        where="derived here",
        claim="Interpolated advantages have mean direction 0; with those of the chosen tokens the mean is "
        "Σ_t P(t ∈ S) E[A_t g_t].",
        status=Status.HOLDS_UNDER,
        assumptions=_EQUAL,
        uses=("R02", "R05"),
        tests=(
            _T + "r08.py::test_interpolated_advantages_give_zero",
            _T + "r08.py::test_positions_that_see_the_answer_break_the_zero",
            _T + "r08.py::test_answers_that_end_break_the_zero",
        ),
        evidence=(_CHECK + "r08_zero",),
        note="Noise without signal: .63 of the variance 2.76 above.",
    ),
    Statement(
        id="R08.value",
        where="derived here",
        claim="With interpolated values the mean is Σ_t E[1/length of t's segment] E[A_t g_t].",
        status=Status.HOLDS_UNDER,
        assumptions=_EQUAL,
        uses=("R02", "R05"),
        tests=(
            _T + "r08.py::test_interpolated_values_divide_by_the_length_of_the_segment",
            _T + "r08.py::test_positions_that_see_the_answer_break_the_division",
            _T + "r08.py::test_answers_that_end_break_the_division",
            _T + "r08.py::test_interpolated_values_are_biased",
        ),
        evidence=(_CHECK + "r08_value",),
    ),
    Statement(
        id="R08.anchors",
        where="derived here",
        claim="Advantages of the chosen tokens alone, each over P(t ∈ S | o), give ∇J, also where the positions are "
        "drawn from the answer's realised length.",
        status=Status.HOLDS_UNDER,
        assumptions=("they are divided by the inclusion probability given the answer, which is positive",),
        uses=("R05",),
        tests=(
            _T + "r08.py::test_chosen_tokens_over_their_inclusion_probability",
            _T + "r08.py::test_chosen_tokens_undivided_are_biased",
        ),
        evidence=(_CHECK + "r08_anchors",),
    ),
    Statement(
        id="R08.segment",
        where="VinePPO; derived here",
        claim="v(end) − v(start) of its segment on every token, undivided, gives ∇J.",
        status=Status.HOLDS_UNDER,
        assumptions=(_STOPPING,),
        uses=("R02", "R05"),
        tests=(
            _T + "r08.py::test_segments_between_stopping_times",
            _T + "r08.py::test_boundaries_from_the_realised_length_break_it",
        ),
        evidence=(_CHECK + "r08_segment",),
        note="Reasoning steps that end with a newline are such segments. One boundary drawn from the realised length: "
        "4.8 % of the direction is off, two: 9.5 % (tree of 15 answers).",
    ),
    Statement(
        id="R08.limit",
        where="VinePPO's code: max_step_for_value_estimation; derived here",
        claim="With values for the first m steps only, later ones filled by the reward, the mean is E Σ A_t g_t over "
        "the tokens of the first m steps: later tokens get no gradient.",
        status=Status.HOLDS_UNDER,
        assumptions=(_STOPPING,),
        uses=("R08.segment",),
        tests=(
            _T + "r08.py::test_steps_without_values_give_nothing",
            _T + "r08.py::test_a_limit_on_steps_loses_a_part_of_the_gradient",
            _T + "r08.py::test_steps_that_look_ahead_break_the_limit",
        ),
        evidence=(_CHECK + "r08_limit",),
        note="The code's default is m = 20.",
    ),
    Statement(
        id="R08.rollouts",
        where="derived here",
        claim="K rollouts per value leave the mean of every reading as it is and add exactly c/K to its variance.",
        status=Status.HOLDS_UNDER,
        assumptions=("rollouts are fresh: independent of the answer given the prefix",),
        uses=("R05",),
        tests=(
            _T + "r08.py::test_fresh_rollouts_leave_the_mean_and_add_to_the_variance",
            _T + "r08.py::test_counting_the_answer_itself_shrinks_the_gradient",
        ),
        evidence=(_CHECK + "r08_rollouts", _CHECK + "r08_own_sample"),
        note="A baseline that counts the answer itself as one of its K rollouts gives (1 − 1/K) ∇J: .5, .75, .875 at "
        "K = 2, 4, 8.",
    ),
    Statement(
        id="R09",
        where="derived here",
        claim="On a token tree E[λ̂_t | o_<t] = ∂E[R | o_<t, do(h_t = h)]/∂h for logits, free states, states of the "
        "newest token and states of a recurrent network: S21.exact without a tensor library.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "the advantage is of return type: E[Â_k | o_≤k] = Q_k − b_k(o_<k) for every later token k",
            "the reward is a function of the tokens alone",
            "the expectation is conditioned on the prefix, not on h_t alone",
            "tokens are drawn from the differentiated policy itself",
        ),
        uses=("S21.exact",),
        tests=(
            _T + "r09.py::test_expected_costate_is_the_value_gradient",
            _T + "r09.py::test_a_planted_fault_is_seen",
            _T + "r09.py::test_the_same_numbers_as_the_torch_enumeration",
            _T + "r09.py::test_the_last_layer_of_a_token_only_network_is_free",
            _T + "r09.py::test_an_advantage_of_another_type_breaks_it",
            _T + "r09.py::test_return_on_the_first_token_alone_breaks_it_in_a_recurrent_network",
            _T + "r09.py::test_a_reward_that_reads_the_state_breaks_it",
            _T + "r09.py::test_one_state_under_two_prefixes_has_two_value_gradients",
            _T + "r09.py::test_tokens_of_another_policy_break_it",
        ),
        evidence=(_COSTATE + "r09_costate",),
        note="The value gradient by a recursion over prefixes, the costate by enumeration; both equal the sequence "
        "floor's autograd at every prefix (1e-12). With the return on the first token alone the error in a recurrent "
        "network was 0.2 %-430 % over 200 draws, median 26 %; none where no state reads another.",
    ),
)
