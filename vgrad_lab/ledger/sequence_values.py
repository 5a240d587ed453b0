"""Ledger entries of the sequence floor on Theorem 1 and the expected costate (S20, S21)."""

from vgrad_lab.ledger.types import Statement, Status

THEOREM = "vgrad_lab.experiments.verify_theorem:"
ANSWERS = "vgrad_lab.experiments.verify_answers:"
VALUES = "vgrad_lab.experiments.verify_value_gradient:"
T = "tests/statements/test_"
OLMO2 = "tests/sequence/test_olmo2.py::"
SAME_ROLLOUTS = (
    "λ̂ and λ are taken on the same rollouts",
    "S_t is a Markov state: given it the past says nothing about what follows",
    "J_k, D_k, c_k and c'_k do not look past S_{k+1}",
)

EXPECTED: tuple[Statement, ...] = (
    Statement(
        id="S20",
        where="Theorem 1, eq. (23)",
        claim="‖E[λ̂_t|h_t] − E[λ_t|h_t]‖ ≤ Σ_{k>t} γ^{k−t} ‖J_{k←k−1}‖^{k−t−1} ε_k, ε_k the sampling gap.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(
            T + "s20.py::test_discount_alone_breaks_the_bound",
            T + "s20.py::test_each_other_fault_breaks_the_bound",
            T + "s20.py::test_the_product_in_place_of_the_power_repairs_that_fault_alone",
            T + "s20.py::test_no_jacobian_leaves_nothing_but_the_first_gap",
        ),
        counterexample=THEOREM + "s20_counterexample",
        corrected_by=("S20.identity", "S20.bound", "S21.exact"),
        note="Five faults, each alone, difference against bound: eq. (15) carries no γ (1 − γ against 0); a power in "
        "place of the product of norms (10 against .1); D − J correlated with λ (1 against 0); λ̂ on drawn tokens but "
        "λ on relaxed ones (3 against 0); a state that does not fix the reward, so that immediate terms do not align "
        "(.25 against 0). At the last layer J = 0 and (23) is the norm of the whole future.",
    ),
    Statement(
        id="S20.identity",
        where="derived here",
        claim="E[λ̂_t − λ_t | S_t] = Σ_{k≥t} γ^{k−t} E[P_{t→k}^T (c_k − c'_k − γ (D_k − J_k)^T G_{k+1}(S_{k+1})) | S_t] "
        "for λ̂_t = c_t + γ J_t^T λ̂_{t+1} and λ_t = c'_t + γ D_t^T λ_{t+1}; P_{t→k} = J_{k−1} ⋯ J_t, G_k = E[λ_k|S_k].",
        status=Status.HOLDS_UNDER,
        assumptions=SAME_ROLLOUTS,
        tests=(
            T + "s20.py::test_identity",
            T + "s20.py::test_identity_on_a_closed_loop",
            T + "s20.py::test_other_rollouts_break_it",
            T + "s20.py::test_a_state_that_is_not_markov_breaks_it",
            T + "s20.py::test_a_jacobian_that_sees_the_future_breaks_it",
        ),
        evidence=(THEOREM + "s20_identity",),
        note="Largest residual 5.1e-16 of the costates' size over 240 finite systems. Eq. (15) has γ J in place of J.",
    ),
    Statement(
        id="S20.bound",
        where="derived here",
        claim="‖E[λ̂_t − λ_t | S_t]‖ ≤ Σ_{k≥t} γ^{k−t} E[Π_{t≤j<k} ‖J_j‖ (η_k + γ ‖D_k − J_k‖ ‖G_{k+1}‖) | S_t], "
        "η_k = ‖E[c_k − c'_k | S_k]‖.",
        status=Status.HOLDS_UNDER,
        assumptions=SAME_ROLLOUTS,
        uses=("S20.identity",),
        tests=(
            T + "s20.py::test_bound",
            T + "s20.py::test_bound_is_attained_and_can_fail",
            T + "s20.py::test_other_rollouts_break_the_bound",
            T + "s20.py::test_a_state_that_is_not_markov_breaks_the_bound",
            T + "s20.py::test_a_jacobian_that_sees_the_future_breaks_the_bound",
        ),
        evidence=(THEOREM + "s20_bound",),
        note="Attained in one dimension.",
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
        corrected_by=("S21.exact", "S21.group", "S21.gae", "S21.relaxed"),
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
            T + "s21.py::test_answers_that_end_early_with_any_critic",
            OLMO2 + "test_s21_exact",
        ),
        evidence=(VALUES + "s21_exact", ANSWERS + "s21_answers"),
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
            T + "s21.py::test_groups_of_answers_that_end_early",
        ),
        evidence=(VALUES + "s21_group", ANSWERS + "s21_group_answers"),
        note="Brute force over all groups of 2-4 samples; the factor is of the prompt's p, whatever the prefix.",
    ),
    Statement(
        id="S21.gae",
        where="derived here",
        claim="PPO's advantage (GAE) gives the exact value gradient, with answers of any length, at λ = 1 for every "
        "critic and at every λ for the exact critic.",
        status=Status.HOLDS_UNDER,
        assumptions=("λ = 1, or the critic is the exact value function", "γ = 1"),
        uses=("S21.exact",),
        tests=(
            T + "s21.py::test_answers_that_end_early_with_any_critic",
            T + "s21.py::test_the_exact_critic_allows_any_lambda",
            T + "s21.py::test_a_shorter_lambda_needs_the_exact_critic",
            T + "s21.py::test_a_discount_breaks_it",
            "tests/sequence/test_olmo2_cache.py::test_answers_that_end_early",
        ),
        evidence=(ANSWERS + "s21_answers",),
        note="On-policy and without clipping; tokens of another policy break S21.exact. Largest residual 4.5e-14 over "
        "160 random models of four kinds (V ≤ 5, T ≤ 4, L ≤ 4).",
    ),
    Statement(
        id="S21.length",
        where="eq. (1)",
        claim="The factor 1/T_i of GRPO's loss leaves the direction of E[λ̂] along the value gradient of R.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(T + "s21.py::test_dividing_by_the_length_turns_the_value_gradient_round",),
        counterexample=ANSWERS + "s21_length",
        corrected_by=("S21.exact",),
        note="E[λ̂] is the value gradient of R/T. Rewards 1 and 1.5 for answers of one and two tokens: the opposite "
        "direction at the last layer, in every architecture. With a baseline b it is that of (R − b)/T.",
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
