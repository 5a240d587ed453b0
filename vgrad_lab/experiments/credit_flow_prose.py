"""What the credit study asks and answers, in sentences around its numbers."""

from typing import Any

from vgrad_lab.experiments.credit_flow_words import number, plain, span
from vgrad_lab.ledger import LEDGER

GRUS = ("gru-parameters", "gru-compute")
INTRODUCTION = (
    "Four models learn three small tasks by supervised steps; each answer is a token that was shown before, so the",
    "right credit is known. *Delayed recall*: name the first of a row of values (fixed lag). *Associative recall*:",
    "name the value that stood behind a key (looked up by content). *Label copying*: name the one label among",
    "fillers (any lag). Credit is a derivative with respect to a hidden state, tokens fixed: of the centred logit of",
    "the answer (flow), or of Σ Â ℓ (costate). *Embedding* is the input of the first layer, the one state that belongs",
    "to a single token in every model; *h^(L)* is the last layer before any final norm, where Definition 2 stands.",
)
LIMITS = (
    "- Evidence about language models: these models have at most 60,000 parameters and read a dozen tokens.",
    "- A contest of architectures: one transformer, one GRU, one learning rate for all, chosen so that the transformer",
    "  learns all three tasks.",
    "- Free of choices: *equal parameters* counts every trainable number; *equal compute* counts the FLOPs of matrix",
    "  products in training, forward and backward, as torch counts them (a GRU's steps cannot run side by side, so",
    "  equal FLOPs are not equal seconds). At equal parameters a step costs nearly the same FLOPs, so the GRU of equal",
    "  compute has the transformer's *width* instead, about half its parameters, and about twice its steps.",
    "- A study of RL training: the models learn by supervision; the costates are those that a policy-gradient step",
    '  with the reward "the answer is among the next two tokens" would send, exact over all continuations.',
)

Row = tuple[str, str, str]


def findings(result: dict[str, Any], *, ledger: str | None) -> list[str]:
    """One row per claim: what the paper says, what the records show, the ledger entries and their verdicts.

    ledger: the page to link the entries to.
    """
    rows = [*_paths(result), _sampling(result), *_costates(result), _selectivity(result), _noise(result)]
    head = ["| the paper | here | verdict in the ledger |", "|---|---|---|"]
    return [*head, *(f"| {paper} | {here} | {_verdicts(ids, ledger)} |" for paper, here, ids in rows)]


def _verdicts(ids: str, ledger: str | None) -> str:
    """Every entry with its status, linked as in the ledger's own page."""
    found = []
    for name in ids.split(", "):
        shown = f"[{name}]({ledger}#{name.lower().replace('.', '')})" if ledger else name
        verdict = LEDGER[name].status.value.replace("_", " ").lower()
        found.append(f"{shown} {verdict}{' assumptions' if verdict.endswith('under') else ''}")
    return "; ".join(found)


def _paths(result: dict[str, Any]) -> list[Row]:
    score = result["score"]
    attention = (
        f"Nothing crosses there: {_seen(score['S13'])}. At the embedding credit does cross: "
        f"{_last(result, 'transformer', 'crossing bottom')} of the squared flow after training (one number per task), "
        f"{_first(result, 'transformer', 'crossing bottom')} before."
    )
    recurrence = (
        f"A GRU's recurrence carries it at every state: {_seen(score['S15'])}; at h^(L) "
        f"{_last(result, GRUS, 'crossing top')} of the squared flow crosses positions after training. The claim is "
        f"true of a network whose state forgets all but the newest token: {_seen(score['S15.token'])}; there credit to "
        "the own token is all there is, and it has no bias."
    )
    return [
        ("Def. 2, eq. 14: attention carries credit across positions at h^(L).", attention, "S13, S13.depth"),
        ("§4.1: in an RNN sampling blocks all credit through time.", recurrence, "S15, S15.token"),
    ]


def _sampling(result: dict[str, Any]) -> Row:
    seen = _seen(result["score"]["S16"])
    here = (
        f"Its size has rank correlation {_rank(result, 'transformer', 'missing')} (transformer) and "
        f"{_rank(result, 'gru-parameters', 'missing')} (GRU) with entropy. As a share of the step (l, q) → (L, q+1): "
        f"at h^(L) of a transformer the sampling path is everything, at any entropy ({seen}); in the "
        f"GRUs it is {_first(result, GRUS, 'sampling share top')} before training and "
        f"{_last(result, GRUS, 'sampling share top')} after. From the embedding, where both have a fixed-token path, "
        f"the share has rank correlation {_rank(result, 'transformer', 'bottom')} (transformer) and "
        f"{_rank(result, 'gru-parameters', 'bottom')} (GRU) with entropy."
    )
    return "Eq. 20, Prop. 2: what the fixed-token path misses is small when entropy is low.", here, "S16, S17"


def _costates(result: dict[str, Any]) -> list[Row]:
    score, worst = result["score"], result["worst_bias"]
    exact = (
        f"Leave-one-out advantages: relative bias within 1e-9 in {_seen(score['S21.exact'])} "
        f"(worst {'undefined' if worst is None else plain(worst)}, rounding), at entropies of {_entropies(result)} "
        f"nats. Standardised groups keep the direction ({_seen(score['S21.group'])}) and change the length. What the "
        "fixed-token path misses is what the score term estimates."
    )
    own = (
        "Credit cut to each state's own token misses, relative to ‖G‖ after training, "
        f"{_last(result, 'transformer', 'bias own token bottom')} at the transformer's embedding, "
        f"{_last(result, 'transformer', 'bias own token top')} at its h^(L) and "
        f"{_last(result, GRUS, 'bias own token top')} at the GRUs' h^(L)."
    )
    return [
        ("After Theorem 1: E λ̂ ≈ G, with an error that entropy controls.", exact, "S21, S21.exact, S21.group"),
        ("Eq. 15 without its second term: only the immediate term is left.", own, "S14, S21.exact"),
    ]


def _selectivity(result: dict[str, Any]) -> Row:
    here = (
        "Not measured by attention weights here, but by where credit arrives: flow into the token asked for ÷ flow "
        f"into the others goes from {_first(result, 'transformer', 'selectivity')} before training to "
        f"{_last(result, 'transformer', 'selectivity')} in the transformer, and from "
        f"{_first(result, GRUS, 'selectivity')} to {_last(result, GRUS, 'selectivity')} in the GRUs."
    )
    return "Prop. 3: broad attention gives richer credit.", here, "S19"


def _noise(result: dict[str, Any]) -> Row:
    here = (
        "Noise ÷ signal of one sample's costate, leave-one-out: "
        f"{_first(result, 'transformer', 'noise leave-one-out')} (transformer) and "
        f"{_first(result, GRUS, 'noise leave-one-out')} (GRUs) before training, "
        f"{_last(result, 'transformer', 'noise leave-one-out')} and {_last(result, GRUS, 'noise leave-one-out')} "
        "after: without bias is not without noise."
    )
    return "Variance is not discussed.", here, "S23"


def _seen(count: dict[str, int]) -> str:
    return f"{count['seen']} of {count['looked']} measurements"


def _picked(result: dict[str, Any], models: str | tuple[str, ...], name: str, stage: int) -> str:
    chosen = (models,) if isinstance(models, str) else models
    found = [cells[m]["stages"][stage][name] for cells in result["cells"].values() for m in chosen if m in cells]
    return span(found)


def _last(result: dict[str, Any], models: str | tuple[str, ...], name: str) -> str:
    return _picked(result, models, name, -1)


def _first(result: dict[str, Any], models: str | tuple[str, ...], name: str) -> str:
    return _picked(result, models, name, 0)


def _rank(result: dict[str, Any], model: str, layer: str) -> str:
    ranks = result["ranks"].get(model)
    return number(ranks[layer], signed=True) if ranks else "not measured"


def _entropies(result: dict[str, Any]) -> str:
    cells = [c for models in result["cells"].values() for c in models.values()]
    return span([stage["entropy"] for cell in cells for stage in cell["stages"]])
