"""Robustness curves: what is left of a net as the budget grows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from sztrain.errors import InputError, require_at_least, require_in
from sztrain.evaluation.figures.style import line_looks
from sztrain.metrics.plotting import draw_robustness_curve
from sztrain.types import UNITS, Unit

Curve = NDArray[np.floating[Any]]


def robustness_curve_figure(
    curves: Mapping[str, Curve | Tensor],
    unit: Unit,
    budgets: Sequence[int] = (),
    title: str | None = None,
) -> Figure:
    """Robust accuracy against the budget, one step curve a name.

    The budget axis ends a little beyond where every curve has come down to within half a percent
    of its end, and beyond every marked budget.

    Args:
        curves: robust accuracy at the budgets 0..d by name, each of shape ``(d + 1,)`` with values
            in [0, 1], as :func:`sztrain.metrics.functional.robustness_curve` gives it.
        unit: what the budget counts.
        budgets: budgets to mark; the legend names the robust accuracy at each.
        title: heading of the figure.

    Returns:
        A figure with one set of axes.

    Raises:
        InputError: there is no curve, a curve is no curve of fractions, ``unit`` is unknown, or a
            budget is negative.

    Example:
        >>> figure = robustness_curve_figure({"M1": np.array([0.9, 0.5, 0.0])}, "features", [1])
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['M1 (50.0)']
    """
    require_in("unit", unit, UNITS)
    for budget in budgets:
        require_at_least("budget", budget, 0)
    arrays = {name: _as_curve(name, curve) for name, curve in curves.items()}
    if not arrays:
        raise InputError("expected at least 1 robustness curve, got none")
    figure = Figure(figsize=(7.0, 4.3), layout="constrained")
    ax = figure.subplots()
    for (name, curve), look in zip(arrays.items(), line_looks(), strict=False):
        _draw(ax, name, curve, look, unit, budgets)
    for budget in budgets:
        ax.axvline(budget, color="0.6", lw=1, zorder=0)
    ax.set_xlim(0, max([ax.get_xlim()[1], *(1.1 * budget for budget in budgets)]))
    listed = " / ".join(str(budget) for budget in budgets)
    heading = f"robust accuracy (%) at {listed} {unit}" if budgets else None
    ax.legend(title=heading, alignment="left", framealpha=0.95)
    if title is not None:
        ax.set_title(title)
    return figure


def _draw(
    ax: Axes, name: str, curve: Curve, look: tuple[str, str], unit: Unit, budgets: Sequence[int]
) -> None:
    color, style = look
    at_budgets = [100 * float(curve[min(budget, len(curve) - 1)]) for budget in budgets]
    figures = " / ".join(f"{value:.1f}" for value in at_budgets)
    label = f"{name} ({figures})" if budgets else name
    draw_robustness_curve(ax, curve, unit, color=color, linestyle=style, lw=2, label=label)
    for budget, value in zip(budgets, at_budgets, strict=True):
        ax.plot(budget, value, "o", color=color, ms=5, clip_on=False)


def _as_curve(name: str, curve: Curve | Tensor) -> Curve:
    array: Curve = (
        curve.detach().cpu().double().numpy() if isinstance(curve, Tensor) else np.asarray(curve)
    )
    if array.ndim != 1 or array.size == 0 or not ((array >= 0) & (array <= 1)).all():
        raise InputError(
            f"expected the robustness curve of {name} to have shape (d + 1,) and values in [0, 1], "
            f"got shape {array.shape}"
            + (f" and {array.min()}..{array.max()}" if array.size else "")
        )
    return array
