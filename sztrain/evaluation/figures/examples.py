"""What an attack did to a few samples."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from sztrain.errors import require_at_least, require_in
from sztrain.evaluation.examples import Examples
from sztrain.evaluation.figures._images import (
    becomes,
    change_bar,
    class_name,
    counted,
    require_drawable,
    show_change,
    show_image,
)
from sztrain.types import UNITS, Unit


def adversarial_examples_figure(
    examples: Examples,
    unit: Unit,
    class_names: Sequence[str] | None = None,
    max_examples: int = 8,
) -> Figure:
    r"""Clean images, adversarial images, and what was changed, one sample a column.

    Of a colour image, the change of a pixel is that of its most changed channel; of an image above
    32 pixels a side, the largest of each block.

    Args:
        examples: grey or colour images, what the attack made of them, and how the net saw both.
        unit: what ``examples.l0`` counts.
        class_names: name of each class; ``None``: its number.
        max_examples: most columns to draw, at least 1; the first samples are shown.

    Returns:
        A figure with three rows of axes and a colour bar.

    Raises:
        InputError: the inputs are no images, shapes differ, there is no sample, or ``unit`` is
            unknown.

    Example:
        >>> import torch
        >>> inputs, label = torch.zeros(1, 1, 2, 2), torch.tensor([5])
        >>> adv_inputs = inputs.clone()
        >>> adv_inputs[0, 0, 0, 0] = 1.0
        >>> examples = Examples(
        ...     inputs=inputs, adv_inputs=adv_inputs, labels=label, clean_predictions=label,
        ...     adv_predictions=torch.tensor([3]), l0=torch.tensor([1.0]),
        ... )
        >>> adversarial_examples_figure(examples, "features").axes[0].get_title()
        '5 → 3\nℓ0 = 1 feature'
    """
    require_in("unit", unit, UNITS)
    require_at_least("max_examples", max_examples, 1)
    require_drawable(examples)
    count = min(max_examples, len(examples.labels))
    captions = [_caption(examples, i, unit, class_names) for i in range(count)]
    longest = max(len(line) for caption in captions for line in caption.splitlines())
    side = 1.45 if class_names is None else 1.75  # inches: names take more room than numbers
    width = max(side, 0.085 * (longest + 1))
    figure = Figure(figsize=(width * count + 1.8, 3 * side + 0.85), layout="constrained")
    grid: NDArray[Any] = figure.subplots(3, count, squeeze=False)
    for i, (clean, adv) in enumerate(_images(examples, count)):
        grid[0, i].set_title(captions[i], fontsize=10)
        show_image(grid[0, i], clean)
        show_image(grid[1, i], adv)
        show_change(grid[2, i], adv - clean)
    for ax, name in zip(grid[:, 0], ("clean", "adversarial", "changed"), strict=True):
        ax.set_ylabel(name, fontsize=11)
    beside_changes: dict[str, Any] = {"shrink": 0.3, "anchor": (0, 0)}
    change_bar(figure, grid.flat, examples.inputs, fraction=0.05, pad=0.02, **beside_changes)
    return figure


def _images(examples: Examples, count: int) -> list[tuple[Tensor, Tensor]]:
    pair = (examples.inputs, examples.adv_inputs)
    return list(zip(*(images[:count].detach().cpu().float() for images in pair), strict=True))


def _caption(examples: Examples, index: int, unit: Unit, class_names: Sequence[str] | None) -> str:
    classes = (examples.labels, examples.clean_predictions, examples.adv_predictions)
    label, clean, adv = (class_name(values[index], class_names) for values in classes)
    l0 = float(examples.l0[index])
    if clean != label:
        gap = " " if len(clean + label) <= 6 else "\n"
        return f"{clean}{gap}(label {label})\nwrong from start"
    if l0 == float("inf"):
        return f"{clean}\nnot broken"
    return f"{becomes(clean, adv)}\nℓ0 = {counted(l0, unit)}"
