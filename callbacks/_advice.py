"""What someone would trip over who gauges a net of their own: said once, with the mend."""

import math
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from sztrain.callbacks._kinds import is_a
from sztrain.evaluation.advice import Advice
from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.evaluation.measurement import Measurement

ENOUGH_SAMPLES = 100
"""Of fewer, a median and its interval tell little: they span more than a fifth of all ranks."""


class GaugeAdvice(Advice):
    """Warns of each trap of a gauge once.

    Args:
        speaks: whether this process does; the others look on.

    Example:
        >>> import warnings, torch
        >>> advice = GaugeAdvice()
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     advice.on_labels(torch.tensor([3, 3]))
        >>> "all samples have the label 3" in str(caught[0].message)
        True
    """

    logits_mend = (
        "return logits, or give forward=, a function of the module and its inputs that stops "
        "before the softmax"
    )
    gradient_mend = (
        "mend forward, or go by a probe without gradients, probe=SparseRS(num_steps=300, "
        "budget=...)"
    )

    def __init__(self, *, speaks: bool = True) -> None:
        super().__init__("SparseRobustness", speaks=speaks)

    def on_trainer(self, trainer: pl.Trainer, keys: GaugeKeys, every: int) -> None:
        """Look for what keeps a gauge from measuring, or ends a training by its old figures.

        Args:
            trainer: that begins to train.
            keys: under which the gauge logs.
            every: in every which epoch it measures.
        """
        if not trainer.enable_validation:
            self._say(
                "the Trainer validates nothing (no validation samples, or limit_val_batches=0), so "
                "nothing is gauged"
            )
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # in __init__
        for callback in callbacks:
            is_gauged = getattr(callback, "monitor", None) in keys.gauged
            if not is_gauged or not is_a(callback, "EarlyStopping"):
                continue
            validations = math.ceil(every / (trainer.check_val_every_n_epoch or 1))
            if callback.patience < validations:
                self._say(
                    f"EarlyStopping sees the last {callback.monitor} again in epochs that are not "
                    f"gauged, and stops after {callback.patience} of them (patience); expected a "
                    f"patience of at least {validations}, or every_n_epochs=1"
                )

    def on_labels(self, labels: Tensor) -> None:
        """Look at the labels of all samples, or at their extremes."""
        if bool((labels == labels.flatten()[0]).all()):
            self._say(
                f"all samples have the label {int(labels.flatten()[0])}, so the figures are those "
                "of one class; shuffle the validation samples once, or validate on more of them "
                "(limit_val_batches, overfit_batches)"
            )

    def on_measurement(self, measurement: Measurement) -> None:
        """Look at how many samples a median rests on."""
        if measurement.num_samples < ENOUGH_SAMPLES:
            low, high = measurement.median_interval
            told = f", and that of all may be anywhere from {low:g} to {high:g} (95 %)"
            self._say(
                f"the median ℓ0 rests on {measurement.num_samples} samples"
                f"{told if low < high else ''}; attack {ENOUGH_SAMPLES} or more "
                "(num_samples, max_seconds, max_share, limit_val_batches)",
                key="samples",
            )
