"""What every data module shares: parts, loaders, checks and the identity of the data."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from sztrain.data.checks import check_form, check_shape, load_two, require_classes
from sztrain.data.loading import (
    EpochLoader,
    EpochSampler,
    IndexedSample,
    Sample,
    ShardSampler,
    even_batch_size,
)
from sztrain.data.samples import IndexedPart, Part, Samples
from sztrain.data.splits import first_of_seeded_order, require_fraction, stratified_split
from sztrain.errors import require_count, require_in, require_seed

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Options(TypedDict, total=False):
    """Arguments that every data module takes; see `ImageDataModule`."""

    root: str | None
    download: bool
    batch_size: int
    eval_batch_size: int | None
    num_workers: int
    seed: int
    split_seed: int
    val_fraction: float
    limit_train: int | None


def default_root() -> str:
    """The data directory: ``$SZTRAIN_DATA_DIR``, else ``data`` in the current folder.

    Example:
        >>> isinstance(default_root(), str)
        True
    """
    return os.environ.get("SZTRAIN_DATA_DIR") or "data"


class ImageDataModule(pl.LightningDataModule, ABC):
    """Batches of images in [0, 1], float32 ``(N, C, H, W)``, with labels, int64 ``(N,)``.

    Images are not normalised: that is a layer of the net. The order and the augmentation of the
    training samples are functions of (seed, epoch, index), whatever the number of workers and
    processes, and no loader touches the global random state. Under several processes the training
    part is padded to equal shares; the others are shared out without repeating a sample.

    Args:
        num_classes: number of logits of the net; ``None``: taken from the data.
        in_channels: channels C of an image.
        root: data directory; ``None``: ``$SZTRAIN_DATA_DIR``, else ``data``.
        download: fetch what is missing.
        batch_size: samples a training batch, for each process; the last batch may be smaller, and
            is left out, with a sample that is another in each epoch, where it would be of one.
        eval_batch_size: samples a validation or test batch; ``None``: ``batch_size``.
        num_workers: processes that read ahead; 0: the training process reads by itself.
        seed: seed of the order and of the augmentation.
        split_seed: seed of the cut into parts, apart from ``seed`` so that no training of another
            seed ever sees samples that this one is validated on.
        val_fraction: share of the training samples that is cut off for validation, class by class.
        limit_train: use only that many of the remaining training samples; ``None``: all.

    Attributes:
        name: name of the config group option.
        fixed_shape: shape ``(C, H, W)`` of the images where it is known without reading them.
        indexed: whether training batches hold a third part, which sample each is, int64 ``(N,)``;
            a method that needs it says so before the training.
        train_set, val_set, test_set: the parts, once ``setup`` was called.

    Raises:
        InputError: a value is out of its range; by ``setup``: data missing, damaged or unfit.
    """

    name: str
    fixed_shape: tuple[int, int, int] | None = None
    indexed: bool = False
    train_set: Part
    val_set: Part
    test_set: Part

    def __init__(
        self,
        *,
        num_classes: int | None,
        in_channels: int,
        root: str | None = None,
        download: bool = False,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        split_seed: int = 0,
        val_fraction: float = 0.1,
        limit_train: int | None = None,
    ) -> None:
        super().__init__()
        require_count("batch_size", batch_size, 1)
        require_count("eval_batch_size", 1 if eval_batch_size is None else eval_batch_size, 1)
        require_count("num_workers", num_workers, 0)
        require_count("num_classes", 2 if num_classes is None else num_classes, 2)
        require_count("limit_train", 1 if limit_train is None else limit_train, 1)
        require_fraction("val_fraction", val_fraction)
        for key, value in (("seed", seed), ("split_seed", split_seed)):
            require_seed(key, value)
        self._num_classes = num_classes
        self.in_channels = in_channels
        self.root = Path(root if root is not None else default_root()).expanduser()
        self.download = download
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.split_seed = split_seed
        self.val_fraction = val_fraction
        self.limit_train = limit_train

    @abstractmethod
    def load(self) -> tuple[Samples, Samples]:
        """Read the training samples (validation not yet cut off) and the test samples.

        Raises:
            InputError: the data is missing or damaged.
        """

    @property
    def num_classes(self) -> int:
        """Number of classes; taken from the data, it is known once ``setup`` was called."""
        if self._num_classes is None:
            self.setup()
        assert self._num_classes is not None
        return self._num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of every image; where it depends on the data, ``setup`` is called."""
        return self.fixed_shape or self.part("test").samples.image_shape

    @property
    def cuts_test(self) -> bool:
        """Whether the test part is cut off with ``split_seed``, as where a data set has none."""
        return False

    def part(self, split: Split) -> Part:
        """One part of the data; calls ``setup`` where it was not called yet.

        Raises:
            InputError: there is no such part, or the data cannot be read.
        """
        require_in("split", split, SPLITS)
        self.setup()
        return {"train": self.train_set, "val": self.val_set, "test": self.test_set}[split]

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - all parts are cheap
        """Read and check the data and cut it into parts; a second call does nothing.

        Raises:
            InputError: the data is missing, damaged or does not fit the arguments.
        """
        if hasattr(self, "test_set"):
            return
        if self.trainer is None:
            self.prepare_data()  # a Trainer has called it already, in one process only
        train, test = load_two(type(self).__name__, self.load)
        self._check(train, test)
        stays, cut = stratified_split(train.labels, self.val_fraction, self.split_seed)
        if self.limit_train is not None:
            first = first_of_seeded_order(len(stays), self.limit_train, self.split_seed)
            stays = stays[first]
        self.train_set = Part(train.subset(stays), seed=self.seed)
        self.val_set = Part(train.subset(cut), seed=self.seed)
        self.test_set = Part(test, seed=self.seed)

    def _check(self, train: Samples, test: Samples) -> None:
        owner = type(self).__name__
        for part, samples in (("training", train), ("test", test)):
            check_form(f"the {part} part of {owner}", samples)
        if self._num_classes is None:
            self._num_classes = int(train.labels.max()) + 1
        require_classes(owner, self._num_classes)
        for samples in (train, test):
            samples.check_labels(self._num_classes)
            check_shape(owner, samples.image_shape, self.in_channels, self.fixed_shape)
        check_shape(owner, test.image_shape, self.in_channels, train.image_shape)

    def train_dataloader(self) -> DataLoader[Sample] | DataLoader[IndexedSample]:
        """Shuffled, augmented batches; ``set_epoch`` of the sampler chooses the epoch."""
        part = self.part("train")
        num_replicas, rank = self._world()
        sampler = EpochSampler(part, num_replicas=num_replicas, rank=rank, seed=self.seed)
        samples = IndexedPart(part) if self.indexed else part
        # Where a map is down to 1x1, BatchNorm has no variance of one sample.
        leaves_one = len(sampler) > self.batch_size > 1 == len(sampler) % self.batch_size
        return self._loader(samples, self.batch_size, sampler, drop_last=leaves_one)

    def val_dataloader(self) -> DataLoader[Sample]:
        """All validation samples, in order."""
        return self._eval_loader(self.part("val"))

    def test_dataloader(self) -> DataLoader[Sample]:
        """All test samples, in order."""
        return self._eval_loader(self.part("test"))

    def _world(self) -> tuple[int, int]:
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def _eval_loader(self, part: Part) -> DataLoader[Sample]:
        num_replicas, rank = self._world()
        if num_replicas == 1:
            return self._loader(part, self.eval_batch_size, None)
        batch_size = even_batch_size(len(part), num_replicas, self.eval_batch_size)
        sampler = ShardSampler(part, num_replicas=num_replicas, rank=rank)
        return self._loader(part, batch_size, sampler)

    def _loader(
        self,
        part: Part | IndexedPart,
        batch_size: int,
        sampler: EpochSampler | ShardSampler | None,
        *,
        drop_last: bool = False,
    ) -> DataLoader[Any]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return EpochLoader(
            part,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=on_gpu,
            # Its own generator: without one, every new iterator draws from the global state.
            generator=torch.Generator().manual_seed(self.seed),
        )
