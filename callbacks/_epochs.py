"""In which epochs a gauge measures, and what is seen of it in between."""

from typing import Any

import pytorch_lightning as pl

from sztrain.errors import require_count


class GaugedEpochs:
    """Keeps the last figures, and tells when new ones are due.

    Args:
        every: the gauge measures in every so many epochs, the first and the last among them.

    Attributes:
        values: the last figures by their keys.
        gauged_in: the epoch in which they were measured; ``None``: there are none yet.

    Raises:
        InputError: ``every`` is no whole number above 0.

    Example:
        >>> epochs = GaugedEpochs(every=2)
        >>> epochs.record(4, {"val/median_l0": 7.0})
        >>> epochs.repeats("val/median_l0", epoch=5), epochs.repeats("val/clean_acc", epoch=5)
        (True, False)
    """

    def __init__(self, every: int) -> None:
        require_count("every_n_epochs", every, 1)
        self.every = every
        self.reset()

    def reset(self) -> None:
        """Forget everything: another run begins."""
        self.gauged_in: int | None = None
        self.values: dict[str, float] = {}
        self._is_resumed = False

    def record(self, epoch: int, values: dict[str, float]) -> None:
        """Take over what was measured in an epoch."""
        self.gauged_in, self.values = epoch, values

    def are_due(self, trainer: pl.Trainer) -> bool:
        """Whether new figures are wanted in the validation that the Trainer is in."""
        epoch = trainer.current_epoch
        is_asked_for = trainer.state.fn != "fit"  # trainer.validate
        is_last = epoch == _last_validated(trainer) or trainer.global_step == trainer.max_steps
        if is_asked_for or is_last or self.gauged_in in (None, epoch):
            return True
        # Not `epoch % every == 0`: there may be no validation in that very epoch.
        return epoch // self.every > self.gauged_in // self.every

    def repeats(self, key: str, epoch: int) -> bool:
        """Whether what is seen under ``key`` was measured before this epoch."""
        return key in self.values and self.gauged_in != epoch

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {"gauged_in": self.gauged_in, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        self.record(state["gauged_in"], state["values"])
        self._is_resumed = True

    def take_resumed(self, trainer: pl.Trainer) -> dict[str, float]:
        """Figures of a checkpoint that the monitors of this process have yet to see, once."""
        is_resumed, self._is_resumed = self._is_resumed, False
        return self.values if is_resumed and not self.are_due(trainer) else {}


def _last_validated(trainer: pl.Trainer) -> int:
    """The last epoch of the training that is validated; below 0 where it has no end."""
    every = trainer.check_val_every_n_epoch or 1
    return (trainer.max_epochs or 0) // every * every - 1
