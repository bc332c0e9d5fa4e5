"""Nets of the σ-zero paper and the images they are attacked on, where they are to be had."""

import os
from pathlib import Path

import pytest
import torch


def mnist_test_images(num_samples):
    root, weights = (os.environ.get(f"SZTRAIN_{name}_DIR") for name in ("DATA", "WEIGHTS"))
    if not (root and weights):
        pytest.skip("SZTRAIN_DATA_DIR and SZTRAIN_WEIGHTS_DIR are not set: MNIST and M1, M2 needed")
    if not (Path(root) / "MNIST" / "raw" / "t10k-images-idx3-ubyte").is_file():
        pytest.skip("SZTRAIN_DATA_DIR has no MNIST")
    from sztrain.data import MNIST

    part = MNIST(root=root).part("test")
    return part.samples.read(torch.arange(num_samples)), part.samples.labels[:num_samples]


def published_net(name):
    from sztrain.models import CARDS, load_net

    if not (Path(os.environ["SZTRAIN_WEIGHTS_DIR"]) / CARDS[name].file).is_file():
        pytest.skip(f"SZTRAIN_WEIGHTS_DIR has no {CARDS[name].file}")
    return load_net(name)
