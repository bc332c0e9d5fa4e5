"""Best checkpoint: the last of the best of a whole training, however often it was interrupted."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from sztrain.callbacks._gauges import is_repeated
from sztrain.callbacks._moved_files import bring_along
from sztrain.errors import InputError, SztrainWarning


class BestCheckpoint(ModelCheckpoint):
    """A ``ModelCheckpoint`` that prefers the later of equals and survives a change of folder.

    Accuracies and medians tie, and of two that score the same the one that was trained longer, at
    a lower learning rate, is the better bet; its parent keeps the earlier. In an epoch in which
    the gauge rests, its last figures are those of other weights, and nothing is saved. When a
    training goes on in another folder, its parent forgets what was best and calls the first
    checkpoint that follows the best one, be it worse; here the best files are taken along, but not
    into or out of a remote folder (``s3://...``).

    Args:
        **kwargs: those of ``pytorch_lightning.callbacks.ModelCheckpoint``.

    Raises:
        InputError: by a Trainer of ``lightning.pytorch``, to which it is no checkpoint.

    Example:
        >>> best = BestCheckpoint(dirpath="run2", filename="best", monitor="val/clean_acc")
    """

    _step: int | None = None  # at which a training goes on

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self not in trainer.checkpoint_callbacks:
            raise InputError(
                "BestCheckpoint is a callback of pytorch_lightning, in which a Trainer of "
                "lightning.pytorch sees no checkpoint; use its ModelCheckpoint, with a gauge that "
                "measures in every epoch"
            )
        super().setup(trainer, pl_module, stage)

    @override
    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        if self.monitor is not None and is_repeated(self.monitor, trainer):
            return False
        # Asked of every process, as its parent's is: one that returned early would be waited for.
        ties = current is not None and self.kth_value is not None and current == self.kth_value
        all_tie = trainer.strategy.reduce_boolean_decision(bool(ties))
        return all_tie or super().check_monitor_top_k(trainer, current)

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._step = checkpoint["global_step"] if trainer.state.fn == "fit" else None

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.dirpath is None or "://" in str(self.dirpath):  # remote, where nothing is copied
            super().load_state_dict(state_dict)
            return
        paths = [*state_dict["best_k_models"], state_dict["best_model_path"]]
        found = {path: bring_along(path, self.dirpath, self._step) for path in paths if path}
        moved = {path: str(place) for path, place in found.items() if place is not None}
        if len(moved) < len(found):
            lost = ", ".join(path for path in found if path not in moved)
            rank_zero_warn(
                f"{lost} is neither there nor in {self.dirpath}, or damaged, or of a later epoch "
                "than the one from which the training goes on: the next epoch counts as the best",
                category=SztrainWarning,
            )
        elif moved:
            last = state_dict["last_model_path"]  # of another folder it is not written over
            best_k = {moved[path]: score for path, score in state_dict["best_k_models"].items()}
            super().load_state_dict(
                state_dict
                | {
                    "dirpath": self.dirpath,
                    "best_k_models": best_k,
                    "best_model_path": moved[state_dict["best_model_path"]],
                    "kth_best_model_path": moved.get(state_dict["kth_best_model_path"], ""),
                    "last_model_path": last if Path(last).parent == Path(self.dirpath) else "",
                }
            )
