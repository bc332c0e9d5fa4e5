"""Rows of results in the columns of the paper's tables, with its figures beside ours."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sztrain.evaluation.attack_names import changed_options, describe_options, paper_name
from sztrain.evaluation.changes import MEASURES
from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.published import PublishedRow, find_row, fixed_budget_rows
from sztrain.evaluation.records import Cost
from sztrain.metrics import measure_key
from sztrain.types import Attack

COMPARED = ("asr_10", "asr_50", "asr_inf", "median_l0", "time_s", "queries_k", "vram_gb")
"""Columns that the paper prints a figure in."""

TOLERANCES = {"median_l0": 1, "asr_10": 2, "asr_50": 2}
"""How far from the paper's figure ours may be: features, and points of percent."""

COLUMNS = (
    *("table", "dataset", "model", "steps", "attack", *COMPARED, "notes"),
    *("num_samples", "unit", "device", "batch_size", "clean_acc", "mean_l0", "resident_gb"),
    *("split", "first_sample", "num_steps"),
    *("options", "broken_by", "features", "pixels", "clusters", "verdict"),
    *(f"{kind}_{column}" for column in COMPARED for kind in ("paper", "delta")),
)
"""Columns of ``results.csv``: the paper's, our setting, the paper's figures."""

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
    "asr_10": "ASR10",
    "asr_50": "ASR50",
    "asr_inf": "ASR∞",
    "median_l0": "median",
    "time_s": "t",
    "queries_k": "q",
    "vram_gb": "VRAM",
    "broken_by": "broken by",
    "features": "features",
    "pixels": "pixels",
    "clusters": "clusters",
    "verdict": "verdict",
}
"""Columns of the printed tables, in the order of the paper's, and their headings."""

PAPER_BUDGETS = (10, 50)
"""Budgets k of the paper's columns ASR_k."""

# How an attack is run, not what it looks for: the paper's figures may stand beside ours.
_IMMATERIAL = ("num_steps", "seed", "batch_size", "recheck", "autocast", "cuda_graph")

# Steps that the paper grants an attack for each of N, where that is not 1; and at a fixed budget,
# for those that it runs at each, while of others it reads all budgets off one run.
_STEPS_PER_N = {"Sparse-RS": 4}
_STEPS_PER_N_AT_BUDGET = {"PGD-l0": 1, "Sparse-RS": 2}


def paper_row(
    measurement: Measurement,
    cost: Cost,
    *,
    model: str,
    dataset: str,
    split: str = "test",
    first_sample: int = 0,
    attack: Attack,
    steps: int,
    batch_size: int,
    broken_by: Mapping[str, int] = MappingProxyType({}),
    changes: Mapping[str, float | None] = MappingProxyType({}),
    named: Collection[str] = (),
) -> dict[str, Any]:
    """One row of ``results.csv``: the paper's columns, our setting, the paper's figures.

    Success rates are in percent, as the paper prints them; times in seconds a sample; queries
    (forward and backward passes a sample) in thousands. Where the paper prints a figure for this
    net, attack and number of steps, and ours was taken on test samples of its data set, with its
    options and as many steps, ``paper_<column>`` holds it and ``delta_<column>`` ours minus it.

    Args:
        measurement: taken with the budgets of the paper among others.
        cost: what the attack cost in all.
        model: the net's name.
        dataset: name of the data set.
        split: of it, from which the samples are.
        first_sample: where in the split they begin.
        attack: the attack.
        steps: N of the table.
        batch_size: samples attacked at once.
        broken_by: how many samples each member of the attack has broken, if it has members.
        changes: means as :func:`sztrain.evaluation.changes.mean_changes` gives them.
        named: options to name at their defaults, too, as those of a grid.
    """
    name = paper_name(attack)
    values, unit, num_samples = measurement.values, measurement.unit, measurement.num_samples
    published = _printed_row(model, attack, steps) if split == "test" else None
    if published is not None and published.dataset != dataset:
        published = None
    resident = cost.peak_memory if cost.device == "cpu" else 0
    row: dict[str, Any] = {
        "table": published.table if published else "",
        "dataset": dataset,
        "model": model,
        "steps": steps,
        "attack": name,
        # A budget larger than the sample is no restriction.
        **{
            f"asr_{k}": percent(
                values.get(measure_key("asr", unit, k), values["asr_inf"]), num_samples
            )
            for k in PAPER_BUDGETS
        },
        "asr_inf": percent(values["asr_inf"], num_samples),
        "median_l0": values[measure_key("median_l0", unit)],
        "time_s": cost.seconds_per_sample,
        "queries_k": cost.passes_per_sample / 1000,
        "vram_gb": None if "cpu" in cost.device else cost.peak_memory / 2**30,
        "notes": "",
        "num_samples": num_samples,
        "unit": unit,
        "device": cost.device,
        "batch_size": batch_size,
        "clean_acc": percent(float(measurement.curve[0]), num_samples),
        "mean_l0": values[measure_key("mean_l0", unit)],
        "resident_gb": resident / 2**30 if resident else None,
        "split": split,
        "first_sample": first_sample,
        "num_steps": attack.num_steps,
        "options": describe_options(attack, named),
        "broken_by": ", ".join(f"{name} {count}" for name, count in broken_by.items()),
        **{measure: changes.get(measure) for measure in MEASURES},
    }
    beside: dict[str, Any] = {}
    for column in COMPARED:
        printed = getattr(published, column) if published else None
        beside[f"paper_{column}"] = printed
        beside[f"delta_{column}"] = difference(row[column], printed)
    found = verdict(beside)
    if found and num_samples < FEW_SAMPLES:
        found += f" (on {num_samples} samples)"
    return row | {"verdict": found} | beside


def missing_row(model: str, attack: Attack, steps: int, reason: str) -> dict[str, Any]:
    """The row of what cannot be had: all columns, the paper's figures, and why ours are missing.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> row = missing_row("C9", SigmaZero(num_steps=100), 100, "no weights")
        >>> row["notes"], row["paper_median_l0"]
        ('not available: no weights', 18.0)
    """
    name = paper_name(attack)
    published = _printed_row(model, attack, steps)
    row = dict.fromkeys(COLUMNS) | {
        "table": published.table if published else "",
        "dataset": published.dataset if published else "",
        "model": model,
        "steps": steps,
        "attack": name,
        "notes": f"not available: {reason}",
        "num_steps": attack.num_steps,
        "options": describe_options(attack),
    }
    return row | {f"paper_{c}": getattr(published, c) if published else None for c in COMPARED}


def budget_rows(
    measurement: Measurement,
    cost: Cost,
    budgets: Sequence[int],
    *,
    model: str,
    dataset: str,
    split: str = "test",
    first_sample: int = 0,
    attack: Attack,
    steps: int,
) -> list[dict[str, Any]]:
    """Rows of ``results_fixed_budget.csv``: success within each budget.

    The budgets are read off one run of a minimal-norm attack, as in the paper's Tables VIII to XI;
    an attack that was run at a budget of its own has a row for this one. The paper's figure stands
    beside ours as in :func:`paper_row`, and for attacks that it runs at each budget, where ours
    was, too.

    Args:
        measurement: taken with these budgets among others.
        cost: what the attack cost in all.
        budgets: budgets k.
        model: the net's name.
        dataset: name of the data set.
        split: of it, from which the samples are.
        first_sample: where in the split they begin.
        attack: the attack.
        steps: N of the table.
    """
    name = paper_name(attack)
    printed = {
        (row.dataset, row.model, row.attack, row.steps, row.budget): row
        for row in fixed_budget_rows()
    }
    comparable = split == "test" and _is_run_as_in_paper(attack, steps)
    if attack.budget is not None:
        budgets = [attack.budget]
    rows = []
    for budget in budgets:
        key = (dataset, model, name, steps, budget)
        published = printed.get(key) if comparable else None
        robust = float(measurement.curve[min(budget, len(measurement.curve) - 1)])
        asr = percent(1 - robust, measurement.num_samples)
        rows.append(
            {
                "table": published.table if published else "",
                "dataset": dataset,
                "model": model,
                "steps": steps,
                "attack": name,
                "budget": budget,
                "asr": asr,
                "time_s": cost.seconds_per_sample,
                "queries_k": cost.passes_per_sample / 1000,
                "unit": measurement.unit,
                "num_samples": measurement.num_samples,
                "split": split,
                "first_sample": first_sample,
                "num_steps": attack.num_steps,
                "options": describe_options(attack),
                "paper_asr": published.asr if published else None,
                "delta_asr": difference(asr, published.asr if published else None),
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


def _printed_row(model: str, attack: Attack, steps: int) -> PublishedRow | None:
    """The paper's row of a minimal-norm attack that was run as in the paper."""
    name = paper_name(attack)
    granted = attack.num_steps == steps * _STEPS_PER_N.get(name, 1)
    as_in_paper = granted and all(option in _IMMATERIAL for option in changed_options(attack))
    return find_row(model, name, steps) if as_in_paper else None


def _is_run_as_in_paper(attack: Attack, steps: int) -> bool:
    """Whether an attack at a fixed budget, or a run that all are read off, is as in the paper."""
    name = paper_name(attack)
    if attack.budget is None and name in _STEPS_PER_N_AT_BUDGET:
        return False
    granted = attack.num_steps == steps * _STEPS_PER_N_AT_BUDGET.get(name, 1)
    changed = changed_options(attack).keys() - {"budget"}
    return granted and all(option in _IMMATERIAL for option in changed)


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
    """
    if ours is None or printed is None:
        return None
    return 0.0 if ours == printed else ours - printed  # ∞ - ∞ is NaN, but they agree
