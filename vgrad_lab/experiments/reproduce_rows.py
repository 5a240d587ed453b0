"""Rows of docs/reproduce.md: each figure and number of the paper's §6 with command, value here and verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

from vgrad_lab.checkpoints.report.predictors import P_GAP, P_GAP_LITERAL
from vgrad_lab.checkpoints.report.style import amount
from vgrad_lab.experiments.forecast_page import estimate
from vgrad_lab.experiments.reproduce_words import PROTOCOL, STUDY, compared, judged

Json = dict[str, Any]
PLAIN, LITERAL = "eqs. 26-29", "gap per_sample, headroom prompts"
PAPER_GAIN, PAPER_COMBINED = 0.60, 0.73
READINGS = {P_GAP: "eqs. 26–29", P_GAP_LITERAL: "§6 as written"}
"""The readings that the forecast's study holds."""


def figure_rows(readings: Json, names: Sequence[str], forecast: Json | None = None) -> list[list[str]]:
    """(in the paper, command, here, verdict) of everything that §6 shows or says; names are the optimisers.

    forecast: the summary of the forecast's study, which scores P_gap on ladders of its own.
    """
    return [
        *_protocol(readings),
        *_gain_rows(readings, names),
        *_held_out_rows(forecast),
        *_component_rows(readings, names),
        *_after_rows(readings, names),
        _bound_row(readings),
    ]


def rho(e: Json) -> str:
    """A correlation with its interval."""
    return estimate(e, sign=True)


def row_of(readings: Json, optimizer: str, label: str) -> Json:
    """A named reading's scores."""
    return next(r for r in readings["optimizers"][optimizer]["named"] if r["label"] == label)


def _each(names: Sequence[str], values: Mapping[str, Json], *, sign: bool = True) -> str:
    return "; ".join(f"{name} {estimate(values[name], sign=sign)}" for name in names)


def _protocol(readings: Json) -> list[list[str]]:
    """What §6 fixes: a row each, with what stands for it here."""
    budgets = ", ".join(map(str, readings["optimizers"][min(readings["optimizers"])]["experiment"]["budgets"]))
    each = max(o["checkpoints"] for o in readings["optimizers"].values()) // len(readings["ladders"])
    here = {"checkpoints": f"{each} checkpoints on each of {len(readings['ladders'])} ladders", "budgets": budgets}
    return [[said, command, text.format(**here), verdict] for said, command, text, verdict in PROTOCOL]


def _gain_rows(readings: Json, names: Sequence[str]) -> list[list[str]]:
    plain, literal = ({o: row_of(readings, o, label) for o in names} for label in (PLAIN, LITERAL))
    rows = []
    for what, found in (("eqs. 26–29", plain), ("§6 as written: single costates, p(y*\\|q) inside H", literal)):
        gains = {o: found[o]["gain"] for o in names}
        rows.append([
            f"Spearman(P_gap, mean gain) ≈ 0.60 (§6); read as {what}", STUDY, _each(names, gains),
            "; ".join(f"{o}: {judged(gains[o], PAPER_GAIN)}" for o in names),
        ])  # fmt: skip
    fits = {o: plain[o]["affine"] for o in names}
    rows.append([
        "Figs. 1 and 4: the affine map of P_gap follows the gain (“tracks the broad shape”); no number given",
        f"{STUDY}; picture: `vgrad report RUN`",
        "share of the gain's variance that a + b·P explains: " + _each(names, fits, sign=False),
        "; ".join(f"{o}: {_share(fits[o])}" for o in names),
    ])  # fmt: skip
    lost = {o: plain[o]["regret"] for o in names}
    top = {o: estimate(readings["optimizers"][o]["experiment"]["gain_at"][-1]) for o in names}
    rows.append([
        "eq. 31: N* = argmax P_gap is the best checkpoint to start from; no number given", STUDY,
        "gain lost at N*: " + _each(names, lost, sign=False) + " (mean gain at the last budget: "
        + "; ".join(f"{o} {top[o]}" for o in names) + ")",
        "; ".join(f"{o}: {_lost(lost[o])}" for o in names),
    ])  # fmt: skip
    return rows


def _held_out_rows(forecast: Json | None) -> list[list[str]]:
    """The first number again, on the held-out ladders of the forecast's study, for the readings that it has."""
    if forecast is None:
        return []
    rows = []
    for name, what in READINGS.items():
        found = {
            optimizer: r["spearman"]
            for optimizer, rivals in forecast["predictors"].items()
            for r in rivals
            if r["predictor"] == name
        }
        if found:
            count = max(e["ladders"] for e in found.values())
            rows.append([
                f"the same number, on {count} other ladders; read as {what}", "[the forecast's study](forecast.md)",
                _each(sorted(found), found), "; ".join(f"{o}: {judged(found[o], PAPER_GAIN)}" for o in sorted(found)),
            ])  # fmt: skip
    return rows


def _share(e: Json) -> str:
    if e["value"] is None:
        return "undefined"
    return "reproduced" if e["value"] >= 0.75 else "in part" if e["value"] >= 0.4 else "not reproduced"


def _lost(e: Json) -> str:
    if e["value"] is None:
        return "undefined"
    return "reproduced (0.02 or less is lost)" if e["value"] <= 0.02 else "not reproduced: another start gains more"


def _component_rows(readings: Json, names: Sequence[str]) -> list[list[str]]:
    x = {o: readings["optimizers"][o]["experiment"] for o in names}
    budgets = x[names[0]]["budgets"]
    agreement = {o: x[o]["agreement"] for o in names}
    rows = [[
        "Fig. 3, left: gains at different numbers of GRPO steps agree", STUDY,
        "lowest Spearman between the gains at two budgets: " + _each(names, agreement),
        "; ".join(f"{o}: {'reproduced' if (agreement[o]['low'] or -1) > 0.5 else 'not reproduced'}" for o in names),
    ]]  # fmt: skip
    steps = x[names[0]]["with_step"]
    said = ", ".join(f"{symbol} {rho(steps[key])}"
                     for key, symbol in (("signal", "Σ"), ("gap", "Λ conditional"), ("headroom", "H")))  # fmt: skip
    rows.append([
        "Fig. 3, right: the components vary systematically along pretraining", STUDY, f"Spearman with the step: {said}",
        "reproduced" if all(abs(e["value"] or 0) >= 0.5 for e in steps.values())
        else "in part: weak trends, they rise and fall with the reward",
    ])  # fmt: skip
    ends, top = x[names[0]]["headroom_ends"], x[names[0]]["headroom_top"]
    small = all(e["value"] is not None and e["value"] < 0.5 for e in ends.values())
    rows.append([
        "after eq. 28: H is small where the policy is too weak and where it is saturated", STUDY,
        f"H over its largest on the ladder: first checkpoint {estimate(ends['first'])}, last {estimate(ends['last'])}; "
        f"largest at R = {estimate(top)}",
        "reproduced at both ends" if small else "half testable here: no embedded ladder saturates",
    ])  # fmt: skip
    gain, spread = ({o: [e["value"] for e in x[o][key]] for o in names} for key in ("gain_at", "spread_at"))
    said = "; ".join(
        f"{o}: mean gain {', '.join(amount(g) for g in gain[o])}, sd of R_after over checkpoints "
        f"{', '.join(amount(s) for s in spread[o])}" for o in names
    )  # fmt: skip
    more = all(g[-1] > g[0] for g in gain.values())
    less = [o for o in names if spread[o][-1] < spread[o][0]]
    rows.append([
        "§6, Limitations: too few steps leave headroom unused, too many saturate and hide the differences", STUDY,
        f"at K = {', '.join(map(str, budgets))}. {said}",
        ("reproduced" if more and len(less) == len(names) else f"in part: the spread shrinks for {', '.join(less)}"
         if less else "in part: the gain grows, the spread does not shrink by the last budget"),
    ])  # fmt: skip
    return rows


def _after_rows(readings: Json, names: Sequence[str]) -> list[list[str]]:
    rows = []
    x = {o: readings["optimizers"][o]["experiment"] for o in names}
    for what, label in (("eqs. 26–29", PLAIN), ("§6 as written", LITERAL)):
        found = {o: row_of(readings, o, label) for o in names}
        combined = {o: found[o]["combined"] for o in names}
        rows.append([
            f"Spearman(z(R_before) + z(P_gap), z(R_after)) ≈ 0.73 (§6; Fig. 5, right); read as {what}", STUDY,
            _each(names, combined), "; ".join(f"{o}: {judged(combined[o], PAPER_COMBINED)}" for o in names),
        ])  # fmt: skip
        alone = {o: x[o]["reward_alone"]["after"] for o in names}
        rows.append([
            "“the combined predictor correlates more strongly with R_after than either current reward or the impact "
            f"score alone” (§6); read as {what}", STUDY,
            "; ".join(f"{o}: combined {rho(combined[o])}, R_before alone {rho(alone[o])}"
                      f", P_gap alone {rho(found[o]['after'])}" for o in names),
            "; ".join(f"{o}: {compared(combined[o], [alone[o], found[o]['after']])}" for o in names),
        ])  # fmt: skip
    fit = {o: x[o]["after_fit"] for o in names}
    rows.append([
        "Fig. 5, left: R_after = R_before + affine(P_gap); no number given", STUDY,
        "; ".join(f"{o}: R² {estimate(fit[o]['paper'])}; R_before + constant {estimate(fit[o]['shift'])}; "
                  f"a + b·R_before {estimate(fit[o]['line'])}" for o in names),
        "; ".join(f"{o}: P_gap {'adds to R_before + constant' if _more(fit[o]) else 'adds nothing'}" for o in names)
        + " (one more fitted number)",
    ])  # fmt: skip
    return rows


def _more(fit: Json) -> bool:
    return bool((fit["paper"]["value"] or 0) - (fit["shift"]["value"] or 0) > 0.02)


def _bound_row(readings: Json) -> list[str]:
    b = readings["entropy_bound"]
    return [
        "Fig. 2: the sampling gap lies below C·√(H/ln V) (Prop. 2); C is not given",
        f"{STUDY}; picture: `vgrad report RUN`",
        f"{b['above_paper']} of {b['points']} prompts above 0.600561·√H, the smallest such bound for "
        f"all V; {b['above_sharp']} above the sharp bound. These points need C = {b['smallest_constant']:.3f}; the "
        f"bound is {b['slack']:.2f} times the norm in the median. Spearman over prompts with H: "
        f"the softmax Jacobian's norm {rho(b['norm_with_entropy'])}, the costate's own relative error \\|κ_n(p) − 1\\| "
        f"{rho(b['error_with_entropy'])}",
        "reproduced, and it cannot fail: a C growing with √ln V always exists ([S17](ledger.md#s17)). It says "
        "nothing about the costate's error, which is 0 with leave-one-out at any entropy",
    ]
