"""What someone would trip over who gauges a net of their own: said once, with the mend."""

import math
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from sztrain.attacks.checks import validate_logits
from sztrain.attacks.modes import attack_mode
from sztrain.callbacks._kinds import is_a
from sztrain.errors import InputError, SztrainWarning
from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.runner import AttackedBatch
from sztrain.losses import difference_of_logits

ENOUGH_SAMPLES = 100
"""Of fewer, a median and its interval tell little: they span more than a fifth of all ranks."""

LOOKED_AT = 16
"""Samples of a batch whose gradients are looked at."""

SUM_TOLERANCE = 0.01
"""Of probabilities, which half precision rounds."""


class Advice:
    """Warns of each trap once.

    Args:
        speaks: whether this process does; the others look on.

    Example:
        >>> advice = Advice()
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     advice.on_labels(torch.tensor([3, 3]))
        >>> "all samples have the label 3" in str(caught[0].message)
        True
    """

    def __init__(self, *, speaks: bool = True) -> None:
        self.speaks = speaks
        self._said: set[str] = set()
        self._has_seen_outputs = False

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

    def on_outputs(self, net: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Look at what a net answers, once; also refuse what no attack could work with.

        Args:
            net: maps images to logits.
            images: shape ``(N, ...)``, on the net's device.
            labels: int64 ``(N,)``.

        Raises:
            InputError: no finite logits ``(N, K)``, or labels that are not among the K classes.
        """
        if self._has_seen_outputs:
            return
        self._has_seen_outputs = True
        with attack_mode(net, images.device), torch.no_grad():
            logits = net(images.clone())  # the first layer of the net may work in place
        validate_logits(logits, labels)
        inside = bool(((logits >= 0) & (logits <= 1)).all())
        if inside and bool(((logits.float().sum(dim=1) - 1).abs() < SUM_TOLERANCE).all()):
            self._say(
                "forward returns probabilities, whose gradients vanish where the net is sure, so "
                "that it looks more robust than it is; return logits, or give forward=, a function "
                "of the module and its inputs that stops before the softmax"
            )

    def on_labels(self, labels: Tensor) -> None:
        """Look at the labels of all samples, or at their extremes."""
        if bool((labels == labels.flatten()[0]).all()):
            self._say(
                f"all samples have the label {int(labels.flatten()[0])}, so the figures are those "
                "of one class; shuffle the validation samples once, or validate on more of them "
                "(limit_val_batches, overfit_batches)"
            )

    def on_attacked(self, net: nn.Module, attacked: AttackedBatch) -> None:
        """Look for gradients of zero where an attack by gradients failed on most samples."""
        if "gradient" in self._said:
            return
        result = attacked.result
        correct = attacked.clean_predictions == attacked.labels
        failed = correct & ~result.success
        if not bool(result.num_backwards.any()) or 2 * int(failed.sum()) <= int(correct.sum()):
            return
        # An attack passes a batch through the net in slices; all of it at once may find no room.
        seen = correct.nonzero().flatten()[:LOOKED_AT]
        share = _share_without_gradient(net, attacked.inputs[seen], attacked.labels[seen])
        if share > 0.5:
            self._say(
                f"the gradient is exactly zero for {share:.0%} of the samples that the net gets "
                "right, so an attack by gradients finds nothing there, however fragile the net is "
                "(saturated, rounded or clipped values mask it); mend forward, or go by a probe "
                "without gradients, probe=SparseRS(num_steps=300, budget=...)",
                key="gradient",
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

    def _say(self, text: str, key: str | None = None) -> None:
        key = text if key is None else key
        if self.speaks and key not in self._said:
            warnings.warn(f"SparseRobustness: {text}", SztrainWarning, stacklevel=2)
        self._said.add(key)


def passes_gradient(net: nn.Module, images: Tensor, labels: Tensor) -> bool:
    """Whether a net can be differentiated in its inputs."""
    try:
        _share_without_gradient(net, images, labels)
    except (InputError, RuntimeError):  # the latter is torch's own
        return False
    return True


def _share_without_gradient(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    with attack_mode(net, images.device):
        # Copies: tensors made in inference mode cannot be saved for a backward pass.
        images, labels = images.clone().requires_grad_(), labels.clone()
        # The first layer of the net may work in place.
        margins = difference_of_logits(net(images.clone()).float(), labels)
        (gradient,) = torch.autograd.grad(margins.sum(), images)
    return float((gradient.flatten(1) == 0).all(dim=1).float().mean())
