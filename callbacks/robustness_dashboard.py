"""Robustness dashboard: shows in the loggers what the gauge measures, beyond its figures."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng
from typing_extensions import override

from sztrain.callbacks._gauges import gauges_of
from sztrain.callbacks.alarms import raise_alarm
from sztrain.callbacks.dashboard_writers import FileWriter, Writer, writer_for
from sztrain.callbacks.sparse_robustness import SparseRobustness
from sztrain.errors import InputError
from sztrain.evaluation.attack_names import short_judge
from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.evaluation.gauge_page import GaugePage, Points, thinned
from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.wandb_media import curve_points
from sztrain.metrics import measure_key

_POINTS = 128  # of one curve: more are not seen, and checkpoints hold those of all epochs
# A gauge that calls a smaller share robust misleads nobody, and of fewer samples all may fall by
# chance.
_LEAST_SHARE, _LEAST_SAMPLES = 0.1, 10


class RobustnessDashboard(Callback):
    """Shows each measurement of the gauge in the loggers of the Trainer.

    Needs a :class:`~sztrain.callbacks.SparseRobustness` among the callbacks beside it, of several
    the first. Shows the robustness curve of each epoch on one chart, the histogram of l0, the
    median l0 of each class, where images were attacked, and adversarial images; the same under
    ``test/`` for a verdict. W&B gets all of it, with epochs as the axis and the best value of each
    figure in the summary; TensorBoard gets pictures and histograms, a CSV logger tables beside its
    ``metrics.csv``, and any other logger the figures alone. :mod:`sztrain.dashboards` arranges the
    panels in W&B. The training goes on exactly as it would have without it.

    With a folder, it also draws the verdict: ``robustness_curve.png`` and
    ``adversarial_examples.png``.

    Where the gauge says robust and its probe does not, it raises an alarm: a warning on the screen
    and an alert in W&B, once until the two agree again.

    Args:
        dirpath: where the pictures of the verdict go; ``None``: there are none.
        name: of the net, in the legend of these pictures.
        alarm_share: in (0, 1]; alarm when the probe breaks more than this share of the samples that
            the gauge's attack leaves robust within the probe's budget, if these are at least ten,
            and a tenth of all. In our trials nets that only seemed robust lost all of them, and
            those of a sound training on the digits up to 0.75.

    Raises:
        InputError: ``alarm_share`` is out of its range, or there is no gauge.

    Example:
        >>> gauge = SparseRobustness(num_samples=512, budgets=(10, 50))
        >>> callbacks = [gauge, RobustnessDashboard()]
        >>> trainer = pl.Trainer(callbacks=callbacks, logger=False, accelerator="cpu")
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        name: str = "net",
        *,
        alarm_share: float = 0.9,
    ) -> None:
        if not 0 < alarm_share <= 1:
            raise InputError(f"expected `alarm_share` to be in (0, 1], got {alarm_share}")
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.name = name
        self.alarm_share = alarm_share
        self._curves: dict[str, dict[int, Points]] = {}
        self._shown: dict[str, Measurement] = {}
        self._loggers: list[Any] = []
        self._writers: list[Writer] = []
        self._prepared: set[str] = set()
        self._alarmed = False

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if _gauge(trainer) is None:
            raise InputError(
                "RobustnessDashboard shows what SparseRobustness measured, and found none; add "
                "SparseRobustness(...) to the callbacks, or leave out the dashboard "
                "(callbacks.pictures=null)"
            )
        if stage == "fit":
            self._alarmed = False
            if trainer.current_epoch == 0:  # else the same Trainer goes on
                self._curves = {}
        if self._loggers and trainer.loggers == self._loggers:
            return  # the test after a training: its files go on
        self._loggers, self._prepared = list(trainer.loggers), set()
        writers = [writer_for(logger) for logger in self._loggers]
        self._writers = [writer for writer in writers if writer is not None]
        if self.dirpath is not None:
            self._writers.append(FileWriter(self.dirpath, self.name))

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._prepare(trainer, "val")

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._prepare(trainer, "test")

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer, "val")

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer, "test")

    @override
    def state_dict(self) -> dict[str, Any]:
        # Plain containers: checkpoints are read without running code.
        return {
            stage: {epoch: [list(point) for point in points] for epoch, points in curves.items()}
            for stage, curves in self._curves.items()
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._curves = {
            stage: {epoch: [(k, share) for k, share in points] for epoch, points in curves.items()}
            for stage, curves in state_dict.items()
        }

    def _prepare(self, trainer: pl.Trainer, stage: str) -> None:
        """Tell W&B of the gauge's figures before the first of them reach it."""
        gauge, measurement = self._news(trainer, stage)
        if gauge is None or measurement is None:
            return
        if trainer.is_global_zero and stage not in self._prepared:
            self._prepared.add(stage)
            with isolate_rng():
                for writer in self._writers:
                    writer.prepare(gauge.keys(stage))

    def _show(self, trainer: pl.Trainer, stage: str) -> None:
        gauge, measurement = self._news(trainer, stage)
        if gauge is None or measurement is None:
            return
        self._shown[stage] = measurement
        keys = gauge.keys(stage)
        # A training that goes on may count another unit, which has no place on the same chart.
        curves = self._curves.setdefault(measure_key(stage, keys.unit), {})
        curves[trainer.current_epoch] = thinned(curve_points(measurement.curve), _POINTS)
        page = GaugePage(
            keys=keys,
            measurement=measurement,
            curves=curves,
            epoch=trainer.current_epoch,
            # Under which Lightning has just logged the figures, not always the global step.
            step=trainer.fit_loop.epoch_loop._batches_that_stepped,
            judged_by=short_judge(gauge.judging(stage)),
        )
        if trainer.is_global_zero:
            # Whatever a logger draws at random, the training must not miss.
            with isolate_rng():
                for writer in self._writers:
                    writer.write(page)
        self._alarm(trainer, keys, measurement)

    def _news(
        self, trainer: pl.Trainer, stage: str
    ) -> tuple[SparseRobustness | None, Measurement | None]:
        """The gauge, and its last measurement if it has not been shown yet."""
        gauge = _gauge(trainer)
        last = None if gauge is None else gauge.measurements.get(stage)
        return gauge, None if last is self._shown.get(stage) else last

    def _alarm(self, trainer: pl.Trainer, keys: GaugeKeys, measurement: Measurement) -> None:
        for budget, worst in zip(keys.probe_budgets, keys.worst_accs, strict=True):
            if worst not in trainer.callback_metrics:  # a Trainer that logs nothing (barebones)
                return
            robust, left = float(measurement.curve[budget]), float(trainer.callback_metrics[worst])
            total = measurement.num_samples
            enough = round(robust * total) >= max(_LEAST_SHARE * total, _LEAST_SAMPLES)
            if enough and left < (1 - self.alarm_share) * robust:
                if not self._alarmed:
                    raise_alarm(
                        trainer,
                        "The gauge says robust, the probe says not",
                        f"in epoch {trainer.current_epoch} {robust:.1%} of the samples resist the "
                        f"gauge's attack within {budget} {keys.unit}, and {left:.1%} the probe as "
                        f"well; believe {worst}, and mix another attack into the training",
                    )
                self._alarmed = True
                return
        self._alarmed = self._alarmed and not keys.probe_budgets


def _gauge(trainer: pl.Trainer) -> SparseRobustness | None:
    """The first of the gauges, which stand before the other callbacks, in their order."""
    return next(iter(gauges_of(trainer)), None)
