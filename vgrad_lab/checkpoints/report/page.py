"""The report's HTML: one self-contained page, every text escaped, legible in light and dark and on a phone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from vgrad_lab.checkpoints.report.collect import Record
from vgrad_lab.checkpoints.report.plates import Plate
from vgrad_lab.checkpoints.report.predictors import P_GAP
from vgrad_lab.checkpoints.report.scores import Row
from vgrad_lab.checkpoints.report.style import signed
from vgrad_lab.checkpoints.report.verdict import correlation

CLASS = {True: ' class="n"', False: ""}
GLOSSARY = (
    ("R, R_before", "mean over prompts of p(y*|q), the probability of the right token over the whole vocabulary"),
    ("R among the labels", "the same after renormalising over the labels; with label mass it splits R in two"),
    ("R_after, gain", "R after K updates of RL; gain = R_after − R_before, averaged over the budgets K and the seeds"),
    ("p", "success probability of one prompt"),
    ("G, Σ", "value gradient ∂E[R]/∂h at the answer's hidden state h; signal Σ = E‖G‖²"),
    ("λ̂", "empirical costate: gradient with respect to h of advantage times log-probability of the sampled token"),
    ("Λ", "gap E[‖G‖‖û − G‖] with û = E[λ̂|h] (conditional), one λ̂ (per sample), or the mean over a group (group mean)"),
    ("H_α", "headroom (1/α) ln E e^{αR} − E R; within prompts (over samples) or between prompts (over p(y*|q))"),
    ("P_gap", "the paper's impact score (Σ − Λ)·H_α; the sign of Σ − Λ is kept"),
    ("alignment", "E⟨λ̂, G⟩, which Σ − Λ bounds from below"),
    ("∇J", "gradient of the mean reward with respect to all parameters, exact, one backward pass"),
    ("κ(p), H", "norm of the softmax Jacobian diag(p) − pp^T, and entropy in nats, of the next-token distribution"),
    ("κ_n(p)", "factor between GRPO's expected gradient and the true one for binary rewards in groups of n"),
    (
        "forecast",
        "reward after K updates from R_before, ‖∇J‖ and κ_n(p), with one constant per optimiser and no RL step",
    ),
    ("ρ", "Spearman rank correlation over checkpoints; in brackets a 90 % percentile bootstrap over checkpoints"),
    ("partial given R", "rank correlation with the gain after a cubic in the rank of R_before is taken out of both"),
    ("z(R) + z(v)", "z-score of R_before plus z-score of the predictor, ranked against R_after"),
    ("regret", "best gain of the ladder minus the gain at the checkpoint that the predictor would choose"),
    ("undefined", "a value is missing or not a number, a rank is constant, or there are too few checkpoints"),
)


def prose(text: str) -> str:
    """Escaped text with R_before, R_after, P_gap and H_α set as subscripts."""
    return re.sub(r"\b([RPH])_(before|after|gap|α)", r"\1<sub>\2</sub>", escape(text))


def plain(text: str) -> str:
    """A right-aligned table cell."""
    return f'<td class="n">{escape(text)}</td>'


def cell(x: float, *, digits: int = 2, plus: bool = True) -> str:
    """A table cell with a number, or "undefined"."""
    text = signed(x, digits)
    if text == "undefined":
        return '<td class="n none">undefined</td>'
    return f'<td class="n">{text if plus else text.lstrip("+")}</td>'


def table(caption: str, head: Sequence[tuple[str, bool]], body: Iterable[str]) -> str:
    """A scrollable table; head holds (text, is it a number), body holds finished rows."""
    heads = "".join(f'<th scope="col"{CLASS[is_number]}>{prose(text)}</th>' for text, is_number in head)
    rows = "\n".join(body)
    return (
        f'<div class="wide"><table><caption>{prose(caption)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def predictor_table(rows: Sequence[Row]) -> str:
    """All predictors, largest correlation with the gain first, undefined ones last; P_gap by eqs. 26-29 is marked."""
    order = sorted(rows, key=lambda row: -row.gain.value if row.gain.value == row.gain.value else float("inf"))
    body = []
    for row in order:
        rho = correlation(row)
        look = ' class="n none"' if rho == "undefined" else ' class="n"'
        mark = ' class="mark"' if row.name == P_GAP or row.kind == "forecast" or row.name == "R_before" else ""
        numbers = "".join(cell(x) for x in (row.partial, row.after, row.combined))
        fit = cell(row.r_squared) if row.kind == "forecast" else "<td></td>"
        body.append(
            f'<tr{mark}><th scope="row">{prose(row.name)}</th><td>{prose(row.formula)}</td><td>{row.kind}</td>'
            f"<td{look}>{rho}</td>{numbers}{cell(row.regret, digits=3, plus=False)}{fit}</tr>"
        )
    head = [("predictor", False), ("formula", False), ("kind", False), ("ρ with gain [90 %]", True)]
    head += [(t, True) for t in ("partial given R", "ρ with R_after", "z(R)+z(v), R_after", "regret", "R²")]
    caption = (
        f"{len(rows)} predictors on the same checkpoints, best first. With so many, the top is partly luck: "
        "choose before looking, then confirm on another ladder."
    )
    return table(caption, head, body)


def plate(item: Plate, source: str) -> str:
    """A figure with alternative text and the paper's claim, what is seen, and caveats below."""
    words = (("Paper", item.claim), ("Here", item.seen), ("Caveats", item.caveats))
    caption = "".join(f"<dt>{name}</dt><dd>{prose(text)}</dd>" for name, text in words)
    return (
        f'<section id="{escape(item.name)}"><h3>{escape(item.title)}</h3>\n<figure><img alt="{escape(item.alt)}" '
        f'src="{source}">\n<figcaption><dl>{caption}</dl></figcaption></figure></section>'
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and values."""
    return "<dl>" + "".join(f"<dt>{prose(k)}</dt><dd>{prose(v)}</dd>" for k, v in pairs) + "</dl>"


def failures(records: Sequence[Record]) -> str:
    """Every failed unit with its error."""
    failed = [r for r in records if r["status"] == "failed"]
    if not failed:
        return "<p>No unit failed.</p>"
    named = [(str(r["unit"]), str(r.get("error") or "no message")) for r in failed]
    lines = (f'<li><code>{escape(unit)}</code>: <span class="failed">{escape(why)}</span></li>' for unit, why in named)
    return f"<ul>{''.join(lines)}</ul>"


def heading(text: str) -> str:
    """A third-level heading."""
    return f"<h3>{escape(text)}</h3>"


def folded(summary: str, html: str) -> str:
    """A part that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def named_row(name: str, cells: str) -> str:
    """A table row with its heading."""
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def sentences(texts: Sequence[str]) -> str:
    """The verdict's box."""
    return '<div class="verdict">' + "".join(f"<p>{prose(text)}</p>" for text in texts) + "</div>"


def items(texts: Sequence[str]) -> str:
    """A list of notes, or the sentence that there are none."""
    return "<ul>" + "".join(f"<li>{escape(t)}</li>" for t in texts) + "</ul>" if texts else "<p>Nothing.</p>"


def document(title: str, lead: str, sections: Mapping[str, tuple[str, str]]) -> str:
    """The whole page; sections maps an anchor to (heading, body), in order."""
    contents = "".join(f'<li><a href="#{escape(a)}">{escape(heading)}</a></li>' for a, (heading, _) in sections.items())
    body = "\n".join(f'<h2 id="{escape(a)}">{escape(heading)}</h2>\n{html}' for a, (heading, html) in sections.items())
    css = files("vgrad_lab.checkpoints.report").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}\n</style>\n</head>\n<body>\n<header><h1>{escape(title)}</h1>\n"
        f'<p class="lead">{escape(lead)}</p></header>\n<nav aria-label="Contents"><ol>{contents}</ol></nav>\n'
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
