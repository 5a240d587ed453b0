"""Ledger entries of estimates from sampled answers: Σ, Λ, alignment (S22.sampled) and headroom (S24.sampled)."""

from vgrad_lab.ledger.types import Statement, Status

CHECKS = "vgrad_lab.experiments.verify_group_signal:"
SIGNAL = "tests/checkpoints/test_group_signal.py::"
COSTATES = "tests/checkpoints/test_group_costates.py::"
REWARDS = "tests/checkpoints/test_group_rewards.py::"

SAMPLED: tuple[Statement, ...] = (
    Statement(
        id="S22.sampled",
        where="eqs. (24)-(27), derived here",
        claim="From G independent answers to each prompt Σ (G ≥ 4), E⟨λ̂,G⟩ (G ≥ n + 2) and E‖E[λ̂|q] − G‖² (G ≥ 2n) "
        "are estimable without bias, as means over disjoint answers of inner products of scores; and so is Λ for "
        "leave-one-out (0), the own mean (Σ/n) and standardised rewards 0 and 1, where Λ = ±(E⟨λ̂,G⟩ − Σ).",
        status=Status.HOLDS_UNDER,
        assumptions=(
            "the answers to a prompt are independent draws from the differentiated policy",
            "the state is one that the prompt fixes",
            "Λ, standardised: rewards 0 and 1, and κ_n(p) on one side of 1 for every p",
        ),
        uses=("S10", "S21.exact", "S22.alignment"),
        tests=(
            SIGNAL + "test_signal_has_the_right_mean",
            SIGNAL + "test_alignment_has_the_right_mean",
            SIGNAL + "test_gap_of_binary_rewards_has_the_right_mean",
            COSTATES + "test_estimators_are_unbiased_on_a_language_model",
            SIGNAL + "test_an_answer_that_meets_itself_is_seen",
            SIGNAL + "test_a_gradient_from_the_same_group_is_seen",
            SIGNAL + "test_answers_of_another_policy_break_it",
            SIGNAL + "test_answers_that_are_not_independent_break_it",
            SIGNAL + "test_a_state_that_the_prompt_does_not_fix_breaks_it",
            SIGNAL + "test_gap_of_other_rewards_is_undefined",
            SIGNAL + "test_usual_groups_are_one_sided",
            SIGNAL + "test_a_prompt_without_two_pairs_adds_exactly_nothing",
        ),
        evidence=(CHECKS + "s22_sampled",),
        note="κ_n ≥ 1 for n ≥ 3 and κ_2 = 1/√2 with ddof 1 and a small ε; n = 8 with ε = 0.5 lies on both sides. "
        "Without an unbiased estimate from any number of answers, and never printed as a number: Λ of other "
        "standardised rewards and of single costates (norms), the cosine and E⟨λ̂,G⟩/Σ (ratios). The bound "
        "Λ ≤ √(Σ E‖E[λ̂|q] − G‖²) has both its parts. A prompt with fewer than two answers apart from its most common "
        "reward adds exactly 0; where every prompt is such, 0 ± 0 would be a false certainty and is left undefined.",
    ),
    Statement(
        id="S24.sampled",
        where="eq. (28), derived here",
        claim="No number of answers fixed beforehand gives an unbiased estimate of H_α; the first G terms of the "
        "logarithm's Chebyshev series, each estimated without bias, have a bias of at most "
        "2ρ^{−G−1}/(α(G+1)(1−1/ρ)), ρ = a + √(a²−1), a = 1 + 2/(e^α − 1), whatever the law of R on [0, 1].",
        status=Status.HOLDS_UNDER,
        assumptions=("R lies in [0, 1]", "the answers to a prompt are independent"),
        uses=("S24",),
        tests=(
            REWARDS + "test_headroom_is_biased_by_no_more_than_its_bound",
            REWARDS + "test_the_bound_is_near_and_the_plug_in_exceeds_it",
            REWARDS + "test_no_polynomial_is_the_headroom",
            REWARDS + "test_headroom_between_prompts_is_biased_by_no_more_than_its_bound",
            REWARDS + "test_rewards_beyond_the_unit_interval_break_the_bound",
            REWARDS + "test_answers_that_are_not_independent_break_the_bound",
        ),
        evidence=(CHECKS + "s24_sampled",),
        note="α = 1: 4.7e-4, 9.3e-7, 6.4e-12 for G = 4, 8, 16; the headroom of the observed share of six coins is "
        "biased by more than 1e-2. A headroom is printed where the bound is at most 1e-5, else it is undefined.",
    ),
)
"""Entries with ids S22.sampled and S24.sampled."""
