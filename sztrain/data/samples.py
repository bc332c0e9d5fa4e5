"""Where images come from: tensors in memory, or image files that are read when they are needed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sztrain.data.augment import CropFlip
from sztrain.data.loading import IndexedSample, Sample
from sztrain.errors import InputError, require_positive


class Samples(ABC):
    """Labelled images that can be read in any order.

    Attributes:
        labels: int64 ``(N,)``.
    """

    labels: Tensor

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of every image."""

    @abstractmethod
    def subset(self, indices: Tensor) -> Self:
        """The samples at ``indices``, int64 ``(M,)``."""

    @abstractmethod
    def read(self, indices: Tensor) -> Tensor:
        """Images as they are, float32 ``(M, C, H, W)`` in [0, 1]."""

    @abstractmethod
    def read_augmented(self, indices: Tensor, *, seed: int, epoch: int) -> Tensor:
        """Images as the training of that epoch sees them, float32 ``(M, C, H, W)`` in [0, 1]."""

    def check_labels(self, num_classes: int) -> None:
        """Refuse labels that the net has no logit for.

        Raises:
            InputError: a label below 0 or at least ``num_classes``.
        """
        for label in (int(self.labels.min()), int(self.labels.max())):
            if not 0 <= label < num_classes:
                raise InputError(
                    f"the data set has label {label} but num_classes={num_classes}; labels must "
                    f"lie in 0..{num_classes - 1}: set `data.num_classes` or mend the labels"
                )


@dataclass(frozen=True, kw_only=True)
class TensorSamples(Samples):
    """Images held in memory.

    Args:
        images: shape ``(N, C, H, W)``, between 0 and ``scale``; of any real dtype but uint16,
            uint32 and uint64, with which torch hardly computes.
        labels: int64 ``(N,)``.
        scale: the value that stands for 1.0.
        augmentation: what training does to an image; ``None``: nothing.

    Raises:
        InputError: no tensors, other dtypes or shapes, or an image leaves [0, ``scale``].

    Example:
        >>> images = torch.full((2, 1, 8, 8), 51, dtype=torch.uint8)
        >>> samples = TensorSamples(images=images, labels=torch.tensor([0, 1]), scale=255)
        >>> samples.read(torch.tensor([1]))[0, 0, 0, 0]
        tensor(0.2000)
    """

    images: Tensor
    labels: Tensor
    scale: float
    augmentation: CropFlip | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.images, Tensor) or not isinstance(self.labels, Tensor):
            raise InputError(
                f"expected images and labels to be tensors, got {type(self.images).__name__} and "
                f"{type(self.labels).__name__}; torch.from_numpy makes one of an array"
            )
        if (
            self.images.ndim != 4
            or 0 in self.images.shape[1:]
            or self.labels.shape != self.images.shape[:1]
        ):
            raise InputError(
                f"expected images of shape (N, C, H, W) with labels of shape (N,), got "
                f"{tuple(self.images.shape)} and {tuple(self.labels.shape)}"
            )
        if self.labels.dtype != torch.int64:
            raise InputError(
                f"expected labels to be int64, got {self.labels.dtype}; labels.long() makes them so"
            )
        self._check_values()

    def _check_values(self) -> None:
        if self.images.dtype in (torch.uint16, torch.uint32, torch.uint64):
            raise InputError(
                f"torch hardly computes with {self.images.dtype}: give images as int32 or float32"
            )
        if self.images.is_complex():
            raise InputError(f"expected images of real numbers, got {self.images.dtype}")
        require_positive("scale", self.scale)
        if len(self.images) == 0:
            return
        low, high = (value.item() / self.scale for value in self.images.aminmax())
        if not (low >= 0 and high <= 1):  # written so that NaN is refused as well
            whole = low >= 0 and not self.images.is_floating_point()
            remedy = (
                "`scale` is the value that stands for 1.0" if whole else "give them unnormalised"
            )
            raise InputError(
                f"images must lie in [0, 1], got values from {low:g} to {high:g}; {remedy}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, indices: Tensor) -> Self:
        """The samples at ``indices``, int64 ``(M,)``."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def read(self, indices: Tensor) -> Tensor:
        """Images as they are, float32 ``(M, C, H, W)`` in [0, 1]."""
        return self.images[indices].float().div_(self.scale)

    def read_augmented(self, indices: Tensor, *, seed: int, epoch: int) -> Tensor:
        """Images as the training of that epoch sees them, float32 ``(M, C, H, W)`` in [0, 1]."""
        images = self.images[indices]
        if self.augmentation is not None:
            images = self.augmentation(images, seed=seed, epoch=epoch, indices=indices)
        return images.float().div_(self.scale)


class Part(Dataset[Sample]):
    """One part (train, val or test) of a data set.

    ``part[index]`` is the plain sample; ``part[epoch, index]`` is the sample as the training of
    that epoch sees it, a function of (seed, epoch, index) alone. Whole batches are read at once.

    Args:
        samples: what to read from.
        seed: seed of the training.

    Example:
        >>> images = torch.zeros(2, 1, 8, 8)
        >>> part = Part(TensorSamples(images=images, labels=torch.tensor([0, 1]), scale=1), seed=0)
        >>> image, label = part[1]
        >>> image.shape, label
        (torch.Size([1, 8, 8]), tensor(1))
    """

    def __init__(self, samples: Samples, *, seed: int = 0) -> None:
        self.samples = samples
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples.labels)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Sample]:
        # The sampler hands out one epoch at a time, so a batch never mixes epochs.
        epochs = {key[0] if isinstance(key, tuple) else None for key in keys}
        indices = torch.tensor([key[1] if isinstance(key, tuple) else key for key in keys])
        if len(epochs) > 1:
            raise ValueError(f"a batch must be of one epoch, got {epochs}")
        (epoch,) = epochs
        if epoch is None:
            images = self.samples.read(indices)
        else:
            images = self.samples.read_augmented(indices, seed=self.seed, epoch=epoch)
        return list(zip(images.unbind(), self.samples.labels[indices].unbind(), strict=True))


class IndexedPart(Dataset[IndexedSample]):
    """A part whose samples say which they are.

    Args:
        part: what to read from.

    Example:
        >>> images = torch.zeros(2, 1, 8, 8)
        >>> part = Part(TensorSamples(images=images, labels=torch.tensor([5, 6]), scale=1), seed=0)
        >>> image, label, index = IndexedPart(part)[0, 1]
        >>> label.item(), index.item()
        (6, 1)
    """

    def __init__(self, part: Part) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: int | tuple[int, int]) -> IndexedSample:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[IndexedSample]:
        indices = torch.tensor([key[1] if isinstance(key, tuple) else key for key in keys])
        samples = self.part.__getitems__(keys)
        return [(*sample, index) for sample, index in zip(samples, indices.unbind(), strict=True)]
