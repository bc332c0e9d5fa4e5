"""Adversarial images: shows what the verdict's attack did, on disk and in the loggers."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from sztrain.callbacks.sparse_robustness import SparseRobustness
from sztrain.errors import InputError
from sztrain.evaluation.figures import (
    adversarial_examples_figure,
    robustness_curve_figure,
    save_figure,
)
from sztrain.evaluation.measurement import Examples, Measurement
from sztrain.evaluation.wandb_media import curve_media, example_table


class AdversarialImages(Callback):
    """Draws the robustness curve and adversarial examples of the gauge's verdict.

    Needs a :class:`~sztrain.callbacks.SparseRobustness` with a ``verdict`` before it in the list
    of callbacks. Writes ``robustness_curve.png`` and ``adversarial_examples.png``; to a W&B logger
    it adds ``test/robustness_curve`` (a table and its line chart) and
    ``test/adversarial_examples`` (a table of images).

    Args:
        dirpath: where the pictures go.
        name: of the net, in the legend.

    Example:
        >>> pictures = AdversarialImages(dirpath="outputs")
    """

    def __init__(self, dirpath: str | Path, name: str = "net") -> None:
        self.dirpath = Path(dirpath)
        self.name = name

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if _gauge(trainer) is None:
            raise InputError(
                "AdversarialImages shows what SparseRobustness measured, and found none among "
                "the callbacks; add SparseRobustness(verdict=...) before it"
            )

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        gauge = _gauge(trainer)
        measurement = gauge.measurements.get("test") if gauge is not None else None
        if measurement is None or gauge is None or not trainer.is_global_zero:
            return
        self._draw(measurement, gauge.budgets)
        loggers: list[Any] = trainer.loggers
        for logger in loggers:
            # By its name: pytorch_lightning and lightning.pytorch each have a class of their own.
            if type(logger).__name__ == "WandbLogger":
                _log_to_wandb(logger.experiment, measurement, self.name)

    def _draw(self, measurement: Measurement, budgets: tuple[int, ...]) -> None:
        curve = robustness_curve_figure(
            {self.name: measurement.curve}, measurement.unit, budgets=budgets
        )
        save_figure(curve, self.dirpath / "robustness_curve.png")
        shown = _drawable(measurement)
        if shown is not None:
            examples = adversarial_examples_figure(shown, measurement.unit)
            save_figure(examples, self.dirpath / "adversarial_examples.png")


def _gauge(trainer: pl.Trainer) -> SparseRobustness | None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set in __init__
    return next((c for c in callbacks if isinstance(c, SparseRobustness)), None)


def _drawable(measurement: Measurement) -> Examples | None:
    """The examples, if they are grey or colour images."""
    shown = measurement.examples
    if shown is None or shown.inputs.ndim != 4 or shown.inputs.shape[1] not in (1, 3):
        return None
    return shown


def _log_to_wandb(run: Any, measurement: Measurement, name: str) -> None:
    # Without `step`: W&B's own step and Lightning's disagree, and points would be dropped.
    run.log(curve_media("test/robustness_curve", {name: measurement.curve}, measurement.unit))
    shown = _drawable(measurement)
    if shown is not None:
        run.log({"test/adversarial_examples": example_table(shown)})
