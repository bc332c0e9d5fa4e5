"""The one kind of error that a person can mend, and checks that raise it."""

import math
import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real

MAX_SEED = 2**63 - 1
"""Largest seed of torch's generators."""


class InputError(ValueError):
    """What the user gave cannot be worked with.

    The message is one line: what was wrong, what was found, what would be right. The command
    line prints it as it is and exits with status 2.

    Example:
        >>> raise InputError("expected `num_steps` to be at least 1, got 0")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected `num_steps` to be at least 1, got 0
    """


class UnavailableError(InputError):
    """What was asked for cannot be had on this machine, though nothing is wrong with the asking.

    Example:
        >>> raise UnavailableError("the weights of C9 are not here")
        Traceback (most recent call last):
        ...
        sztrain.errors.UnavailableError: the weights of C9 are not here
    """


class SztrainWarning(UserWarning):
    """What a person should know, though everything goes on.

    The command line prints it in one line, as it is.
    """


_INSIDE = {"sztrain", "pytorch_lightning", "lightning", "lightning_fabric", "torch", "contextlib"}
"""Packages between a person's code and a warning of ours."""


def warn(message: str) -> None:
    """Warn a person, and point at the line of theirs that led here, however deep inside it was.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn("the attack takes long")
        >>> caught[0].message
        SztrainWarning('the attack takes long')
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        if frame.f_back is None:
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, SztrainWarning, stacklevel=level)


def first_line(error: BaseException) -> str:
    r"""What another library's error says, cut to its first line.

    Example:
        >>> first_line(OSError("no network\nsee the manual"))
        'no network'
        >>> first_line(KeyError())
        'KeyError'
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End of an error message: the known names closest to ``name``, whatever their case.

    Example:
        >>> did_you_mean("RESNET-18", ["resnet18", "wrn28"])
        '; did you mean resnet18?'
        >>> did_you_mean("zzz", ["resnet18"])
        ''
    """
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = get_close_matches(name.casefold(), by_folded, n=3)
    return f"; did you mean {' or '.join(by_folded[folded] for folded in close)}?" if close else ""


def require_at_least(name: str, value: float, minimum: float) -> None:
    """Refuse a number below ``minimum``, or infinite.

    Example:
        >>> require_at_least("num_steps", 3, 1)

    Raises:
        InputError: ``value`` is no number, smaller than ``minimum``, or not finite.
    """
    _require_number(name, value)
    if not value >= minimum:  # written so that NaN is refused as well
        raise InputError(f"expected `{name}` to be at least {minimum}, got {value}")
    _require_finite(name, value)


def require_positive(name: str, value: float) -> None:
    """Refuse a number that is 0 or less, or infinite.

    Example:
        >>> require_positive("eta", 0.5)

    Raises:
        InputError: ``value`` is no number, not above 0, or not finite.
    """
    _require_number(name, value)
    if not value > 0:  # written so that NaN is refused as well
        raise InputError(f"expected `{name}` to be positive, got {value}")
    _require_finite(name, value)


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"expected `{name}` to be a number, got {value!r}")


def _require_finite(name: str, value: float) -> None:
    if value == math.inf:
        raise InputError(f"expected `{name}` to be finite, got {value}")


def require_count(name: str, value: object, minimum: int) -> None:
    """Refuse what is no whole number of at least ``minimum``.

    Example:
        >>> require_count("num_steps", 1000, 1)

    Raises:
        InputError: ``value`` is no whole number (1e3 and ``True`` are none), or smaller than
            ``minimum``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"expected `{name}` to be a whole number, got {value!r}")
    require_at_least(name, int(value), minimum)


def require_several(name: str, values: object, example: str) -> None:
    """Refuse what are no values, one after the other.

    Example:
        >>> require_several("budgets", (10, 50), "(10, 50)")

    Raises:
        InputError: ``values`` is a single one, or a text.
    """
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise InputError(f"expected `{name}` to be several, such as {example}, got {values!r}")


def require_seed(name: str, value: object) -> None:
    """Refuse what cannot seed torch's generators.

    Example:
        >>> require_seed("seed", 0)

    Raises:
        InputError: ``value`` is no whole number from 0 to 2**63 - 1.
    """
    require_count(name, value, 0)
    if int(value) > MAX_SEED:  # type: ignore[call-overload]  # a whole number
        raise InputError(f"expected `{name}` to be at most {MAX_SEED}, got {value}")


def require_in(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is not among ``choices``.

    Example:
        >>> require_in("unit", "pixels", ("features", "pixels"))

    Raises:
        InputError: ``value`` is none of ``choices``.
    """
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise InputError(f"expected `{name}` to be one of {listed}, got {value}")
