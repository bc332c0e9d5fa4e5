"""Drawing of robustness curves, shared by the metric and by the figures of an evaluation."""

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sztrain.types import Unit

Measure = Literal["robust_accuracy", "asr"]
"""What a robustness curve shows: the samples that resist, or the others, which are fooled."""

MEASURES: dict[Measure, str] = {"robust_accuracy": "robust accuracy", "asr": "attack success rate"}

_CURVE_TAIL = 0.005  # share of the samples that may lie beyond the right edge of the axis


def draw_robustness_curve(
    ax: Axes,
    curve: NDArray[np.floating[Any]],
    unit: Unit,
    measure: Measure = "robust_accuracy",
    **line: Any,
) -> Axes:
    """Draw robust accuracy or the success rate in percent against the budget as a step curve.

    The axis ends a little beyond the budget at which the curve, and every curve drawn on ``ax``
    before it, has come down to within half a percent of its end.

    Args:
        ax: where to draw.
        curve: robust accuracy at the budgets 0..d, shape ``(d + 1,)``, values in [0, 1].
        unit: what the budget counts.
        measure: draw the curve, or what it lacks to 1.
        line: looks of the line, given to matplotlib (``color``, ``linestyle``, ``label``, ...).

    Returns:
        ``ax``.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = draw_robustness_curve(Figure().subplots(), np.array([1.0, 0.5, 0.0]), "pixels")
        >>> ax.get_xlabel()
        'budget (changed pixels)'
    """
    before = ax.get_xlim()[1] if ax.lines else 1.0
    fallen_at = int(np.argmax(curve - curve[-1] <= _CURVE_TAIL))
    shares = curve if measure == "robust_accuracy" else 1 - curve
    # What holds at k holds until one unit more may be changed, hence "post".
    ax.plot(np.arange(len(curve)), 100 * shares, drawstyle="steps-post", **line)
    ax.set(xlabel=f"budget (changed {unit})", ylabel=f"{MEASURES[measure]} (%)")
    ax.set(xlim=(0, max(before, 1.1 * fallen_at)), ylim=(-1, 101))  # lines along the edges are seen
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=True, alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
