"""Data sets: one LightningDataModule each, images in [0, 1] without normalisation."""

from sztrain.data.augment import CropFlip
from sztrain.data.base import SPLITS, ImageDataModule, Options, Split
from sztrain.data.cifar import CIFAR10, CIFAR100
from sztrain.data.digits import Digits
from sztrain.data.folders import ImageFolders, ImageNet
from sztrain.data.loading import in_one_line
from sztrain.data.mnist import MNIST
from sztrain.data.samples import Part, Samples, TensorSamples

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "SPLITS",
    "CropFlip",
    "Digits",
    "ImageDataModule",
    "ImageFolders",
    "ImageNet",
    "Options",
    "Part",
    "Samples",
    "Split",
    "TensorSamples",
    "in_one_line",
]
