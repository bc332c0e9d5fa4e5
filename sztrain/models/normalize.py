"""Normalisation as a layer: nets take images in [0, 1], and nothing else knows a mean."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sztrain.errors import InputError
from sztrain.models._checks import is_number


class Normalize(nn.Module):
    r"""Shift and scale each channel, :math:`(x - \mu_c) / s_c`.

    The two buffers move with the net and are not part of its state dict: a published state dict
    loads strictly into a net that normalises.

    Args:
        mean: one number a channel, in units of [0, 1].
        std: one positive number a channel.

    Shape:
        Inputs ``(N, C, H, W)``; the output has the same shape.

    Raises:
        InputError: the lengths differ, a number is not finite, or a deviation is not positive.

    Example:
        >>> Normalize([0.5], [0.25])(torch.ones(1, 1, 1, 1)).item()
        2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        _check(mean, std)
        self.register_buffer("mean", torch.tensor(mean).float().view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).float().view(-1, 1, 1), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise ``inputs`` of shape ``(N, C, H, W)``.

        Raises:
            InputError: another number of channels, over which the numbers would be spread.
        """
        if inputs.shape[-3] != len(self.mean):
            raise InputError(
                f"expected inputs of {len(self.mean)} channels, one for each number of `mean`, "
                f"got {inputs.shape[-3]}"
            )
        return (inputs - self.mean) / self.std

    def extra_repr(self) -> str:
        """The numbers, for ``print(net)``."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def _check(mean: Sequence[float], std: Sequence[float]) -> None:
    for name, values in (("mean", mean), ("std", std)):
        listed = isinstance(values, Sequence) and not isinstance(values, str)
        if not listed or not values or not all(is_number(value) for value in values):
            raise InputError(
                f"expected `{name}` to be a list of one number a channel, got {values}"
            )
    if len(mean) != len(std):
        raise InputError(
            f"expected `mean` and `std` to be equally long, got {len(mean)} and {len(std)} numbers"
        )
    if min(std) <= 0:
        raise InputError(f"expected every number of `std` to be above 0, got {list(std)}")


def normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None, in_channels: int
) -> nn.Module:
    """The first layer of a net: :class:`Normalize`, or the identity without ``mean`` and ``std``.

    Neither has entries in the state dict, so a net's keys are the same with and without it.

    Args:
        mean: one number a channel, or ``None``.
        std: one positive number a channel, or ``None``.
        in_channels: channels of the images.

    Raises:
        InputError: only one of the two is given, or not one number a channel.

    Example:
        >>> normalization(None, None, in_channels=3)
        Identity()
        >>> normalization([0.5], [0.25], in_channels=1)
        Normalize(mean=[0.5], std=[0.25])
    """
    if mean is None and std is None:
        return nn.Identity()
    if mean is None or std is None:
        given, absent = ("std", "mean") if mean is None else ("mean", "std")
        raise InputError(f"expected `mean` and `std` together, got `{given}` without `{absent}`")
    layer = Normalize(mean, std)
    if len(mean) != in_channels:
        raise InputError(
            f"expected `mean` and `std` to have one number for each of {in_channels} channels, "
            f"got {len(mean)}"
        )
    return layer


def normalized(
    net: nn.Module,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    in_channels: int,
) -> nn.Module:
    """Put normalisation in front of a net that has no place for it, such as another library's.

    Args:
        net: maps normalised images to logits.
        mean: one number a channel, or ``None``.
        std: one positive number a channel, or ``None``.
        in_channels: channels of the images.

    Returns:
        ``net`` itself without ``mean`` and ``std``; else a sequence of the layers ``normalize``
        and ``net`` (so the keys of its state dict start with ``net.``).

    Raises:
        InputError: see :func:`normalization`.

    Example:
        >>> net = nn.Flatten()
        >>> normalized(net, None, None, in_channels=1) is net
        True
        >>> normalized(net, [0.5], [0.5], in_channels=1)(torch.ones(1, 1, 1, 2))
        tensor([[1., 1.]])
    """
    layer = normalization(mean, std, in_channels)
    if isinstance(layer, nn.Identity):
        return net
    return nn.Sequential(OrderedDict(normalize=layer, net=net))
