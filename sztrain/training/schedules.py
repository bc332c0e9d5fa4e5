"""Learning-rate schedules over a whole run, stepped after each optimizer step."""

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR

from sztrain.errors import InputError


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.0) -> LambdaLR:
    """Linear rise over the first ``warmup`` share of the run, then half a cosine down to 0.

    Args:
        optimizer: whose learning rate is the peak.
        total_steps: optimizer steps of the run.
        warmup: share of the run in [0, 1).

    Raises:
        InputError: ``warmup`` is outside [0, 1).

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> scheduler = cosine(optimizer, total_steps=10)
        >>> scheduler.get_last_lr()
        [1.0]
    """
    if not 0 <= warmup < 1:
        raise InputError(f"expected `warmup` to be in [0, 1), got {warmup}")
    rise = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return (1 + math.cos(math.pi * (step - rise) / max(total_steps - rise, 1))) / 2

    return LambdaLR(optimizer, factor)


def multistep(
    optimizer: Optimizer,
    total_steps: int,
    milestones: Sequence[float] = (0.25, 0.75),
    gamma: float = 0.1,
) -> MultiStepLR:
    """Multiply the learning rate by ``gamma`` at each milestone.

    Args:
        optimizer: whose learning rate is multiplied.
        total_steps: optimizer steps of the run.
        milestones: shares of the run in (0, 1).
        gamma: factor.

    Raises:
        InputError: a milestone is outside (0, 1).

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> sorted(multistep(optimizer, total_steps=100).milestones)
        [25, 75]
    """
    for milestone in milestones:
        if not (isinstance(milestone, int | float) and 0 < milestone < 1):
            raise InputError(f"expected `milestones` to be in (0, 1), got {milestone!r}")
    return MultiStepLR(optimizer, [round(m * total_steps) for m in milestones], gamma=gamma)
