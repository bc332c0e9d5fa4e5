"""Checks of a checkpoint from which a training is to go on."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sztrain.errors import InputError, warn
from sztrain.models import net_from_checkpoint, read_checkpoint
from sztrain.models.state_dicts import load_strictly

# What a run may do in another way without becoming another one; data.recipe is but where options
# come from.
_FREE = (
    "data.download",
    "data.eval_batch_size",
    "data.num_workers",
    "data.recipe",
    "data.root",
    "method.channels_last",
    "method.compile",
    "method.monitor",
    "method.run_id",
    "method.start_from",
)


def check_checkpoint(path: str, net: nn.Module) -> dict[str, Any]:
    """Read a checkpoint from which a training of this net can go on.

    Raises:
        InputError: missing, damaged, of another architecture, or with non-finite weights.
    """
    load_strictly(net, net_from_checkpoint(path).state_dict(), path)
    return read_checkpoint(path)


def check_optimizer(checkpoint: Mapping[str, Any], optimizer: Optimizer, path: str) -> None:
    """Make sure that a checkpoint holds the state of such an optimizer.

    Raises:
        InputError: there is none, or it is another's.
    """
    states = checkpoint.get("optimizer_states")
    if not states:
        raise InputError(f"{path} holds no state of an optimizer: no training can go on from it")
    try:
        optimizer.load_state_dict(states[0])
        fits = optimizer.defaults.keys() <= optimizer.param_groups[0].keys()
    except (KeyError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"{path} was written by a training with another optimizer than "
            f"{type(optimizer).__name__}; go on with the options in its run's config.yaml"
        )


def check_epochs(checkpoint: Mapping[str, Any], max_epochs: object, path: str) -> None:
    """Refuse a checkpoint that lies beyond the end of the training, before anything begins.

    Args:
        checkpoint: as Lightning wrote it.
        max_epochs: of the Trainer; ``None`` or -1: there is no such end.
        path: of the checkpoint.

    Raises:
        InputError: it has more epochs behind it than the training shall have.

    Example:
        >>> loops = {"fit_loop": {"epoch_progress": {"current": {"processed": 6}}}}
        >>> check_epochs({"loops": loops}, 4, "last.ckpt")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: last.ckpt has 6 epochs behind it, and the training ends by \
trainer.max_epochs=4; with trainer.max_epochs=7 or more it goes on, with 6 it is judged as it is
    """
    if not isinstance(max_epochs, int) or max_epochs == -1 or "loops" not in checkpoint:
        return
    done = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    if done > max_epochs:
        raise InputError(
            f"{path} has {done} epochs behind it, and the training ends by "
            f"trainer.max_epochs={max_epochs}; with trainer.max_epochs={done + 1} or more it goes "
            f"on, with {done} it is judged as it is"
        )


def check_continuation(described: Mapping[str, Any], chosen: Mapping[str, Any], path: str) -> None:
    """Make sure that a training goes on as it began, or that its person knows in what it does not.

    Args:
        described: what the checkpoint says of its ``method`` and ``data``.
        chosen: the same of the run that goes on from it.
        path: of the checkpoint.

    Raises:
        InputError: it was written by another method.
    """
    before, now = (dict(kind.get("method") or {}) for kind in (described, chosen))
    if before.get("name") not in (None, now.get("name")):
        raise InputError(
            f"{path} was written by {before['name']}, not {now.get('name')}: go on with the "
            "command that began it, or the options in its run's config.yaml"
        )
    changed = [*_changes(described.get("method"), now, "method")]
    changed += _changes(described.get("data"), chosen.get("data"), "data")
    if changed:
        warn(
            f"{path} was written with other options, which this run does not share: "
            f"{', '.join(changed)}"
        )


def _changes(before: Any, now: Any, key: str) -> Iterator[str]:
    """Options that both have, with other values."""
    if key in _FREE:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in before:
            if name in now:
                yield from _changes(before[name], now[name], f"{key}.{name}")
    elif before != now and not (before is None and isinstance(now, Mapping)):
        yield f"{key}={before} (now {now})"
