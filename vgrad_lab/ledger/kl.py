"""Ledger entries of KL terms (K01–K04): their values, and their gradients in the loss and in the reward."""

from vgrad_lab.ledger.types import Statement, Status

_CHECK = "vgrad_lab.experiments.verify_kl:"
_TEST = "tests/statements/test_k0"

KL: tuple[Statement, ...] = (
    Statement(
        id="K01",
        where="GRPO, arXiv 2402.03300, its estimator of the KL; derived here",
        claim=(
            "x = log π/ref of a token: k1 = x and k3 = e^{−x} − 1 + x both have the mean KL(π‖ref) at a prefix, and "
            "summed over the tokens of an answer KL(π‖ref) between the laws of answers."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("the answers are drawn from π",),
        tests=(_TEST + "1.py::test_holds", _TEST + "1.py::test_answers_of_another_policy_break_it"),
        evidence=(_CHECK + "k01_values",),
        counterexample=_CHECK + "k01_second",
        note="k2 = x²/2 has another mean; the counterexample is its. k1 may be negative, k2 and k3 are not.",
    ),
    Statement(
        id="K02",
        where="GRPO, arXiv 2402.03300, read as a gradient; the default of TRL and verl",
        claim=(
            "k3 in the loss, an unbiased sample of KL(π‖ref), has the expected gradient ∇KL(π‖ref) at the prefix where "
            "it is drawn."
        ),
        status=Status.FAILS_AS_WRITTEN,
        tests=(_TEST + "2.py::test_k3_pulls_towards_the_other_divergence",),
        counterexample=_CHECK + "k02_third",
        corrected_by=("K02.table", "K02.ratio"),
        note=(
            "The mean of a derivative is not the derivative of a mean when the law moves too. Near the reference the "
            "two divergences have the same second-order part, so the difference shows only at a distance."
        ),
    ),
    Statement(
        id="K02.table",
        where="derived here",
        claim=(
            "In the loss at one prefix: k1 has the expected gradient 0, k2 has ∇KL(π‖ref), k3 has ∇KL(ref‖π) = "
            "π − ref in the logits."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("the token is drawn from π",),
        tests=(_TEST + "2.py::test_table", _TEST + "2.py::test_tokens_of_another_policy_break_the_table"),
        evidence=(_CHECK + "k02_table",),
        note="A KL in the loss as k1 costs variance and regularises nothing.",
    ),
    Statement(
        id="K02.ratio",
        where="TRL, use_bias_correction_kl; derived here",
        claim=(
            "ρk in the loss at one prefix, ρ = π/β and the token drawn from any β, has the expected gradient "
            "∇E_π[k]: ∇KL(π‖ref) for k1 and k3, another one for k2."
        ),
        status=Status.HOLDS,
        tests=(_TEST + "2.py::test_ratio", _TEST + "2.py::test_ratio_does_not_help_k2"),
        evidence=(_CHECK + "k02_ratio",),
        note="At π = β too, where ρ = 1: what counts is its derivative.",
    ),
    Statement(
        id="K03",
        where="RLOO, arXiv 2402.14740, and PPO: the KL in the reward; derived here",
        claim=(
            "k1 as data in the reward, the answer's sum for every token or the sum of the tokens to come, gives "
            "∇KL(π‖ref) between the laws of answers."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=(
            "the answers are drawn from π, or weighted by the ratio of the whole answer",
            "π in k1 is the policy that is differentiated, not the older one that drew the answers",
        ),
        uses=("S02.dominated", "K05"),
        tests=(
            _TEST + "3.py::test_holds",
            _TEST + "3.py::test_the_tokens_own_ratio_breaks_it",
            _TEST + "3.py::test_a_stale_penalty_breaks_it",
        ),
        evidence=(_CHECK + "k03_reward",),
        note=(
            "TRL's RLOO takes log β/ref of the answers' own policy: after the first update it lacks ∇KL(π‖β). A "
            "token's own k1 without the tokens to come gives only what per-token terms in the loss give (K04.future)."
        ),
    ),
    Statement(
        id="K03.third",
        where="folklore",
        claim="In the reward k3 serves as k1 does, as it has the same mean and less variance.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_TEST + "3.py::test_k3_in_the_reward",),
        counterexample=_CHECK + "k03_third",
        corrected_by=("K03",),
        note=(
            "Per prefix it gives ∇KL(π‖ref) − ∇KL(ref‖π), in general ∇E_π[k] − E_π[∇k]: near π = ref it is of second "
            "order, so that it all but regularises nothing there."
        ),
    ),
    Statement(
        id="K04",
        where="GRPO's KL per token; TRL, use_bias_correction_kl",
        claim=(
            "A term per token in the loss that is right at one prefix (k2, ρ_t k3) has over an answer the expected "
            "gradient of the KL between the laws of answers."
        ),
        status=Status.FAILS_AS_WRITTEN,
        tests=(_TEST + "4.py::test_by_how_much",),
        counterexample=_CHECK + "k04_first_token",
        corrected_by=("K04.future", "K04.sequence", "K03"),
        note=(
            "It holds the visits to prefixes fixed. Over 200 random policies on 15 answers of at most 3 tokens the "
            "median relative error is 0.41 (least 0.07, largest 3.0)."
        ),
    ),
    Statement(
        id="K04.future",
        where="derived here",
        claim=(
            "∇KL(π‖ref) of answers = Σ_prefix P(prefix) ∇KL(prefix) + E[Σ_t g_t Σ_{s>t} KL(o_<s)]. Per token k2, "
            "ρ_t k1 and ρ_t k3 in the loss give the first part, k3 in the loss Σ P(prefix) (π − ref)."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("the answers are drawn from π",),
        uses=("K02.table", "K02.ratio"),
        tests=(_TEST + "4.py::test_future", _TEST + "4.py::test_answers_of_another_policy_break_it"),
        evidence=(_CHECK + "k04_future",),
        note="The second part is a policy gradient whose reward is the KL that is still to come.",
    ),
    Statement(
        id="K04.sequence",
        where="derived here",
        claim=(
            "ρ(o) Σ_t k(x_t) in the loss, ρ the ratio of the whole answer, has the expected gradient ∇KL(π‖ref) of "
            "answers for k1 and k3, whatever policy drew them."
        ),
        status=Status.HOLDS,
        tests=(_TEST + "4.py::test_sequence", _TEST + "4.py::test_the_geometric_ratio_does_not_do"),
        evidence=(_CHECK + "k04_sequence",),
        note="With TRL's importance_sampling_level sequence the ratio is the geometric one, and it fails.",
    ),
)
"""K01–K04."""
