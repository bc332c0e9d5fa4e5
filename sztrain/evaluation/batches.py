"""What a loader of someone else's yields: where its inputs and labels are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sztrain.errors import InputError

INPUT_NAMES = ("image", "images", "img", "imgs", "input", "inputs", "x", "pixel_values")
LABEL_NAMES = ("label", "labels", "target", "targets", "y")

BatchHook = Callable[[Any], tuple[Tensor, Tensor]]


def inputs_and_labels(batch: Any, hook: BatchHook | None = None) -> tuple[Tensor, Tensor]:
    """Take inputs and labels out of a batch.

    A mapping, a dataclass or anything else with names is looked up by name, a tuple or list by
    position, the first being the inputs and the second the labels.

    Args:
        batch: as the loader yields it.
        hook: does the same for batches of another make.

    Returns:
        Inputs ``(N, ...)`` and labels; whole numbers of another type become int64.

    Raises:
        InputError: they cannot be found.

    Example:
        >>> inputs_and_labels({"image": torch.zeros(1, 2), "label": torch.tensor([3])})[1]
        tensor([3])
    """
    found = hook(batch) if hook is not None else _found(batch)
    if (
        not isinstance(found, Sequence)
        or len(found) != 2
        or not all(isinstance(part, Tensor) for part in found)
    ):
        if hook is not None:
            raise InputError(
                "expected `batch_to_inputs` to return two tensors, inputs and labels, "
                f"got {described(found)}"
            )
        raise InputError(
            "expected batches that are pairs of inputs and labels, or that name them (image, x, "
            f"...; label, y, ...), each a tensor, got {described(batch)}; give "
            "batch_to_inputs=, a function from a batch to (inputs, labels)"
        )
    inputs, labels = found
    if not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool):
        labels = labels.long()
    return inputs, labels


def _found(batch: Any) -> tuple[Any, Any] | None:
    named = named_tensor(batch, INPUT_NAMES), named_tensor(batch, LABEL_NAMES)
    if all(part is not None for part in named):
        return named
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        return batch[0], batch[1]
    return None


def named_tensor(parts: Any, names: Sequence[str]) -> Tensor | None:
    """The first tensor that ``parts`` holds under one of these names.

    Example:
        >>> named_tensor({"y": torch.tensor([3])}, ("label", "y"))
        tensor([3])
    """
    for name in names:
        part = parts.get(name) if isinstance(parts, Mapping) else getattr(parts, name, None)
        if isinstance(part, Tensor):
            return part
    return None


def described(parts: Any) -> str:
    """What something is, for a message; of what has names, also what is no tensor.

    Example:
        >>> described((1, "a")), described({"x": torch.zeros(1), "y": [2]})
        ('tuple of int, str', 'dict of x, y (list)')
    """
    kind = type(parts).__name__
    if isinstance(parts, Mapping):
        listed = (
            str(name) if isinstance(part, Tensor) else f"{name} ({type(part).__name__})"
            for name, part in parts.items()
        )
        return f"{kind} of {', '.join(listed)}"
    if isinstance(parts, tuple | list):
        return f"{kind} of {', '.join(type(part).__name__ for part in parts)}"
    return kind
