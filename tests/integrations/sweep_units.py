"""Six units for the executors of other machines, one of which dies once; and what a local sweep makes of them."""

from pathlib import Path

from tests.checkpoints.fake_units import FAKES, Fake
from vgrad_lab.checkpoints import store
from vgrad_lab.checkpoints.executors import Executor, LocalExecutor
from vgrad_lab.checkpoints.schedule import Policy, rows, run_units, table

POLICY = Policy(retries=2, pause=0.0, lease=20.0, poll=0.2)


def six(folder: Path) -> list[Fake]:
    return [Fake(f"{i}", folder / "diary", *(("die", 1) if i == 3 else ())) for i in range(6)]


def same_table_as_local(executor: Executor, folder: Path) -> None:
    whole, here = folder / "local", folder / "here"
    whole.mkdir()
    here.mkdir()
    counts = run_units(six(here), here, executor, policy=POLICY, progress=False)
    assert counts == {"done": 6, "failed": 0, "kept": 0}
    run_units(six(whole), whole, LocalExecutor(2, preload=FAKES), policy=POLICY, progress=False)
    assert store.export(here).read_bytes() == store.export(whole).read_bytes()
    assert table(rows(six(here), here)) == table(rows(six(whole), whole))
    assert (here / "diary").read_text().count("start fake-3\n") == 2
