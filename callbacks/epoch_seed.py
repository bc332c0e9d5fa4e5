"""Epoch seed: makes a training resumable bit for bit."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from sztrain.errors import MAX_SEED, require_seed


class EpochSeed(Callback):
    """Seeds torch's global random state at the start of each epoch from (seed, epoch, process).

    A checkpoint holds no random state. With the randomness of each epoch derived from its number,
    a training that goes on from the last whole epoch draws what it would have drawn anyway.

    The order of the samples and what the loader draws for them, such as augmentation, have to be
    functions of the epoch by themselves, as in ``sztrain.data``: Lightning begins to read the first
    epoch of a process before a callback can seed it.

    Args:
        seed: at least 0.

    Raises:
        InputError: ``seed`` is no whole number of at least 0.

    Example:
        >>> trainer = pl.Trainer(callbacks=[EpochSeed(seed=1)], logger=False, accelerator="cpu")
    """

    def __init__(self, seed: int = 0) -> None:
        require_seed("seed", seed)
        self.seed = seed

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seed(trainer)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Once more: since then an ordinary loader has drawn from the global state, and less so in
        # the first epoch of a process than in later ones.
        if batch_idx == 0:
            self._seed(trainer)

    def _seed(self, trainer: pl.Trainer) -> None:
        # Hashing ints is stable across runs and platforms, and mixes what a sum would not.
        mixed = hash((self.seed, trainer.current_epoch, trainer.global_rank))
        torch.manual_seed(mixed % (MAX_SEED + 1))
