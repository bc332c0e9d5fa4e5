"""Checkpoints of a training that goes on in another folder, or in its own under another name."""

import shutil
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only


def bring_along(path: str | Path, folder: str | Path) -> Path | None:
    """Copy a file of the first part of a training into the folder of the next.

    Args:
        path: where it was written.
        folder: where it belongs now.

    Returns:
        Where it is now, under the same name; ``None``: it is in neither place.

    Example:
        >>> import tempfile
        >>> old, new = (Path(tempfile.mkdtemp()) for _ in range(2))
        >>> _ = (old / "best.ckpt").write_text("weights")
        >>> bring_along(old / "best.ckpt", new) == new / "best.ckpt"
        True
        >>> (new / "best.ckpt").read_text()
        'weights'
    """
    path = Path(path)
    moved = Path(folder) / path.name
    if path.is_file():
        _copy(path, moved)
        return moved
    return moved if moved.is_file() else None  # the folder was renamed, and the file with it


@rank_zero_only
def _copy(path: Path, moved: Path) -> None:
    if not (moved.exists() and path.samefile(moved)):
        moved.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, moved)
