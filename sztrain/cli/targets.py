"""What configs name as ``_target_``, found or told in one line why it is not."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from sztrain.errors import InputError, did_you_mean, first_line


def check_targets(node: Any, key: str) -> None:
    """Refuse a config node that names something which cannot be found, at any depth.

    Args:
        node: plain containers; dictionaries with ``_target_`` are calls of what it names.
        key: where the node stands in the config, for the message.

    Raises:
        InputError: names the first place that cannot be made, and why.

    Example:
        >>> check_targets({"attack": {"_target_": "sztrain.attacks.SigmaZer0"}}, "method")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: method.attack: there is no SigmaZer0 in the module \
sztrain.attacks (...__init__.py); did you mean SigmaZero or ...?
    """
    if isinstance(node, list):
        for index, item in enumerate(node):
            check_targets(item, f"{key}[{index}]")
    if not isinstance(node, Mapping):
        return
    if isinstance(node.get("_target_"), str):
        try:
            find_target(node["_target_"])
        except InputError as error:
            raise InputError(f"{key}: {error}") from error
    for name, value in node.items():
        check_targets(value, f"{key}.{name}")


def find_target(target: str) -> Any:
    """The class or function that a ``_target_`` names.

    Args:
        target: a module and a name in it, such as ``sztrain.attacks.SigmaZero``.

    Raises:
        InputError: there is no such module, it cannot be imported, or it has nothing of that name.

    Example:
        >>> find_target("sztrain.errors.InputError").__name__
        'InputError'
        >>> find_target("mine.Attack")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: there is no module mine, in which Attack was looked for; \
PYTHONPATH has to name the folder where mine.py or mine/ stands (PYTHONPATH=. for this one)
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(parts):
        raise InputError(
            f"expected `_target_` to be a module and a name in it, such as mine.Attack, got "
            f"{target!r}"
        )
    top, *names = parts
    found: Any = _imported(top)
    if found is None:
        raise InputError(
            f"there is no module {top}, in which {'.'.join(names)} was looked for; PYTHONPATH has "
            f"to name the folder where {top}.py or {top}/ stands (PYTHONPATH=. for this one)"
        )
    for depth, name in enumerate(names, start=1):
        inner = getattr(found, name, None)
        if inner is None and isinstance(found, ModuleType):
            inner = _imported(".".join(parts[: depth + 1]))
        if inner is None:
            place = ".".join(parts[:depth])
            if isinstance(found, ModuleType):
                place = f"the module {place} ({getattr(found, '__file__', 'built in')})"
            known = [each for each in dir(found) if not each.startswith("_")]
            raise InputError(f"there is no {name} in {place}{did_you_mean(name, known)}")
        found = inner
    return found


def _imported(name: str) -> ModuleType | None:
    """A module; ``None`` where there is none of that name.

    Raises:
        InputError: importing it fails.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            return None
        raise InputError(
            f"the module {name} cannot be imported ({type(error).__name__}: {first_line(error)}); "
            "HYDRA_FULL_ERROR=1 shows where"
        ) from error
