"""A small, quick CNN for 8x8 digits: made so that a CPU attacks and trains it in minutes."""

from collections.abc import Sequence

from torch import Tensor, nn

from sztrain.errors import InputError, require_count
from sztrain.models.normalize import normalization

MIN_SIDE = 8
"""Smallest height and width, in pixels, that :class:`DigitsCNN` accepts."""


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions, two poolings, two linear layers; see :func:`digits_cnn`."""

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        width: int = 32,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        require_count("num_classes", num_classes, 2)
        require_count("in_channels", in_channels, 1)
        require_count("width", width, 1)
        self.in_channels = in_channels
        self.normalize = normalization(mean, std, in_channels)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            # 2x2 from 8x8 digits, and from every larger image too.
            nn.AdaptiveMaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(4 * 2 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, num_classes),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of ``inputs`` ``(N, in_channels, H, W)`` in [0, 1]."""
        fits = inputs.ndim == 4 and inputs.shape[1] == self.in_channels
        if not fits or min(inputs.shape[2:]) < MIN_SIDE:
            raise InputError(
                f"digits_cnn takes images of shape (N, {self.in_channels}, H, W) with H and W at "
                f"least {MIN_SIDE}, got {tuple(inputs.shape)}"
            )
        logits: Tensor = self.classifier(self.features(self.normalize(inputs)))
        return logits


def digits_cnn(
    num_classes: int = 10,
    in_channels: int = 1,
    width: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> DigitsCNN:
    """CNN for the 8x8 digits of scikit-learn: 72,842 parameters at the default width.

    Without BatchNorm, so that it gives the same logits in training and in evaluation mode.

    Args:
        num_classes: number of logits K.
        in_channels: channels C of the images.
        width: channels after the first convolution; the others have twice as many.
        mean: one number a channel for normalisation; ``None``: no normalisation.
        std: one positive number a channel; given together with ``mean``.

    Shape:
        Images ``(N, C, H, W)`` in [0, 1] with H, W >= 8; logits ``(N, K)``.

    Raises:
        InputError: an argument is out of its domain; called on images of another shape.

    Example:
        >>> import torch
        >>> digits_cnn()(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    return DigitsCNN(num_classes, in_channels, width, mean, std)
