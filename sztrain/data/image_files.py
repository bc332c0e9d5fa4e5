"""Images that stay on disk and are decoded when a batch needs them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from sztrain.data.augment import CropFlip, derive_seed, seeded_rng
from sztrain.data.samples import Samples
from sztrain.errors import InputError, warn

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def open_image(path: Path, mode: str) -> Image.Image:
    """Decode an image file and convert it to ``mode`` (``"RGB"`` or ``"L"``).

    Grey values of 16 bits are scaled to 8; Pillow's own conversion would cut them off at 255. (Of
    colours of 16 bits it keeps the upper 8.) Transparency is dropped, with a warning where there is
    any: what was drawn in it alone is gone then.

    Raises:
        InputError: the file is damaged, is no image, or has values of an unknown range.
    """
    try:
        with Image.open(path) as image:
            # Of a portable grey map of 16 bits Pillow makes values of 32, scaled to 0 ... 65535.
            if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
                scaled = np.rint(np.asarray(image) / 257).astype(np.uint8)
                return Image.fromarray(scaled).convert(mode)
            if image.mode in ("I", "F"):
                raise ValueError(f"it has values of 32 bits, Pillow's mode {image.mode}")
            if image.has_transparency_data:
                with_opacity = image.convert("RGBA")  # Pillow asks for it where there is a palette
                _warn_of_transparency(with_opacity.getchannel("A"))
                return with_opacity.convert(mode)
            return image.convert(mode)
    # Pillow raises SyntaxError on some broken PNG files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} cannot be read as an image ({reason}); replace or remove it"
        ) from error


def _warn_of_transparency(opacity: Image.Image) -> None:
    """Say so where colours stand that nobody sees; an alpha channel that hides nothing is fine."""
    lowest, _ = opacity.getextrema()
    if lowest != 255:
        # Without the file's name: a text that changes would be shown anew for every image.
        warn(
            "images have transparent places, and the net sees the colours under them, whatever "
            "they are; where that is not meant, put the images on a background before"
        )


def common_size(root: Path, names: list[str]) -> tuple[int, int]:
    """Height and width that all images share; only their headers are read.

    Raises:
        InputError: two images differ in size, or a file is no image.
    """
    first: tuple[int, int] | None = None
    for name in names:
        try:
            with Image.open(root / name) as image:
                size = image.size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{root / name} cannot be read as an image; replace or remove it"
            ) from error
        first = first or size
        if size != first:
            raise InputError(
                f"images differ in size: {names[0]} has {first[0]}x{first[1]} pixels, {name} has "
                f"{size[0]}x{size[1]}; set data.image_size to bring all to one size"
            )
    assert first is not None
    return first[1], first[0]


@dataclass(frozen=True, kw_only=True)
class ImageFileSamples(Samples):
    """Labelled image files.

    Args:
        root: folder the names are relative to.
        names: one file name a sample.
        labels: int64 ``(N,)``.
        shape: shape ``(C, H, W)`` that every image is brought to; C is 1 (grey) or 3 (RGB).
        resize: length of the shorter side before the centre crop; ``None``: images have the size
            of ``shape`` already.
        augmentation: what training does to an image: `CropFlip`; ``"imagenet"``: a crop of random
            area and aspect ratio, mirrored half of the time; ``None``: nothing.
    """

    root: Path
    names: list[str]
    labels: Tensor
    shape: tuple[int, int, int]
    resize: int | None = None
    augmentation: CropFlip | Literal["imagenet"] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of every image."""
        return self.shape

    def subset(self, indices: Tensor) -> Self:
        """The samples at ``indices``, int64 ``(M,)``."""
        names = [self.names[index] for index in indices.tolist()]
        return replace(self, names=names, labels=self.labels[indices])

    def read(self, indices: Tensor) -> Tensor:
        """Images as they are, float32 ``(M, C, H, W)`` in [0, 1]."""
        images = [self._plain(index) for index in indices.tolist()]
        return torch.stack(images).float().div_(255)

    def read_augmented(self, indices: Tensor, *, seed: int, epoch: int) -> Tensor:
        """Images as the training of that epoch sees them, float32 ``(M, C, H, W)`` in [0, 1]."""
        if self.augmentation is None:
            return self.read(indices)
        if isinstance(self.augmentation, CropFlip):
            return self.augmentation(self.read(indices), seed=seed, epoch=epoch, indices=indices)
        transform = v2.Compose(
            [v2.RandomResizedCrop(self.shape[1:], antialias=True), v2.RandomHorizontalFlip()]
        )
        images = []
        for index in indices.tolist():
            image = self._open(index)
            with seeded_rng(derive_seed(seed, epoch, index, draw=1)):
                images.append(tvf.pil_to_tensor(transform(image)))
        return torch.stack(images).float().div_(255)

    def _open(self, index: int) -> Image.Image:
        return open_image(self.root / self.names[index], "L" if self.shape[0] == 1 else "RGB")

    def _plain(self, index: int) -> Tensor:
        image = self._open(index)
        if self.resize is not None:
            image = tvf.center_crop(
                tvf.resize(image, [self.resize], antialias=True), self.shape[1:]
            )
        tensor: Tensor = tvf.pil_to_tensor(image)
        return tensor
