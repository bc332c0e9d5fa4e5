"""The gauges among the callbacks of a Trainer."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from sztrain.callbacks.sparse_robustness import SparseRobustness


def gauges_of(trainer: pl.Trainer) -> list[SparseRobustness]:
    """The gauges among the callbacks of a Trainer.

    Example:
        >>> trainer = pl.Trainer(callbacks=[SparseRobustness()], logger=False, accelerator="cpu")
        >>> len(gauges_of(trainer))
        1
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # in __init__
    return [callback for callback in callbacks if isinstance(callback, SparseRobustness)]


def is_repeated(key: str, trainer: pl.Trainer) -> bool:
    """Whether the gauge that logs ``key`` rests in this epoch, and monitors see its last figure.

    Example:
        >>> trainer = pl.Trainer(callbacks=[SparseRobustness()], logger=False, accelerator="cpu")
        >>> is_repeated("val/clean_acc", trainer)  # not a figure of the gauge's
        False
    """
    return any(gauge.repeats(key, trainer.current_epoch) for gauge in gauges_of(trainer))
