"""The CNN of the paper's MNIST models M1 and M2."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from sztrain.errors import InputError, require_count
from sztrain.models.normalize import normalization


class SmallCNN(nn.Module):
    """Four unpadded 3x3 convolutions and three linear layers; see :func:`small_cnn`.

    The layers are named as in the published state dicts of M1 and M2, which load strictly.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        require_count("num_classes", num_classes, 2)
        require_count("in_channels", in_channels, 1)
        self.in_channels = in_channels
        self.normalize = normalization(mean, std, in_channels)
        self.feature_extractor = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, 32, 3),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 32, 3),
                relu2=nn.ReLU(),
                maxpool1=nn.MaxPool2d(2),
                conv3=nn.Conv2d(32, 64, 3),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(64, 64, 3),
                relu4=nn.ReLU(),
                maxpool2=nn.MaxPool2d(2),
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                fc1=nn.Linear(64 * 4 * 4, 200),
                relu1=nn.ReLU(),
                fc2=nn.Linear(200, 200),
                relu2=nn.ReLU(),
                fc3=nn.Linear(200, num_classes),
            )
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of ``inputs`` ``(N, in_channels, 28, 28)`` in [0, 1]."""
        if inputs.shape[1:] != (self.in_channels, 28, 28):
            raise InputError(
                f"small_cnn takes images of shape (N, {self.in_channels}, 28, 28), "
                f"got {tuple(inputs.shape)}"
            )
        logits: Tensor = self.classifier(self.feature_extractor(self.normalize(inputs)))
        return logits


def small_cnn(
    num_classes: int = 10,
    in_channels: int = 1,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> SmallCNN:
    """CNN for 28x28 digits: 312,202 parameters for MNIST.

    Args:
        num_classes: number of logits K.
        in_channels: channels C of the images.
        mean: one number a channel for normalisation; ``None``: no normalisation.
        std: one positive number a channel; given together with ``mean``.

    Shape:
        Images ``(N, C, 28, 28)`` in [0, 1]; logits ``(N, K)``.

    Raises:
        InputError: an argument is out of its domain; called on images of another shape.

    Reference:
        Models M1 and M2 in Sect. III-A of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_;
        the layout is that of their published state dicts.

    Example:
        >>> import torch
        >>> small_cnn()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    return SmallCNN(num_classes, in_channels, mean, std)
