"""Any folder of images with one subfolder a class, and ImageNet."""

from pathlib import Path
from typing import Literal, Unpack

import torch

from sztrain.data.augment import CropFlip
from sztrain.data.base import ImageDataModule, Options
from sztrain.data.image_files import EXTENSIONS, ImageFileSamples, common_size
from sztrain.data.samples import Part, Samples
from sztrain.data.splits import require_fraction, stratified_split
from sztrain.errors import InputError, UnavailableError, require_count, require_in

FolderAugmentation = Literal["none", "cifar", "imagenet"]


def list_classes(folder: Path) -> list[str]:
    """Names of the class folders in ``folder``, sorted; hidden ones are passed over.

    Raises:
        InputError: the folder is missing or has no subfolder.
    """
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}; put the images there, as train/<class>/<image> and "
            "test/<class>/<image>, or as <class>/<image>, or set data.root (or SZTRAIN_DATA_DIR)"
        )
    classes = sorted(e.name for e in folder.iterdir() if e.is_dir() and e.name[0] != ".")
    if not classes:
        raise InputError(f"{folder} has no class folders; put the images there as <class>/<image>")
    return classes


def list_images(root: Path, folder: str, classes: list[str]) -> tuple[list[str], torch.Tensor]:
    """Image files of each class folder, sorted, as names relative to ``root``, and their labels.

    Raises:
        InputError: ``folder`` is missing, a class has no image, or a class folder is not one of
            ``classes``.
    """
    found = list_classes(root / folder)
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise InputError(
            f"{root / folder} has the class folder {unknown[0]}, which the training part lacks; "
            "all parts must have the same classes"
        )
    names: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        if class_name not in found:
            continue
        entries = sorted(entry.name for entry in (root / folder / class_name).iterdir())
        images = [name for name in entries if name[0] != "." and name.lower().endswith(EXTENSIONS)]
        if not images:
            raise InputError(
                f"{root / folder / class_name} has no images ({', '.join(EXTENSIONS)}); data.root "
                "(or SZTRAIN_DATA_DIR) has to name a folder of class folders, or of such parts as "
                "train and test, and every class needs images"
            )
        names += [str(Path(folder) / class_name / name) for name in images]
        labels += [label] * len(images)
    return names, torch.tensor(labels, dtype=torch.int64)


class ImageFolders(ImageDataModule):
    """Images in ``root/train/<class>/*`` and ``root/test/<class>/*``, or in ``root/<class>/*``.

    Classes are numbered in the order of their names. Without a ``train`` folder, the test part is
    cut from ``root/<class>/*`` with ``split_seed``. The images of validation and test are in a
    random order that ``split_seed`` alone decides, so that the first of them are a fair sample.
    Images are decoded when they are needed. Hidden files and folders are passed over.

    Args:
        image_size: side that images are brought to, by resizing the shorter side and cropping the
            centre; ``None``: all have one size already.
        augment: ``"cifar"``: crop at random after padding by 4, mirror every second image;
            ``"imagenet"``: crop of random area and aspect ratio, mirror; ``"none"``.
        test_fraction: share cut off for the test, class by class, where no ``train`` folder is.
        num_classes: number of class folders there must be; ``None``: as many as there are.
        in_channels: 3 for colour, 1 for grey.
        **options: see `ImageDataModule`.

    Raises:
        InputError: a value is out of its range.

    Example:
        >>> ImageFolders(root="nowhere").setup()
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: there is no folder nowhere; ...
    """

    name = "folder"
    test_folder = "test"

    def __init__(
        self,
        *,
        image_size: int | None = None,
        augment: FolderAugmentation = "none",
        test_fraction: float = 0.2,
        num_classes: int | None = None,
        in_channels: int = 3,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels, **options)
        require_in("in_channels", in_channels, (1, 3))
        require_in("augment", augment, ("none", "cifar", "imagenet"))
        require_count("image_size", 1 if image_size is None else image_size, 1)
        require_fraction("test_fraction", test_fraction)
        self.image_size = image_size
        self.augment = augment
        self.test_fraction = test_fraction
        if image_size is not None:
            self.fixed_shape = (in_channels, image_size, image_size)

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        return self.root

    @property
    def resize(self) -> int | None:
        """Length of the shorter side before the centre crop."""
        return self.image_size

    @property
    def cuts_test(self) -> bool:
        """Where the folder has no part ``train``."""
        return not (self.folder / "train").is_dir()

    def load(self) -> tuple[Samples, Samples]:
        """List the training files and the test files.

        Raises:
            InputError: a folder is missing or empty, classes differ, or images differ in size.
        """
        train_folder = "." if self.cuts_test else "train"
        classes = list_classes(self.folder / train_folder)
        if self._num_classes is None:
            self._num_classes = len(classes)
        elif self._num_classes != len(classes):
            raise InputError(
                f"{self.folder / train_folder} has {len(classes)} class folders but "
                f"num_classes={self._num_classes}; set data.num_classes={len(classes)} or check "
                "the folder"
            )
        names, labels = list_images(self.folder, train_folder, classes)
        if self.cuts_test:
            samples = self._samples(names, labels, self._shape(names))
            train, test = stratified_split(labels, self.test_fraction, self.split_seed)
            return samples.subset(train), self._mixed(samples.subset(test))
        test_names, test_labels = list_images(self.folder, self.test_folder, classes)
        shape = self._shape(names + test_names)
        train_samples = self._samples(names, labels, shape)
        return train_samples, self._mixed(self._samples(test_names, test_labels, shape))

    def setup(self, stage: str | None = None) -> None:
        """As in the base class; the validation images come in a random order, too."""
        if not hasattr(self, "test_set"):
            super().setup(stage)
            self.val_set = Part(self._mixed(self.val_set.samples), seed=self.seed)

    def _mixed(self, samples: Samples) -> Samples:
        """In a random order, always the same, so that the first of them are of all classes."""
        generator = torch.Generator().manual_seed(self.split_seed)
        return samples.subset(torch.randperm(len(samples.labels), generator=generator))

    def _shape(self, names: list[str]) -> tuple[int, int, int]:
        if self.image_size is not None:
            return self.in_channels, self.image_size, self.image_size
        return self.in_channels, *common_size(self.folder, names)

    def _samples(
        self, names: list[str], labels: torch.Tensor, shape: tuple[int, int, int]
    ) -> ImageFileSamples:
        return ImageFileSamples(
            root=self.folder,
            names=names,
            labels=labels,
            shape=shape,
            resize=self.resize,
            augmentation={"none": None, "cifar": CropFlip(padding=4)}.get(self.augment, "imagenet"),
        )


class ImageNet(ImageFolders):
    """ImageNet-1k in ``root/imagenet/train/<class>/*`` and ``root/imagenet/val/<class>/*``.

    Where there is no ``root/imagenet/train``, ``root`` itself holds the two; ``val`` is the test
    part. It cannot be downloaded without an account, so ``download`` has no effect. Test images are
    resized to 8/7 of ``image_size`` (256 for 224) and cropped at the centre.

    Args:
        image_size: side of the images.
        augment: crop training images at random area and aspect ratio, and mirror every second.
        num_classes: number of class folders there must be; ``None``: as many as there are.
        in_channels: 3.
        **options: see `ImageDataModule`.

    Reference:
        Russakovsky et al., International Journal of Computer Vision 115, 2015; the crops are those
        of torchvision's reference training.

    Example:
        >>> ImageNet(root="nowhere").image_shape
        (3, 224, 224)
    """

    name = "imagenet"
    test_folder = "val"

    def __init__(
        self,
        *,
        image_size: int = 224,
        augment: bool = True,
        num_classes: int | None = 1000,
        in_channels: int = 3,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            image_size=image_size,
            augment="imagenet" if augment else "none",
            num_classes=num_classes,
            in_channels=in_channels,
            **options,
        )

    @property
    def resize(self) -> int | None:
        """Length of the shorter side before the centre crop."""
        assert self.image_size is not None
        return round(self.image_size * 8 / 7)

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        own = self.root / "imagenet"
        return own if (own / "train").is_dir() else self.root

    def load(self) -> tuple[Samples, Samples]:
        """List the training files and the test files.

        Raises:
            InputError: ``train`` or ``val`` is missing or empty, or classes differ.
        """
        if not (self.folder / "train").is_dir():
            own = self.root / "imagenet"
            raise UnavailableError(
                f"ImageNet is not on disk: expected {own / 'train'} and {own / 'val'}, "
                "with one folder a class; put the unpacked images there or set data.root"
            )
        return super().load()
