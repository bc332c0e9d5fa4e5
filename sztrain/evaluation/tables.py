"""Results in the columns of the paper's tables, with the paper's figures beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.published import find_row, fixed_budget_rows
from sztrain.evaluation.records import Cost
from sztrain.files import write_whole
from sztrain.types import Attack

PAPER_NAMES = {"SigmaZero": "sigma-zero"}
"""Attacks as the paper's tables call them; others go by the name of their class."""

COMPARED = ("asr_10", "asr_50", "asr_inf", "median_l0", "time_s", "queries_k", "vram_gb")
"""Columns that the paper prints a figure in."""

TOLERANCES = {"median_l0": 1, "asr_10": 2, "asr_50": 2}
"""How far from the paper's figure ours may be: features, and points of percent."""

HEADINGS = {
    "model": "net",
    "attack": "attack",
    "steps": "N",
    "asr_10": "ASR10",
    "asr_50": "ASR50",
    "asr_inf": "ASR∞",
    "median_l0": "median",
    "time_s": "t",
    "queries_k": "q",
    "vram_gb": "VRAM",
    "verdict": "verdict",
}
"""Columns of the printed tables, in the order of the paper's, and their headings."""

PAPER_BUDGETS = (10, 50)
"""Budgets k of the paper's columns ASR_k."""


def paper_row(
    measurement: Measurement,
    cost: Cost,
    *,
    model: str,
    dataset: str,
    attack: Attack,
    batch_size: int,
    device: str,
) -> dict[str, Any]:
    """One row of ``results.csv``: the paper's columns, our setting, the paper's figures.

    Success rates are in percent, as the paper prints them; times in seconds a sample; queries
    (forward and backward passes a sample) in thousands. Where the paper prints a figure for this
    net, attack and number of steps, counted in features, ``paper_<column>`` holds it and
    ``delta_<column>`` ours minus it.

    Args:
        measurement: taken with the budgets of the paper among others.
        cost: what the attack cost in all.
        model: the net's name.
        dataset: name of the data set.
        attack: the attack.
        batch_size: samples attacked at once.
        device: what it ran on: ``cpu``, or a GPU's name.
    """
    name = _paper_name(attack)
    suffix = "_px" if measurement.unit == "pixels" else ""
    values = measurement.values
    published = find_row(model, name, attack.num_steps) if measurement.unit == "features" else None
    row: dict[str, Any] = {
        "table": published.table if published else "",
        "dataset": dataset,
        "model": model,
        "steps": attack.num_steps,
        "attack": name,
        # A budget larger than the sample is no restriction.
        **{
            f"asr_{k}": _percent(values.get(f"asr{suffix}@{k}", values["asr_inf"]), measurement)
            for k in PAPER_BUDGETS
        },
        "asr_inf": _percent(values["asr_inf"], measurement),
        "median_l0": values[f"median_l0{suffix}"],
        "time_s": cost.seconds_per_sample,
        "queries_k": cost.passes_per_sample / 1000,
        "vram_gb": None if device == "cpu" else cost.peak_memory / 2**30,
        "notes": "",
        "num_samples": measurement.num_samples,
        "unit": measurement.unit,
        "device": device,
        "batch_size": batch_size,
        "clean_acc": _percent(float(measurement.curve[0]), measurement),
        "mean_l0": values[f"mean_l0{suffix}"],
        "resident_gb": cost.peak_memory / 2**30 if device == "cpu" else None,
    }
    for column in COMPARED:
        printed = getattr(published, column) if published else None
        row[f"paper_{column}"] = printed
        row[f"delta_{column}"] = _difference(row[column], printed)
    return row


def missing_row(model: str, attack: Attack, reason: str) -> dict[str, Any]:
    """The row of a net that cannot be had: the paper's figures, and why ours are missing.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> row = missing_row("C9", SigmaZero(num_steps=100), "no weights")
        >>> row["notes"], row["paper_median_l0"]
        ('not available: no weights', 18.0)
    """
    name = _paper_name(attack)
    published = find_row(model, name, attack.num_steps)
    row: dict[str, Any] = {
        "table": published.table if published else "",
        "dataset": published.dataset if published else "",
        "model": model,
        "steps": attack.num_steps,
        "attack": name,
        "notes": f"not available: {reason}",
    }
    return row | {f"paper_{c}": getattr(published, c) if published else None for c in COMPARED}


def budget_rows(
    measurement: Measurement,
    cost: Cost,
    budgets: Sequence[int],
    *,
    model: str,
    dataset: str,
    attack: Attack,
) -> list[dict[str, Any]]:
    """Rows of ``results_fixed_budget.csv``: success within each budget of one minimal-norm run.

    The paper's Tables VIII to XI read σ-zero's figures off one minimal-norm run as well.

    Args:
        measurement: taken with these budgets among others.
        cost: what the attack cost in all.
        budgets: budgets k.
        model: the net's name.
        dataset: name of the data set.
        attack: the attack.
    """
    name = _paper_name(attack)
    printed = {(row.model, row.attack, row.steps, row.budget): row for row in fixed_budget_rows()}
    rows = []
    for budget in budgets:
        published = printed.get((model, name, attack.num_steps, budget))
        robust = float(measurement.curve[min(budget, len(measurement.curve) - 1)])
        asr = _percent(1 - robust, measurement)
        rows.append(
            {
                "table": published.table if published else "",
                "dataset": dataset,
                "model": model,
                "steps": attack.num_steps,
                "attack": name,
                "budget": budget,
                "asr": asr,
                "time_s": cost.seconds_per_sample,
                "queries_k": cost.passes_per_sample / 1000,
                "unit": measurement.unit,
                "num_samples": measurement.num_samples,
                "paper_asr": published.asr if published else None,
                "delta_asr": _difference(asr, published.asr if published else None),
            }
        )
    return rows


def verdict(row: dict[str, Any]) -> str:
    """Whether a row agrees with the paper's: the median within 1 feature, ASRs within 2 points.

    Example:
        >>> verdict({"delta_median_l0": 0.5, "delta_asr_10": -1.2, "delta_asr_50": 0.1})
        'reproduced'
        >>> verdict({"delta_median_l0": -2.0, "delta_asr_10": 6.5, "delta_asr_50": 0.1})
        'not reproduced: median -2, ASR10 +6.5'
    """
    deltas = {key: row.get(f"delta_{key}") for key in TOLERANCES}
    if all(delta is None for delta in deltas.values()):
        return ""
    beyond = [
        f"{HEADINGS[key]} {delta:+.4g}"
        for key, delta in deltas.items()
        if delta is not None and not abs(delta) <= TOLERANCES[key]
    ]
    return f"not reproduced: {', '.join(beyond)}" if beyond else "reproduced"


def _paper_name(attack: Attack) -> str:
    name = type(attack).__name__
    return PAPER_NAMES.get(name, name)


def _percent(share: float, measurement: Measurement) -> float:
    """Percent of the samples, without the rounding of metrics in single precision."""
    return 100 * round(share * measurement.num_samples) / measurement.num_samples


def _difference(ours: float | None, printed: float | None) -> float | None:
    if ours is None or printed is None:
        return None
    return 0.0 if ours == printed else ours - printed  # ∞ - ∞ is NaN, but they agree


def write_csv(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write rows as CSV, whole or not at all; ∞ is written ``inf``.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.csv"
        >>> write_csv([{"model": "M1", "median_l0": float("inf")}], path)
        >>> path.read_text().split()
        ['model,median_l0', 'M1,inf']
    """
    write_whole(path, pd.DataFrame(list(rows)).to_csv(index=False))


def write_markdown(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write rows as a table in Markdown; the paper's figure follows ours in brackets.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.md"
        >>> write_markdown([{"model": "M1", "median_l0": 15.0, "paper_median_l0": 16.0}], path)
        >>> print(path.read_text().strip())
        | net | median |
        |---|---|
        | M1 | 15 (paper 16, -1) |
    """
    table = _printed(rows, "{} (paper {}, {})")
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    write_whole(path, "\n".join(lines) + "\n")


def write_latex(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    r"""Write rows as a LaTeX table (package booktabs); the paper's figure follows in brackets.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.tex"
        >>> write_latex([{"model": "M_1", "asr_inf": 100.0}], path)
        >>> print(path.read_text().splitlines()[4])
        M\_1 & 100 \\
    """
    head, *body = _printed(rows, "{} ({}, {})")
    lines = [
        f"\\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
        "\\toprule",
        _latex_line(head),
        "\\midrule",
        *map(_latex_line, body),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    write_whole(path, "\n".join(lines) + "\n")


def _latex_line(cells: Sequence[str]) -> str:
    escaped = (
        cell.replace("\\", r"\textbackslash{}")
        .replace("_", r"\_")
        .replace("%", r"\%")
        .replace("∞", r"$\infty$")
        for cell in cells
    )
    return " & ".join(escaped) + r" \\"


def _printed(rows: Sequence[dict[str, Any]], beside: str) -> list[list[str]]:
    """Headings, then the cells of every row; columns that are empty throughout are left out."""
    rows = [row | {"verdict": row.get("notes") or verdict(row)} for row in rows]
    keys = [key for key in HEADINGS if any(row.get(key) not in (None, "") for row in rows)]
    return [[HEADINGS[key] for key in keys]] + [
        [_cell(row.get(key), row.get(f"paper_{key}"), beside) for key in keys] for row in rows
    ]


def _cell(ours: Any, printed: Any, beside: str) -> str:
    if not isinstance(ours, float) or printed is None:
        return digits(ours)
    difference = _difference(ours, printed)
    return beside.format(digits(ours), digits(printed), f"{difference:+.3g}")


def digits(value: Any) -> str:
    """A cell of a printed table: a few digits of a figure, nothing for ``None``.

    Example:
        >>> digits(0.0123), digits(15.0), digits(float("inf")), digits("M1"), digits(None)
        ('0.012', '15', '∞', 'M1', '')
    """
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if value == float("inf"):
        return "∞"
    return f"{value:.2g}" if 0 < abs(value) < 0.1 else f"{value:.2f}".removesuffix(".00")
