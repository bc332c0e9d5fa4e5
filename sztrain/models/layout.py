"""How a net's weights lie in memory."""

import torch
from torch import nn

from sztrain.errors import InputError


def to_channels_last(net: nn.Module) -> None:
    """Lay the weights of 2-D convolutions out in ``torch.channels_last``, in place.

    Raises:
        InputError: the net has 3-D convolutions, for which there is another layout.

    Example:
        >>> net = nn.Conv2d(2, 2, 3)
        >>> to_channels_last(net)
        >>> net.weight.is_contiguous(memory_format=torch.channels_last)
        True
    """
    for name, tensor in net.state_dict().items():
        if tensor.dim() == 5:
            raise InputError(
                f"expected a net of 2-D convolutions for channels_last, got {name} of shape "
                f"{tuple(tensor.shape)}"
            )
    net.to(memory_format=torch.channels_last)
