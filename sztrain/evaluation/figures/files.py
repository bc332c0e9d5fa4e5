"""Figures on disk."""

import os
from pathlib import Path

from matplotlib.figure import Figure

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
