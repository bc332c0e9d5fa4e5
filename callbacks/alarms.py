"""Alarms of a training: a warning on the screen, and an alert in W&B."""

from typing import Any

import pytorch_lightning as pl

from sztrain.callbacks._kinds import is_a
from sztrain.errors import warn


def wandb_alert(run: Any, title: str, text: str) -> None:
    """Send a W&B alert, which its owner gets by mail or Slack; an offline run keeps it.

    Args:
        run: what ``wandb.init`` gave.
        title: in a few words; W&B takes 63 characters of it.
        text: what happened, and what to do about it.

    Example:
        >>> from types import SimpleNamespace
        >>> run = SimpleNamespace(alert=lambda **alert: print(alert["level"], alert["title"]))
        >>> wandb_alert(run, "collapse", "robust accuracy fell to 0")
        WARN collapse
    """
    run.alert(title=title[:63], text=text, level="WARN")


def raise_alarm(trainer: pl.Trainer, title: str, text: str) -> None:
    """Warn on the screen and in every W&B run that the Trainer logs to, from the first process.

    Args:
        trainer: of either Lightning.
        title: in a few words.
        text: what happened, and what to do about it.
    """
    if not trainer.is_global_zero:
        return
    warn(f"{title}: {text}")
    loggers: list[Any] = trainer.loggers
    for logger in loggers:
        if is_a(logger, "WandbLogger"):
            wandb_alert(logger.experiment, title, text)
