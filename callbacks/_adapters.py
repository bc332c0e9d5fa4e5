"""What stands between someone's Lightning module and an attack: how it is called and answers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sztrain.callbacks._image_space import ImageSpace
from sztrain.errors import InputError
from sztrain.evaluation.batches import described, named_tensor

LOGIT_NAMES = ("logits", "out")

ForwardHook = Callable[[Any, Tensor], Any]
LogitsHook = Callable[[Any], Tensor]


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
    named = named_tensor(output, LOGIT_NAMES)
    if named is not None:
        return named
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    raise InputError(
        "expected forward to return logits, or something that begins with them or names them "
        f"(logits, out), got {described(output)}; give SparseRobustness logits=, a function from "
        "what forward returns to the logits"
    )


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
            raise InputError(f"expected `logits` to return a tensor, got {described(logits)}")
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
