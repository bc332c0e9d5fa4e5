"""What sparse changes do: which obscure the true class, which lead to another."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from sztrain.errors import InputError, require_at_least
from sztrain.evaluation.figures._images import (
    becomes,
    cell_side,
    class_name,
    require_images,
    show_image,
    show_values,
)
from sztrain.evaluation.figures.style import COLOURS
from sztrain.metrics.saliency import NoiseLabels

KIND_COLOURS = {"obscuring": COLOURS[0], "leading": COLOURS[4], "neutral": COLOURS[3]}


def explanation_figure(
    inputs: Tensor,
    kinds: NoiseLabels,
    labels: Tensor,
    targets: Tensor,
    label_maps: Tensor | None = None,
    target_maps: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    max_examples: int = 8,
) -> Figure:
    """Images, and over them the changed pixels by what they do, one sample a column.

    Of an image above 32 pixels a side, changes are drawn by blocks, each in the colour of the kind
    that most of its changed pixels are. Where class activation maps are given, they stand below:
    the net's view of the clean image and of the adversarial one.

    Args:
        inputs: clean images in [0, 1], shape ``(N, C, H, W)`` with one or three channels.
        kinds: from :func:`~sztrain.evaluation.explanation.label_noise`.
        labels: true classes, int64 ``(N,)``.
        targets: classes reached, int64 ``(N,)``.
        label_maps: of the true classes on the clean images, in [0, 1], shape ``(N, 1, H, W)``.
        target_maps: of the reached classes on the adversarial images, alike.
        class_names: name of each class; ``None``: its number.
        max_examples: most columns to draw, at least 1.

    Returns:
        A figure with two rows of axes, and one more for each kind of maps.

    Raises:
        InputError: the inputs are no images, or shapes do not fit.

    Example:
        >>> inputs, mask = torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> kinds = NoiseLabels(mask.logical_not(), mask, mask)
        >>> figure = explanation_figure(inputs, kinds, torch.tensor([7]), torch.tensor([1]))
        >>> figure.axes[0].get_title()
        '7 → 1'
    """
    require_at_least("max_examples", max_examples, 1)
    _check(inputs, kinds, labels, targets, label_maps, target_maps)
    count = min(max_examples, len(inputs))
    named_maps = {"for the true class": label_maps, "for the reached": target_maps}
    rows = {name: maps for name, maps in named_maps.items() if maps is not None}
    side = 1.45 if class_names is None else 1.75  # inches: names take more room than numbers
    # Under a single column, too, the legend has its room.
    size = (max(side * count + 1.3, 4.0), (side + 0.15) * (2 + len(rows)) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid: NDArray[Any] = figure.subplots(2 + len(rows), count, squeeze=False)
    images = inputs[:count].detach().cpu().float()
    for i, (column, image) in enumerate(zip(grid.T, images, strict=True)):
        names = (class_name(classes[i], class_names) for classes in (labels, targets))
        column[0].set_title(becomes(*names), fontsize=10)
        show_image(column[0], image)
        for ax in column[1:]:
            show_image(ax, _pale(image))
        _show_kinds(column[1], image, NoiseLabels(*(mask[i] for mask in kinds)))
        for ax, maps in zip(column[2:], rows.values(), strict=True):
            values = maps[i, 0].detach().cpu().float().numpy()
            show_values(ax, values, image, cmap="magma", vmin=0, vmax=1, alpha=0.7)
    for ax, name in zip(grid[:, 0], ("clean", "changes", *rows), strict=True):
        ax.set_ylabel(name, fontsize=10)
    handles = [Patch(color=colour, label=kind) for kind, colour in KIND_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def _check(
    inputs: Tensor,
    kinds: NoiseLabels,
    labels: Tensor,
    targets: Tensor,
    label_maps: Tensor | None,
    target_maps: Tensor | None,
) -> None:
    require_images(inputs)
    expected = (len(inputs), *inputs.shape[2:])
    for name, mask in kinds._asdict().items():
        if mask.shape != expected:
            raise InputError(
                f"expected the {name} pixels to be a mask of shape {expected}, "
                f"got {tuple(mask.shape)}"
            )
    for name, values in {"labels": labels, "targets": targets}.items():
        if values.shape != inputs.shape[:1]:
            raise InputError(
                f"expected `{name}` to have shape ({len(inputs)},), got {tuple(values.shape)}"
            )
    for maps in (label_maps, target_maps):
        if maps is not None and maps.shape != (len(inputs), 1, *inputs.shape[2:]):
            raise InputError(
                "expected class activation maps of shape (N, 1, H, W) as `inputs` have, "
                f"got {tuple(maps.shape)} with inputs of shape {tuple(inputs.shape)}"
            )


def _pale(image: Tensor) -> Tensor:
    """An image to draw over: grey, and bright."""
    return 0.65 + 0.35 * image.clamp(0, 1).mean(dim=0, keepdim=True)


def _show_kinds(ax: Axes, image: Tensor, kinds: NoiseLabels) -> None:
    """The masks ``(H, W)`` of one sample, every changed cell in the colour of its main kind."""
    masks = torch.stack([mask.detach().cpu().float() for mask in kinds])
    shares = F.avg_pool2d(masks.unsqueeze(0), cell_side(masks.shape), ceil_mode=True).squeeze(0)
    colours = np.array([to_rgba(colour) for colour in KIND_COLOURS.values()])
    drawn = colours[shares.argmax(dim=0).numpy()]
    drawn[..., 3] = (shares.amax(dim=0) > 0).numpy()
    show_values(ax, drawn, image, interpolation="nearest")
