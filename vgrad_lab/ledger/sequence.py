"""Ledger entries of the sequence floor."""

from vgrad_lab.ledger.types import Statement, Status

STATES = "vgrad_lab.experiments.verify_sequence:"
ATTENTION = "vgrad_lab.experiments.verify_attention:"
VALUES = "vgrad_lab.experiments.verify_value_gradient:"
T = "tests/statements/test_"
OLMO2 = "tests/sequence/test_olmo2.py::"
UNCHECKED = "Not checked by this project's code yet; audited verdict: "

STATE_ENTRIES: tuple[Statement, ...] = (
    Statement(
        id="S13",
        where="Def. 2, eqs. (14), (16)-(18)",
        claim="Attention makes J_{k←t} = ∂h_k^(L)/∂h_t^(L) non-zero for t < k, and it plays the transition Jacobian.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(
            T + "s13.py::test_within_a_layer_nothing_crosses_positions",
            T + "s13.py::test_the_check_sees_a_state_that_does_cross",
            OLMO2 + "test_s13_same_layer_jacobians_are_zero",
        ),
        counterexample=STATES + "s13_counterexample",
        corrected_by=("S13.depth",),
        note="Tokens fixed, a block reads the layer below, so states of one layer do not depend on each other: exactly "
        "0.0 in pre-norm, post-norm and OLMo-2 transformers, at every layer and not the last alone.",
    ),
    Statement(
        id="S13.depth",
        where="derived here",
        claim="In a transformer ∂h_k^(m)/∂h_t^(l), k ≠ t, is exactly 0 unless l < m and t < k; there it is non-zero "
        "for random weights. Credit crosses positions only on its way down through the layers.",
        status=Status.HOLDS,
        tests=(
            T + "s13.py::test_within_a_layer_nothing_crosses_positions",
            T + "s13.py::test_full_jacobians_between_layers",
            OLMO2 + "test_s13_same_layer_jacobians_are_zero",
        ),
        evidence=(STATES + "s13_depth",),
    ),
    Statement(
        id="S14",
        where="eq. (15)",
        claim="λ̂_t = Â_t ∂ℓ_t/∂h_t^(L) + J_{t+1←t}^T λ̂_{t+1}, a recursion of the same structure as the costate's.",
        status=Status.VACUOUS,
        uses=("S13.depth",),
        tests=(
            T + "s14.py::test_at_the_last_layer_it_is_true_and_empty",
            T + "s14.py::test_below_the_last_layer_it_fails",
            OLMO2 + "test_s14_recursions",
        ),
        evidence=(STATES + "s14_top",),
        counterexample=STATES + "s14_counterexample",
        corrected_by=("S14.sum", "S14.depth", "S14.cache", "S14.gru"),
        note="At the last layer J = 0 and only the immediate term is left. Read at a lower layer it is false: relative "
        "error .495, .258, .127, 0 at l = 0…3 of a random pre-norm model (the size depends on the draw).",
    ),
    Statement(
        id="S14.sum",
        where="derived here",
        claim="λ̂_t^(l) = Σ_{k≥t} (∂h_k^(L)/∂h_t^(l))^T ∂(Â_k ℓ_k)/∂h_k^(L) at every layer, any causal architecture.",
        status=Status.HOLDS,
        tests=(T + "s14.py::test_sum_over_later_positions", OLMO2 + "test_s14_recursions"),
        evidence=(STATES + "s14_sum",),
    ),
    Statement(
        id="S14.depth",
        where="derived here",
        claim="One step in depth is exact: λ_{1:T}^(l) = (∂h_{1:T}^(l+1)/∂h_{1:T}^(l))^T λ_{1:T}^(l+1).",
        status=Status.HOLDS_UNDER,
        assumptions=("a layer reads nothing but the layer below, as in a transformer",),
        tests=(T + "s14.py::test_one_step_in_depth", T + "s14.py::test_one_step_in_depth_needs_a_transformer"),
        evidence=(STATES + "s14_depth",),
    ),
    Statement(
        id="S14.cache",
        where="derived here",
        claim="One step in time is exact for the growing cache S_t of all earlier hidden states (what keys and values "
        "are made from): λ_t = ∂(Â_t ℓ_t)/∂S_t + (∂S_{t+1}/∂S_t)^T λ_{t+1}.",
        status=Status.HOLDS,
        tests=(T + "s14.py::test_one_step_in_time_for_the_cache", OLMO2 + "test_s14_recursions"),
        evidence=(STATES + "s14_cache",),
    ),
    Statement(
        id="S14.gru",
        where="derived here",
        claim="Eq. (15) is exact at the top layer of a stacked GRU, with non-zero J.",
        status=Status.HOLDS_UNDER,
        assumptions=("the state is that of the top recurrent layer (or the only one)",),
        tests=(
            T + "s14.py::test_one_step_at_the_top_of_a_gru",
            T + "s14.py::test_one_step_fails_below_the_top_of_a_gru",
        ),
        evidence=(STATES + "s14_gru",),
        note="Below the top it fails (relative error above .01), since a lower state also acts through higher ones.",
    ),
    Statement(
        id="S15",
        where="§4.1",
        claim="In an RNN sampling blocks all temporal credit; attention alone is a bypass.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(T + "s15.py::test_credit_crosses_time_in_a_gru",),
        counterexample=STATES + "s15_counterexample",
        corrected_by=("S15.token", "S14.gru"),
        note="The recurrence itself carries credit: 39 % of λ̂ crosses time in a random one-layer GRU, ‖J‖_F = 1.02.",
    ),
    Statement(
        id="S15.token",
        where="derived here",
        claim="With h_{t+1} = f(e_{o_t}) all cross-position Jacobians vanish, as at the last layer of a transformer; "
        "even then E[λ̂] is the value gradient, through Â_t ∂ℓ_t.",
        status=Status.HOLDS,
        tests=(
            T + "s15.py::test_nothing_crosses_in_a_token_only_network",
            T + "s15.py::test_yet_its_expected_credit_is_exact",
        ),
        evidence=(STATES + "s15_token",),
    ),
    Statement(
        id="S16",
        where="eq. (20)",
        claim="Df = J_attn + (∂h/∂e)(∂e/∂o)(∂o/∂z)(∂z/∂h): the fixed-token path plus the sampling path.",
        status=Status.HOLDS_UNDER,
        assumptions=("the next token is a soft one, e = E^T softmax((z + noise)/τ), noise independent of h",),
        uses=("S13.depth",),
        tests=(
            T + "s16.py::test_fixed_and_sampling_path_make_the_whole",
            T + "s16.py::test_in_a_transformer_the_sampling_path_is_all_there_is",
            T + "s16.py::test_straight_through_is_off_by_twice_the_probability",
        ),
        evidence=(STATES + "s16_chain",),
        note="The missing term is (1/τ)(∂h/∂e)·Cov_q(e_o, w_o), q the soft token (with Gumbel noise the drawn one). In "
        "a transformer J_attn = 0 at h^(L), so it is the whole. Straight-through is the derivative of nothing: on "
        "φ = o_y² it gives 2p_y times the true gradient.",
    ),
    Statement(
        id="S18",
        where="Prop. 3, rank",
        claim="The attention-pathway Jacobian has rank at most L·d_head·n_heads; precisely, from layer l to layer L at "
        "most min(d, (L−l)·n_heads·d_head).",
        status=Status.HOLDS,
        tests=(
            T + "s18.py::test_rank_is_bounded_by_heads_and_layers_above",
            T + "s18.py::test_attained_ranks",
            T + "s18.py::test_bound_of_one_layer_is_broken_by_two",
        ),
        evidence=(STATES + "s18_rank",),
        note="A total over the layers above the source, not a bound per layer; attained, and empty when "
        "n_heads·d_head = d. Pre-norm, before the final norm. Grouped heads are not checked yet.",
    ),
    Statement(
        id="S19",
        where="Prop. 3, magnitude",
        claim="The size of the attention-pathway Jacobian is controlled by α_{t,t'}; broad attention is richer credit.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(
            T + "s19.py::test_two_hops_carry_what_no_weight_shows",
            T + "s19.py::test_one_weight_allows_any_size",
            T + "s19.py::test_broad_attention_has_a_smaller_value_path",
        ),
        counterexample=ATTENTION + "s19_counterexample",
        corrected_by=("S19.head",),
        note="Two layers that each read one position back carry J_(3←1) = 1 with α_31 = 9.4e-14 in both. 'Richer' is "
        "not defined; the value path's Σ_j‖α_j W_V‖_F² is 1/n of the peaked value when attention spreads over n.",
    ),
    Statement(
        id="S19.head",
        where="derived here",
        claim="One head, a position j before the query t: ∂o_t/∂x_j = α_j (W_V + (v_j − o_t)(W_K^T q_t)^T/√d_h).",
        status=Status.HOLDS,
        tests=(T + "s19.py::test_jacobian_of_one_head", T + "s19.py::test_planted_fault_is_found"),
        evidence=(ATTENTION + "s19_head",),
        note="The factor α_j is exact; the bracket is bounded by nothing but the sizes of q and v. The bound with the "
        "norm and network of a whole block is not checked yet.",
    ),
)

VALUE_ENTRIES: tuple[Statement, ...] = (
    Statement(
        id="S20",
        where="Theorem 1, eq. (23)",
        claim="‖E[λ̂_t|h_t] − E[λ_t|h_t]‖ ≤ Σ_{k>t} γ^{k−t} ‖J_{k←k−1}‖^{k−t−1} ε_k, ε_k the sampling gap.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(T + "s20.py::test_discount_alone_breaks_the_bound",),
        counterexample=STATES + "s20_counterexample",
        corrected_by=("S20.identity", "S21.exact"),
        note="Here by γ < 1 alone, which eq. (15) does not carry. The audit names further faults (a power in place of "
        "a product, correlation, rollout mismatch, a state that is not sufficient) that are not checked here yet.",
    ),
    Statement(
        id="S20.identity",
        where="derived here",
        claim="On the same rollouts with a Markov state S_t the difference of expected costates is an exact sum over k "
        "of immediate-term and transition-Jacobian differences, pulled back by the product of the J's.",
        status=Status.OPEN,
        note=UNCHECKED + "equality to 3.8e-16 on 120 systems, bound attained in d = 1.",
    ),
    Statement(
        id="S21",
        where="after Theorem 1",
        claim="E[λ̂_t|h_t] ≈ E[λ_t|h_t] = G_t(h_t), with an error that the policy's entropy controls.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(
            T + "s21.py::test_evidence_and_counterexample",
            T + "s21.py::test_state_alone_does_not_determine_the_value_gradient",
        ),
        counterexample=VALUES + "s21_counterexample",
        corrected_by=("S21.exact", "S21.group", "S21.relaxed"),
        note="The gradient of the relaxed rollout is not what GRPO estimates: with Q(x) = 2x² − x on tokens 0 and 1 it "
        "tends to minus the discrete one as H → 0. Nor is G a function of h_t: one h under two prefixes gives "
        "gradients that differ by .73, .81, .79, .80 (relative, l = 0…3).",
    ),
    Statement(
        id="S21.exact",
        where="derived here",
        claim="E[λ̂_t^(l) | o_<t] = ∂/∂h E[R | o_<t, do(h_t^(l) = h)] for every layer, position and architecture: no "
        "entropy, no sampling gap, no critic.",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "the advantage is of return type: E[Â_k | o_≤k] = Q_k − b_k(o_<k) for every later token k",
            "the reward is a function of the tokens alone",
            "the expectation is conditioned on the prefix, not on h_t alone",
            "tokens are drawn from the differentiated policy itself",
        ),
        tests=(
            T + "s21.py::test_expected_costate_is_the_value_gradient",
            T + "s21.py::test_action_values_are_return_type_too",
            T + "s21.py::test_return_on_the_first_token_alone_is_wrong_below_the_last_layer",
            T + "s21.py::test_return_on_the_first_token_alone_is_wrong_everywhere_in_a_gru",
            T + "s21.py::test_reward_that_reads_the_state_breaks_it",
            T + "s21.py::test_state_alone_does_not_determine_the_value_gradient",
            T + "s21.py::test_tokens_of_another_policy_break_it",
            OLMO2 + "test_s21_exact",
        ),
        evidence=(VALUES + "s21_exact",),
        note="Residual below 4e-15 by enumeration, transformers, GRU, token-only network and OLMo-2 in float64. With "
        "the return on the first token alone the error below the last layer was 4 %-154 % over 24 random transformers "
        "of three layers (the audit's models gave 33 %-99 %), and 11 %-262 % in a GRU at every layer.",
    ),
    Statement(
        id="S21.group",
        where="derived here",
        claim="Group baselines multiply the value gradient by one factor for all layers and positions of a prompt: 1 "
        "for leave-one-out, (n−1)/n for the group's own mean, κ_n(p) for std-normalised binary rewards.",
        status=Status.HOLDS_UNDER,
        assumptions=("binary rewards (std-normalised only)",),
        uses=("S10", "S21.exact"),
        tests=(
            T + "s21.py::test_own_mean_and_leave_one_out_scale_it",
            T + "s21.py::test_binary_standardised_scales_it_by_kappa",
            T + "s21.py::test_standardised_real_rewards_are_not_a_multiple",
        ),
        evidence=(VALUES + "s21_group",),
        note="Brute force over all groups of 2 and 3 samples; the factor is of the prompt's p, whatever the prefix.",
    ),
    Statement(
        id="S21.relaxed",
        where="derived here",
        claim="One step, τ = 1, Q with L₂-Lipschitz gradient: ‖G_disc − G_relax‖ ≤ ‖W‖ L₂ diam(E)² (1−‖p‖²)/(2√2).",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "Q is differentiable with L₂-Lipschitz gradient on the hull of the embeddings",
            "one step (necessity unknown)",
        ),
        tests=(
            T + "s21.py::test_relaxed_gap_is_within_its_bound",
            T + "s21.py::test_relaxed_gap_bound_is_attained_in_the_limit_and_can_fail",
            T + "s21.py::test_a_kink_breaks_the_relaxed_bound",
        ),
        evidence=(VALUES + "s21_relaxed",),
        note="Checked for quadratic Q. The gradient itself shrinks as fast: the relative error is not bounded (S21).",
    ),
)

SEQUENCE: tuple[Statement, ...] = STATE_ENTRIES + VALUE_ENTRIES
