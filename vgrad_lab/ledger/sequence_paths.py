"""Ledger entries of the sequence floor on the two paths of eq. (20): sampling (S16, S17) and attention (S18, S19)."""

from vgrad_lab.ledger.types import Statement, Status

STATES = "vgrad_lab.experiments.verify_sequence:"
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
