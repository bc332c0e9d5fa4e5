"""Figures of an evaluation: robustness curves, and what an attack changed.

Figures are built without pyplot, so they need no display and leave no global state behind.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from torch import Tensor

from sztrain.errors import InputError, require_at_least, require_in
from sztrain.files import whole_file
from sztrain.metrics.plotting import draw_robustness_curve
from sztrain.types import UNITS, Unit

# The palette of Okabe and Ito, told apart with any kind of colour vision; its yellow, too pale for
# a line on white, is left out. Line styles repeat with another period, so no pair comes back soon.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")

_CHANGE_CELLS = 32  # changes are drawn on at most this many cells a side: one pixel stays visible


def robustness_curve_figure(
    curves: Mapping[str, NDArray[np.floating[Any]] | Tensor],
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
    looks = zip(cycle(COLOURS), cycle(LINE_STYLES), strict=False)
    for (name, curve), (color, style) in zip(arrays.items(), looks, strict=False):
        at_budgets = [100 * float(curve[min(budget, len(curve) - 1)]) for budget in budgets]
        figures = " / ".join(f"{value:.1f}" for value in at_budgets)
        label = f"{name} ({figures})" if budgets else name
        draw_robustness_curve(ax, curve, unit, color=color, linestyle=style, lw=2, label=label)
        for budget, value in zip(budgets, at_budgets, strict=True):
            ax.plot(budget, value, "o", color=color, ms=5, clip_on=False)
    for budget in budgets:
        ax.axvline(budget, color="0.6", lw=1, zorder=0)
    ax.set_xlim(0, max([ax.get_xlim()[1], *(1.1 * budget for budget in budgets)]))
    listed = " / ".join(str(budget) for budget in budgets)
    heading = f"robust accuracy (%) at {listed} {unit}" if budgets else None
    ax.legend(title=heading, alignment="left", framealpha=0.95)
    if title is not None:
        ax.set_title(title)
    return figure


def _as_curve(name: str, curve: NDArray[np.floating[Any]] | Tensor) -> NDArray[np.floating[Any]]:
    array: NDArray[np.floating[Any]] = (
        curve.detach().cpu().double().numpy() if isinstance(curve, Tensor) else np.asarray(curve)
    )
    if array.ndim != 1 or array.size == 0 or not ((array >= 0) & (array <= 1)).all():
        raise InputError(
            f"expected the robustness curve of {name} to have shape (d + 1,) and values in [0, 1], "
            f"got shape {array.shape}"
            + (f" and {array.min()}..{array.max()}" if array.size else "")
        )
    return array


def adversarial_examples_figure(
    inputs: Tensor,
    adv_inputs: Tensor,
    labels: Tensor,
    clean_predictions: Tensor,
    adv_predictions: Tensor,
    l0: Tensor,
    unit: Unit,
    class_names: Sequence[str] | None = None,
    max_examples: int = 8,
) -> Figure:
    r"""Clean images, adversarial images, and what was changed, one sample a column.

    The first ``max_examples`` samples are shown. Of a colour image, the change of a pixel is that
    of its most changed channel; of an image above 32 pixels a side, the largest of each block.

    Args:
        inputs: clean images in [0, 1], shape ``(N, C, H, W)`` with one or three channels.
        adv_inputs: attacked images, same shape.
        labels: int64 ``(N,)``.
        clean_predictions: class predicted for ``inputs``, int64 ``(N,)``.
        adv_predictions: class predicted for ``adv_inputs``, int64 ``(N,)``.
        l0: changes per sample, shape ``(N,)``; inf for a sample that was never broken.
        unit: what ``l0`` counts.
        class_names: name of each class; ``None``: its number.
        max_examples: most columns to draw, at least 1.

    Returns:
        A figure with three rows of axes and a colour bar.

    Raises:
        InputError: the inputs are no images, shapes differ, there is no sample, or ``unit`` is
            unknown.

    Example:
        >>> inputs, label = torch.zeros(1, 1, 2, 2), torch.tensor([5])
        >>> adv_inputs = inputs.clone()
        >>> adv_inputs[0, 0, 0, 0] = 1.0
        >>> figure = adversarial_examples_figure(
        ...     inputs, adv_inputs, label, label, torch.tensor([3]), torch.tensor([1.0]), "features"
        ... )
        >>> figure.axes[0].get_title()
        '5 → 3\nℓ0 = 1 feature'
    """
    require_in("unit", unit, UNITS)
    require_at_least("max_examples", max_examples, 1)
    _check_images(inputs, adv_inputs)
    per_sample = (labels, clean_predictions, adv_predictions, l0)
    if any(values.shape != inputs.shape[:1] for values in per_sample):
        shapes = ", ".join(str(tuple(values.shape)) for values in per_sample)
        raise InputError(
            "expected `labels`, `clean_predictions`, `adv_predictions` and `l0` to have shape "
            f"({len(inputs)},), got {shapes}"
        )
    count = min(max_examples, len(inputs))
    clean, adv = (images[:count].detach().cpu().float() for images in (inputs, adv_inputs))
    changes = _signed_change(adv - clean)
    figure = Figure(figsize=(1.45 * count + 1.3, 5.2), layout="constrained")
    grid: NDArray[Any] = figure.subplots(3, count, squeeze=False)
    for i in range(count):
        numbers = (int(values[i]) for values in (labels, clean_predictions, adv_predictions))
        names = [class_names[k] if class_names is not None else str(k) for k in numbers]
        grid[0, i].set_title(_caption(names, float(l0[i]), unit), fontsize=10)
        _show_image(grid[0, i], clean[i])
        _show_image(grid[1, i], adv[i])
        drawn = _show_change(grid[2, i], changes[i], clean.shape[-2:])
    for ax, name in zip(grid[:, 0], ("clean", "adversarial", "changed"), strict=True):
        ax.set_ylabel(name, fontsize=11)
    bar = figure.colorbar(drawn, ax=grid[2, :].tolist(), ticks=[-1, 0, 1], fraction=0.05, pad=0.02)
    bar.ax.set_yticklabels(["darkened by 1", "0", "brightened by 1"], fontsize=9)
    return figure


def _check_images(inputs: Tensor, adv_inputs: Tensor) -> None:
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or len(inputs) == 0:
        raise InputError(
            "expected `inputs` to be at least 1 image of shape (N, C, H, W) with C = 1 or 3, "
            f"got shape {tuple(inputs.shape)}"
        )
    if adv_inputs.shape != inputs.shape:
        raise InputError(
            f"expected `adv_inputs` to have the shape of `inputs`, {tuple(inputs.shape)}, "
            f"got {tuple(adv_inputs.shape)}"
        )


def _caption(names: Sequence[str], l0: float, unit: Unit) -> str:
    label, clean, adv = (name if len(name) <= 18 else f"{name[:17]}…" for name in names)
    if clean != label:
        gap = " " if len(clean + label) <= 6 else "\n"
        return f"{clean}{gap}(label {label})\nwrong from start"
    if l0 == float("inf"):
        return f"{clean}\nnot broken"
    counted = unit.removesuffix("s") if l0 == 1 else unit
    gap = " " if len(clean + adv) <= 14 else "\n"  # long names take a line each
    return f"{clean} →{gap}{adv}\nℓ0 = {l0:g} {counted}"


def _signed_change(delta: Tensor) -> Tensor:
    """Change of the most changed channel of every cell, ``(N, C, H, W)`` to ``(N, h, w)``."""
    position = delta.abs().argmax(dim=1, keepdim=True)
    change = delta.gather(1, position)
    block = -(-max(change.shape[-2:]) // _CHANGE_CELLS)
    up = F.max_pool2d(change.clamp(min=0), block, ceil_mode=True)
    down = F.max_pool2d((-change).clamp(min=0), block, ceil_mode=True)
    return torch.where(up >= down, up, -down).squeeze(1)


def _show_image(ax: Axes, image: Tensor) -> None:
    pixels = image.clamp(0, 1).movedim(0, -1).squeeze(-1).numpy()
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])


def _show_change(ax: Axes, change: Tensor, size: torch.Size) -> AxesImage:
    # Unchanged cells are white and the map has no white: the faintest change stands out.
    halves = [
        colormaps["Blues_r"](np.linspace(0.1, 0.6, 128)),
        colormaps["Oranges"](np.linspace(0.4, 0.9, 128)),
    ]
    values = np.ma.masked_equal(change.numpy(), 0)
    height, width = size
    ax.set(xticks=[], yticks=[])
    return ax.imshow(
        values,
        cmap=ListedColormap(np.concatenate(halves)),
        vmin=-1,
        vmax=1,
        interpolation="nearest",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> Path:
    """Write a figure so that ``path`` holds either a whole file or what it held before.

    Args:
        figure: what to write.
        path: file to write; its suffix says the format. Missing folders are made.
        dpi: dots an inch of pixel formats.

    Returns:
        ``path``.

    Raises:
        InputError: matplotlib cannot write the format of the suffix.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_figure(Figure(), f"{folder}/curve.png").name
        'curve.png'
    """
    path = Path(path)
    formats = sorted(figure.canvas.get_supported_filetypes())
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in formats:
        raise InputError(
            f"expected a figure file ending in one of {', '.join(formats)}, got {path.name}"
        )
    with whole_file(path) as draft:
        figure.savefig(draft, format=suffix, dpi=dpi)
    return path
