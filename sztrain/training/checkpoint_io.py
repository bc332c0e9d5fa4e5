"""Checkpoints that are whole or not there."""

import os
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import TorchCheckpointIO
from typing_extensions import override

from sztrain.files import whole_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then moves it there.

    A run that is interrupted while it saves keeps the checkpoint of the epoch before.

    Example:
        >>> import pytorch_lightning as pl
        >>> trainer = pl.Trainer(plugins=[AtomicCheckpointIO()], logger=False, accelerator="cpu")
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if "://" in os.fspath(path):  # a remote store; what it does is its own affair
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with whole_file(path) as draft:
            super().save_checkpoint(checkpoint, draft, storage_options)
