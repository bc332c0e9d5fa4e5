"""Images, what changed in them, and the words above them, as every figure draws them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from sztrain.errors import InputError
from sztrain.evaluation.examples import Examples
from sztrain.types import Unit

CHANGE_CELLS = 32  # changes are drawn on at most this many cells a side: one pixel stays visible
LONGEST_NAME = 18

# Unchanged cells are white and the map has no white: the faintest change stands out.
CHANGE = Normalize(-1, 1)
CHANGE_MAP = ListedColormap(
    np.concatenate(
        [
            colormaps["Blues_r"](np.linspace(0.1, 0.6, 128)),
            colormaps["Oranges"](np.linspace(0.4, 0.9, 128)),
        ]
    )
)


def require_images(inputs: Tensor, name: str = "inputs") -> None:
    """Refuse what is no batch of grey or colour images."""
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or len(inputs) == 0:
        raise InputError(
            f"expected `{name}` to be at least 1 image of shape (N, C, H, W) with C = 1 or 3, "
            f"got shape {tuple(inputs.shape)}"
        )


def require_drawable(examples: Examples) -> None:
    """Refuse examples that are no images, or that are not as many of everything."""
    inputs, adv_inputs = examples.inputs, examples.adv_inputs
    require_images(inputs)
    if adv_inputs.shape != inputs.shape:
        raise InputError(
            f"expected `adv_inputs` to have the shape of `inputs`, {tuple(inputs.shape)}, "
            f"got {tuple(adv_inputs.shape)}"
        )
    names = ("labels", "clean_predictions", "adv_predictions", "l0")
    shapes = [tuple(getattr(examples, name).shape) for name in names]
    if any(shape != inputs.shape[:1] for shape in shapes):
        raise InputError(
            "expected `labels`, `clean_predictions`, `adv_predictions` and `l0` to have shape "
            f"({len(inputs)},), got {', '.join(map(str, shapes))}"
        )


def class_name(index: int | Tensor, class_names: Sequence[str] | None) -> str:
    """Name of a class, cut where it is long; its number where there are no names."""
    name = str(int(index)) if class_names is None else class_names[int(index)]
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def becomes(clean: str, adv: str) -> str:
    """``7 → 3``; long names take a line each."""
    gap = " " if len(clean + adv) <= 14 else "\n"
    return f"{clean} →{gap}{adv}"


def counted(l0: float, unit: Unit) -> str:
    """A number with its unit: ``1 feature``, ``1,024 features``."""
    return f"{l0:,.0f} {unit.removesuffix('s') if l0 == 1 else unit}"


def signed_change(delta: Tensor) -> Tensor:
    """Change of the most changed channel of every cell, ``(N, C, H, W)`` to ``(N, h, w)``."""
    position = delta.abs().argmax(dim=1, keepdim=True)
    change = delta.gather(1, position)
    block = cell_side(change.shape)
    up = F.max_pool2d(change.clamp(min=0), block, ceil_mode=True)
    down = F.max_pool2d((-change).clamp(min=0), block, ceil_mode=True)
    return torch.where(up >= down, up, -down).squeeze(1)


def cell_side(shape: torch.Size) -> int:
    """Pixels on a side of a cell."""
    return -(-max(shape[-2:]) // CHANGE_CELLS)


def show_image(ax: Axes, image: Tensor, left: float = -0.5, **look: Any) -> AxesImage:
    """Draw an image, shape ``(C, H, W)``, with its left edge at ``left`` pixels."""
    pixels = image.clamp(0, 1).movedim(0, -1).squeeze(-1).numpy()
    # Of a large image nothing may be left out, and a small one is to stay sharp.
    look = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "antialiased", **look}
    return show_values(ax, pixels, image, left, **look)


def show_change(ax: Axes, delta: Tensor, left: float = -0.5) -> AxesImage:
    """Draw what changed in an image, shape ``(C, H, W)``, with its left edge at ``left`` pixels."""
    change = signed_change(delta.unsqueeze(0))[0].numpy()
    values = np.ma.masked_equal(change, 0)
    return show_values(
        ax, values, delta, left, cmap=CHANGE_MAP, norm=CHANGE, interpolation="nearest"
    )


def show_values(ax: Axes, values: Any, like: Tensor, left: float = -0.5, **look: Any) -> AxesImage:
    """Draw values, one a cell, over the place of an image of shape ``(C, H, W)``."""
    height, width = like.shape[-2:]
    ax.set(xticks=[], yticks=[])
    return ax.imshow(values, extent=(left, left + width, height - 0.5, -0.5), **look)


def change_bar(figure: Figure, axes: Iterable[Axes], inputs: Tensor, **place: Any) -> None:
    """The colour bar that says what a colour of :func:`show_change` means."""
    mappable = ScalarMappable(CHANGE, CHANGE_MAP)
    # Axes that stay on the left of their places keep the room that was made for the rows' names.
    place["panchor"] = (0, 0.5)
    bar = figure.colorbar(mappable, ax=list(axes), ticks=[-1, 0, 1], **place)
    bar.ax.set_yticklabels(["darkened by 1", "0", "brightened by 1"], fontsize=9)
    block = cell_side(inputs.shape)
    if block > 1:
        bar.set_label(f"largest change\nin {block} × {block} pixels", fontsize=9)
    elif inputs.shape[1] > 1:
        bar.set_label("largest change\nof a channel", fontsize=9)
