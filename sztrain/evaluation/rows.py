"""Rows of results in the columns of the paper's tables, with its figures beside ours."""

import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.record import CHANGES, Cost
from sztrain.evaluation.setting import Setting
from sztrain.metrics import measure_key

COMPARED = ("asr_10", "asr_50", "asr_inf", "median_l0", "time_s", "queries_k", "vram_gb")
"""Columns that the paper prints a figure in."""

TOLERANCES = {"median_l0": 1, "asr_10": 2, "asr_50": 2}
"""How far from the paper's figure ours may be: features, and points of percent."""

COLUMNS = (
    *("table", "dataset", "model", "steps", "attack", *COMPARED, "notes"),
    *("num_samples", "unit", "device", "batch_size", "clean_acc", "mean_l0", "resident_gb"),
    *("budget", "robust_acc"),
    *("split", "first_sample", "num_steps"),
    *("options", "broken_by", "features", "pixels", "clusters", "verdict"),
    *(f"{kind}_{column}" for column in COMPARED for kind in ("paper", "delta")),
)
"""Columns of ``results.csv``: the paper's, our setting, the paper's figures."""

BUDGET_COLUMNS = (
    *("table", "dataset", "model", "steps", "attack", "budget", "asr", "time_s", "queries_k"),
    *("unit", "num_samples", "split", "first_sample", "num_steps", "options"),
    *("paper_asr", "delta_asr"),
)
"""Columns of ``results_fixed_budget.csv``, alike."""

FEW_SAMPLES = 1000
"""Below it a verdict says how many samples it rests on: chance alone moves ASRs by some points."""

HEADINGS = {
    "model": "net",
    "attack": "attack",
    "options": "options",
    "steps": "N",
    "unit": "unit",
    "split": "split",
    "first_sample": "from",
    "clean_acc": "clean",
    "budget": "k",
    "robust_acc": "RA",
    "asr_10": "ASR10",
    "asr_50": "ASR50",
    "asr_inf": "ASR∞",
    "median_l0": "median",
    "mean_l0": "mean",
    "time_s": "t",
    "queries_k": "q",
    "vram_gb": "VRAM",
    "broken_by": "broken by",
    "features": "features",
    "pixels": "pixels",
    "clusters": "clusters",
    "verdict": "verdict",
}
"""Columns of the printed tables, in the order of the paper's, and their headings; clean accuracy
before the ASRs, in which the samples that are misclassified anyway count as well."""

PAPER_BUDGETS = (10, 50)
"""Budgets k of the paper's columns ASR_k."""


def paper_row(
    measurement: Measurement,
    cost: Cost,
    setting: Setting,
    *,
    batch_size: int,
    broken_by: Mapping[str, int] = MappingProxyType({}),
    changes: Mapping[str, float | None] = MappingProxyType({}),
    named: Collection[str] = (),
    budgets: Sequence[int] = (),
) -> dict[str, Any]:
    """One row of ``results.csv``: the paper's columns, our setting, the paper's figures.

    Success rates are in percent, as the paper prints them; times in seconds a sample; queries
    (forward and backward passes a sample) in thousands. Where the paper prints a figure for this
    net, attack and number of steps, and ours was taken on test samples of its data set, with its
    options and as many steps, ``paper_<column>`` holds it and ``delta_<column>`` ours minus it.

    Args:
        measurement: taken with the budgets of the paper among others.
        cost: what the attack cost in all.
        setting: the net, the attack and the samples.
        batch_size: samples attacked at once.
        broken_by: how many samples each member of the attack has broken, if it has members.
        changes: means as :func:`sztrain.evaluation.changes.mean_changes` gives them.
        named: options to name at their defaults, too, as those of a grid.
        budgets: budgets k at which robust accuracy is wanted as well, in columns of their own,
            ``robust_acc_<k>``; an attack with a budget of its own tells of no other.
    """
    published = setting.published_row()
    row = {
        **setting.cells(named),
        **_figures(measurement, setting.attack.budget),
        **_costs(cost),
        "table": published.table if published else "",
        "notes": "",
        "batch_size": batch_size,
        "broken_by": ", ".join(f"{name} {count}" for name, count in broken_by.items()),
        **{measure: changes.get(measure) for measure in CHANGES},
    }
    for column in COMPARED:
        printed = getattr(published, column) if published else None
        row[f"paper_{column}"] = printed
        row[f"delta_{column}"] = difference(row[column], printed)
    found = verdict(row)
    if found and measurement.num_samples < FEW_SAMPLES:
        found += f" (on {measurement.num_samples} samples)"
    row["verdict"] = found
    left: dict[str, Any] = {}
    for budget in budgets if setting.attack.budget is None else ():
        left[f"robust_acc_{budget}"] = percent(
            _robust_at(measurement, budget), measurement.num_samples
        )
    place = COLUMNS.index("robust_acc") + 1
    return {column: (row | left)[column] for column in (*COLUMNS[:place], *left, *COLUMNS[place:])}


def _robust_at(measurement: Measurement, budget: int) -> float:
    """Robust accuracy at a budget; one larger than the sample is no restriction."""
    return float(measurement.curve[min(budget, len(measurement.curve) - 1)])


def headings_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Columns to print of these rows and their headings: :data:`HEADINGS`, and their budgets.

    Example:
        >>> list(headings_of([{"robust_acc_4": 70.0}]).values())[7:11]
        ['clean', 'k', 'RA', 'RA4']
    """
    own = [key for row in rows for key in row if re.fullmatch(r"robust_acc_\d+", key)]
    headings: dict[str, str] = {}
    for key, heading in HEADINGS.items():
        headings[key] = heading
        if key == "robust_acc":
            headings |= {budget: f"RA{budget.rpartition('_')[2]}" for budget in own}
    return headings


def _figures(measurement: Measurement, budget: int | None) -> dict[str, Any]:
    """The columns of what was measured; at a fixed budget, what is left there and nothing else."""
    values, unit, num_samples = measurement.values, measurement.unit, measurement.num_samples
    columns = (*(f"asr_{k}" for k in PAPER_BUDGETS), "asr_inf", "median_l0", "mean_l0")
    row: dict[str, Any] = {
        **dict.fromkeys((*columns, "budget", "robust_acc")),
        "clean_acc": percent(float(measurement.curve[0]), num_samples),
        "num_samples": num_samples,
        "unit": unit,
    }
    everything = values["asr_inf"]
    if budget is not None:
        return row | {"budget": budget, "robust_acc": percent(1 - everything, num_samples)}
    # A budget larger than the sample is no restriction.
    asrs = {k: values.get(measure_key("asr", unit, k), everything) for k in PAPER_BUDGETS}
    return row | {
        **{f"asr_{k}": percent(asr, num_samples) for k, asr in asrs.items()},
        "asr_inf": percent(everything, num_samples),
        "median_l0": values[measure_key("median_l0", unit)],
        "mean_l0": values[measure_key("mean_l0", unit)],
    }


def _costs(cost: Cost) -> dict[str, Any]:
    """The columns of what the attack took; on a CPU, its memory is what the process holds."""
    memory_gb = cost.peak_memory / 2**30 or None
    return {
        "device": cost.device,
        "time_s": cost.seconds_per_sample,
        "queries_k": cost.passes_per_sample / 1000,
        "vram_gb": None if "cpu" in cost.device else memory_gb,
        "resident_gb": memory_gb if cost.device == "cpu" else None,
    }


def missing_row(setting: Setting, reason: str, named: Collection[str] = ()) -> dict[str, Any]:
    """The row of what cannot be had: all columns, the paper's figures, and why ours are missing.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> attack = SigmaZero(num_steps=100)
        >>> setting = Setting(model="C9", dataset="cifar10", attack=attack, steps=100)
        >>> row = missing_row(setting, "no weights")
        >>> row["notes"], row["paper_median_l0"]
        ('not available: no weights', 18.0)
    """
    published = setting.published_row()
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= setting.cells(named) | {
        "split": None,
        "first_sample": None,
        "budget": setting.attack.budget,
    }
    row |= {"table": published.table if published else "", "notes": f"not available: {reason}"}
    return row | {f"paper_{c}": getattr(published, c) if published else None for c in COMPARED}


def budget_rows(
    measurement: Measurement,
    cost: Cost,
    setting: Setting,
    budgets: Sequence[int],
    named: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Rows of ``results_fixed_budget.csv``: success within each budget.

    The budgets are read off one run of a minimal-norm attack, as in the paper's Tables VIII to XI;
    an attack that was run at a budget of its own has a row for this one. The paper's figure stands
    beside ours as in :func:`paper_row`, and for attacks that it runs at each budget, where ours
    was, too.

    Args:
        measurement: taken with these budgets among others.
        cost: what the attack cost in all.
        setting: the net, the attack and the samples.
        budgets: budgets k.
        named: options to name at their defaults, too, as those of a grid.
    """
    own = setting.attack.budget
    rows = []
    for budget in budgets if own is None else [own]:
        published = setting.published_budget_row(budget)
        asr = percent(1 - _robust_at(measurement, budget), measurement.num_samples)
        row = {
            **setting.cells(named),
            **_costs(cost),
            "table": published.table if published else "",
            "budget": budget,
            "asr": asr,
            "unit": measurement.unit,
            "num_samples": measurement.num_samples,
            "paper_asr": published.asr if published else None,
            "delta_asr": difference(asr, published.asr if published else None),
        }
        rows.append({column: row[column] for column in BUDGET_COLUMNS})
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


def percent(share: float, num_samples: int) -> float:
    """Percent of the samples, without the rounding of metrics in single precision.

    Example:
        >>> import torch
        >>> share = float(torch.tensor(0.7))
        >>> 100 * share == 70, percent(share, 10)
        (False, 70.0)
    """
    return 100 * round(share * num_samples) / num_samples


def difference(ours: float | None, printed: float | None) -> float | None:
    """Ours minus the paper's figure; ``None`` where one of them is missing.

    Example:
        >>> difference(21.0, 22.0), difference(float("inf"), float("inf")), difference(1.0, None)
        (-1.0, 0.0, None)
        >>> difference(30.2, 32.2)
        -2.0
    """
    if ours is None or printed is None:
        return None
    if ours == printed:
        return 0.0  # ∞ - ∞ is NaN, but they agree
    return round(ours - printed, 9)  # 32.2 - 30.2 is more than 2
