import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.checkpoints import synthetic_records as synthetic
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.report import write_report
from vgrad_lab.checkpoints.report.collect import collect
from vgrad_lab.checkpoints.report.predictors import P_GAP, PREDICTORS
from vgrad_lab.checkpoints.report.scores import study_rows
from vgrad_lab.checkpoints.report.verdict import verdict

STEPS = (100, 400, 700, 1000, 1300, 1600)
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Collects what the tests ask about, and fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.anchors: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(named)
        if "id" in named:
            self.anchors.append(str(named["id"]))
        if "href" in named:
            self.links.append(str(named["href"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert not page.open
    return page


def report(folder: Path, **options: object) -> Page:
    return read(write_report(synthetic.write(folder, synthetic.records(steps=STEPS, **options)), resamples=20))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "my-run"
    write_report(synthetic.write(folder, synthetic.records(steps=STEPS, failed=1)), resamples=20)
    return folder


def test_page_is_self_contained_and_navigable(whole: Path) -> None:
    page = read(whole / "report.html")
    assert len(page.images) == 7
    assert len(list((whole / "figures").glob("*.svg"))) == len(list((whole / "figures").glob("*.png"))) == 7
    assert all(image["alt"] and str(image["src"]).startswith("data:image/") for image in page.images)
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.anchors for link in page.links)
    assert len(set(page.anchors)) == len(page.anchors)
    assert str(whole) not in (whole / "report.html").read_text(encoding="utf-8")


def test_page_holds_verdict_header_failures_and_every_predictor(whole: Path) -> None:
    text = read(whole / "report.html").text
    for words in (
        "my-run",
        "6 done, 0 failed",
        "11 done, 1 failed",
        "numpy 2.4.6",
        "fewer than 2 RL seeds at step001600",
    ):
        assert words in text
    assert "RuntimeError: loss is <nan> & gone" in text
    for name in PREDICTORS:
        assert name.replace("_", "") in text.replace("_", "")


def test_verdict_follows_the_numbers(tmp_path: Path) -> None:
    found = synthetic.records(steps=STEPS)
    verdicts = []
    for name, sign in (("up", 1), ("down", -1)):
        for record in found:
            if record["stage"] == "rl":
                record["result"]["gain_mean"] = sign * record["checkpoint"]["step"] / 1e4
        study = collect(synthetic.write(tmp_path / name, found)).studies[0]
        verdicts.append(verdict(study, {row.name: row for row in study_rows(study, resamples=20)}))
    assert "most at step001600: by 0.160" in verdicts[0][0]
    assert "at no checkpoint" in verdicts[1][0]
    assert all(len(v) == 3 for v in verdicts)
    assert verdicts[0][1] != verdicts[1][1]


def test_summary_and_csv_hold_the_table(whole: Path) -> None:
    text = (whole / "summary.json").read_text(encoding="utf-8")
    summary = json.loads(text)
    assert text == json.dumps(summary, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (study,) = summary["studies"]
    rows = {row["predictor"]: row for row in study["predictors"]}
    assert set(rows) == {*PREDICTORS, "forecast"}
    assert rows["R_before"]["partial_given_reward"] is None
    with (whole / "predictors.csv").open(encoding="utf-8") as stream:
        lines = {line["predictor"]: line for line in csv.DictReader(stream)}
    assert float(lines[P_GAP]["spearman"]) == rows[P_GAP]["spearman"]
    assert lines["R_before"]["partial_given_reward"] == "undefined"


def test_the_same_records_give_the_same_bytes(whole: Path) -> None:
    names = ("report.html", "summary.json", "predictors.csv")
    before = [(whole / name).read_bytes() for name in names]
    write_report(whole, resamples=20)
    assert before == [(whole / name).read_bytes() for name in names]


def test_no_rl_yet(tmp_path: Path) -> None:
    page = report(tmp_path, optimizers=())
    assert "No RL unit has finished" in page.text
    assert len(page.images) == 3


def test_one_checkpoint_only(tmp_path: Path) -> None:
    page = read(write_report(synthetic.write(tmp_path, synthetic.records(steps=(500,)))))
    assert "cannot be scored yet" in page.text
    assert "1 checkpoint with RL" in page.text
    assert len(page.images) == 7


def test_everything_failed(tmp_path: Path) -> None:
    found = synthetic.records(steps=(100, 200))
    page = read(write_report(synthetic.write(tmp_path, [r | {"status": "failed", "result": None} for r in found])))
    assert "No checkpoint has been measured yet" in page.text
    assert page.images == []


def test_a_missing_number_is_shown_as_undefined(tmp_path: Path) -> None:
    found = synthetic.records(steps=STEPS)
    for record in found:
        if record["stage"] == "measure":
            del record["result"]["gradient_l1"], record["result"]["per_prompt"]
    page = read(write_report(synthetic.write(tmp_path, found), resamples=20))
    assert re.search(r"undefined", page.text)
    assert "no per-prompt entropies" in page.text
    assert "the forecast without any RL step cannot be scored" in page.text


def test_sgd_alone_and_text_from_records_is_escaped(tmp_path: Path) -> None:
    found = synthetic.records(steps=(100, 200, 300), optimizers=("sgd",))
    for record in found:
        record["task"] = "<script>alert(1)</script>"
        record["checkpoint"]["name"] += "<b>"
        record["device"] = '"><img src=x>'
    path = write_report(synthetic.write(tmp_path, found), resamples=20)
    page = read(path)
    assert "<script" not in path.read_text(encoding="utf-8")
    assert all(str(image["src"]).startswith("data:") for image in page.images)
    assert "<script>alert(1)</script>" in page.text
    assert "sgd, learning rate 0.01, groups of 8" in page.text
    assert "adamw" not in page.text


def test_refuses_a_folder_without_records(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"records\.jsonl"):
        write_report(tmp_path)


def test_says_when_the_folder_cannot_be_written(tmp_path: Path) -> None:
    synthetic.write(tmp_path, synthetic.records(steps=(100,), optimizers=()))
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(UserError, match="cannot write the report"):
        write_report(tmp_path)
