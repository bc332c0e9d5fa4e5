"""Where weights lie, and what is checked before they enter a net."""

import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn

from sztrain.errors import InputError

WEIGHTS_DIR_VARIABLE = "SZTRAIN_WEIGHTS_DIR"
"""Environment variable that names the folder of published weights."""


def weights_dir() -> Path:
    """Folder of published weights: ``$SZTRAIN_WEIGHTS_DIR``, else ``~/.cache/sztrain/weights``.

    Example:
        >>> isinstance(weights_dir(), Path)
        True
    """
    named = os.environ.get(WEIGHTS_DIR_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "sztrain" / "weights"


def read_plain(file: Path | BytesIO, source: str) -> object:
    """Read what ``torch.save`` wrote, on the CPU, executing nothing.

    Args:
        file: the file, or its content.
        source: what it is, for the message.

    Returns:
        Plain containers and tensors.

    Raises:
        InputError: the file is damaged, or holds objects of other kinds.

    Example:
        >>> read_plain(BytesIO(b"text"), "net.pth")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: net.pth is damaged, or no file of plain containers and tensors
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes break the unpickler in any way, IndexError included
        raise InputError(
            f"{source} is damaged, or no file of plain containers and tensors"
        ) from error


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that hold NaN or an infinity.

    Args:
        tensors: weights by name.
        source: what they come from, for the message.

    Raises:
        InputError: names the first entry that is not finite, and how many there are.

    Example:
        >>> check_finite({"fc.weight": torch.zeros(2)}, "net.ckpt")
    """
    broken = [key for key, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise InputError(
            f"{source} holds weights that are NaN or infinite in {len(broken)} of {len(tensors)} "
            f"entries, first in {broken[0]}; the training that wrote them diverged"
        )


def load_strictly(net: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Load finite weights that fit ``net`` key for key and shape for shape; refuse all others.

    Args:
        net: the net to fill, in place.
        state_dict: its weights.
        source: what they come from, for the message.

    Raises:
        InputError: a key is missing or unexpected, a shape differs, or a weight is not finite.

    Example:
        >>> load_strictly(nn.Linear(2, 3, bias=False), {"weight": torch.zeros(3, 2)}, "x.ckpt")
        >>> load_strictly(nn.Linear(2, 3, bias=False), {"weight": torch.zeros(3, 4)}, "x.ckpt")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: x.ckpt holds the weights of another architecture than its \
net: 0 keys missing, 0 unexpected, 1 of another shape; first: weight has shape (3, 4), \
expected (3, 2)
    """
    expected = net.state_dict()
    missing = [key for key in expected if key not in state_dict]
    unexpected = [key for key in state_dict if key not in expected]
    reshaped = [
        key
        for key, tensor in expected.items()
        if key in state_dict and state_dict[key].shape != tensor.shape
    ]
    if missing or unexpected or reshaped:
        if missing:
            first = f"{missing[0]} is missing"
        elif unexpected:
            first = f"{unexpected[0]} is not part of the net"
        else:
            found, right = state_dict[reshaped[0]].shape, expected[reshaped[0]].shape
            first = f"{reshaped[0]} has shape {tuple(found)}, expected {tuple(right)}"
        raise InputError(
            f"{source} holds the weights of another architecture than its net: {len(missing)} "
            f"keys missing, {len(unexpected)} unexpected, {len(reshaped)} of another shape; "
            f"first: {first}"
        )
    check_finite(state_dict, source)
    net.load_state_dict(dict(state_dict))


def tensors_of(value: object, source: str) -> dict[str, Tensor]:
    """Refuse whatever is no state dict: a mapping from names to tensors.

    Raises:
        InputError: ``value`` is no mapping, or holds something else than tensors.

    Example:
        >>> list(tensors_of({"weight": torch.zeros(2)}, "net.pth"))
        ['weight']
    """
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"{source} holds no state dict, but {type(value).__name__}")
    for key, tensor in value.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise InputError(
                f"{source} holds no state dict: {key!r} is of type {type(tensor).__name__}, "
                "expected a tensor"
            )
    return dict(value)
