"""The verdict that ends a training run: on the best checkpoint, and beside it on the last."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, Timer

from sztrain.callbacks import RobustnessDashboard, SparseRobustness
from sztrain.callbacks.smoke_test import is_smoke_test, shortened
from sztrain.cli.screen import print_verdict, print_without_verdict
from sztrain.data import ImageDataModule
from sztrain.evaluation.summary import training_summary, verdict_figures, write_json
from sztrain.models import read_checkpoint
from sztrain.training import RobustClassifier


def judge(
    trainer: pl.Trainer,
    method: RobustClassifier,
    data: ImageDataModule,
    callbacks: dict[str, Callback],
    output_dir: Path,
    last_samples: int | None,
) -> None:
    """Take the verdict on the best checkpoint and write it down.

    Which one that is was decided on the validation samples. What it is worth to have chosen shows
    in the figures of the last epoch, taken on fewer samples.

    Args:
        trainer: that has trained.
        method: with the weights of the last epoch.
        data: whose test part is attacked.
        callbacks: by name, as ``configs/callbacks`` names them.
        output_dir: where ``summary.json`` goes.
        last_samples: how many test samples the last epoch is judged on; 0: it is not; ``None``:
            as many as the best.
    """
    best, timer = (callbacks.get(name) for name in ("best", "timer"))
    gauge = _judging_gauge(callbacks)
    train_seconds = timer.time_elapsed("train") if isinstance(timer, Timer) else None
    checkpoint = best.best_model_path if isinstance(best, ModelCheckpoint) else ""
    saved: dict[str, Any] = read_checkpoint(checkpoint) if checkpoint else {}
    smoke_test = is_smoke_test(trainer)
    is_another = bool(saved) and saved["global_step"] != trainer.global_step
    last = None
    if gauge is not None and is_another and last_samples != 0 and not smoke_test:
        last = _last_figures(trainer, method, data, gauge, last_samples)
    if saved:
        # Not by the Trainer, whose `WeightAveraging` would put the weights of the moment in place
        # of the average that the checkpoint is chosen for.
        method.load_state_dict(saved["state_dict"])
    tested = trainer.test(method, datamodule=data, verbose=False)
    if gauge is None or "test" not in gauge.measurements:  # trainer.limit_test_batches=0
        if trainer.is_global_zero:
            accuracy = tested[0].get("test/clean_acc") if tested else None
            print_without_verdict(accuracy, output_dir)
        return
    verdict = gauge.judging("test")
    summary = training_summary(
        gauge.measurements["test"],
        budgets=gauge.budgets,
        # As the gauge shortens it.
        attack=shortened(verdict) if smoke_test else verdict,
        clean_accuracy=tested[0]["test/clean_acc"],
        method=type(method).__name__,
        train_seconds=train_seconds,
        attack_seconds=getattr(method, "attack_seconds", 0.0),
        epochs=trainer.current_epoch,
        checkpoint=checkpoint or None,
        best_epoch=saved.get("epoch"),
        last=last,
    )
    if trainer.is_global_zero:
        write_json(summary, output_dir / "summary.json")
        print_verdict(summary, output_dir)


def _judging_gauge(callbacks: dict[str, Callback]) -> SparseRobustness | None:
    """The gauge, if it takes a verdict."""
    gauge = callbacks.get("gauge")
    return gauge if isinstance(gauge, SparseRobustness) and gauge.verdict is not None else None


def _last_figures(
    trainer: pl.Trainer,
    method: RobustClassifier,
    data: ImageDataModule,
    gauge: SparseRobustness,
    num_samples: int | None,
) -> dict[str, Any] | None:
    with _unheard(trainer, gauge, num_samples):
        tested = trainer.test(method, datamodule=data, verbose=False)
    measurement = gauge.measurements.pop("test", None)
    if measurement is None:
        return None
    accuracy = {"clean_accuracy": tested[0]["test/clean_acc"]}
    return accuracy | verdict_figures(measurement, gauge.budgets)


@contextmanager
def _unheard(
    trainer: pl.Trainer, gauge: SparseRobustness, num_samples: int | None
) -> Iterator[None]:
    """No logger and no picture inside: ``test/...`` is about the best checkpoint alone."""
    host: Any = trainer
    loggers, callbacks, wanted = host.loggers, host.callbacks, gauge.verdict_samples
    host.loggers = []
    host.callbacks = [c for c in callbacks if not isinstance(c, RobustnessDashboard)]
    if num_samples is not None:
        gauge.verdict_samples = min(num_samples, wanted or num_samples)
    try:
        yield
    finally:
        host.loggers, host.callbacks, gauge.verdict_samples = loggers, callbacks, wanted
