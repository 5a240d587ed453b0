"""The proof pages agree with the ledger: ids, verdicts, names, the counterexamples' numbers; headings, links, maths."""

import re
from pathlib import Path

import pytest

from vgrad_lab.ledger import LEDGER
from vgrad_lab.ledger.audit import load

ROOT = Path(__file__).parents[1]
PROOFS = ROOT / "docs" / "proofs"
PAGES = sorted(PROOFS.glob("[A-Z][0-9][0-9].md"))
HEADINGS = ["Statement", "Assumptions", "Proof", "Where the paper differs", "Checks", "References"]
PROVED = {
    "E05": ("mean", "greedy"),
    "E06": ("effective", "binary", "ddof", "mixed"),
    "E07": ("effective", "equal", "gspo", "token_mean", "ratio"),
    "E08": ("mse", "oracle", "constant"),
    "E09": (),
    "G01": ("hessian", "step", "fisher"),
    "G02": ("bound", "converse", "tabular"),
    "G03": ("softmax", "tabular", "separable"),
    "G04": ("sharp",),
    "G05": ("tokens", "random", "length", "azuma", "linear"),
    "G06": ("scale", "groups", "length"),
    "K01": (),
    "K02": ("table", "ratio"),
    "K03": ("third",),
    "K04": ("future", "sequence"),
    "K05": (),
    "K06": ("parts",),
    "K07": (),
    "K08": ("left_out",),
    "K09": ("average", "clamp", "scale", "marginal"),
    "K10": ("rest", "target", "budget", "best_of_n", "ascent", "summit"),
    "K11": ("exact",),
    "R01": (),
    "R02": (),
    "R03": ("only", "zero_reward"),
    "R04": (),
    "R05": ("near_optimal", "optimal"),
    "R06": ("hidden", "gae"),
    "R07": ("order", "centring", "constant"),
    "R08": ("zero", "value", "anchors", "segment", "limit", "rollouts"),
    "R09": (),
    "S01": ("dominated", "dependent"),
    "S02": ("dominated",),
    "S03": ("continuous", "variance"),
    "S04": (),
    "S05": ("extra",),
    "S06": (),
    "S07": (),
    "S08": ("jump", "surface", "singular"),
    "S09": ("unstopped", "standardised"),
    "S10": ("nonbinary",),
    "S11": ("direct",),
    "S12": ("per_step",),
    "S13": ("depth",),
    "S14": ("sum", "depth", "cache", "gru"),
    "S15": ("token",),
    "S16": ("straight_through",),
    "S17": ("sharp", "constants", "temperature", "gumbel", "covariance"),
    "S18": ("grouped",),
    "S19": ("head", "block"),
    "S20": ("identity", "bound"),
    "S21": ("exact", "group", "gae", "length", "relaxed"),
    "S22": ("alignment", "sampled"),
    "S23": (),
    "S24": ("sampled",),
    "S25": (),
    "S26": ("first_order", "adam"),
    "S27": ("indicator",),
}
"""Pages and the corrections that are sections of them."""
MATHS = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)


def without_code(text: str) -> str:
    """The text with code spans blanked."""
    return re.sub(r"`[^`\n]*`", "", text)


def slugs(text: str) -> set[str]:
    """Anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def ids_of(page: Path) -> list[str]:
    """Ledger ids that belong to a page: its own and its corrections."""
    return [page.stem, *(f"{page.stem}.{name}" for name in PROVED.get(page.stem, ()))]


def inside(text: str, heading: str) -> list[str]:
    """First words of the sections under a heading."""
    part = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^### ([\w.]+)", part, re.MULTILINE)


def page_problems(text: str, page: Path) -> list[str]:
    """Everything wrong with a page, as sentences."""
    return [*_shape(text, page), *_names(text, page), *_numbers(text), *_links(text, page), *_maths(text)]


def _shape(text: str, page: Path) -> list[str]:
    found = re.findall(r"^## (.+)$", text, re.MULTILINE)
    wrong = [] if found == HEADINGS else [f"headings are {found}, expected {HEADINGS}"]
    if not text.startswith(f"# {page.stem}: "):
        wrong.append(f"the title does not start with {page.stem}")
    sections = re.findall(r"^### ([\w.]+)", text, re.MULTILINE)
    for i in ids_of(page):
        wrong += [f"{i} has no section of its own in {n}" for n in ("Statement", "Proof") if i not in inside(text, n)]
    wrong += [f"{i} is no id of this page" for i in sections if re.match(r"[A-Z]\d\d", i) and i not in ids_of(page)]
    verdicts = dict(re.findall(r"^\| ([A-Z]\d\d[\w.]*) \| `(\w+)` \|$", text, re.MULTILINE))
    expected = {i: str(LEDGER[i].status) for i in ids_of(page)}
    wrong += [] if verdicts == expected else [f"verdicts are {verdicts}, the ledger has {expected}"]
    return wrong + [f"left over: {word}" for word in ("TODO", "FIXME", "XXX") if word in text]


def _names(text: str, page: Path) -> list[str]:
    wrong = []
    kinds = {"evidence": "evidence", "test": "tests"}
    for i, kind, name in re.findall(r"^\| ([A-Z]\d\d[\w.]*) \| (\w+) \| `([^`]+)` \|$", text, re.MULTILINE):
        if kind not in kinds or i not in LEDGER or name not in getattr(LEDGER[i], kinds[kind]):
            wrong.append(f"{name} is no {kind} of {i}")
    own = [LEDGER[i] for i in ids_of(page)]
    known = {name for s in own for name in (*s.tests, *s.evidence, s.counterexample)}
    named = re.findall(r"`(tests/[^`]+|vgrad_lab[\w.]*:\w+)`", text)
    wrong += [f"{name} is not in the ledger under {page.stem}" for name in named if name not in known]
    given = {s.counterexample for s in own if s.counterexample}
    shown = {name for name, _, _ in counterexample_rows(text)}
    wrong += [f"the counterexample {name} is not shown" for name in sorted(given - shown)]
    return wrong + [f"{s.id} names no check" for s in own if f"| {s.id} | test |" not in text]


def counterexample_rows(text: str) -> list[tuple[str, str, str]]:
    """Rows ``| `module:function` | claimed | true |`` of a page."""
    return re.findall(r"^\| `(vgrad_lab[\w.]*:\w+)` \| (-?[\d.]+) \| (-?[\d.]+) \|$", text, re.MULTILINE)


def _numbers(text: str) -> list[str]:
    wrong = []
    for name, *printed in counterexample_rows(text):
        found = load(name)()
        for number, value in zip(printed, (found.claimed, found.true), strict=True):
            unit = 10.0 ** -len(number.partition(".")[2])
            if not abs(float(number) - value) <= 0.5001 * unit:
                wrong.append(f"{name} returns {value}, the page says {number}")
    return wrong


def _links(text: str, page: Path) -> list[str]:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or (anchor and anchor not in slugs(file.read_text(encoding="utf-8"))):
            wrong.append(f"dead link {target}")
    return wrong


def _maths(text: str) -> list[str]:
    """Maths that GitHub would not render: Markdown eats escaped punctuation, and < may start a tag."""
    prose, wrong = without_code(text), []
    if re.search(r"</?[a-zA-Z]", MATHS.sub("", prose)):
        wrong.append("HTML")
    if "$" in MATHS.sub("", prose):
        wrong.append("a $ without its pair")
    for display, inline in MATHS.findall(prose):
        formula = display or inline
        if found := re.findall(r"\\[^a-zA-Z]", formula):
            wrong.append(f"escaped punctuation {found} in {formula!r}")
        if "<" in formula or ">" in formula or formula.count("{") != formula.count("}"):
            wrong.append(f"write \\lt, \\gt and balanced braces: {formula!r}")
        if inline and (inline != inline.strip() or "\n" in inline):
            wrong.append(f"space at the border or a line break in {inline!r}")
        if display and not (display.startswith("\n") and display.endswith("\n")):
            wrong.append(f"display maths needs lines of its own: {display!r}")
    return wrong


def test_every_statement_has_its_page() -> None:
    assert [page.stem for page in PAGES] == sorted(PROVED)
    assert {i for page in PAGES for i in ids_of(page)} <= set(LEDGER)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path) -> None:
    assert page_problems(page.read_text(encoding="utf-8"), page) == []


def test_index_lists_every_page_with_its_corrections() -> None:
    index = PROOFS / "README.md"
    text = index.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([A-Z]\d\d)\]\(([A-Z]\d\d)\.md\) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == [page.stem for page in PAGES]
    for stem, target, title, corrections in rows:
        page = PROOFS / f"{stem}.md"
        assert stem == target
        assert page.read_text(encoding="utf-8").startswith(f"# {stem}: {title}\n")
        assert corrections == (", ".join(i for i in ids_of(page) if i != stem) or "–")
    assert [*_links(text, index), *_maths(text)] == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("## Proof\n", "## Sketch\n", "headings are"),
        ("### S17.sharp\n", "### Sharp\n", "S17.sharp has no section of its own in Statement"),
        ("### S17.sharp holds\n", "### The bounds\n", "S17.sharp has no section of its own in Proof"),
        ("| S17.sharp | `HOLDS` |", "| S17.sharp | `OPEN` |", "verdicts are"),
        ("verify_impact:s17_sharp", "verify_impact:s17_blunt", "is no evidence of S17.sharp"),
        ("test_s17.py::test_sharp_bounds", "test_s17.py::test_none", "is no test of S17.sharp"),
        ("| 0.5000 |", "| 0.5005 |", "the page says 0.5005"),
        ("(../notation.md)", "(../notations.md)", "dead link"),
        ("ledger.md#s17sharp", "ledger.md#s17.sharp", "dead link"),
        ("None.", "TODO", "left over"),
        ("$x(1 - x)", "$x <(1 - x)", r"write \lt"),
        ("$x(1 - x)", r"$x\,(1 - x)", "escaped punctuation"),
        ("$x(1 - x)", "x(1 - x)", "without its pair"),
    ],
)
def test_each_fault_is_seen(old: str, new: str, message: str) -> None:
    page = PROOFS / "S17.md"
    text = page.read_text(encoding="utf-8")
    if "$x(1" in old:
        text = text.replace("None.", "None. $x(1 - x)$")
    assert old in text
    assert any(message in problem for problem in page_problems(text.replace(old, new), page))
