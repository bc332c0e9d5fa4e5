"""Results in the columns of the paper's tables, with the paper's figures beside them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.published import find_row
from sztrain.evaluation.records import Cost
from sztrain.types import Attack

PAPER_NAMES = {"SigmaZero": "sigma-zero"}
"""Attacks as the paper's tables call them; others go by the name of their class."""

COMPARED = ("asr_10", "asr_50", "asr_inf", "median_l0", "time_s", "queries_k", "vram_gb")
"""Columns that the paper prints a figure in."""

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
    name = PAPER_NAMES.get(type(attack).__name__, type(attack).__name__)
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
            f"asr_{k}": 100 * values.get(f"asr{suffix}@{k}", values["asr_inf"])
            for k in PAPER_BUDGETS
        },
        "asr_inf": 100 * values["asr_inf"],
        "median_l0": values[f"median_l0{suffix}"],
        "time_s": cost.seconds / cost.num_samples,
        "queries_k": (cost.num_forwards + cost.num_backwards) / cost.num_samples / 1000,
        "vram_gb": None if device == "cpu" else cost.peak_memory / 2**30,
        "notes": "",
        "num_samples": measurement.num_samples,
        "unit": measurement.unit,
        "device": device,
        "batch_size": batch_size,
        "clean_acc": 100 * float(measurement.curve[0]),
        "mean_l0": values[f"mean_l0{suffix}"],
        "resident_gb": cost.peak_memory / 2**30 if device == "cpu" else None,
    }
    for column in COMPARED:
        printed = getattr(published, column) if published else None
        row[f"paper_{column}"] = printed
        row[f"delta_{column}"] = _difference(row[column], printed)
    return row


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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    pd.DataFrame(list(rows)).to_csv(draft, index=False)
    os.replace(draft, path)  # noqa: PTH105  (atomic, unlike a rename over an existing file)
