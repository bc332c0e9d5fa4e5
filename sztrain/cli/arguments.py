"""Types of config values, checked against what the constructors are annotated to take."""

import inspect
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, Unpack, get_args, get_origin, get_type_hints

from torch import Tensor

from sztrain.cli.targets import find_target
from sztrain.errors import InputError

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
}
_SCALARS = tuple(_NAMES)


def check_arguments(node: Any, key: str) -> None:
    """Refuse values of a type that their constructor does not take, at any depth of a config node.

    Constructors seldom look at types themselves: text in the place of a number would only be found
    out in the middle of a run. What is not annotated is not looked at.

    Args:
        node: plain containers; dictionaries with ``_target_`` are calls of that constructor.
        key: where the node stands in the config, for the message; empty: at the top.

    Raises:
        InputError: names the first value that does not fit, and what would.

    Example:
        >>> attack = {"_target_": "sztrain.attacks.SigmaZero", "num_steps": "ten"}
        >>> check_arguments({"attack": attack}, "method")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected `method.attack.num_steps` to be a whole number, \
got 'ten'
    """
    if isinstance(node, list):
        for index, item in enumerate(node):
            check_arguments(item, f"{key}[{index}]")
    if not isinstance(node, Mapping):
        return
    expected = _annotations(node["_target_"]) if "_target_" in node else {}
    for name, value in node.items():
        place = f"{key}.{name}" if key else name
        if not _fits(value, expected.get(name, Any)):
            raise InputError(
                f"expected `{place}` to be {_described(expected[name])}, got {value!r}"
            )
        check_arguments(value, place)


def _annotations(target: str) -> dict[str, Any]:
    """Annotations of the parameters of a function or class, those of its bases included."""
    try:
        called = find_target(target)
    except InputError:  # making it will say so
        return {}
    bases = reversed(called.__mro__) if inspect.isclass(called) else [called]
    hints: dict[str, Any] = {}
    for base in bases:
        try:
            hints |= get_type_hints(base.__init__ if inspect.isclass(base) else base)
        except (NameError, TypeError):  # names known to type checkers only, or a C function
            continue
    unpacked = [get_args(hint)[0] for hint in hints.values() if get_origin(hint) is Unpack]
    for options in unpacked:
        hints |= get_type_hints(options)
    return hints


def _choices(annotation: Any) -> list[Any]:
    """What stands between the bars of an annotation; the values of a Literal one by one."""
    if get_origin(annotation) in (Union, UnionType):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    if get_origin(annotation) is Literal:
        return [Literal[value] for value in get_args(annotation)]
    return [annotation]


def _fits(value: Any, annotation: Any) -> bool:
    return any(_fits_one(value, choice) for choice in _choices(annotation))


def _fits_one(value: Any, choice: Any) -> bool:
    if choice is Any or isinstance(choice, TypeVar):
        return True
    if get_origin(choice) is Literal:
        return type(value) is type(get_args(choice)[0]) and value == get_args(choice)[0]
    if choice is Tensor:  # made by a group, if at all
        return isinstance(value, Mapping)
    if choice is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if choice in _SCALARS:
        return type(value) is choice
    # A class or a container: the constructor knows best, but it is not made from a scalar.
    return not isinstance(value, _SCALARS)


def _described(annotation: Any) -> str:
    choices = _choices(annotation)
    named = [_NAMES[choice] for choice in choices if choice in _SCALARS]
    listed = [str(get_args(choice)[0]) for choice in choices if get_origin(choice) is Literal]
    known = len(named) + len(listed) + choices.count(Tensor)
    others = ["a list or group"] if known < len(choices) else []
    # Of a tensor nothing is said where a number will do.
    return " or ".join(dict.fromkeys([*listed, *named, *others])) or "a group"
