"""Claims: one holder at a time, free again when the holder is dead, whatever the clocks of the machines say."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vgrad_lab.checkpoints import claims
from vgrad_lab.checkpoints.errors import UserError


def take(folder: Path, unit: str = "u", owner: str = "a", lease: float = 60.0) -> claims.Claim | None:
    return claims.take(folder, unit, owner=owner, lease=lease)


def foreign(claim: claims.Claim | None, **changes: object) -> Path:
    """The claim as if a process of another machine held it."""
    assert claim is not None
    content = {**json.loads(claim.path.read_text()), "place": "elsewhere", **changes}
    claim.path.write_text(json.dumps(content))
    return claim.path


def test_one_worker_holds_a_unit_until_it_lets_go(tmp_path: Path) -> None:
    assert take(tmp_path)
    assert take(tmp_path, owner="b") is None
    assert take(tmp_path, "other", owner="b")
    claims.release(tmp_path, "u", "b")
    assert claims.is_held(tmp_path, "u")
    claims.release(tmp_path, "u", "a")
    assert not claims.is_held(tmp_path, "u")
    assert take(tmp_path, owner="b")


def test_forget_leaves_no_file(tmp_path: Path) -> None:
    for owner in "abc":
        assert take(tmp_path, owner=owner)
        claims.release(tmp_path, "u", owner)
    claims.forget(tmp_path, "u")
    assert list((tmp_path / claims.CLAIMS).iterdir()) == []


def test_forget_finds_a_claim_without_those_below_it(tmp_path: Path) -> None:
    """A worker took .1 over while another, whose record was published, deleted .0; other units keep theirs."""
    for name in ("u.1", "u.2.0", "u1.0"):
        (tmp_path / claims.CLAIMS / name).parent.mkdir(exist_ok=True)
        (tmp_path / claims.CLAIMS / name).write_text("{}")
    claims.forget(tmp_path, "u")
    assert sorted(p.name for p in (tmp_path / claims.CLAIMS).iterdir()) == ["u.2.0", "u1.0"]


@pytest.mark.parametrize("age", [100.0, -100.0], ids=["silent", "clock set back"])
def test_a_claim_not_touched_for_a_lease_is_void(tmp_path: Path, age: float) -> None:
    path = foreign(first := take(tmp_path))
    assert first
    for off, held in ((0.5, True), (1.5, False)):
        os.utime(path, (at := claims.clock(tmp_path) - off * age, at))
        assert claims.is_held(tmp_path, "u", lease=100.0) is held
    second = take(tmp_path, owner="b", lease=100.0)
    assert second
    assert claims.still_held(second)
    assert not claims.still_held(first)
    claims.release(tmp_path, "u", "a")  # it comes back to life: nothing of the new holder is lost
    assert claims.is_held(tmp_path, "u")


@pytest.mark.parametrize("skew", [-86_400.0, 86_400.0])
def test_the_clock_of_the_machine_does_not_matter(tmp_path: Path, skew: float, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew)
    foreign(take(tmp_path))
    assert take(tmp_path, owner="b") is None


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path: Path) -> None:
    code = "import sys, pathlib; from vgrad_lab.checkpoints import claims as c"
    code += "; c.take(pathlib.Path(sys.argv[1]), 'u', owner='x')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / claims.CLAIMS / "u.0").exists()
    assert not claims.is_held(tmp_path, "u", lease=1e6)
    foreign(claims.Claim(tmp_path / claims.CLAIMS / "u.0", "u", "x"))
    assert claims.is_held(tmp_path, "u", lease=1e6)


def test_a_process_number_used_again_is_another_process(tmp_path: Path) -> None:
    path = foreign(take(tmp_path), place=claims._place(), born="1")
    assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not claims.is_held(tmp_path, "u")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": "x"}', "\x00"])
def test_a_damaged_claim_counts_until_the_lease_ends(tmp_path: Path, content: str) -> None:
    claim = take(tmp_path)
    assert claim
    claim.path.write_text(content)
    assert claims.is_held(tmp_path, "u", lease=60.0)
    os.utime(claim.path, (at := claims.clock(tmp_path) - 61, at))
    assert take(tmp_path, owner="b")


def test_a_heartbeat_keeps_a_claim_and_stops_with_the_work(tmp_path: Path) -> None:
    foreign(claim := take(tmp_path, lease=0.8))
    assert claim
    with claims.heartbeat(claim, lease=0.8):
        time.sleep(1.6)
        assert claims.is_held(tmp_path, "u", lease=0.8)
    time.sleep(1.0)
    assert not claims.is_held(tmp_path, "u", lease=0.8)


def test_a_heartbeat_never_revives_a_claim_that_was_taken_over(tmp_path: Path) -> None:
    path = foreign(claim := take(tmp_path))
    assert claim
    os.utime(path, (0, 0))
    assert take(tmp_path, owner="b")
    with claims.heartbeat(claim, lease=0.1):
        time.sleep(0.2)
    assert path.stat().st_mtime == 0


def test_of_many_at_once_one_wins_each_time(tmp_path: Path) -> None:
    """Sixteen threads, 30 rounds, each a take-over of a claim that has run out."""
    for round_ in range(30):
        start, won = threading.Barrier(16), []

        def run(name: str, start: threading.Barrier = start, won: list[str] = won) -> None:
            start.wait()
            if take(tmp_path, owner=name):
                won.append(name)

        threads = [threading.Thread(target=run, args=(f"{round_}-{i}",)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        claims.release(tmp_path, "u", won[0])


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / claims.CLAIMS).write_text("")
    for call in (lambda: take(tmp_path), lambda: claims.clock(tmp_path)):
        with pytest.raises(UserError, match="cannot claim units in .* choose a folder"):
            call()


def test_owners_differ() -> None:
    assert claims.new_owner() != claims.new_owner()
