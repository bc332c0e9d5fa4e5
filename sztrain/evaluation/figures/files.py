"""Figures on disk."""

import os
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sztrain.errors import InputError
from sztrain.files import whole_file


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> Path:
    """Write a figure so that ``path`` holds either a whole file or what it held before.

    Args:
        figure: what to write.
        path: file to write; its suffix says the format. Missing folders are made.
        dpi: dots an inch of pixel formats.

    Returns:
        ``path``.

    Raises:
        InputError: matplotlib cannot write the format of the suffix, or the file; a full disk, say.

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


def figure_pixels(figure: Figure, dpi: int = 100) -> NDArray[np.uint8]:
    """A figure as an image, shape ``(H, W, 3)``.

    Args:
        figure: what to draw.
        dpi: dots an inch.

    Example:
        >>> figure_pixels(Figure(figsize=(2, 1))).shape
        (100, 200, 3)
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
