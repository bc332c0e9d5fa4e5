"""Pre-activation ResNet-18 for 32x32 images, with ReLU or softplus."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sztrain.errors import require_count, require_in
from sztrain.models.normalize import normalization

Activation = Literal["relu", "softplus"]
"""ReLU, or softplus with β = 1, whose gradient is nowhere exactly zero."""

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "softplus": F.softplus,
}
"""What each name of :data:`Activation` stands for."""


class PreActBlock(nn.Module):
    """BatchNorm, activation, 3x3 convolution, twice, and a shortcut around them.

    "Full pre-activation", Fig. 4(e) of `arXiv:1603.05027 <https://arxiv.org/abs/1603.05027>`_.
    Where the shape changes, the shortcut is a 1x1 convolution of the activated input; where it
    does not, it is the identity of the input as it came.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, activation: Activation
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            # In a sequence because published state dicts call this weight `shortcut.0.weight`.
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H / stride, W / stride)``."""
        activated = self.activation(self.bn1(inputs))
        shortcut = inputs if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.conv2(self.activation(self.bn2(self.conv1(activated))))
        return shortcut + residual


class PreActResNet(nn.Module):
    """A 3x3 stem, four stages of two blocks, final BatchNorm and activation, average, linear.

    The last BatchNorm and activation follow the last addition, as the appendix of
    `arXiv:1603.05027 <https://arxiv.org/abs/1603.05027>`_ asks. See :func:`preact_resnet18`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        activation: Activation = "relu",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        last_activation: Activation | None = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        require_count("num_classes", num_classes, 2)
        require_count("in_channels", in_channels, 1)
        require_count("width", width, 1)
        last_activation = last_activation or activation
        require_in("activation", activation, tuple(ACTIVATIONS))
        require_in("last_activation", last_activation, tuple(ACTIVATIONS))
        self.activation = ACTIVATIONS[last_activation]
        self.normalize = normalization(mean, std, in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.layer1 = _stage(width, width, 1, activation)
        self.layer2 = _stage(width, 2 * width, 2, activation)
        self.layer3 = _stage(2 * width, 4 * width, 2, activation)
        self.layer4 = _stage(4 * width, 8 * width, 2, activation)
        self.bn = nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of ``inputs`` ``(N, in_channels, H, W)`` in [0, 1]."""
        hidden = self.conv1(self.normalize(inputs))
        hidden = self.layer4(self.layer3(self.layer2(self.layer1(hidden))))
        hidden = self.activation(self.bn(hidden))
        logits: Tensor = self.linear(hidden.mean(dim=(2, 3)))
        return logits


def _stage(
    in_channels: int, out_channels: int, stride: int, activation: Activation
) -> nn.Sequential:
    return nn.Sequential(
        PreActBlock(in_channels, out_channels, stride, activation),
        PreActBlock(out_channels, out_channels, 1, activation),
    )


def preact_resnet18(
    num_classes: int,
    in_channels: int = 3,
    activation: Activation = "relu",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    last_activation: Activation | None = None,
    width: int = 64,
) -> PreActResNet:
    """Pre-activation ResNet-18, CIFAR style: 11,172,170 parameters for CIFAR-10.

    A widespread variant leaves out the last BatchNorm (1,024 parameters fewer) and is another net.

    Args:
        num_classes: number of logits K.
        in_channels: channels C of the images.
        activation: ``relu``, or ``softplus``, which sparse adversarial training prefers.
        mean: one number a channel for normalisation; ``None``: no normalisation.
        std: one positive number a channel; given together with ``mean``.
        last_activation: what follows the last BatchNorm; ``None``: the same as everywhere. In
            published nets with softplus it is ReLU.
        width: channels of the first stage, which double from stage to stage; below 64, the
            paper's, a net for small machines.

    Shape:
        Images ``(N, C, H, W)`` in [0, 1], usually 32x32; logits ``(N, K)``.

    Raises:
        InputError: an argument is out of its domain.

    Reference:
        `arXiv:1603.05027 <https://arxiv.org/abs/1603.05027>`_, Sect. 4 and the appendix. Layer
        names are those of published CIFAR checkpoints of this net.

    Example:
        >>> import torch
        >>> preact_resnet18(10, activation="softplus")(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    return PreActResNet(num_classes, in_channels, activation, mean, std, last_activation, width)
