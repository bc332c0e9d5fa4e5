r"""The l0 norm in its two units, and projections onto l0 balls and onto the box of images."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from sztrain.errors import InputError, require_count, require_in
from sztrain.types import UNITS, Unit


def magnitudes(delta: Tensor, unit: Unit) -> Tensor:
    """How far each unit was moved: ``|δ|`` per feature, its maximum over channels per pixel.

    Args:
        delta: differences, shape ``(N, ...)``; for pixels ``(N, C, H, W)``.
        unit: what to count.

    Returns:
        ``(N, C, H, W)`` for features, ``(N, 1, H, W)`` for pixels.

    Raises:
        InputError: ``unit`` is unknown.

    Example:
        >>> delta = torch.tensor([[[[0.5]], [[-1.0]]]])  # one pixel, two channels
        >>> magnitudes(delta, "pixels").flatten().tolist()
        [1.0]
        >>> magnitudes(delta, "features").flatten().tolist()
        [0.5, 1.0]
    """
    require_in("unit", unit, UNITS)
    return delta.abs() if unit == "features" else delta.abs().amax(dim=1, keepdim=True)


def l0_norm(delta: Tensor, unit: Unit = "features") -> Tensor:
    r"""Number of changed units of each sample, :math:`\|\delta\|_0`.

    Args:
        delta: differences, shape ``(N, ...)``; for pixels ``(N, C, H, W)``.
        unit: what to count.

    Returns:
        float32 tensor of shape ``(N,)`` (float, so that it can also be inf).

    Raises:
        InputError: ``unit`` is unknown.

    Example:
        >>> delta = torch.zeros(1, 3, 2, 2)
        >>> delta[0, :, 0, 0] = 0.1
        >>> l0_norm(delta, "features").item(), l0_norm(delta, "pixels").item()
        (3.0, 1.0)
    """
    # By arithmetic: a CPU takes several times as long over `!=`.
    return magnitudes(delta, unit).sign_().flatten(1).sum(dim=1, dtype=torch.float32)


def num_changed_windows(delta: Tensor, size: int = 8) -> Tensor:
    r"""Number of windows in which some pixel was changed, :math:`d_{2,0}(\delta)`.

    .. math:: d_{2,0}(\delta) = |\{i : \|\delta_{G_i}\|_2 \ne 0\}|

    over all overlapping windows :math:`G_i` of ``size`` times ``size`` pixels inside the image:
    pixels side by side count far less than as many that are scattered.

    Args:
        delta: differences of images, shape ``(N, C, H, W)``.
        size: pixels a side, at most H and W.

    Returns:
        float32 tensor of shape ``(N,)``, from 0 to ``(H - size + 1) * (W - size + 1)``.

    Raises:
        InputError: ``size`` is below 1, larger than an image, or no whole number.

    Reference:
        Measure of group-wise sparsity in `arXiv:2311.17434 <https://arxiv.org/abs/2311.17434>`_.

    Example:
        >>> delta = torch.zeros(1, 3, 32, 32)
        >>> delta[0, :, 0, 0] = 0.1  # a corner lies in one window
        >>> delta[0, 1, 16, 16] = 0.1  # and this in 64
        >>> num_changed_windows(delta)
        tensor([65.])
    """
    require_count("size", size, 1)
    height, width = delta.shape[-2:]
    if size > min(height, width):
        raise InputError(
            f"expected `size` to be at most {min(height, width)}, images being {height} x {width} "
            f"pixels, got {size}"
        )
    changed = magnitudes(delta, "pixels").sign().float()
    return F.max_pool2d(changed, size, stride=1).flatten(1).sum(dim=1)


def num_units(shape: torch.Size | tuple[int, ...], unit: Unit) -> int:
    """How many units one sample has: the largest l0 possible.

    Args:
        shape: shape of one sample without the batch dimension.
        unit: what to count.

    Raises:
        InputError: pixels were asked of something that is not an image ``(C, H, W)``, or ``unit``
            is unknown.

    Example:
        >>> num_units((3, 32, 32), "features"), num_units((3, 32, 32), "pixels")
        (3072, 1024)
    """
    require_in("unit", unit, UNITS)
    if unit == "pixels":
        if len(shape) != 3:
            raise InputError(
                "unit=pixels needs images of shape (N, C, H, W), "
                f"got samples of shape {tuple(shape)}; use unit=features"
            )
        return shape[1] * shape[2]
    return int(torch.Size(shape).numel())


def check_budgets(
    name: str, budgets: Iterable[int | None], shape: torch.Size | tuple[int, ...], unit: Unit
) -> None:
    """Refuse budgets that no sample has room for.

    Args:
        name: what the message calls them.
        budgets: budgets in ``unit``; ``None`` stands for no budget.
        shape: of a sample, ``(C, H, W)``.
        unit: what is counted.

    Raises:
        InputError: no whole number from 1 to the number of units.

    Example:
        >>> check_budgets("budgets", [65], (1, 8, 8), "features")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected `budgets` to be at most 64, the features of a sample, \
got 65
    """
    size = num_units(shape, unit)
    for budget in budgets:
        if budget is None:
            continue
        require_count(name, budget, 1)
        if budget > size:
            raise InputError(
                f"expected `{name}` to be at most {size}, the {unit} of a sample, got {budget}"
            )


def project_l0(delta: Tensor, budget: int, unit: Unit = "features") -> Tensor:
    r"""Nearest point of the l0 ball: keep the ``budget`` largest changes, zero the others.

    .. math:: \operatorname*{arg\,min}_{\|\delta'\|_0 \le k} \|\delta' - \delta\|_2

    A pixel's change is as large as the l2 norm over its channels. Never more than ``budget`` units
    survive, also where magnitudes tie (the earlier one wins).

    Args:
        delta: differences, shape ``(N, ...)``; for pixels ``(N, C, H, W)``.
        budget: number of units k that may stay, at least 0.
        unit: what to count.

    Returns:
        A new tensor of the shape of ``delta``.

    Raises:
        InputError: ``budget`` is negative or no whole number, or ``unit`` is unknown.

    Example:
        >>> project_l0(torch.tensor([[0.3, -0.5, 0.1, 0.5]]), budget=2)
        tensor([[ 0.0000, -0.5000,  0.0000,  0.5000]])
    """
    require_in("unit", unit, UNITS)
    require_count("budget", budget, 0)
    pixels = unit == "pixels"
    size = torch.linalg.vector_norm(delta, dim=1, keepdim=True) if pixels else delta.abs()
    flat = size.flatten(1)
    if budget >= flat.shape[1]:
        return delta.clone()
    order = flat.sort(dim=1, descending=True, stable=True).indices
    keep = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order[:, :budget], True)
    return torch.where(keep.view_as(size), delta, torch.zeros_like(delta))


def clamp_to_box_(delta: Tensor, inputs: Tensor) -> Tensor:
    """Clip ``inputs + delta`` to [0, 1], in the memory of ``delta``.

    Example:
        >>> clamp_to_box_(torch.tensor([0.5, -0.5]), torch.tensor([0.75, 0.75]))
        tensor([ 0.2500, -0.5000])
    """
    return delta.add_(inputs).clamp_(0, 1).sub_(inputs)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """View ``values``, shape ``(N,)``, to broadcast against ``like``, shape ``(N, ...)``.

    Example:
        >>> per_sample(torch.ones(5), torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 1, 1, 1])
    """
    return values.view(-1, *[1] * (like.ndim - 1))
