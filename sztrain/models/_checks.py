"""What the factories of this package check about their arguments, in one wording."""

import math
import os

from sztrain.errors import InputError


def require_probability(name: str, value: object) -> None:
    """Refuse anything outside [0, 1): a layer that drops everything lets nothing learn.

    Raises:
        InputError: ``value`` is no number in [0, 1).

    Example:
        >>> require_probability("dropout", 0.3)
    """
    if not is_number(value) or not 0 <= float(str(value)) < 1:
        raise InputError(f"expected `{name}` to be at least 0 and below 1, got {value!r}")


def require_path(what: str, value: object) -> None:
    """Refuse what cannot name a file.

    Args:
        what: what was to be named, for the message.
        value: a text or a path, or something else.

    Raises:
        InputError: it is something else.

    Example:
        >>> require_path("a checkpoint", "best.ckpt")
        >>> require_path("a checkpoint", None)
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected the name of a checkpoint as text, got None
    """
    if not isinstance(value, str | os.PathLike):
        found = "None" if value is None else f"a {type(value).__name__}"
        raise InputError(f"expected the name of {what} as text, got {found}")


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite real number (a bool is none).

    Example:
        >>> is_number(0.5), is_number(True), is_number(float("nan")), is_number("0.5")
        (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
