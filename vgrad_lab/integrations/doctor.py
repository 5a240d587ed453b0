"""What is wrong with a run, in plain words, from the log of ``VGradCallback``: `vgrad doctor RUN`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vgrad_lab.integrations import credit_log
from vgrad_lab.integrations.findings import CHECKS, Log, NotLogged, solved


def diagnose(run: Path) -> dict[str, Any]:
    """Findings of a run, with the checks that passed and those that the log does not allow; plain values for JSON.

    run: the trainer's output_dir, or the log. Raises UserError for a missing or broken log.
    """
    records = credit_log.read(run)
    settings = next((r.get("settings") for r in reversed(records) if r["kind"] == "start"), None)
    log = Log(records, credit_log.steps(records), settings if isinstance(settings, dict) else {})
    findings, passed, unchecked = [], [], {}
    for name, check in CHECKS.items():
        try:
            found = check(log)
        except NotLogged as reason:
            unchecked[name] = str(reason)
            continue
        if found is None:
            passed.append(name)
        else:
            findings.append(asdict(found))
    return {
        "run": str(run),
        "steps": [log.steps[0]["step"], log.steps[-1]["step"]],
        "finished": records[-1]["kind"] == "end",
        "solved": solved(log),
        "healthy": not findings,
        "findings": findings,
        "passed": passed,
        "not_checked": unchecked,
    }


def describe(result: dict[str, Any]) -> str:
    """The diagnosis as a page of text."""
    first, last = result["steps"]
    state = ("" if result["finished"] else ", not finished") + (", solved" if result["solved"] else "")
    head = "healthy" if result["healthy"] else f"{len(result['findings'])} findings"
    lines = [f"{result['run']}: steps {first}-{last}{state}: {head.replace('1 findings', '1 finding')}"]
    for i, f in enumerate(result["findings"], start=1):
        start, end = f["steps"]
        where = f"step {start}" if start == end else f"steps {start}-{end}"
        lines += ["", f"{i}. {f['what']}", f"   evidence ({where}): {f['evidence']}", f"   remedy: {f['remedy']}"]
    lines += ["", f"nothing found: {', '.join(result['passed']) or 'none'}"]
    lines += [f"not checked: {name} ({reason})" for name, reason in result["not_checked"].items()]
    return "\n".join(lines)
