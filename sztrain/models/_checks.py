"""What the factories of this package check about their arguments, in one wording."""

import math
from collections.abc import Iterable
from difflib import get_close_matches

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


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite real number (a bool is none).

    Example:
        >>> is_number(0.5), is_number(True), is_number(float("nan")), is_number("0.5")
        (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
    return f"; did you mean {', '.join(by_folded[folded] for folded in close)}?" if close else ""
