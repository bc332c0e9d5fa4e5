"""Wide residual networks for 32x32 images."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from sztrain.errors import InputError, require_count
from sztrain.models._checks import require_probability
from sztrain.models.normalize import normalization


class WideBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, dropout in between, and a shortcut around them.

    Fig. 1(d) and Sect. 2.4 of `arXiv:1605.07146 <https://arxiv.org/abs/1605.07146>`_. Where the
    shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        # Spelt as in published state dicts, so that they load strictly.
        self.convShortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        activated = F.relu(self.bn1(inputs))
        shortcut = inputs if self.convShortcut is None else self.convShortcut(activated)
        hidden = self.dropout(F.relu(self.bn2(self.conv1(activated))))
        residual: Tensor = self.conv2(hidden)
        return shortcut + residual


class WideStage(nn.Module):
    """Blocks of one width; the first one changes width and resolution."""

    def __init__(
        self, num_blocks: int, in_channels: int, out_channels: int, stride: int, dropout: float
    ) -> None:
        super().__init__()
        first = WideBlock(in_channels, out_channels, stride, dropout)
        others = (WideBlock(out_channels, out_channels, 1, dropout) for _ in range(num_blocks - 1))
        self.layer = nn.Sequential(first, *others)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        outputs: Tensor = self.layer(inputs)
        return outputs


class WideResNet(nn.Module):
    """Table 1 of `arXiv:1605.07146 <https://arxiv.org/abs/1605.07146>`_; see :func:`wrn28`."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        depth: int = 28,
        width: int = 10,
        dropout: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        require_count("num_classes", num_classes, 2)
        require_count("in_channels", in_channels, 1)
        require_count("width", width, 1)
        require_probability("dropout", dropout)
        require_count("depth", depth, 10)
        if (depth - 4) % 6:
            raise InputError(f"expected `depth` to be 6n + 4 (10, 16, 22, 28, ...), got {depth}")
        num_blocks = (depth - 4) // 6
        channels = [16, 16 * width, 32 * width, 64 * width]
        self.normalize = normalization(mean, std, in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels[0], 3, padding=1, bias=False)
        self.block1 = WideStage(num_blocks, channels[0], channels[1], 1, dropout)
        self.block2 = WideStage(num_blocks, channels[1], channels[2], 2, dropout)
        self.block3 = WideStage(num_blocks, channels[2], channels[3], 2, dropout)
        self.bn1 = nn.BatchNorm2d(channels[3])
        self.fc = nn.Linear(channels[3], num_classes)
        _initialize(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of ``inputs`` ``(N, in_channels, H, W)`` in [0, 1]."""
        hidden = self.conv1(self.normalize(inputs))
        hidden = self.block3(self.block2(self.block1(hidden)))
        hidden = F.relu(self.bn1(hidden))
        logits: Tensor = self.fc(hidden.mean(dim=(2, 3)))
        return logits


def _initialize(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def wrn28(
    num_classes: int,
    in_channels: int = 3,
    depth: int = 28,
    width: int = 10,
    dropout: float = 0.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> WideResNet:
    """WideResNet-28-10: 36,479,194 parameters for CIFAR-10.

    Args:
        num_classes: number of logits K.
        in_channels: channels C of the images.
        depth: number of convolutions, 6n + 4 with n blocks a stage.
        width: widening factor; the stages have 16, 32, 64 channels times this.
        dropout: probability of dropping an activation between the two convolutions of a block.
        mean: one number a channel for normalisation; ``None``: no normalisation.
        std: one positive number a channel; given together with ``mean``.

    Shape:
        Images ``(N, C, H, W)`` in [0, 1], usually 32x32; logits ``(N, K)``.

    Raises:
        InputError: an argument is out of its domain.

    Reference:
        `arXiv:1605.07146 <https://arxiv.org/abs/1605.07146>`_, Table 1 and Sect. 2.

    Example:
        >>> import torch
        >>> wrn28(10, depth=10, width=1)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    return WideResNet(num_classes, in_channels, depth, width, dropout, mean, std)
