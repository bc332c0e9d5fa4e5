"""Robustness curves: what is left of a net, or what an attack achieves, as the budget grows."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import StrMethodFormatter, SymmetricalLogLocator
from numpy.typing import NDArray
from torch import Tensor

from sztrain.errors import InputError, require_at_least, require_in
from sztrain.evaluation.figures.style import in_lines, line_looks
from sztrain.metrics.plotting import MEASURES, Measure, draw_robustness_curve
from sztrain.types import UNITS, Unit

Curve = NDArray[np.floating[Any]]
Scale = Literal["linear", "log"]
SCALES: tuple[Scale, ...] = ("linear", "log")

LEGEND_INSIDE = 4
"""A longer legend would cover the curves: it stands beside them."""


def robustness_curve_figure(
    curves: Mapping[str, Curve | Tensor],
    unit: Unit,
    budgets: Sequence[int] = (),
    title: str | None = None,
    measure: Measure = "robust_accuracy",
    scale: Scale = "linear",
) -> Figure:
    """Robust accuracy or success rate against the budget, one step curve a net or an attack.

    The budget axis ends a little beyond where every curve has come down to within half a percent
    of its end, and beyond every marked budget.

    Args:
        curves: robust accuracy at the budgets 0..d by name, each of shape ``(d + 1,)`` with values
            in [0, 1], as :func:`sztrain.metrics.functional.robustness_curve` gives it.
        unit: what the budget counts.
        budgets: budgets to mark; the legend names the measure at each.
        title: heading of the figure; one that is too long for a line takes several.
        measure: what to draw; the success rate is 1 less the robust accuracy.
        scale: of the budget axis; ``"log"`` (linear up to 1) where the curves of strong and weak
            attacks lie far apart.

    Returns:
        A figure with one set of axes.

    Raises:
        InputError: there is no curve, a curve is no curve of fractions, a budget is negative, or
            ``unit``, ``measure`` or ``scale`` is unknown.

    Reference:
        Figs. 2 and 5 to 10 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_ show the
        success rate of several attacks on one net.

    Example:
        >>> figure = robustness_curve_figure({"M1": np.array([0.9, 0.5, 0.0])}, "features", [1])
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['M1 (50.0)']
    """
    _check(unit, measure, scale, budgets)
    arrays = {name: _as_curve(name, curve) for name, curve in curves.items()}
    if not arrays:
        raise InputError("expected at least 1 robustness curve, got none")
    beside = len(arrays) > LEGEND_INSIDE
    # A line of the legend takes a little more than a fifth of an inch.
    size = (9.6, max(4.8, 0.23 * len(arrays) + 0.8)) if beside else (7.0, 4.3)
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    for (name, curve), look in zip(arrays.items(), line_looks(), strict=False):
        _draw(ax, name, curve, look, unit, budgets, measure)
    _scale_budgets(ax, budgets, scale)
    listed = " / ".join(str(budget) for budget in budgets)
    place: dict[str, Any] = {"loc": "outside right upper"} if beside else {}
    legend = (figure if beside else ax).legend(
        title=f"{MEASURES[measure]} (%) at {listed} {unit}" if budgets else None,
        alignment="left",
        framealpha=0.95,
        **place,
    )
    if title is not None:
        room = size[0] - (_width(legend, figure) if beside else 0)
        ax.set_title(in_lines(title, room))
    return figure


def _width(legend: Legend, figure: Figure) -> float:
    """Inches of a legend."""
    return float(legend.get_window_extent().width / figure.dpi)


def _check(unit: Unit, measure: Measure, scale: Scale, budgets: Sequence[int]) -> None:
    require_in("unit", unit, UNITS)
    require_in("measure", measure, tuple(MEASURES))
    require_in("scale", scale, SCALES)
    for budget in budgets:
        require_at_least("budget", budget, 0)


def _draw(
    ax: Axes,
    name: str,
    curve: Curve,
    look: tuple[str, str],
    unit: Unit,
    budgets: Sequence[int],
    measure: Measure,
) -> None:
    color, style = look
    draw_robustness_curve(ax, curve, unit, measure, color=color, linestyle=style, lw=2)
    line = ax.lines[-1]
    values = np.asarray(line.get_ydata(), dtype=float)
    at_budgets = [float(values[min(budget, len(values) - 1)]) for budget in budgets]
    figures = " / ".join(f"{value:.1f}" for value in at_budgets)
    line.set_label(f"{name} ({figures})" if budgets else name)
    for budget, value in zip(budgets, at_budgets, strict=True):
        ax.plot(budget, value, "o", color=color, ms=5, clip_on=False)


def _scale_budgets(ax: Axes, budgets: Sequence[int], scale: Scale) -> None:
    end = max([ax.get_xlim()[1], *(1.1 * budget for budget in budgets)])
    for budget in budgets:
        ax.axvline(budget, color="0.6", lw=1, zorder=0)
    if scale == "log":
        ax.set_xscale("symlog", linthresh=1, linscale=0.3)
        ax.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=[1, 2, 5]))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.set_xlim(0, end)


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
