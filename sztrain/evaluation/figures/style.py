"""Colours and lines that are told apart with any kind of colour vision."""

from collections.abc import Iterator
from itertools import cycle
from textwrap import fill

import numpy as np
from numpy.typing import ArrayLike

# The palette of Okabe and Ito; its yellow, too pale for a line on white, is left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")

BLUE, RED, GREEN = COLOURS[:3]
CORRECT, ADVERSARIAL = "#F2F2F2", "#FAE0C3"
"""Grounds: where a net is right, and where it is fooled."""


def line_looks() -> Iterator[tuple[str, str]]:
    """Pairs of a colour and a line style, without end.

    The styles repeat with another period than the colours, so no pair comes back soon.

    Example:
        >>> looks = line_looks()
        >>> next(looks), next(looks)
        (('#0072B2', '-'), ('#D55E00', '--'))
    """
    return zip(cycle(COLOURS), cycle(LINE_STYLES), strict=False)


def in_lines(heading: str, inches: float) -> str:
    r"""A heading of the usual size, in as many lines as it needs in a figure of some width.

    Example:
        >>> in_lines("sigma-zero patience=250, N=1000, mnist", 3)
        'sigma-zero patience=250,\nN=1000, mnist'
    """
    characters = max(1, int(10 * inches))  # of matplotlib's font at 12 points
    return fill(heading, characters, break_long_words=False, break_on_hyphens=False)


def luminance(colour: ArrayLike) -> float:
    """How bright a colour appears, from 0 (black) to 1 (white).

    Args:
        colour: red, green and blue in [0, 1].

    Reference:
        `Relative luminance <https://www.w3.org/TR/WCAG22/#dfn-relative-luminance>`_ of sRGB.

    Example:
        >>> round(luminance([1, 0, 0]), 4)
        0.2126
    """
    rgb = np.asarray(colour, dtype=float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def readable_on(colour: ArrayLike) -> str:
    """Black or white, whichever is in greater contrast to a colour: at least 4.5 to 1.

    Example:
        >>> readable_on([1, 1, 0]), readable_on([0, 0, 0.5])
        ('black', 'white')
    """
    # The contrasts (L + 0.05) / 0.05 and 1.05 / (L + 0.05) are equal at this luminance.
    return "black" if luminance(colour) > 1.05**0.5 * 0.05**0.5 - 0.05 else "white"
