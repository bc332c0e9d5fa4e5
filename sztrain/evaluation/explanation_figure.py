"""A figure of what sparse changes do: which obscure the true class, which lead to another."""

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
from sztrain.metrics.saliency import NoiseLabels

# From the palette of Okabe and Ito, told apart with any kind of colour vision.
KIND_COLOURS = {"obscuring": "#0072B2", "leading": "#E69F00", "neutral": "#CC79A7"}

_CELLS = 32  # changes are drawn on at most this many cells a side: one pixel stays visible


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
    _check(inputs, kinds, {"labels": labels, "targets": targets})
    rows: list[tuple[str, Tensor | None]] = [("clean", None), ("changes", None)]
    for name, maps in (("for the true class", label_maps), ("for the reached", target_maps)):
        if maps is not None:
            if maps.shape != (len(inputs), 1, *inputs.shape[2:]):
                raise InputError(
                    "expected class activation maps of shape (N, 1, H, W) as `inputs` have, "
                    f"got {tuple(maps.shape)} with inputs of shape {tuple(inputs.shape)}"
                )
            rows.append((name, maps))
    count = min(max_examples, len(inputs))
    figure = Figure(figsize=(1.45 * count + 1.3, 1.6 * len(rows) + 0.6), layout="constrained")
    grid: NDArray[Any] = figure.subplots(len(rows), count, squeeze=False)
    images = inputs[:count].detach().cpu().float()
    for i, image in enumerate(images):
        names = [
            class_names[k] if class_names is not None else str(k)
            for k in (int(labels[i]), int(targets[i]))
        ]
        grid[0, i].set_title(" → ".join(names), fontsize=10)
        for j, (_, maps) in enumerate(rows):
            _show_image(grid[j, i], image, faint=j > 0)
            if j == 1:
                _show_kinds(grid[j, i], NoiseLabels(*(mask[i] for mask in kinds)))
            elif maps is not None:
                overlay = maps[i, 0].detach().cpu().float().numpy()
                grid[j, i].imshow(overlay, cmap="magma", vmin=0, vmax=1, alpha=0.7)
    for ax, (name, _) in zip(grid[:, 0], rows, strict=True):
        ax.set_ylabel(name, fontsize=10)
    handles = [Patch(color=colour, label=kind) for kind, colour in KIND_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def _check(inputs: Tensor, kinds: NoiseLabels, classes: dict[str, Tensor]) -> None:
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or len(inputs) == 0:
        raise InputError(
            "expected `inputs` to be at least 1 image of shape (N, C, H, W) with C = 1 or 3, "
            f"got shape {tuple(inputs.shape)}"
        )
    expected = (len(inputs), *inputs.shape[2:])
    for name, mask in kinds._asdict().items():
        if mask.shape != expected:
            raise InputError(
                f"expected the {name} pixels to be a mask of shape {expected}, "
                f"got {tuple(mask.shape)}"
            )
    for name, values in classes.items():
        if values.shape != inputs.shape[:1]:
            raise InputError(
                f"expected `{name}` to have shape ({len(inputs)},), got {tuple(values.shape)}"
            )


def _show_image(ax: Axes, image: Tensor, *, faint: bool) -> None:
    pixels = image.clamp(0, 1).movedim(0, -1).squeeze(-1)
    # What is drawn over an image needs it grey and pale.
    pixels = (
        0.65 + 0.35 * (pixels.mean(dim=-1) if pixels.ndim == 3 else pixels) if faint else pixels
    )
    ax.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])


def _show_kinds(ax: Axes, kinds: NoiseLabels) -> None:
    """The masks ``(H, W)`` of one sample, every changed cell in the colour of its main kind."""
    masks = torch.stack([mask.detach().cpu().float() for mask in kinds])
    height, width = masks.shape[1:]
    block = -(-max(height, width) // _CELLS)
    shares = F.avg_pool2d(masks.unsqueeze(0), block, ceil_mode=True).squeeze(0)
    colours = np.array([to_rgba(colour) for colour in KIND_COLOURS.values()])
    drawn = colours[shares.argmax(dim=0).numpy()]
    drawn[..., 3] = (shares.amax(dim=0) > 0).numpy()
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(drawn, interpolation="nearest", extent=extent)
