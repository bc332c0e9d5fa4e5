"""The data that a net brings along: its data set, and what a checkpoint says of it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sztrain.cli.command_line import given_overrides, hydra_flags, quoted
from sztrain.cli.interrupts import interrupts_held_back
from sztrain.cli.resolvers import NOT_DECISIVE
from sztrain.errors import InputError

CUT = ("split_seed", "val_fraction", "test_fraction")
"""Options that say how samples are cut into parts."""

# How samples are read and trained on; all else says which there are, and in which form.
_LEFT = (*NOT_DECISIVE, "name", "seed", "limit_train")

_NO_KEYS = ("true", "false", "null", "inf", "nan")  # which Hydra would take for values


def data_of_net(name: str) -> tuple[str, dict[str, Any]]:
    """Name of a net's data set, and the options of it that a checkpoint brings along.

    Raises:
        InputError: there is no such net.

    Example:
        >>> data_of_net("M1")
        ('mnist', {})
    """
    with interrupts_held_back():  # imports torch, which not every command needs
        from sztrain.models import describe_net

    described = describe_net(name)["data"]
    assert isinstance(described, dict)
    options = {key: value for key, value in described.items() if key not in _LEFT}
    if options.get("root") is None:  # the machine's own
        options.pop("root", None)
    return str(described["name"]), options


def with_data_of_net(args: list[str]) -> list[str]:
    """Add ``data=`` of the net's own data set where the command names a net but no data.

    A checkpoint also brings the data options it was trained with; the command's own win, and
    ``~data.option`` leaves one out that this version's data no longer has. Where nets were trained
    on different parts of the data, none of them is taken, and
    :func:`sztrain.cli.net_checks.check_parts` tells whether it matters.

    Args:
        args: command-line arguments.

    Raises:
        InputError: no such net, one by an interpolation, or nets of several data sets, or of such
            in several forms.

    Example:
        >>> with_data_of_net(["net=M1", "attack.num_steps=10", "--config-dir", "conf"])
        ['net=M1', 'attack.num_steps=10', 'data=mnist', '--config-dir', 'conf']
    """
    given = given_overrides(args)
    chosen = [override for override in given if override.key_or_group == "net"]
    if not chosen or any(override.key_or_group == "data" for override in given):
        return args
    if chosen[-1].is_sweep_override():
        raise InputError("a sweep over nets needs data=...; or evaluate them together: net=[a,b]")
    nets = chosen[-1].value()
    names = nets if isinstance(nets, list) else [nets]
    if names in ([], [None]):
        return args  # evaluate says what is wrong with it
    unknown = [str(name) for name in names if "${" in str(name)]
    if unknown:
        raise InputError(
            f"which data net={unknown[0]} brings cannot be told before Hydra has resolved it: "
            "add data=... to the command"
        )
    found = {str(name): data_of_net(str(name)) for name in names}
    datasets = {dataset for dataset, _ in found.values()}
    if len(datasets) > 1:
        listed = ", ".join(f"{name} ({dataset})" for name, (dataset, _) in found.items())
        raise InputError(f"these nets are of several data sets: {listed}; evaluate them apart")
    # One that is to be left out is brought along all the same: Hydra deletes only what there is.
    taken = {override.key_or_group: not override.is_delete() for override in given}
    options = _common({name: brought for name, (_, brought) in found.items()}, taken)
    extra = [word for key, value in options for word in _as_overrides(key, value)]
    # Hydra takes overrides in one block: behind a flag it would not know the new ones. What the
    # command says of a part of an option comes after the whole, and wins.
    words = hydra_flags(args).overrides
    start, end = args.index(words[0]), len(args) - args[::-1].index(words[-1])
    return [*args[:start], *extra, *args[start:end], f"data={datasets.pop()}", *args[end:]]


def _as_overrides(option: str, value: Any) -> list[str]:
    """What sets an option of the data to a value, whatever the config says of it."""
    # Hydra would merge a mapping into the config's own, but not into null.
    emptied = [f"++data.{option}=null"] if isinstance(value, Mapping) else []
    return [*emptied, f"++data.{option}={_as_override(value, option)}"]


def _as_override(value: Any, option: str) -> str:
    """A value in the grammar of Hydra's overrides.

    Raises:
        InputError: a key of a mapping that the grammar has no form for.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not re.fullmatch(r"[A-Za-z_][\w.-]*", str(key)) or str(key).lower() in _NO_KEYS:
                raise InputError(
                    f"the net's data.{option} has the key {key!r}, which no command can hold; name "
                    "the data, data=..., and its options in the command"
                )
        items = (f"{key}:{_as_override(item, option)}" for key, item in value.items())
        return f"{{{','.join(items)}}}"
    if isinstance(value, list):
        return f"[{','.join(_as_override(item, option) for item in value)}]"
    if isinstance(value, str):
        return quoted(value)
    return "null" if value is None else str(value).lower()


def _common(
    found: Mapping[str, Mapping[str, Any]], taken: Mapping[str, bool]
) -> Iterator[tuple[str, Any]]:
    """Options that the nets bring along together; a published net, which brings none, minds none.

    Args:
        found: the options by net.
        taken: the keys that the command speaks of; whether it gives a value.

    Raises:
        InputError: they need the data in several forms.
    """
    for key in dict.fromkeys(key for options in found.values() for key in options):
        values = {name: options[key] for name, options in found.items() if key in options}
        given = taken.get(f"data.{key}")
        if given:
            continue
        first = next(iter(values.values()))
        if given is False or all(value == first for value in values.values()):
            yield key, first
        elif key not in CUT:
            listed = ", ".join(f"{name} ({value})" for name, value in values.items())
            raise InputError(
                f"these nets differ in data.{key}: {listed}; evaluate them apart, or give "
                f"data.{key}=..."
            )
