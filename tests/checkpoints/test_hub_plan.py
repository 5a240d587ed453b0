"""What a ladder costs: the twenty OLMo-2 1B checkpoints from metadata alone, the clock of prefetching, the commands."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests import ladder_copies as copies
from tests.loopback_hub import FAULTS, Hub, serve
from vgrad_lab.checkpoints.audit import audit
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.findings import REFUSED, REMARKS
from vgrad_lab.checkpoints.inventory import HubFile, Inventory
from vgrad_lab.checkpoints.known_ladders import KNOWN
from vgrad_lab.checkpoints.plan import duration, gigabytes, make_plan
from vgrad_lab.checkpoints.resolve import resolve, select
from vgrad_lab.checkpoints.specs import read_spec
from vgrad_lab.experiments.ladder_commands import add_to, describe_plan
from vgrad_lab.tolerances import ALGEBRA

PAGE = (Path(__file__).parents[2] / "docs" / "hub_ladders.md").read_text(encoding="utf-8")


def inventories(sizes: list[int]) -> list[Inventory]:
    return [
        Inventory(f"step{k}", (HubFile("model.safetensors", n, str(k)), HubFile("config.json", 7, "c")))
        for k, n in enumerate(sizes)
    ]


def test_twenty_rungs_of_olmo2_1b_from_metadata_alone() -> None:
    """Real names and sizes: 118.8 GB to download, at most 12 GB on the disk, and no weight is asked for."""
    with serve(copies.olmo2_1b()) as hub:
        ladder = resolve(KNOWN["olmo2-1b-paper"], endpoint=hub.endpoint)
        assert len(ladder.rungs) == 194
        result = audit(select(ladder))
    assert result.findings == ()
    assert [rung.step for rung in result.ladder.rungs] == list(range(50_000, 1_000_001, 50_000))
    assert {rung.name for rung in result.ladder.rungs} >= {
        "stage1-step50000-tokens105B", "stage1-step550000-tokens1154B", "stage1-step1000000-tokens2098B",
    }  # fmt: skip
    assert not [asked for asked in hub.requests if "safetensors" in asked and "index" not in asked]
    plan = make_plan(result.usable, rate=100e6, compute=600.0)
    assert plan.weight_bytes == 20 * sum(copies.OLMO2_1B_BYTES) == 118_793_751_040
    assert 2 * sum(copies.OLMO2_1B_BYTES) <= plan.peak_bytes <= 12e9
    text = describe_plan(plan, result)
    assert text in PAGE
    assert "118.8 GB of weights" in text
    assert "disk      11.9 GB" in text
    assert "20 min of downloads at 100 MB/s" in text


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=8), st.floats(0, 1e5), st.floats(1, 1e5))
def test_bytes_disk_and_time(sizes: list[int], compute: float, rate: float) -> None:
    plan = make_plan(inventories(sizes), rate=rate, compute=compute)
    whole = [size + 7 for size in sizes]
    assert plan.weight_bytes + plan.other_bytes == sum(whole)
    assert plan.weight_bytes == sum(sizes)
    assert plan.peak_bytes == max([*map(sum, pairwise(whole)), *whole])
    downloads, work = [n / rate for n in whole], len(sizes) * compute
    slack = 1 + ALGEBRA * 10
    assert max(sum(downloads) + compute, downloads[0] + work) <= plan.total_seconds * slack
    assert plan.total_seconds <= (sum(downloads) + work) * slack
    assert plan.total_seconds == pytest.approx(_by_events(downloads, compute), rel=ALGEBRA * 10)


def _by_events(downloads: list[float], compute: float) -> float:
    """The same clock by a plain event loop: a download may start when fewer than two rungs are on the disk."""
    now, fetching, fetched, done, busy_until, ready_at = 0.0, 0, 0, 0, None, None
    while done < len(downloads):
        if ready_at is None and fetching < len(downloads) and fetching - done < 2:
            ready_at, fetching = now + downloads[fetching], fetching + 1
        if busy_until is None and done < fetched:
            busy_until = now + compute
        now = min(t for t in (ready_at, busy_until) if t is not None)
        if ready_at is not None and ready_at <= now:
            ready_at, fetched = None, fetched + 1
        if busy_until is not None and busy_until <= now:
            busy_until, done = None, done + 1
    return now


def test_downloads_hide_behind_longer_work() -> None:
    plan = make_plan(inventories([100 - 7] * 5), rate=10.0, compute=10.0)
    assert plan.download_seconds == 50.0
    assert plan.total_seconds == 60.0


def test_a_third_rung_waits_for_room_on_the_disk() -> None:
    """Downloads of 1, 1 and 10 s, work of 5 s: the third starts when the first is evicted at 6 s, not at 2 s."""
    plan = make_plan(inventories([10 - 7, 10 - 7, 100 - 7]), rate=10.0, compute=5.0)
    assert plan.total_seconds == 21.0
    assert plan.peak_bytes == 110


@pytest.mark.parametrize(("rate", "compute"), [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, -1.0)])
def test_numbers_that_make_no_plan(rate: float, compute: float) -> None:
    with pytest.raises(UserError, match="give a"):
        make_plan(inventories([5]), rate=rate, compute=compute)


def test_a_plan_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="no rung to plan for; choose at least one"):
        make_plan(())


def test_numbers_as_people_read_them() -> None:
    assert [gigabytes(n) for n in (0, 999, 1000, 5_939_687_552, 118_793_751_040)] == [
        "0 B", "999 B", "1.0 kB", "5.9 GB", "118.8 GB",
    ]  # fmt: skip
    texts = [duration(s) for s in (0.0, 12.4, 89.0, 420.0, 3599.0, 7500.0, 172_000.0, 180_000.0)]
    assert texts == ["0 s", "12 s", "89 s", "7 min", "1 h 00 min", "2 h 05 min", "47 h 47 min", "2 d 2 h"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A small ladder on a hub that is this process's default one."""
    with serve(copies.small(), default=True) as running:
        yield running


def vgrad(*arguments: object) -> Result:
    """One of the commands, in this process."""
    app = typer.Typer()
    add_to(app)
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_audit_and_plan_refuse_allow_and_record(hub: Hub, tmp_path: Path) -> None:
    assert "verdict: clean; 3 rungs usable" in vgrad("audit", "olmo2-1b").stdout
    hub.repositories["allenai/OLMo-2-0425-1B"] = FAULTS["duplicate rung"](copies.small())
    out = tmp_path / "audit.json"
    refused = vgrad("audit", "olmo2-1b", "--out", out)
    assert refused.exit_code == 1
    assert "REFUSED  duplicate" in refused.stdout
    assert json.loads(out.read_text())["verdict"] == "refused"
    stopped = vgrad("plan", "olmo2-1b")
    assert isinstance(stopped.exception, UserError)
    assert "--allow 'duplicate'" in str(stopped.exception)
    assert stopped.stdout == ""
    plan = vgrad("plan", "olmo2-1b", "--allow", "duplicate", "--json", "--out", out)
    assert plan.exit_code == 0
    record = json.loads(plan.stdout)
    assert record == json.loads(out.read_text())
    assert record["audit"]["allowed"] == ["duplicate"]
    assert record["weight_bytes"] == 15_000
    assert "allowed   duplicate" in vgrad("plan", "olmo2-1b", "--allow", "duplicate").stdout
    assert vgrad("plan", "olmo2-1b", "--to", 2000).exit_code == 0
    hub.repositories["allenai/OLMo-2-0425-1B"] = FAULTS["missing shard"](copies.small())
    assert "left out  1 rungs" in vgrad("plan", "olmo2-1b", "--allow", "missing shard", "--compute", 10).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("audit", "olmo2-1c"), "the nearest names are olmo2-1b"),
        (("audit", "olmo2-1b", "--allow", "dup"), "cannot allow 'dup'"),
        (("plan", "olmo2-1b", "--rate", "0"), "give a positive number"),
        (("plan", "olmo2-1b", "--rung", "1", "--every", "2"), "choose one"),
        (("list", "--every", "5"), "without a ladder"),
        (("audit", "olmo2-1b", "--out", "."), "a folder; give the name of a file"),
    ],
)
def test_mistakes_are_one_line(hub: Hub, arguments: tuple[str, ...], words: str) -> None:
    result = vgrad(*arguments)
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


def test_json_and_folders(hub: Hub, tmp_path: Path) -> None:
    listed = json.loads(vgrad("list", "olmo2-1b", "--json").stdout)
    assert [rung["step"] for rung in listed] == [1000, 2000, 3000]
    assert listed[0]["tokens"] == 2_097_152_000
    assert len(listed[0]["commit"]) == 40
    folder = tmp_path / "step000005"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(100))
    (folder / "config.json").write_text("{}")
    assert "files hashed on disk" in vgrad("audit", tmp_path).stdout
    assert "102 B on disk already" in vgrad("plan", tmp_path).stdout


def test_the_command_in_a_process_of_its_own() -> None:
    """HF_ENDPOINT names the hub; a wrong name is one line, with the nearest real ones."""
    code = "from vgrad_lab.cli import main; main()"
    with serve(copies.small()) as hub:
        command = [sys.executable, "-c", code, "ladder", "plan", "olmo2-1b", "--rung", "stage1-step2000-tokens4B"]
        run = subprocess.run(command, env=hub.environment(), capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        "vgrad: no rung stage1-step2000-tokens4B in allenai/OLMo-2-0425-1B: the nearest are "
        "stage1-step2000-tokens5B, stage1-step1000-tokens3B, stage1-step3000-tokens7B"
    ]


def test_the_built_in_ladders_are_listed_without_a_hub() -> None:
    run = vgrad("list")
    assert run.exception is None
    stdout = run.stdout
    assert all(name in stdout for name in KNOWN)
    assert {row["name"] for row in json.loads(vgrad("list", "--json").stdout)} == KNOWN.keys()


def test_the_page_names_every_kind_and_its_ladder_can_be_read(tmp_path: Path) -> None:
    assert set(re.findall(r"^\| `([a-z ]+)` \|", PAGE, flags=re.MULTILINE)) == REFUSED.keys()
    assert all(f"`{kind}`" in PAGE.replace("\n", " ") for kind in REMARKS)
    blocks = [block.split("```")[0] for block in PAGE.split("```yaml\n")[1:]]
    (tmp_path / "ours.yaml").write_text(next(block for block in blocks if "repository:" in block))
    spec = read_spec(tmp_path / "ours.yaml")
    assert (spec.repository, spec.main_step, len(spec.steps)) == ("owner/name", 20_000, 20)
    assert spec.allow == ("bin only",)


def test_the_page_s_python_runs(hub: Hub) -> None:
    steps = [100_000, 150_000, 200_000]
    hub.repositories["allenai/OLMo-2-0425-1B"] = copies.small(steps)
    names: dict[str, Any] = {}
    exec(PAGE.split("```python\n")[1].split("```")[0], names)
    assert [rung.name for rung in names["plan"].rungs] == [copies.stage1(100_000), copies.stage1(200_000)]
