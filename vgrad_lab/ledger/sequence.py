"""Ledger entries of the sequence floor: those on hidden states here (S13-S15), the others from their modules."""

from vgrad_lab.ledger.sequence_paths import PATHS
from vgrad_lab.ledger.sequence_values import EXPECTED
from vgrad_lab.ledger.types import Statement, Status

STATES = "vgrad_lab.experiments.verify_sequence:"
T = "tests/statements/test_"
OLMO2 = "tests/sequence/test_olmo2.py::"
CACHE = "tests/sequence/test_olmo2_cache.py::"

HIDDEN_STATES: tuple[Statement, ...] = (
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
        tests=(
            T + "s14.py::test_one_step_in_time_for_the_cache",
            OLMO2 + "test_s14_recursions",
            CACHE + "test_one_step_is_exact_for_the_cache_of_the_library",
        ),
        evidence=(STATES + "s14_cache",),
        note="Also for the keys and values themselves, in the library's DynamicCache. OLMo-2 must be patched to "
        "compute in float64: its norms and its softmax cast to float32, and then the recursion closes to single "
        "precision only.",
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
)

SEQUENCE: tuple[Statement, ...] = HIDDEN_STATES + PATHS + EXPECTED
