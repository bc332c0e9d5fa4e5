"""MNIST in torchvision's layout: ``root/MNIST/raw``."""

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from sztrain.data.augment import CropFlip
from sztrain.data.base import ImageDataModule, Options
from sztrain.data.files import Official, check_files, damaged, download_into
from sztrain.data.samples import Samples, TensorSamples

# Checksums of the unpacked files; those published are of the gzip files.
_OFFICIALS = {
    "train-images-idx3-ubyte": Official("6bbc9ace898e44ae57da46a324031adb", 47_040_016),
    "train-labels-idx1-ubyte": Official("a25bea736e30d166cdddb491f175f624", 60_008),
    "t10k-images-idx3-ubyte": Official("2646ac647ad5339dbf082846283269ea", 7_840_016),
    "t10k-labels-idx1-ubyte": Official("27ae3e4e09519cfbb04c329615203637", 10_008),
}


class MNIST(ImageDataModule):
    """60,000 training and 10,000 test images, grey, 28x28, of ten digits.

    Args:
        augment: shift training images by up to two pixels.
        num_classes: number of logits of the net.
        in_channels: 1.
        **options: see `ImageDataModule`.

    Reference:
        LeCun, Bottou, Bengio and Haffner, Proceedings of the IEEE 86(11), 1998.

    Example:
        >>> MNIST(root="nowhere").setup()
        Traceback (most recent call last):
        ...
        sztrain.errors.UnavailableError: MNIST is not on disk: expected ...
    """

    name = "mnist"
    fixed_shape = (1, 28, 28)

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
    def folder(self) -> Path:
        """Where the four files lie."""
        return self.root / "MNIST" / "raw"

    def prepare_data(self) -> None:
        """Download what is missing, where ``download`` allows it.

        Raises:
            InputError: the download failed.
        """
        if self.download and not all((self.folder / name).is_file() for name in _OFFICIALS):
            download_into(
                self.root, lambda: datasets.MNIST(str(self.root), download=True), title="MNIST"
            )

    def load(self) -> tuple[Samples, Samples]:
        """Read the training samples and the test samples.

        Raises:
            InputError: a file is missing or damaged.
        """
        check_files(self.folder, _OFFICIALS, title="MNIST")
        return self._read("train", self.augment), self._read("t10k", augment=False)

    def _read(self, prefix: str, augment: bool) -> TensorSamples:
        path = self.folder / f"{prefix}-images-idx3-ubyte"
        images = _read(path, read_image_file)
        labels = _read(self.folder / f"{prefix}-labels-idx1-ubyte", read_label_file)
        if images.shape[1:] != (28, 28):
            raise damaged(path, f"its images are of shape {tuple(images.shape[1:])}, not (28, 28)")
        return TensorSamples(
            images=images.unsqueeze(1),
            labels=labels,
            scale=255,
            augmentation=CropFlip(padding=2, flip=False) if augment else None,
        )


def _read(path: Path, reader: Callable[[str], Tensor]) -> Tensor:
    try:
        return reader(str(path))
    # What torchvision's readers raise on a file that is cut short or of another kind.
    except (AssertionError, IndexError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise damaged(path, "it is cut short or no IDX file of bytes") from error
