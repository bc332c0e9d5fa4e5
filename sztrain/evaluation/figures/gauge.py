"""What a gauge sees as training goes on: curves by epoch, classes, and places."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sztrain.errors import InputError, require_in
from sztrain.evaluation.breakdown import ClassFigures
from sztrain.evaluation.figures.style import BLUE, RED
from sztrain.types import UNITS, Unit

# Light and dark ends cut off: the first epoch is seen on white, the last is not black.
_EPOCHS = ListedColormap(colormaps["viridis_r"](np.linspace(0.12, 1, 256)))


def epoch_curves_figure(
    curves: Mapping[int, Sequence[tuple[int, float]]], unit: Unit, budgets: Sequence[int] = ()
) -> Figure:
    """The robustness curve of each epoch on one chart, later epochs darker.

    Args:
        curves: points (budget, robust accuracy in [0, 1]) by epoch, as
            :func:`sztrain.evaluation.wandb_media.curve_points` gives them.
        unit: what the budget counts.
        budgets: budgets to mark.

    Returns:
        A figure with one set of axes and a colour bar.

    Raises:
        InputError: there is no curve, or ``unit`` is unknown.

    Example:
        >>> figure = epoch_curves_figure({0: [(0, 0.9), (4, 0.0)], 1: [(0, 1.0)]}, "features")
        >>> len(figure.axes[0].lines)
        2
    """
    require_in("unit", unit, UNITS)
    if not curves:
        raise InputError("expected at least 1 robustness curve, got none")
    figure = Figure(figsize=(7.0, 4.3), layout="constrained")
    ax = figure.subplots()
    epochs = Normalize(min(curves), max(max(curves), min(curves) + 1))
    right = max([1, *budgets])
    for epoch, points in sorted(curves.items()):
        xs, ys = zip(*points, strict=True)
        colour = _EPOCHS(epochs(epoch))
        ax.plot(xs, 100 * np.array(ys), drawstyle="steps-post", color=colour, lw=1.6)
        right = max(right, next(x for x, y in points if y - ys[-1] <= 0.005))
    for budget in budgets:
        ax.axvline(budget, color="0.6", lw=1, zorder=0)
    ax.set(xlim=(0, 1.1 * right), ylim=(-1, 101))
    ax.set(xlabel=f"budget (changed {unit})", ylabel="robust accuracy (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=True, alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ticks = MaxNLocator(integer=True)
    figure.colorbar(ScalarMappable(epochs, _EPOCHS), ax=ax, label="epoch", ticks=ticks)
    return figure


def class_l0_figure(classes: Sequence[ClassFigures], unit: Unit) -> Figure:
    """Median l0 by class as bars; a class of which at least half resists is marked ∞.

    Args:
        classes: figures of the classes, at least one.
        unit: what l0 counts.

    Raises:
        InputError: there is no class, or ``unit`` is unknown.

    Example:
        >>> one = ClassFigures(label=3, num_samples=5, median_l0=float("inf"), asr_inf=0.2)
        >>> [text.get_text() for text in class_l0_figure([one], "pixels").axes[0].texts]
        ['∞']
    """
    require_in("unit", unit, UNITS)
    if not classes:
        raise InputError("expected at least 1 class, got none")
    figure = Figure(figsize=(min(3.0 + 0.35 * len(classes), 14), 3.6), layout="constrained")
    ax = figure.subplots()
    medians = np.array([one.median_l0 for one in classes])
    finite = np.isfinite(medians)
    top = max(medians[finite], default=1.0) or 1.0
    heights = np.where(finite, medians, 1.15 * top)
    at = np.arange(len(classes))
    ax.bar(at[finite], heights[finite], color=BLUE)
    ax.bar(at[~finite], heights[~finite], color="white", edgecolor=RED, hatch="//")
    for place in at[~finite]:
        ax.annotate("∞", (place, heights[place]), ha="center", va="bottom", fontsize=12)
    every = -(-len(classes) // 40)  # more labels would not be read
    ax.set_xticks(at[::every], [str(one.label) for one in classes[::every]])
    ax.margins(x=0.01)
    ax.set(xlabel="class", ylabel=f"median ℓ0 ({unit})", ylim=(0, 1.3 * top))
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def places_figure(places: Tensor) -> Figure:
    """Where an attack changes images, as a heat map.

    Args:
        places: share of the changed images that were changed at each position, ``(H, W)``.

    Raises:
        InputError: ``places`` has another rank.

    Example:
        >>> import torch
        >>> places_figure(torch.tensor([[0.0, 0.5]])).axes[0].get_title()
        'changed here, % of the changed images'
    """
    if places.ndim != 2:
        raise InputError(f"expected `places` to have shape (H, W), got {tuple(places.shape)}")
    height, width = places.shape
    figure = Figure(figsize=(4.6, 0.8 + 3.4 * height / width), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(100 * places.numpy(), cmap="Oranges", vmin=0, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=ax)
    ax.set_title("changed here, % of the changed images", fontsize=10)  # fits a flat image as well
    return figure
