"""Checkpoints of a training that goes on in another folder, or in its own under another name."""

import shutil
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from pytorch_lightning.utilities import rank_zero_only

from sztrain.files import set_aside, whole_file


def bring_along(path: str | Path, folder: str | Path, step: int | None) -> Path | None:
    """Copy a checkpoint of the first part of a training into the folder of the next.

    A training may go on from an earlier epoch than its last. A checkpoint that was written after
    that epoch, under the name of an earlier one, is of weights that are no part of the training any
    more; where the next one would overwrite it, it is kept under another name.

    Args:
        path: where it was written.
        folder: where it belongs now.
        step: of the optimizer, at which the training goes on; ``None``: none does, as in a test.

    Returns:
        Where it is now, under the same name; ``None``: it is in neither place, damaged, or of a
        later step.

    Example:
        >>> import tempfile
        >>> old, new = (Path(tempfile.mkdtemp()) for _ in range(2))
        >>> torch.save({"global_step": 7}, old / "best.ckpt")
        >>> bring_along(old / "best.ckpt", new, step=6) is None
        True
        >>> bring_along(old / "best.ckpt", new, step=7) == new / "best.ckpt"
        True
        >>> torch.load(new / "best.ckpt")
        {'global_step': 7}
    """
    path = Path(path)
    moved = Path(folder) / path.name
    found = path if path.is_file() else moved  # if the folder was renamed, and the file with it
    if not zipfile.is_zipfile(found):  # not there, or cut short
        return None
    if step is not None and _step_of(found) > step:
        _set_aside(moved)
        return None
    _copy(found, moved)
    return moved


def _step_of(checkpoint: Path) -> int:
    """The step at which a checkpoint was written; 0 where that cannot be told."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return int(content["global_step"])
    except (UnpicklingError, RuntimeError, KeyError, TypeError):
        return 0  # it holds objects of someone's own, which are not brought to life for this


@rank_zero_only
def _set_aside(path: Path) -> None:
    set_aside(path)


@rank_zero_only
def _copy(path: Path, moved: Path) -> None:
    if not (moved.exists() and path.samefile(moved)):
        with whole_file(moved) as draft:  # a half would be taken for a checkpoint later
            shutil.copyfile(path, draft)
