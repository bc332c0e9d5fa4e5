"""Which of the Trainer's figures are of this epoch: it shows old ones until there are new ones."""

import pytorch_lightning as pl

from sztrain.callbacks._gauges import is_repeated


class FreshFigures:
    """Tells figures of this epoch from those of an earlier one.

    Figures of a validation are known by ``val/``, with which their names begin.

    Example:
        >>> trainer = pl.Trainer(logger=False, accelerator="cpu")
        >>> FreshFigures().is_stale("train/loss", trainer)
        False
    """

    def __init__(self) -> None:
        self._validated_in: int | None = None

    def on_validation_end(self, trainer: pl.Trainer) -> None:
        """To be called at the end of every validation."""
        if not trainer.sanity_checking:
            self._validated_in = trainer.current_epoch

    def is_validated(self, trainer: pl.Trainer) -> bool:
        """Whether this epoch has been validated, or there is nothing to validate on."""
        return self._validated_in == trainer.current_epoch or not trainer.enable_validation

    def is_stale(self, key: str, trainer: pl.Trainer) -> bool:
        """Whether the Trainer's figure of this name was measured before this epoch."""
        unseen = key.startswith("val/") and not self.is_validated(trainer)
        return unseen or is_repeated(key, trainer)
