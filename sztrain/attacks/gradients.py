"""The gradient that an attack follows."""

import torch
from torch import Tensor

from sztrain.errors import InputError

NO_GRADIENT = (
    "the net passes no gradient back to its inputs (it runs under no_grad, or detaches what it "
    "computes); attack one that does, or use SparseRS, which needs no gradient"
)


def input_gradient(loss: Tensor, inputs: Tensor) -> Tensor:
    """Gradient of a loss in what the net was given.

    Args:
        loss: a scalar; summed over the samples, so that they do not see each other.
        inputs: a leaf that requires a gradient.

    Raises:
        InputError: the loss does not depend on it, as where a frozen part of the net runs under
            ``no_grad``.

    Example:
        >>> x = torch.tensor([2.0], requires_grad=True)
        >>> input_gradient((x**2).sum(), x)
        tensor([4.])
    """
    (gradient,) = torch.autograd.grad(loss, inputs, allow_unused=True)
    if gradient is None:
        raise InputError(NO_GRADIENT)
    return gradient


def finite_gradient(loss: Tensor, inputs: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The same with 0 where it is no number: what overflowed says nothing, and moves nothing.

    Args:
        loss: see :func:`input_gradient`.
        inputs: see :func:`input_gradient`.
        out: where to; ``None``: a new tensor.

    Example:
        >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> finite_gradient(x.sqrt().sum(), x)
        tensor([0.0000, 0.2500])
    """
    return torch.nan_to_num(input_gradient(loss, inputs), 0, 0, 0, out=out)
