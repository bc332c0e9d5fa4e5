"""The verdict of a training run as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sztrain.evaluation.measurement import Measurement
from sztrain.files import write_whole
from sztrain.metrics import measure_key
from sztrain.types import Attack, Ensemble


def training_summary(
    measurement: Measurement,
    *,
    budgets: Sequence[int],
    attack: Attack,
    clean_accuracy: float,
    method: str,
    train_seconds: float | None,
    attack_seconds: float,
    epochs: int,
    checkpoint: str | None,
    best_epoch: int | None = None,
    last: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything ``summary.json`` says.

    Args:
        measurement: the verdict on the test samples.
        budgets: budgets at which it was taken.
        attack: the attack that judged.
        clean_accuracy: on the whole test split, in [0, 1].
        method: name of the training method.
        train_seconds: wall time of the training, validation included.
        attack_seconds: share of it that the adversary took.
        epochs: epochs trained.
        checkpoint: the judged file.
        best_epoch: the epoch that it is of, counted from 0.
        last: figures of the last epoch beside it, where that is another.

    Returns:
        Accuracies and success rates as fractions, l0 in ``unit``; ``None`` stands for ∞.
    """
    names = list(attack.members) if isinstance(attack, Ensemble) else [type(attack).__name__]
    figures = verdict_figures(measurement, budgets)
    num_samples = figures.pop("num_samples")
    summary = {
        "clean_accuracy": clean_accuracy,
        **figures,
        "unit": measurement.unit,
        "attacks": names,
        "num_steps": attack.num_steps,
        **({"num_queries": attack.num_queries} if hasattr(attack, "num_queries") else {}),
        "num_samples": num_samples,
        "note": f"robustness under {' + '.join(names)} only; "
        "other attacks may break the net sooner",
        "method": method,
        "train_seconds": train_seconds,
        "attack_seconds": attack_seconds,
        "verdict_seconds": measurement.attack_seconds,
        "epochs": epochs,
        "checkpoint": checkpoint,
        "best_epoch": best_epoch,
        "last": None if last is None else dict(last),
    }
    return {key: finite(value) for key, value in summary.items()}


def verdict_figures(measurement: Measurement, budgets: Sequence[int]) -> dict[str, Any]:
    """What a verdict found, by the names of ``summary.json``.

    Args:
        measurement: the verdict.
        budgets: budgets at which it was taken.
    """
    values, unit = measurement.values, measurement.unit
    return {
        "median_l0": values[measure_key("median_l0", unit)],
        "mean_l0": values[measure_key("mean_l0", unit)],
        "asr_inf": values["asr_inf"],
        "robust_accuracy": {k: values[measure_key("robust_acc", unit, k)] for k in budgets},
        "asr": {k: values[measure_key("asr", unit, k)] for k in budgets},
        "num_samples": measurement.num_samples,
    }


def finite(value: Any) -> Any:
    """Make ``value`` fit for JSON: inf and NaN become ``None``, in dictionaries as well.

    Example:
        >>> finite({10: float("inf"), 50: 0.5})
        {'10': None, '50': 0.5}
    """
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(values: dict[str, Any], path: str | Path) -> None:
    """Write ``values`` whole or not at all.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "summary.json"
        >>> write_json({"median_l0": None}, path)
        >>> json.loads(path.read_text())
        {'median_l0': None}
    """
    write_whole(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
