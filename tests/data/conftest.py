import random

import cifar_files as written_files
import numpy as np
import pytest
import torch

from sztrain.data import ImageDataModule
from sztrain.data.augment import CropFlip
from sztrain.data.samples import TensorSamples
from sztrain.evaluation.identity import data_digest


class Toy(ImageDataModule):
    """Image i of the training samples has the value (i + 1) / 64 everywhere."""

    name = "toy"

    def __init__(self, *, num_samples=40, augment=False, labels=None, **options):
        options = {"num_classes": 4, "in_channels": 1, "batch_size": 8} | options
        super().__init__(**options)
        self.num_samples = num_samples
        self.augment = augment
        self.labels = labels

    def load(self):
        values = (torch.arange(self.num_samples) + 1) / 64
        images = values[:, None, None, None].expand(-1, 1, 6, 6).contiguous()
        labels = torch.arange(self.num_samples) % 4 if self.labels is None else self.labels
        augmentation = CropFlip(padding=2) if self.augment else None
        train = TensorSamples(images=images, labels=labels, scale=1, augmentation=augmentation)
        return train, TensorSamples(images=1 - images[:13], labels=labels[:13], scale=1)


@pytest.fixture
def toy():
    return Toy


@pytest.fixture
def fingerprint():
    """What tells the samples of a part and their order apart."""

    def of(data, split):
        samples = data.part(split).samples
        return data_digest([(samples.read(torch.arange(len(samples.labels))), samples.labels)])

    return of


@pytest.fixture
def cifar_files():
    return written_files


@pytest.fixture
def rng_untouched():
    """Fails the test that uses it when a global random state was moved."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    after = np.random.get_state()
    assert before[1][2:] == after[2:]
    assert (before[1][1] == after[1]).all()
    assert before[2] == random.getstate()
