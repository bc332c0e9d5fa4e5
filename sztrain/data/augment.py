r"""Random crops, flips and transforms that depend on (seed, epoch, sample index) and nothing else.

Random numbers come from a counter-based hash rather than from a stream, so a sample is augmented
alike whichever worker, process or batch it falls into, and after whatever went before it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def hash_counters(seed: int, epoch: int, indices: Tensor, draw: int = 0) -> npt.NDArray[np.uint64]:
    """Hash ``(seed, epoch, index, draw)`` to 64 random-looking bits, for each index.

    Args:
        seed: any integer.
        epoch: any integer.
        indices: int64 ``(N,)``.
        draw: which of several independent numbers of the same sample.

    Returns:
        uint64 ``(N,)``.

    Reference:
        The finaliser of SplitMix64, Steele, Lea and Flood, OOPSLA 2014, once for each counter.

    Example:
        >>> first = hash_counters(0, 0, torch.arange(4))
        >>> bool((first == hash_counters(0, 0, torch.arange(4))).all())
        True
        >>> bool((first == hash_counters(0, 1, torch.arange(4))).any())
        False
    """
    state = np.zeros(len(indices), dtype=np.uint64)
    counters = indices.numpy().astype(np.int64).view(np.uint64)
    for counter in (seed, epoch, draw):
        state = _mix(state ^ np.uint64(counter % 2**64))
    return _mix(state ^ counters)


def derive_seed(seed: int, epoch: int, index: int = -1, draw: int = 0) -> int:
    """Hash ``(seed, epoch, index, draw)`` to one seed that every torch generator accepts.

    Unlike ``seed + epoch`` it gives no two neighbouring seeds the same epochs.

    Example:
        >>> derive_seed(0, 1) == derive_seed(1, 0)
        False
    """
    return int(hash_counters(seed, epoch, torch.tensor([index]), draw)[0] >> np.uint64(1))


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator for a block, and put it back as it was afterwards.

    For code that takes no generator, such as torchvision's transforms. Devices are left alone.

    Example:
        >>> before = torch.get_rng_state()
        >>> with seeded_rng(3):
        ...     value = torch.rand(())
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed every accelerator as well.
        torch.default_generator.manual_seed(seed)
        yield


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """Pad with zeros, crop back to the old size at a random place, mirror every second image.

    Args:
        padding: pixels added on each side, so the largest shift, at least 0.
        flip: mirror left and right with probability one half.

    Example:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> CropFlip(padding=4)(images, seed=0, epoch=0, indices=torch.arange(2)).shape
        torch.Size([2, 3, 32, 32])
    """

    padding: int = 4
    flip: bool = True

    def __call__(self, images: Tensor, *, seed: int, epoch: int, indices: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: shape ``(N, C, H, W)``, any dtype.
            seed: seed of the training.
            epoch: number of the epoch.
            indices: which sample each image is, int64 ``(N,)``.

        Returns:
            A new tensor of the shape and dtype of ``images``.
        """
        height, width = images.shape[-2:]
        num_shifts = np.uint64(2 * self.padding + 1)
        bits = hash_counters(seed, epoch, indices)
        tops = torch.from_numpy(((bits >> np.uint64(8)) % num_shifts).astype(np.int64))
        lefts = torch.from_numpy(((bits >> np.uint64(32)) % num_shifts).astype(np.int64))
        rows = tops[:, None] + torch.arange(height)
        columns = lefts[:, None] + torch.arange(width)
        if self.flip:
            mirrored = torch.from_numpy((bits & np.uint64(1)).astype(bool))
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        padded = F.pad(images, [self.padding] * 4)
        samples = torch.arange(len(images))[:, None, None, None]
        channels = torch.arange(images.shape[1])[None, :, None, None]
        return padded[samples, channels, rows[:, None, :, None], columns[:, None, None, :]]
