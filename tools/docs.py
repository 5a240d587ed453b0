"""Regenerate what is generated: the pages below in docs/, README's blocks, notebooks.

python tools/docs.py [--no-notebooks | TUTORIAL ...]    (tutorials by name, 00_one_step; all of them by default)
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from vgrad_lab import notation
from vgrad_lab.ledger import LEDGER
from vgrad_lab.ledger.audit import page, summary_table

ROOT = Path(__file__).resolve().parents[1]
SHOWN = (
    "P_gap conditional × within",
    "P_gap per sample × within",
    "P_gap per sample × between",
    "H within",
    "Σ(1 − R)",
    "‖∇J‖₁(1 − R)",
    "R_before",
    "R(1 − R)",
    "pass@k − R",
    "pretraining step",
    "forecast",
)


def signed(x: float | None) -> str:
    """A correlation, or "undefined"."""
    return "undefined" if x is None else f"{x:+.2f}"


def across(result: dict[str, Any], optimizer: str, name: str) -> str:
    """Smallest and largest Spearman over the other pretraining seeds."""
    values = [other["spearman"][optimizer][name] for other in result["other_seeds"]]
    defined = [v for v in values if v is not None]
    return f"{signed(min(defined))} … {signed(max(defined))}" if defined else "–"


def results_block(result: dict[str, Any]) -> str:
    """README's table of predictors, from the committed results file."""
    lines = []
    for study in sorted(result["summary"]["studies"], key=lambda s: s["optimizer"]):
        rows = {row["predictor"]: row for row in study["predictors"]}
        lines += [
            f"**{study['optimizer']}, learning rate {study['learning_rate']:g}** "
            f"({result['checkpoints']} checkpoints, {len(result['rl_seeds'])} RL seeds, one pretraining seed)",
            "",
            "| predictor | Spearman with the gain [90 %] | other pretraining seeds | with R_after: alone / z(R)+z(·) "
            "| regret |",
            "|---|---|---|---|---|",
        ]
        for name in SHOWN:
            r = rows[name]
            cells = (
                name,
                f"{signed(r['spearman'])} [{signed(r['low'])}, {signed(r['high'])}]",
                across(result, study["optimizer"], name),
                f"{signed(r['spearman_after'])} / {signed(r['spearman_combined'])}",
                f"{r['regret']:.3f}",
            )
            lines.append("| " + " | ".join(cells) + " |")
        r2 = rows["forecast"]["r_squared"]
        error = study["forecast_mean_absolute_error"]
        more = ", ".join(f"{other['forecast_r_squared'][study['optimizer']]:.2f}" for other in result["other_seeds"])
        also = f" (other pretraining seeds: {more})" if more else ""
        lines += [
            "",
            f"Forecast without any RL step: R² = {r2:.2f} for the gain{also}, mean absolute error of the curve "
            f"{error:.3f}.",
            "",
        ]
    v = result["versions"]
    lines.append(
        f"From `{result['command']}` on {result['device']}, seed {result['ladder']['settings']['seed']}: Python "
        f"{v['python']}, torch {v['torch']}, transformers {v['transformers']}; "
        "[numbers](docs/results/embedded.json), [records](docs/results/embedded.records.jsonl)."
    )
    return "\n".join(lines)


def ledger_block() -> str:
    """README's summary of the ledger, with links into docs/ledger.md."""
    return re.sub(r"\]\(#", "](docs/ledger.md#", summary_table(LEDGER))


def readme(text: str) -> str:
    """README with its generated blocks renewed."""
    blocks = {"ledger": ledger_block()}
    results = ROOT / "docs" / "results" / "embedded.json"
    if results.is_file():
        blocks["results"] = results_block(json.loads(results.read_text(encoding="utf-8")))
    for name, block in blocks.items():
        pattern = rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)"
        text = re.sub(pattern, lambda m, b=block: f"{m[1]}{b}\n{m[2]}", text, flags=re.DOTALL)
    return text


def credit_page() -> str:
    """docs/credit.md, from the committed results of `vgrad credit`."""
    from vgrad_lab.experiments import credit_flow_page

    result = json.loads((ROOT / "docs" / "results" / "credit.json").read_text(encoding="utf-8"))
    return credit_flow_page.page(
        result, images="images", results="results", names=("credit.json", "credit.records.jsonl"), ledger="ledger.md"
    )


def committed(name: str) -> dict[str, Any] | None:
    """A results file of docs/, or None."""
    path = ROOT / "docs" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def forecast_page() -> str:
    """docs/forecast.md, from the committed results of the forecast's study; what is not there is said to be missing."""
    from vgrad_lab.experiments import forecast_page as study

    parts = {part: committed(f"forecast-{part}") for part in ("control", "cost", "calibration")}
    return study.page(committed("forecast"), **parts)


def reproduce_page() -> str:
    """docs/reproduce.md, from the committed results of the readings and of the forecast's study."""
    from vgrad_lab.experiments import reproduce_page as study

    return study.page(committed("readings"), committed("forecast"))


def estimators_page() -> str:
    """docs/estimators.md, from the committed results of `vgrad estimators --full`."""
    from vgrad_lab.experiments import estimator_page as study

    return study.page(json.loads((ROOT / "docs" / "results" / "estimators.json").read_text(encoding="utf-8")))


def off_policy_page() -> str:
    """docs/off_policy.md, from the committed results of the off-policy study."""
    from vgrad_lab.experiments import off_policy_page as study

    return study.page(json.loads((ROOT / "docs" / "results" / "off_policy.json").read_text(encoding="utf-8")))


def olmo2_page() -> str:
    """docs/olmo2.md, from the committed results of benchmarks/gpu.py; without any it says that they are missing."""
    from vgrad_lab.experiments import gpu_page as study

    found = sorted((ROOT / "docs" / "results").glob("gpu-*.json"))
    return study.page([json.loads(path.read_text(encoding="utf-8")) for path in found])


def sources() -> list[Path]:
    """The tutorials' sources; files that start with an underscore are what they share."""
    return sorted((ROOT / "tutorials").glob("[0-9]*.py"))


def without_traces(notebook: Any) -> Any:
    """The notebook without what depends on the machine or needs a live kernel: times, warnings, widgets."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)
        if cell.cell_type == "code":  # warnings name paths of this machine
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:  # of a picture with sliders the still picture remains
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return notebook


def notebooks(names: list[str]) -> None:
    """Execute the named tutorials, or all, into the notebooks beside them (with the real run where there is one)."""
    import jupytext
    from nbclient import NotebookClient

    known = {source.stem for source in sources()}
    if unknown := set(names) - known:
        raise SystemExit(f"no tutorial {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    os.environ.pop("MPLBACKEND", None)  # a backend without a screen would leave the notebooks without pictures
    for source in sources():
        if names and source.stem not in names:
            continue
        notebook = jupytext.read(source)
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"
        begin = time.perf_counter()
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": source.parent}}
        ).execute()
        jupytext.write(without_traces(notebook), source.with_suffix(".ipynb"))
        print(f"executed {source.stem} in {time.perf_counter() - begin:.0f} s")


def main() -> None:
    """Write everything."""
    proofs = {path.stem for path in (ROOT / "docs" / "proofs").glob("[A-Z][0-9][0-9].md")}
    (ROOT / "docs" / "ledger.md").write_text(page(LEDGER, proofs=proofs), encoding="utf-8")
    (ROOT / "docs" / "notation.md").write_text(notation.page(), encoding="utf-8")
    (ROOT / "docs" / "credit.md").write_text(credit_page(), encoding="utf-8")
    (ROOT / "docs" / "forecast.md").write_text(forecast_page(), encoding="utf-8")
    (ROOT / "docs" / "reproduce.md").write_text(reproduce_page(), encoding="utf-8")
    (ROOT / "docs" / "estimators.md").write_text(estimators_page(), encoding="utf-8")
    (ROOT / "docs" / "off_policy.md").write_text(off_policy_page(), encoding="utf-8")
    (ROOT / "docs" / "olmo2.md").write_text(olmo2_page(), encoding="utf-8")
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8")), encoding="utf-8")
    if "--no-notebooks" not in sys.argv[1:]:
        notebooks(sys.argv[1:])


if __name__ == "__main__":
    main()
