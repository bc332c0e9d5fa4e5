"""What stands between someone's Lightning module and an attack: its batches and its outputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sztrain.callbacks._image_space import ImageSpace
from sztrain.errors import InputError

INPUT_NAMES = ("image", "images", "img", "imgs", "input", "inputs", "x", "pixel_values")
LABEL_NAMES = ("label", "labels", "target", "targets", "y")
LOGIT_NAMES = ("logits", "out")

BatchHook = Callable[[Any], tuple[Tensor, Tensor]]
ForwardHook = Callable[[Any, Tensor], Any]
LogitsHook = Callable[[Any], Tensor]


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
                f"got {_described(found)}"
            )
        raise InputError(
            "expected batches that are pairs of inputs and labels, or that name them (image, x, "
            f"...; label, y, ...), got {_described(batch)}; give SparseRobustness "
            "batch_to_inputs=, a function from a batch to (inputs, labels)"
        )
    inputs, labels = found
    if not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool):
        labels = labels.long()
    return inputs, labels


def _found(batch: Any) -> tuple[Any, Any] | None:
    named = _named(batch, INPUT_NAMES), _named(batch, LABEL_NAMES)
    if all(part is not None for part in named):
        return named
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        return batch[0], batch[1]
    return None


def logits_of(output: Any) -> Tensor:
    """Take the logits out of what a ``forward`` returns.

    Args:
        output: the logits; or a mapping, a dataclass or the like that names them ``logits`` or
            ``out``; or a tuple or list that begins with them.

    Raises:
        InputError: they cannot be found.

    Example:
        >>> logits_of({"loss": None, "logits": torch.zeros(1, 2)})
        tensor([[0., 0.]])
    """
    if isinstance(output, Tensor):
        return output
    named = _named(output, LOGIT_NAMES)
    if named is not None:
        return named
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    raise InputError(
        "expected forward to return logits, or something that begins with them or names them "
        f"(logits, out), got {_described(output)}; give SparseRobustness logits=, a function from "
        "what forward returns to the logits"
    )


def _named(parts: Any, names: Sequence[str]) -> Tensor | None:
    """The first tensor that ``parts`` holds under one of these names."""
    for name in names:
        part = parts.get(name) if isinstance(parts, Mapping) else getattr(parts, name, None)
        if isinstance(part, Tensor):
            return part
    return None


def _described(parts: Any) -> str:
    kind = type(parts).__name__
    if isinstance(parts, Mapping):
        return f"{kind} of {', '.join(map(str, parts))}"
    if isinstance(parts, tuple | list):
        return f"{kind} of {', '.join(type(part).__name__ for part in parts)}"
    return kind


class AttackedNet(nn.Module):
    """Someone's module as attacks know a net: it maps images in [0, 1] to logits.

    Args:
        module: it stays what it is; its parts are those of this net.
        space: what the module expects in place of images.
        dtype: in which it expects that.
        forward: how to call it; ``None``: with what it expects, as its only argument.
        logits: takes the logits out of what it returns; ``None``: :func:`logits_of`.

    Example:
        >>> net = AttackedNet(nn.Flatten(), ImageSpace(box=(0, 255)))
        >>> net(torch.tensor([[0.0, 1.0]]))
        tensor([[  0., 255.]])
    """

    def __init__(
        self,
        module: nn.Module,
        space: ImageSpace,
        dtype: torch.dtype = torch.float32,
        forward: ForwardHook | None = None,
        logits: LogitsHook | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.space = space
        self.dtype = dtype
        self._call = forward
        self._logits = logits_of if logits is None else logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images ``(N, ...)``.

        Raises:
            InputError: the logits cannot be found, or gradients are wanted and cut off.
        """
        inputs = self.space.from_images(images, self.dtype)
        output = self.module(inputs) if self._call is None else self._call(self.module, inputs)
        logits = self._logits(output)
        if not isinstance(logits, Tensor):
            raise InputError(f"expected `logits` to return a tensor, got {_described(logits)}")
        if torch.is_grad_enabled() and images.requires_grad and not logits.requires_grad:
            raise InputError(
                "forward passes no gradient back to its inputs (it runs under no_grad, or detaches "
                "what it returns); give SparseRobustness forward=, a function of the module and "
                "its inputs that does not"
            )
        return logits


def require_forward(module: nn.Module, hook: ForwardHook | None) -> None:
    """Refuse a Lightning module that cannot be called.

    Raises:
        InputError: it has no ``forward`` of its own, and there is no ``hook`` either.

    Example:
        >>> require_forward(nn.Linear(2, 2), hook=None)
    """
    # By its name: pytorch_lightning and lightning.pytorch each have a class of their own.
    name = getattr(type(module).forward, "__qualname__", None)
    if hook is None and name == "LightningModule.forward":
        raise InputError(
            f"expected {type(module).__name__} to have a forward, found none; give "
            "SparseRobustness forward=, such as lambda module, inputs: module.net(inputs)"
        )
