"""Ledger entries of the sequence floor on the two paths of eq. (20): sampling (S16, S17) and attention (S18, S19)."""

from vgrad_lab.ledger.types import Statement, Status

STATES = "vgrad_lab.experiments.verify_sequence:"
RELAXATION = "vgrad_lab.experiments.verify_relaxation:"
ATTENTION = "vgrad_lab.experiments.verify_attention:"
T = "tests/statements/test_"

PATHS: tuple[Statement, ...] = (
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
            T + "s16.py::test_missing_term_is_a_covariance",
            T + "s16.py::test_another_covariance_is_another_term",
        ),
        evidence=(STATES + "s16_chain", RELAXATION + "s16_covariance"),
        note="The missing term is (1/τ)(∂h/∂e)·Cov_q(e_o, w_o), q the soft token (with Gumbel noise the drawn one). In "
        "a transformer J_attn = 0 at h^(L), so it is the whole. Straight-through is the derivative of nothing: on "
        "φ = o_y² it gives 2p_y times the true gradient (S16.straight_through).",
    ),
    Statement(
        id="S16.straight_through",
        where="derived here",
        claim="One token, payoff φ: straight-through with softmax backward has mean C(p) E∇φ, the true gradient "
        "C(p)φ iff C(p)(φ − E∇φ) = 0, as for every affine φ; with identity backward it has mean E∇φ, wrong for affine "
        "φ too.",
        status=Status.HOLDS,
        tests=(
            T + "s16.py::test_straight_through_is_exact_for_affine_payoffs_with_the_softmax_backward",
            T + "s16.py::test_curved_payoffs_break_the_softmax_backward",
            T + "s16.py::test_identity_backward_is_off_even_for_affine_payoffs",
            T + "s16.py::test_straight_through_passes_what_its_backward_says",
        ),
        evidence=(RELAXATION + "s16_straight_through",),
        note="φ = o_1, p = (.99, .01): the identity backward passes 1 to z_1, where the slope is p(1 − p) = .0099.",
    ),
    Statement(
        id="S17.constants",
        where="derived here",
        claim="sup κ/√H = 1/(2√ln 2) = .600561, at (½,½); sup (1 − p_max)/√H = .75/√ln 4 = .636991, at four equal "
        "atoms (V ≥ 4; .600561 for V = 2, .636043 for V = 3); 1 − ‖p‖² ≤ H/(2 ln 2), with equality at (½,½).",
        status=Status.HOLDS,
        uses=("S17.sharp",),
        tests=(
            T + "s17.py::test_sharp_constants_of_both_kinds",
            T + "s17.py::test_constants_are_attained",
            T + "s17.py::test_sharp_bounds",
        ),
        evidence=(RELAXATION + "s17_constants",),
        note="So Prop. 2 needs C = .600561·√ln V for κ and .636991·√ln V for 1 − p_max: 2.0381 and 2.1617 at "
        "V = 100352, and ln V cancels.",
    ),
    Statement(
        id="S17.temperature",
        where="derived here",
        claim="With H the entropy of softmax(z): κ(softmax(z/τ)) ≤ min(½, H/(2 ln 2)) for τ ≤ 1 and "
        "≤ 2 (V−1)^{1−1/τ} (H/ln 2)^{1/τ} for τ ≥ 1; a constant C(V) with κ ≤ C√H exists iff τ ≤ 2.",
        status=Status.HOLDS,
        uses=("S17.sharp",),
        tests=(
            T + "s17.py::test_temperature_bound",
            T + "s17.py::test_a_root_of_the_entropy_is_enough_up_to_two_and_not_above",
            T + "s17.py::test_the_bound_at_another_temperature_fails",
        ),
        evidence=(RELAXATION + "s17_temperature",),
        note="Two tokens, logits 80 apart: ‖∂o/∂z‖/√(H/ln 2) = .0925, .592, 3.8e4, 9.8e8 at τ = 2, 2.1, 3, 5. Largest "
        "ratio to the bound for τ ≥ 1: .636 over 20000 draws (the audit's generator gave .527).",
    ),
    Statement(
        id="S17.gumbel",
        where="derived here",
        claim="The Gumbel-softmax's drawn Jacobian C(p̃)/τ reaches the norm 1/(2τ) at any H > 0. For two tokens at "
        "τ = 1 its mean pathwise slope is e^Δ((Δ−2)e^Δ+Δ+2)/(e^Δ−1)³, about Δ − 2 times the discrete slope p(1−p): the "
        "pathwise gradient is biased, by a factor without bound; the bias vanishes as τ → 0.",
        status=Status.HOLDS,
        tests=(
            T + "s17.py::test_gumbel_softmax_fails",
            T + "s17.py::test_gumbel_slope_has_a_closed_form_at_temperature_one",
            T + "s17.py::test_gumbel_slope_is_the_slope_of_the_mean",
            T + "s17.py::test_gumbel_pathwise_gradient_is_biased_without_bound",
        ),
        evidence=(RELAXATION + "s17_gumbel",),
        note="Δ = 6: slope over discrete slope 1.0002, 1.016, 1.16, 4.07, 14.9 at τ = .01, .1, .3, 1, 3. E‖J‖ is "
        ".0201 at τ = 1 against H/(2 ln 2) = .0125. τ = 3: E‖J‖/√(H/ln 2) = .946, 4.08, 82.4, 4.6e4 at Δ = 10, 20, 40, "
        "80 (the audit has .97 for the first).",
    ),
    Statement(
        id="S17.covariance",
        where="derived here",
        claim="The missing term M is at most (1/τ)‖∂h/∂e‖·√(‖Cov e‖‖Cov w‖) and (1/2τ)‖∂h/∂e‖ diam(E) diam(W) "
        "(1 − ‖q‖²): bounds free of the gauge W → W + 1c^T, as M is.",
        status=Status.HOLDS,
        uses=("S17.constants",),
        tests=(
            T + "s17.py::test_bounds_free_of_gauge",
            T + "s17.py::test_bounds_free_of_gauge_can_fail_and_ignore_the_gauge",
        ),
        evidence=(RELAXATION + "s17_covariance",),
        note="Both are equalities for two tokens in one dimension; 1 − ‖q‖² ≤ H(q)/(2 ln 2) makes the second linear in "
        "the entropy.",
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
        "n_heads·d_head = d, the usual configuration. Before the final norm.",
    ),
    Statement(
        id="S18.grouped",
        where="derived here",
        claim="With n_kv key-value heads, g query heads to each, the rank from layer l to layer L is at most "
        "n_kv·((L−l−1)·min(g, 2)·d_head + min(g·d_head, d_head + min(g, d_head))): a state leaves its position through "
        "its keys and values alone.",
        status=Status.HOLDS,
        tests=(
            T + "s18.py::test_grouped_rank_is_a_bound",
            T + "s18.py::test_grouped_heads_attain_the_rank_of_one_layer",
            T + "s18.py::test_grouped_heads_attain_the_rank_of_more_layers",
            T + "s18.py::test_the_rank_of_one_layer_is_no_bound_for_each_of_two",
            "tests/sequence/test_olmo2_cache.py::test_grouped_heads_of_the_library",
        ),
        evidence=(ATTENTION + "s18_grouped",),
        note="For g = 1 it is the bound of S18. Attained in 299 of 300 random transformers of 1-3 layers, pre- and "
        "post-norm (the audit has the last layer's term, for one layer). Below 2·n_kv·d_head for each layer whatever "
        "the number of query heads.",
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
        corrected_by=("S19.head", "S19.block"),
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
        note="The factor α_j is exact; the bracket is bounded by nothing but the sizes of q and v. S19.block "
        "adds the norm and the network.",
    ),
    Statement(
        id="S19.block",
        where="derived here",
        claim="A pre-norm block, s before t: J = (I + MLP'_t) Σ_heads W_O α_s (W_V + (v_s − o_t)(W_K^T q_t)^T/√d_h) "
        "N'_s, hence ‖J‖ ≤ ‖I + MLP'_t‖ Σ_heads α_s ‖W_O‖ (‖W_V‖ + ‖v_s − o_t‖ ‖W_K^T q_t‖/√d_h) ‖g‖_∞/rms(h_s).",
        status=Status.HOLDS,
        uses=("S19.head",),
        tests=(
            T + "s19.py::test_a_whole_block_in_closed_form_and_its_bound",
            T + "s19.py::test_the_bound_of_a_block_is_attained_in_the_limit_and_can_fail",
            T + "s19.py::test_planted_fault_in_a_block_is_found",
        ),
        evidence=(ATTENTION + "s19_block",),
        note="Query heads with shared keys and values included; largest ratio to the bound .580 over 200 random "
        "blocks, 1 where every factor is a number. Over several blocks only the sum over paths of such products is "
        "bounded (S19).",
    ),
)
