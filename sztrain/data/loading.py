"""Samplers and the loader: what makes a training order a function of (seed, epoch) alone."""

from collections.abc import Iterable, Iterator, Sized
from itertools import chain, count
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from sztrain.data.augment import derive_seed
from sztrain.errors import InputError

T = TypeVar("T")

Sample = tuple[Tensor, Tensor]
"""One image ``(C, H, W)`` and its label ``()``; in a batch ``(N, C, H, W)`` and ``(N,)``."""

IndexedSample = tuple[Tensor, Tensor, Tensor]
"""A sample and its place in the part, ``()``; in a batch ``(N,)``."""


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Shuffled pairs (epoch, index), so that whoever reads the sample knows the epoch.

    The order is a function of (seed, epoch); the processes share it out in turn. With more than
    one process the first samples of the order fill up the last round, so that all processes take
    equally many steps. Lightning calls ``set_epoch`` and leaves a `DistributedSampler` as it is.

    Args:
        dataset: what is sampled; only its length is used.
        num_replicas: number of processes.
        rank: which of them this is.
        seed: seed of the training.

    Example:
        >>> sampler = EpochSampler(range(3), num_replicas=1, rank=0, seed=0)
        >>> sampler.set_epoch(7)
        >>> sorted(sampler)
        [(7, 0), (7, 1), (7, 2)]
    """

    def __init__(self, dataset: Sized, *, num_replicas: int, rank: int, seed: int) -> None:
        super().__init__(
            cast("Dataset[Any]", dataset), num_replicas=num_replicas, rank=rank, seed=seed
        )

    def __iter__(self) -> Iterator[tuple[int, int]]:
        num_samples = len(cast(Sized, self.dataset))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = torch.randperm(num_samples, generator=generator)
        own = torch.arange(self.rank, self.total_size, self.num_replicas) % num_samples
        return ((self.epoch, index) for index in order[own].tolist())


class ShardSampler(DistributedSampler[int]):
    """Every ``num_replicas``-th index in order: each sample goes to exactly one process.

    Unlike its parent it repeats none, so sums over all processes are those of one process.

    Example:
        >>> [list(ShardSampler(range(5), num_replicas=2, rank=rank)) for rank in (0, 1)]
        [[0, 2, 4], [1, 3]]
    """

    def __init__(self, dataset: Sized, *, num_replicas: int, rank: int) -> None:
        super().__init__(
            cast("Dataset[Any]", dataset), num_replicas=num_replicas, rank=rank, shuffle=False
        )
        self._indices = range(rank, len(dataset), num_replicas)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def even_batch_size(num_samples: int, num_replicas: int, batch_size: int) -> int:
    """Batch size near ``batch_size`` with which all shards have equally many batches.

    A process with one batch more than the others would wait for them for ever, as
    `DistributedDataParallel` shares BatchNorm's buffers in every forward pass.

    Example:
        >>> even_batch_size(8, num_replicas=2, batch_size=4), even_batch_size(9, 2, 4)
        (4, 3)

    Raises:
        InputError: some process would get no sample at all.
    """
    smallest, remainder = divmod(num_samples, num_replicas)
    if smallest == 0:
        raise InputError(
            f"{num_samples} samples cannot be shared out among {num_replicas} processes; "
            "use fewer devices or more samples"
        )
    if remainder == 0:
        return batch_size
    # Shards have `smallest` or `smallest + 1` samples: as many batches unless the size divides it.
    sizes = chain(range(batch_size, 1, -1), count(batch_size + 1))
    return next(size for size in sizes if smallest % size)


def in_one_line(batches: Iterable[T]) -> Iterator[T]:
    """What a loader yields; a worker's error, which comes wrapped in its traceback, laid bare.

    Args:
        batches: a ``DataLoader``, or what reads from one.

    Raises:
        InputError: the one line that matters.

    Example:
        >>> list(in_one_line([1, 2]))
        [1, 2]
    """
    try:
        yield from batches
    except InputError as error:
        raise InputError(str(error).strip().rpartition("InputError: ")[2]) from None


class EpochLoader(DataLoader[Any]):
    """A `DataLoader` whose workers start with the first batch that is asked for.

    On a resume Lightning makes the iterator before it sets the sampler's epoch; workers that
    began to read then would deliver epoch 0 once more.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from in_one_line(super().__iter__())
