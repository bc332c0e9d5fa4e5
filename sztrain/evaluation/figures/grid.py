"""What several attacks did to the same samples, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from sztrain.errors import InputError, require_at_least, require_in
from sztrain.evaluation.examples import Examples
from sztrain.evaluation.figures._images import (
    change_bar,
    class_name,
    counted,
    require_drawable,
    show_change,
    show_image,
)
from sztrain.evaluation.figures.style import RED
from sztrain.types import UNITS, Unit

GAP = 0.06  # between an image and its change, of their width
FADED = 0.35  # opacity of an image that no attack changed


def attack_grid_figure(
    examples: Mapping[str, Examples],
    unit: Unit,
    class_names: Sequence[str] | None = None,
    max_examples: int = 6,
    title: str | None = None,
) -> Figure:
    """The same samples under several attacks: a row each, below a row of clean images.

    A cell holds the adversarial image, with its prediction above, and beside it what was changed,
    with the l0. Where the attack failed, and where the net is wrong from the start, the cell says
    so over the faded image.

    Args:
        examples: what each attack made of the same samples, by its name.
        unit: what ``l0`` counts.
        class_names: name of each class; ``None``: its number.
        max_examples: most columns to draw, at least 1; the first samples are shown.
        title: heading of the figure.

    Returns:
        A figure with a set of axes a cell, row by row, and a colour bar.

    Raises:
        InputError: there is no attack, the attacks have not the same samples, the samples are no
            images, shapes differ, or ``unit`` is unknown.

    Reference:
        Figs. 11 to 13 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_.

    Example:
        >>> inputs, label = torch.zeros(1, 1, 2, 2), torch.tensor([5])
        >>> one = Examples(
        ...     inputs=inputs, adv_inputs=inputs + 1, labels=label, clean_predictions=label,
        ...     adv_predictions=torch.tensor([3]), l0=torch.tensor([4.0]),
        ... )
        >>> figure = attack_grid_figure({"σ-zero": one}, "features")
        >>> [[text.get_text() for text in ax.texts] for ax in figure.axes[:2]]
        [['5'], ['→ 3', '4 features']]
    """
    require_in("unit", unit, UNITS)
    require_at_least("max_examples", max_examples, 1)
    first = _check(examples)
    count = min(max_examples, len(first.labels))
    figure = Figure(
        figsize=_size(first.inputs, class_names, len(examples) + 1, count),
        layout=ConstrainedLayoutEngine(w_pad=0.1),
    )
    grid: NDArray[Any] = figure.subplots(len(examples) + 1, count, squeeze=False)
    for i, ax in enumerate(grid[0]):
        _draw_clean(ax, first, i, class_names)
    for axes, one in zip(grid[1:], examples.values(), strict=True):
        for i, ax in enumerate(axes):
            _draw_attacked(ax, one, i, unit, class_names)
    for ax, name in zip(grid[:, 0], ("clean", *examples), strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
    bar = {"shrink": min(1, 2 / len(grid)), "fraction": 0.02, "pad": 0.02, "aspect": 14}
    change_bar(figure, grid.flat, first.inputs, **bar)
    if title is not None:
        figure.suptitle(title)
    return figure


def _check(examples: Mapping[str, Examples]) -> Examples:
    """Examples of the first attack, once all are known to be of the same samples."""
    if not examples:
        raise InputError("expected the examples of at least 1 attack, got none")
    first_name, first = next(iter(examples.items()))
    for name, one in examples.items():
        require_drawable(one)
        if not (torch.equal(first.inputs, one.inputs) and torch.equal(first.labels, one.labels)):
            raise InputError(
                "expected the same samples under every attack, "
                f"got others under {name} than under {first_name}"
            )
    return first


def _size(
    inputs: Tensor, class_names: Sequence[str] | None, rows: int, columns: int
) -> tuple[float, float]:
    """Inches of the figure: a pixel of a large image is seen, and a name ends with its image."""
    height, width = inputs.shape[-2:]
    longest = max(len(class_name(i, class_names)) for i in range(len(class_names or "1")))
    side = max(0.95 if width < 100 else 1.5, 0.075 * (longest + 2))
    return (side * (2 + GAP) + 0.2) * columns + 2.6, (side * height / width + 0.28) * rows + 0.4


def _draw_clean(
    ax: Axes, examples: Examples, index: int, class_names: Sequence[str] | None
) -> None:
    classes = (examples.labels, examples.clean_predictions)
    label, seen = (class_name(values[index], class_names) for values in classes)
    show_image(ax, _image(examples.inputs, index))
    _frame(ax, seen if seen == label else f"{seen} (label {label})")


def _draw_attacked(
    ax: Axes, examples: Examples, index: int, unit: Unit, class_names: Sequence[str] | None
) -> None:
    clean, adv = _image(examples.inputs, index), _image(examples.adv_inputs, index)
    wrong = bool(examples.clean_predictions[index] != examples.labels[index])
    if wrong or examples.l0[index].isinf():
        show_image(ax, adv, alpha=FADED)
        _frame(ax, "wrong from start" if wrong else "not broken", color=RED)
        return
    show_image(ax, adv)
    show_change(ax, adv - clean, left=(1 + GAP) * adv.shape[-1] - 0.5)
    seen = class_name(examples.adv_predictions[index], class_names)
    _frame(ax, f"→ {seen}", counted(float(examples.l0[index]), unit))


def _image(images: Tensor, index: int) -> Tensor:
    return images[index].detach().cpu().float()


def _frame(ax: Axes, *words: str, color: str = "black") -> None:
    """A line round each image of a cell, words above it, and room for two."""
    left, right, bottom, top = ax.images[0].get_extent()
    width = right - left
    for image, word in zip(ax.images, words, strict=True):
        x = image.get_extent()[0]
        ax.add_patch(Rectangle((x, top), width, bottom - top, fill=False, lw=0.8, ec="0.4"))
        ax.text(x, top, word, ha="left", va="bottom", fontsize=8, color=color)
    ax.set_xlim(left, left + (2 + GAP) * width)
    ax.set_ylim(bottom, top)
    ax.spines[:].set_visible(False)
