"""Epoch lines: how a training goes, where there is no terminal for a progress bar."""

import time

import pytorch_lightning as pl
import rich
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from sztrain.callbacks._fresh import FreshFigures
from sztrain.progress import print_line


class EpochLines(Callback):
    """Prints a line at the end of each epoch, unless a progress bar shows the same.

    A bar needs a terminal. In the log file of a batch job it leaves nothing until the end, so that
    hours pass without a word, and then a line that is broken anywhere: there it is left out. The
    figures are those that the bar would show, without those under ``val/`` and of a gauge that were
    measured in an earlier epoch.

    Example:
        >>> trainer = pl.Trainer(callbacks=[EpochLines()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._start = 0.0
        self._fresh = FreshFigures()

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.progress_bar_callback is not None and not rich.get_console().is_terminal:
            trainer.progress_bar_callback.disable()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A training that goes on within an epoch does not start that epoch.
        self._start = time.monotonic()

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._fresh.on_validation_end(trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figures = trainer.progress_bar_metrics  # asked of every process, which may have to sum up
        console = rich.get_console()  # where Lightning's bar is
        if trainer.progress_bar_callback is not None and console.is_terminal:
            return
        if trainer.is_global_zero:
            last = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs - 1}"
            line = f"Epoch {trainer.current_epoch}{last}, {time.monotonic() - self._start:.1f} s"
            fresh = sorted(key for key in figures if not self._fresh.is_stale(key, trainer))
            told = ", ".join(f"{key} {figures[key]:.4g}" for key in fresh)
            text = f"{line}: {told}" if told else line
            print_line(console, text)
