"""What each kind of logger can carry of a gauge's measurement."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sztrain.callbacks._kinds import is_a
from sztrain.evaluation.figures import (
    adversarial_examples_figure,
    class_l0_figure,
    epoch_curves_figure,
    figure_pixels,
    places_figure,
    robustness_curve_figure,
    save_figure,
)
from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.evaluation.gauge_page import GaugePage
from sztrain.evaluation.wandb_gauge import define_metrics, gauge_media


class Writer(Protocol):
    """Shows measurements in one logger, beside the figures that Lightning logs into it."""

    def prepare(self, keys: GaugeKeys) -> None:
        """Called before the first figures of a stage are logged."""

    def write(self, page: GaugePage) -> None:
        """Show a measurement."""


class WandbWriter:
    """Charts, tables and pictures for W&B.

    Args:
        logger: a ``WandbLogger``.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def prepare(self, keys: GaugeKeys) -> None:
        """Name the axis of the figures and which of their values is the best."""
        define_metrics(self._logger.experiment, keys)

    def write(self, page: GaugePage) -> None:
        """Log it without `step`: W&B's own and Lightning's disagree, and points would be lost."""
        self._logger.experiment.log(gauge_media(page))


class TensorBoardWriter:
    """Pictures and histograms for TensorBoard, under the keys that W&B has.

    Args:
        logger: a ``TensorBoardLogger``.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def prepare(self, keys: GaugeKeys) -> None:
        """TensorBoard needs to be told nothing."""

    def write(self, page: GaugePage) -> None:
        """Add the pictures of a measurement, and the histogram of l0."""
        keys, measurement, breakdown = page.keys, page.measurement, page.measurement.breakdown
        figures = {keys.curve: epoch_curves_figure(page.curves, keys.unit, keys.budgets)}
        if breakdown is not None:
            figures[keys.class_l0] = class_l0_figure(breakdown.by_class(), keys.unit)
            if breakdown.places is not None:
                figures[keys.places] = places_figure(breakdown.places)
        if measurement.drawable is not None:
            figures[keys.examples] = adversarial_examples_figure(measurement.drawable, keys.unit)
        writer = self._logger.experiment
        for key, figure in figures.items():
            writer.add_image(key, figure_pixels(figure), page.step, dataformats="HWC")
        if page.broken_l0:
            writer.add_histogram(keys.l0_histogram, np.array(page.broken_l0), page.step)


class CsvWriter:
    """Tables beside ``metrics.csv``, which holds figures only.

    ``robustness_curves.csv``, ``class_l0.csv`` and ``l0_histogram.csv``: every measurement adds its
    rows, which say its stage and epoch. As with ``metrics.csv``, a training that goes on in the
    same folder starts them anew; ``train.py`` sets those of its first part aside.

    Args:
        logger: a ``CSVLogger``.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._begun: set[Path] = set()

    def prepare(self, keys: GaugeKeys) -> None:
        """A CSV file needs to be told nothing."""

    def write(self, page: GaugePage) -> None:
        """Append the rows of a measurement."""
        curve = page.curves[page.epoch]
        self._append("robustness_curves", ("budget", "robust_accuracy"), curve, page)
        breakdown = page.measurement.breakdown
        if breakdown is None:
            return
        header = ("class", "median_l0", "asr_inf", "num_samples")
        rows = ((c.label, c.median_l0, c.asr_inf, c.num_samples) for c in breakdown.by_class())
        self._append("class_l0", header, rows, page)
        values, counts = torch.unique(breakdown.l0, return_counts=True)
        pairs = zip(map(_number, values.tolist()), counts.tolist(), strict=True)
        self._append("l0_histogram", ("l0", "num_samples"), pairs, page)

    def _append(
        self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]], page: GaugePage
    ) -> None:
        path = Path(self._logger.log_dir) / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = path in self._begun
        with path.open("a" if begun else "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            if not begun:
                lines.writerow(["stage", "epoch", *header])
            lines.writerows([page.keys.stage, page.epoch, *row] for row in rows)
        self._begun.add(path)


class FileWriter:
    """Pictures of the verdict as files.

    Args:
        dirpath: where they go.
        name: of the net, in the legend.
    """

    def __init__(self, dirpath: Path, name: str) -> None:
        self.dirpath = dirpath
        self.name = name

    def prepare(self, keys: GaugeKeys) -> None:
        """A picture needs to be told nothing."""

    def write(self, page: GaugePage) -> None:
        """Draw the robustness curve and examples, if this is the verdict."""
        if page.keys.stage != "test":
            return
        measurement = page.measurement
        curve = robustness_curve_figure(
            {self.name: measurement.curve},
            measurement.unit,
            budgets=page.keys.budgets,
            title=page.judged_by,
        )
        save_figure(curve, self.dirpath / "robustness_curve.png")
        if measurement.drawable is not None:
            examples = adversarial_examples_figure(measurement.drawable, measurement.unit)
            save_figure(examples, self.dirpath / "adversarial_examples.png")


_WRITERS: dict[str, type[WandbWriter | TensorBoardWriter | CsvWriter]] = {
    "WandbLogger": WandbWriter,
    "TensorBoardLogger": TensorBoardWriter,
    "CSVLogger": CsvWriter,
}


def writer_for(logger: Any) -> Writer | None:
    """What can show a measurement in a logger; ``None``: it gets the figures alone.

    Args:
        logger: of Lightning.

    Example:
        >>> writer_for(object()) is None
        True
    """
    made = next((_WRITERS[name] for name in _WRITERS if is_a(logger, name)), None)
    return None if made is None else made(logger)


def _number(l0: float) -> float | int:
    return int(l0) if math.isfinite(l0) else l0
