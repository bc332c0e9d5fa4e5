"""Handwritten digits, 8x8, that come with scikit-learn: no download, no disk."""

from typing import Unpack

import torch

from sztrain.data.augment import CropFlip
from sztrain.data.base import ImageDataModule, Options
from sztrain.data.samples import Samples, TensorSamples
from sztrain.data.splits import stratified_split


class Digits(ImageDataModule):
    """1,797 grey images of 8x8 pixels in 10 classes; values are multiples of 1/16.

    The data set has no official test part: 20 % of each class are cut off with ``split_seed``.

    Args:
        augment: shift training images by up to one pixel.
        num_classes: number of logits of the net.
        in_channels: 1.
        **options: see `ImageDataModule`; ``root`` and ``download`` have no effect.

    Reference:
        `sklearn.datasets.load_digits`, the test part of
        https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits.

    Example:
        >>> inputs, labels = next(iter(Digits(batch_size=4).train_dataloader()))
        >>> inputs.shape, labels.shape
        (torch.Size([4, 1, 8, 8]), torch.Size([4]))
    """

    name = "digits"
    fixed_shape = (1, 8, 8)

    def __init__(
        self,
        *,
        augment: bool = False,
        num_classes: int = 10,
        in_channels: int = 1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels, **options)
        self.augment = augment

    @property
    def cuts_test(self) -> bool:
        """The data set has no test part."""
        return True

    def load(self) -> tuple[Samples, Samples]:
        """Read the training samples and the test samples."""
        # Imported late: scikit-learn takes a second, and the other data sets do without it.
        from sklearn.datasets import load_digits

        data = load_digits()
        samples = TensorSamples(
            images=torch.from_numpy(data.images).to(torch.uint8).unsqueeze(1),
            labels=torch.from_numpy(data.target).long(),
            scale=16,
            augmentation=CropFlip(padding=1, flip=False) if self.augment else None,
        )
        train, test = stratified_split(samples.labels, 0.2, self.split_seed)
        return samples.subset(train), samples.subset(test)
