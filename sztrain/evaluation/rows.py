"""Rows of results in the columns of the paper's tables, with its figures beside ours."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import Any

from sztrain.evaluation.changes import MEASURES
from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.published import find_row, fixed_budget_rows
from sztrain.evaluation.records import Cost
from sztrain.metrics import measure_key
from sztrain.types import Attack

PAPER_NAMES = {"SigmaZero": "sigma-zero", "PGDL0": "PGD-l0", "SparseRS": "Sparse-RS"}
"""Attacks as the paper's tables call them; others go by the name of their class."""

COMPARED = ("asr_10", "asr_50", "asr_inf", "median_l0", "time_s", "queries_k", "vram_gb")
"""Columns that the paper prints a figure in."""

TOLERANCES = {"median_l0": 1, "asr_10": 2, "asr_50": 2}
"""How far from the paper's figure ours may be: features, and points of percent."""

COLUMNS = (
    *("table", "dataset", "model", "steps", "attack", *COMPARED, "notes"),
    *("num_samples", "unit", "device", "batch_size", "clean_acc", "mean_l0", "resident_gb"),
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


def paper_row(
    measurement: Measurement,
    cost: Cost,
    *,
    model: str,
    dataset: str,
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
    net, attack and number of steps, and the attack has the paper's options, ``paper_<column>``
    holds it and ``delta_<column>`` ours minus it.

    Args:
        measurement: taken with the budgets of the paper among others.
        cost: what the attack cost in all.
        model: the net's name.
        dataset: name of the data set.
        attack: the attack.
        steps: N of the table.
        batch_size: samples attacked at once.
        broken_by: how many samples each member of the attack has broken, if it has members.
        changes: means as :func:`sztrain.evaluation.changes.mean_changes` gives them.
        named: options to name at their defaults, too, as those of a grid.
    """
    name = paper_name(attack)
    values, unit, num_samples = measurement.values, measurement.unit, measurement.num_samples
    published = find_row(model, name, steps) if _as_in_paper(attack) else None
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
        "resident_gb": cost.peak_memory / 2**30 if cost.device == "cpu" else None,
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
    published = find_row(model, name, steps) if _as_in_paper(attack) else None
    row = dict.fromkeys(COLUMNS) | {
        "table": published.table if published else "",
        "dataset": published.dataset if published else "",
        "model": model,
        "steps": steps,
        "attack": name,
        "notes": f"not available: {reason}",
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
    attack: Attack,
    steps: int,
) -> list[dict[str, Any]]:
    """Rows of ``results_fixed_budget.csv``: success within each budget.

    The budgets are read off one run of a minimal-norm attack, as in the paper's Tables VIII to XI;
    an attack that was run at a budget of its own has a row for this one.

    Args:
        measurement: taken with these budgets among others.
        cost: what the attack cost in all.
        budgets: budgets k.
        model: the net's name.
        dataset: name of the data set.
        attack: the attack.
        steps: N of the table.
    """
    name = paper_name(attack)
    printed = {(row.model, row.attack, row.steps, row.budget): row for row in fixed_budget_rows()}
    if attack.budget is not None:
        budgets = [attack.budget]
    changed = {key: v for key, v in _changed_options(attack).items() if key != "budget"}
    comparable = all(key in _IMMATERIAL for key in changed)
    rows = []
    for budget in budgets:
        published = printed.get((model, name, steps, budget)) if comparable else None
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


def describe_options(attack: Attack, named: Collection[str] = ()) -> str:
    """The options in which an attack differs from its defaults; steps and unit stand elsewhere.

    Args:
        attack: the attack.
        named: options to name in any case.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> describe_options(SigmaZero(num_steps=10, sigma=0.1, tau=0.5))
        'sigma=0.1 tau=0.5'
    """
    changed = _changed_options(attack)
    shown = {
        field.name: getattr(attack, field.name)
        for field in fields(attack)
        if field.name in named
        or (field.name in changed and field.name not in ("num_steps", "unit"))
    }
    return " ".join(f"{k}={_shortened(v)}" for k, v in shown.items())


def _shortened(value: Any) -> Any:
    """96/255, say, without its last digits."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def attack_label(attack: Attack) -> str:
    """An attack in legends and file names: its class, and the options it is called with.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> attack_label(SigmaZero(num_steps=10, patience=5))
        'SigmaZero patience=5'
    """
    return f"{type(attack).__name__} {describe_options(attack)}".rstrip()


def _changed_options(attack: Attack) -> dict[str, Any]:
    values = {field.name: getattr(attack, field.name) for field in fields(attack)}
    defaults = {field.name: field.default for field in fields(attack)}
    return {k: v for k, v in values.items() if defaults[k] is MISSING or defaults[k] != v}


def _as_in_paper(attack: Attack) -> bool:
    return all(name in _IMMATERIAL for name in _changed_options(attack))


def paper_name(attack: Attack) -> str:
    """An attack as the paper's tables call it.

    Example:
        >>> from sztrain.attacks import GSE, SigmaZero
        >>> paper_name(SigmaZero()), paper_name(GSE())
        ('sigma-zero', 'GSE')
    """
    name = type(attack).__name__
    return PAPER_NAMES.get(name, name)


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
