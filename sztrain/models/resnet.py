"""torchvision's ResNet-18, with a stem for small images where they are small."""

from collections.abc import Sequence
from typing import Literal, cast

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.models.resnet import ResNet as TorchvisionResNet

from sztrain.errors import require_count, require_in
from sztrain.models.normalize import normalization

Stem = Literal["cifar", "imagenet"]
"""First layers: a 3x3 convolution without pooling, or a 7x7 one with stride 2 and max pooling."""


class ResNet18(TorchvisionResNet):
    """torchvision's ResNet-18 behind a normalisation layer; see :func:`resnet18`."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        stem: Stem = "cifar",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        require_count("num_classes", num_classes, 2)
        require_count("in_channels", in_channels, 1)
        require_in("stem", stem, ("cifar", "imagenet"))
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        self.normalize = normalization(mean, std, in_channels)
        if stem == "cifar":
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        # As torchvision initialises every convolution of its own.
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of ``inputs`` ``(N, in_channels, H, W)`` in [0, 1]."""
        return cast(Tensor, super().forward(self.normalize(inputs)))


def resnet18(
    num_classes: int,
    in_channels: int = 3,
    stem: Stem = "cifar",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ResNet18:
    """ResNet-18: 11,173,962 parameters for CIFAR-10, 11,689,512 for ImageNet.

    Layer names are torchvision's: its published state dict loads strictly with
    ``stem="imagenet"`` and 1000 classes.

    Args:
        num_classes: number of logits K.
        in_channels: channels C of the images.
        stem: ``cifar`` for images of about 32x32, ``imagenet`` for about 224x224.
        mean: one number a channel for normalisation; ``None``: no normalisation.
        std: one positive number a channel; given together with ``mean``.

    Shape:
        Images ``(N, C, H, W)`` in [0, 1]; logits ``(N, K)``.

    Raises:
        InputError: an argument is out of its domain.

    Reference:
        `arXiv:1512.03385 <https://arxiv.org/abs/1512.03385>`_, Table 1 (18 layers). The small stem
        follows its Sect. 4.2; widths and depth stay those of the ImageNet net.

    Example:
        >>> import torch
        >>> resnet18(10)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    return ResNet18(num_classes, in_channels, stem, mean, std)
