"""A checkpoint goes on as one training: what that asks of a sweep, and of a hint after Ctrl-C."""

import re
import shlex
from pathlib import Path

from hydra.core.override_parser.types import Override

from sztrain.cli.command_line import given_overrides, hydra_flags, quoted
from sztrain.errors import InputError


def refuse_shared_checkpoint(args: list[str]) -> None:
    """Refuse a sweep in which several runs would go on from one checkpoint.

    Args:
        args: command-line arguments of ``train.py``.

    Raises:
        InputError: they would.

    Example:
        >>> refuse_shared_checkpoint(["-m", "seed=0,1", "ckpt_path=a.ckpt"])
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: several runs cannot go on from one checkpoint (a.ckpt): go on \
without -m, with the options of the run that it is of, or begin with its weights, start_from=...
        >>> refuse_shared_checkpoint(["-m", "seed=0", "ckpt_path=a.ckpt"])
        >>> refuse_shared_checkpoint(["-m", "seed=0,1", "ckpt_path=runs/${seed}/last.ckpt"])
    """
    given = {override.key_or_group: override for override in given_overrides(args)}
    multirun = hydra_flags(args).multirun
    is_sweep = multirun or str(_value(given.get("hydra.mode"))).endswith("MULTIRUN")
    path = given.pop("ckpt_path", None)
    told = "" if path is None or path.is_delete() else path.get_value_string()
    if not is_sweep or told in ("", "null") or "${" in told:
        return
    if any(_is_of_several(override) for override in given.values()):
        raise InputError(
            f"several runs cannot go on from one checkpoint ({told}): go on without -m, with the "
            "options of the run that it is of, or begin with its weights, start_from=..."
        )


def _value(override: Override | None) -> object:
    return None if override is None or override.is_sweep_override() else override.value()


def _is_of_several(override: Override) -> bool:
    """Whether there are several runs because of it."""
    key = override.key_or_group
    if key in ("sweep", "hydra/sweeper", "hydra.sweeper.params"):
        return _value(override) not in (None, "basic")
    if not override.is_sweep_override():
        return False
    values = override.sweep_iterator() if override.is_discrete_sweep() else ["any", "number"]
    return len(list(values)) > 1


def how_to_go_on(path: str, *, args: list[str], own: list[str], folder: str) -> str:
    """What to say after a run of a sweep was interrupted: the command that goes on with it alone.

    Args:
        path: of its last checkpoint.
        args: command-line arguments of the sweep.
        own: the run's overrides.
        folder: where it writes.

    Example:
        >>> how_to_go_on("o/0/last.ckpt", args=["-m", "seed=0,1"], own=["seed=0"], folder="o/0")
        'this run goes on, without -m, with seed=0 hydra.run.dir=o/0 ckpt_path=o/0/last.ckpt'
    """
    known = hydra_flags(args)
    flags = {"--config-dir": known.config_dir, "--config-name": known.config_name}
    words = [word for flag, value in flags.items() if value for word in (flag, value)]
    words += [*own, *(each for each in known.overrides if each.startswith("hydra.searchpath="))]
    words += [f"hydra.run.dir={_quoted(folder)}", f"ckpt_path={_quoted(path)}"]
    return f"this run goes on, without -m, with {shlex.join(words)}"


def hydra_word(key: str, path: str | Path) -> str:
    r"""A path as the value of a key, as Hydra's grammar and a shell want it.

    Example:
        >>> hydra_word("ckpt_path", "runs/0/last.ckpt"), hydra_word("ckpt_path", "lr=0.1/last.ckpt")
        ('ckpt_path=runs/0/last.ckpt', '\'ckpt_path="lr=0.1/last.ckpt"\'')
    """
    return shlex.quote(f"{key}={_quoted(path)}")


def _quoted(path: str | Path) -> str:
    """A path as Hydra's grammar wants it."""
    text = str(path)
    if re.fullmatch(r"[\w./~:@%+-]+", text):
        return text
    return quoted(text)
