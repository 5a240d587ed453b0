"""Mutation testing of the continuous floor, the advantages and the impact; results for tests/README.md.

    python tools/mutants.py            run mutmut on what changed since the last run, then write the results
    python tools/mutants.py --write    write the results of the last run only

mutmut plants one small fault at a time ([tool.mutmut] in pyproject.toml) and runs the tests that reach it, without the
type checks of beartype, so that the assertions alone have to find it. A time-out counts as found. Every survivor needs
a line of ``tests/survivors.json`` that says why it may live: reason -> [function, removed code, added code] triples.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MUTMUT = Path(sys.executable).with_name("mutmut")
RESULTS = ROOT / "docs" / "results" / "mutants.json"
REASONS = ROOT / "tests" / "survivors.json"
START, END = "<!-- mutants: start -->", "<!-- mutants: end -->"
FOUND = ("killed", "timeout", "segfault", "suspicious", "caught by type check")
AIM = 0.95

Mutant = tuple[str, str, str]
"""Function, removed code, added code."""


def mutmut(*arguments: str) -> str:
    """Standard output of a mutmut command."""
    out = subprocess.run([MUTMUT, *arguments], cwd=ROOT, capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"mutmut {' '.join(arguments)} failed:\n{out.stdout[-2000:]}{out.stderr[-2000:]}")
    return out.stdout


def run() -> None:
    """Run all mutants whose function or tests changed."""
    environment = os.environ | {"HYPOTHESIS_PROFILE": "mutants", "OMP_NUM_THREADS": "1"}
    workers = str(os.cpu_count() or 1)
    done = subprocess.run([MUTMUT, "run", "--max-children", workers], cwd=ROOT, env=environment)
    if done.returncode not in (0, 1):
        sys.exit(f"mutmut run ended with status {done.returncode}")


def statuses() -> dict[str, str]:
    """Status of every mutant, by mutmut's name."""
    lines = (line.strip().rpartition(": ") for line in mutmut("results", "--all", "true").splitlines())
    return {name: status for name, _, status in lines if name}


def function_of(name: str) -> str:
    """'vgrad_lab.advantage.x_gae__mutmut_3' is of advantage.gae; methods are marked by ǁ."""
    module, _, function = name.rpartition("__mutmut_")[0].removeprefix("vgrad_lab.").rpartition(".")
    return f"{module}.{re.sub('^x_?', '', function).replace('ǁ', '.').lstrip('.')}"


def describe(name: str) -> Mutant:
    """What a mutant changed, read from its diff."""
    lines = mutmut("show", name).splitlines()
    removed = (line[1:].strip() for line in lines if line.startswith("-") and not line.startswith("---"))
    added = (line[1:].strip() for line in lines if line.startswith("+") and not line.startswith("+++"))
    return function_of(name), " ".join(removed), " ".join(added)


def reasons() -> dict[Mutant, str]:
    """Why each survivor that was looked at may live."""
    groups = json.loads(REASONS.read_text(encoding="utf-8"))
    return {tuple(mutant): reason for reason, mutants in groups.items() for mutant in mutants}


def collect() -> dict[str, object]:
    """Counts per module and the survivors with their reasons."""
    status = statuses()
    unchecked = sum(s == "not checked" for s in status.values())
    status = {name: s for name, s in status.items() if s != "not checked"}
    modules = {name: function_of(name).rpartition(".")[0] for name in status}
    modules = {name: module.partition(".")[0] if "." not in module else module for name, module in modules.items()}
    alive = [name for name, s in status.items() if s not in FOUND]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        survivors, known = sorted(pool.map(describe, alive)), reasons()
    total, dead = Counter(modules.values()), Counter(modules[n] for n, s in status.items() if s in FOUND)
    return {
        "command": "make mutants",
        "versions": {"python": sys.version.split()[0], "mutmut": version("mutmut"), "numpy": version("numpy")},
        "not_checked": unchecked,
        "mutants": len(status),
        "killed": len(status) - len(alive),
        "modules": {m: {"mutants": total[m], "killed": dead[m]} for m in sorted(total)},
        "survivors": [[*mutant, known.get(mutant, "")] for mutant in survivors],
    }


def page(result: dict) -> str:
    """The block of tests/README.md."""
    share = result["killed"] / result["mutants"]
    lines = [
        f"{result['killed']} of {result['mutants']} mutants are found ({share:.1%}; mutmut "
        f"{result['versions']['mutmut']}). Per module: "
        + ", ".join(f"`{m}` {n['killed']}/{n['mutants']}" for m, n in result["modules"].items())
        + f". Not checked yet: {result['not_checked']}.",
        "",
        "| survivors | why they live |",
        "|---|---|",
    ]
    count = Counter(reason for *_, reason in result["survivors"])
    lines += [f"| {n} | {reason or '**not looked at yet**'} |" for reason, n in count.most_common()]
    for reason in count:
        lines += ["", f"<details><summary>{reason or 'not looked at yet'}</summary>", ""]
        lines += [f"- `{f}`: `{old}` → `{new}`" for f, old, new, why in result["survivors"] if why == reason]
        lines += ["", "</details>"]
    return "\n".join(lines)


def write(result: dict) -> None:
    """Write the results file and the block of tests/README.md."""
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    readme = ROOT / "tests" / "README.md"
    head, _, rest = readme.read_text(encoding="utf-8").partition(START)
    tail = rest.partition(END)[2]
    readme.write_text(f"{head}{START}\n{page(result)}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    """Run, write, and fail below the aim or with a survivor that nobody looked at."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the results of the last run, run nothing")
    if not parser.parse_args().write:
        run()
    result = collect()
    write(result)
    unread = sum(not why for *_, why in result["survivors"])
    share = result["killed"] / result["mutants"]
    print(f"{share:.1%} of {result['mutants']} mutants found; {unread} survivors without a reason")
    if share < AIM or unread or result["not_checked"]:
        sys.exit(f"aim: {AIM:.0%} of all, and a reason in tests/survivors.json for every survivor")


if __name__ == "__main__":
    main()
