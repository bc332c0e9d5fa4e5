"""CIFAR-10 and CIFAR-100 in the layout of their Python version."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torchvision import datasets

from sztrain.data.augment import CropFlip
from sztrain.data.base import ImageDataModule, Options
from sztrain.data.files import Official, check_files, damaged, download_into
from sztrain.data.samples import Samples, TensorSamples

_ARRAY_PARTS = {
    (module, name)
    for core in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{core}.multiarray", "_reconstruct"),
        (f"{core}.multiarray", "scalar"),
        (f"{core}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads containers and arrays; a pickle that asks for anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which image data never does"
            )
        return super().find_class(module, name)


def read_batch(path: Path, label_key: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Read one file of CIFAR's Python version; no code in it is run.

    Args:
        path: the file, a pickled dictionary.
        label_key: entry that holds the labels.

    Returns:
        Images, uint8 ``(N, 3, 32, 32)``, and labels, int64 ``(N,)``.

    Raises:
        InputError: the file is cut short or holds something else.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
        # Writers in Python 3 may have kept the keys as bytes.
        entries = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
        rows, labels = np.asarray(entries["data"]), np.asarray(entries[label_key], dtype=np.int64)
    except KeyError as error:
        raise damaged(path, f"it has no entry {error}") from error
    # A damaged pickle can end in nearly any error; none of them is a fault of this program.
    except Exception as error:
        raise damaged(path, error) from error
    if rows.ndim != 2 or rows.shape[1] != 3072 or rows.dtype != np.uint8:
        raise damaged(
            path, f"expected uint8 data of shape (N, 3072), got {rows.dtype} {rows.shape}"
        )
    if labels.shape != rows.shape[:1]:
        raise damaged(path, f"it has {len(rows)} images but {labels.size} labels")
    return rows.reshape(-1, 3, 32, 32), labels


class CIFAR10(ImageDataModule):
    """50,000 training and 10,000 test images, colour, 32x32, of ten classes.

    Files with the official size must have the official checksum. Files of another size that hold
    images in the same format (a subset, or images made for a test) are used with a warning.

    Args:
        augment: crop training images at random after padding them by 4, and mirror every second.
        num_classes: number of logits of the net.
        in_channels: 3.
        **options: see `ImageDataModule`.

    Reference:
        Krizhevsky, Learning multiple layers of features from tiny images, 2009;
        https://www.cs.toronto.edu/~kriz/cifar.html.

    Example:
        >>> CIFAR10(root="nowhere").setup()
        Traceback (most recent call last):
        ...
        sztrain.errors.UnavailableError: CIFAR-10 is not on disk: expected data_batch_1, ...
    """

    name = "cifar10"
    title: ClassVar[str] = "CIFAR-10"
    fixed_shape = (3, 32, 32)
    label_key: ClassVar[str] = "labels"
    source: ClassVar[Any] = datasets.CIFAR10
    sizes: ClassVar[Mapping[str, int]] = {
        "data_batch_1": 31_035_704,
        "data_batch_2": 31_035_320,
        "data_batch_3": 31_035_999,
        "data_batch_4": 31_035_696,
        "data_batch_5": 31_035_623,
        "test_batch": 31_035_526,
    }

    def __init__(
        self,
        *,
        augment: bool = True,
        num_classes: int = 10,
        in_channels: int = 3,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels, **options)
        self.augment = augment

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.root / str(self.source.base_folder)

    def prepare_data(self) -> None:
        """Download what is missing, where ``download`` allows it.

        Raises:
            InputError: the download failed.
        """
        if self.download and not all((self.folder / name).is_file() for name in self._officials()):
            download_into(
                self.root, lambda: self.source(str(self.root), download=True), title=self.title
            )

    def load(self) -> tuple[Samples, Samples]:
        """Read the training samples and the test samples.

        Raises:
            InputError: a file is missing or damaged.
        """
        check_files(self.folder, self._officials(), title=self.title)
        train = self._read([name for name, _ in self.source.train_list], self.augment)
        return train, self._read([name for name, _ in self.source.test_list], augment=False)

    def _officials(self) -> dict[str, Official]:
        listed = [*self.source.train_list, *self.source.test_list]
        return {name: Official(md5, self.sizes.get(name)) for name, md5 in listed}

    def _read(self, names: list[str], augment: bool) -> TensorSamples:
        batches = [read_batch(self.folder / name, self.label_key) for name in names]
        return TensorSamples(
            images=torch.from_numpy(np.concatenate([images for images, _ in batches])),
            labels=torch.from_numpy(np.concatenate([labels for _, labels in batches])),
            scale=255,
            augmentation=CropFlip(padding=4) if augment else None,
        )


class CIFAR100(CIFAR10):
    """50,000 training and 10,000 test images, colour, 32x32, of a hundred (fine) classes.

    Takes the arguments of `CIFAR10`.

    Example:
        >>> CIFAR100().num_classes
        100
    """

    name = "cifar100"
    title = "CIFAR-100"
    label_key = "fine_labels"
    source = datasets.CIFAR100
    sizes: ClassVar[Mapping[str, int]] = {"train": 155_249_918}

    def __init__(
        self,
        *,
        augment: bool = True,
        num_classes: int = 100,
        in_channels: int = 3,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            augment=augment, num_classes=num_classes, in_channels=in_channels, **options
        )
