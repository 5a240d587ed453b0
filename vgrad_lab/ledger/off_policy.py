"""Ledger entries of importance ratios and clipping (K05–K08)."""

from vgrad_lab.ledger.types import Statement, Status

_CHECK = "vgrad_lab.experiments.verify_off_policy:"
_TEST = "tests/statements/test_k0"

OFF_POLICY: tuple[Statement, ...] = (
    Statement(
        id="K05",
        where="folklore; RLOO as TRL codes it, without its clip",
        claim=(
            "Answers of another policy β, weighted by the ratio ρ(o) = π(o)/β(o) of the whole answer: "
            "E_β[ρ (R − b) Σ_t g_t] = ∇J for every constant b."
        ),
        status=Status.HOLDS_UNDER,
        assumptions=("β can draw every answer that π can: no top-k or top-p when drawing",),
        uses=("S02.dominated",),
        tests=(_TEST + "5.py::test_holds", _TEST + "5.py::test_answers_that_are_never_drawn_break_it"),
        evidence=(_CHECK + "k05_sequence",),
        note="Its variance grows with the length of the answers; that is why libraries take other ratios.",
    ),
    Statement(
        id="K06",
        where="PPO, arXiv 1707.06347, and GRPO, arXiv 2402.03300: the ratio of a token",
        claim="The ratio ρ_t = π/β of a token alone corrects for answers of β: E_β[R Σ_t ρ_t g_t] = ∇J.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_TEST + "6.py::test_error_by_shift",),
        counterexample=_CHECK + "k06_stale_future",
        corrected_by=("K06.parts", "K05"),
        note=(
            "The sources call it a surrogate. On the reference tree of 15 answers, A = R − J: relative error 0.9, 3.7, "
            "9.8 % at shifts 0.05, 0.2, 0.5 of the logits, without any ratio 1.7, 7.1, 18.6 %. Without a ratio a "
            "constant baseline changes the mean: 2.4, 9.9, 25.4 % with A = R."
        ),
    ),
    Statement(
        id="K06.parts",
        where="derived here",
        claim=(
            "A ratio over some tokens gives Σ_prefix P(prefix) Σ_v π(v) g(v) Q(v): the token alone with P and Q of β, "
            "the tokens up to t with P of π and Q of β, those from t on with P of β and Q of π."
        ),
        status=Status.HOLDS,
        tests=(_TEST + "6.py::test_parts", _TEST + "6.py::test_one_token_or_no_shift_is_exact"),
        evidence=(_CHECK + "k06_parts",),
        note="So the token's ratio is exact for answers of one token, and a constant baseline never matters to it.",
    ),
    Statement(
        id="K07",
        where="GSPO, arXiv 2507.18071",
        claim=(
            "The ratio (π(o)/β(o))^{1/|o|} is an importance weight of the answer: a constant reward has no expected "
            "gradient, and other rewards have a multiple of ∇J."
        ),
        status=Status.FAILS_AS_WRITTEN,
        tests=(_TEST + "7.py::test_constant_reward", _TEST + "7.py::test_error_by_shift"),
        counterexample=_CHECK + "k07_constant_reward",
        corrected_by=("K05",),
        note=(
            "The source introduces it for its variance. On the reference tree its direction has cosine 0.941, 0.937, "
            "0.929 with ∇J at shifts 0.05, 0.2, 0.5, and 0.942 without a shift: there 1/|o| is the reason (E07)."
        ),
    ),
    Statement(
        id="K08",
        where="folklore on PPO, arXiv 1707.06347",
        claim="min(ρA, clip(ρ, 1 − ε, 1 + ε)A) bounds the step and keeps the expected direction of ρA.",
        status=Status.FAILS_AS_WRITTEN,
        tests=(_TEST + "8.py::test_bandit", _TEST + "8.py::test_clipping_adds_bias"),
        counterexample=_CHECK + "k08_bandit",
        corrected_by=("K08.left_out",),
        note=(
            "It does not bound the policy either: it stops the gradient once the ratio is past the bound. On the "
            "reference tree (K06) ε = 0.2 raises the error of the token's ratio from 3.7 to 5.3 % and from 9.8 to "
            "21.5 %."
        ),
    ),
    Statement(
        id="K08.left_out",
        where="derived here",
        claim=(
            "The clipped direction is the unclipped one less E_β[Σ_t ρ_t A g_t] over the tokens with A > 0, ρ_t > "
            "1 + ε_high or A < 0, ρ_t < 1 − ε_low. At π = β nothing is left out, whatever the bounds."
        ),
        status=Status.HOLDS,
        tests=(_TEST + "8.py::test_left_out", _TEST + "8.py::test_clip_higher_keeps_more"),
        evidence=(_CHECK + "k08_left_out",),
        note="TRL's delta and verl's dual clip also leave out A < 0, ρ above a cap; CISPO leaves out no token.",
    ),
)
"""K05–K08."""
