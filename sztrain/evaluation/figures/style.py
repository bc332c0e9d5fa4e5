"""What lines look like, so that they are told apart with any kind of colour vision."""

from collections.abc import Iterator
from itertools import cycle

# The palette of Okabe and Ito; its yellow, too pale for a line on white, is left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")


def line_looks() -> Iterator[tuple[str, str]]:
    """Pairs of a colour and a line style, without end.

    The styles repeat with another period than the colours, so no pair comes back soon.

    Example:
        >>> looks = line_looks()
        >>> next(looks), next(looks)
        (('#0072B2', '-'), ('#D55E00', '--'))
    """
    return zip(cycle(COLOURS), cycle(LINE_STYLES), strict=False)
