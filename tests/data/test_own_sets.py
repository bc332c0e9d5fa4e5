"""What a person's own `load` may return, and what is said of what it may not."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from sztrain.data import ImageDataModule, Samples, TensorSamples
from sztrain.errors import InputError, UnavailableError

IMAGES = torch.full((20, 1, 6, 6), 51, dtype=torch.uint8)
LABELS = torch.arange(20) % 4


def tensors(**changes):
    return TensorSamples(**{"images": IMAGES, "labels": LABELS, "scale": 255} | changes)


@dataclass
class Own(Samples):
    """Samples of a class of a person's own."""

    labels: object = LABELS
    image_shape: object = (1, 6, 6)
    answer: object = None

    def subset(self, indices):
        return replace(self, labels=self.labels[indices])

    def read(self, indices):
        return torch.full((len(indices), 1, 6, 6), 0.2) if self.answer is None else self.answer

    def read_augmented(self, indices, *, seed, epoch):
        return self.read(indices)


class Shapes(ImageDataModule):
    """Without a name, which only the command line needs."""

    def __init__(self, returned, **options):
        super().__init__(**{"num_classes": 4, "in_channels": 1} | options)
        self.returned = returned

    def load(self):
        return self.returned


@pytest.mark.parametrize("samples", [tensors(), Own()])
@pytest.mark.parametrize("pair", [tuple, list])
def test_samples_of_any_class_are_taken(samples, pair):
    data = Shapes(pair([samples, samples]), num_classes=None, val_fraction=0.2)
    assert (data.num_classes, data.image_shape) == (4, (1, 6, 6))
    for split, count in (("train", 16), ("val", 4), ("test", 20)):
        image, label = data.part(split)[0]
        assert torch.equal(image, torch.full((1, 6, 6), 0.2))
        assert 0 <= label < 4
        assert len(data.part(split)) == count


TWO = "`load` of Shapes to return two samples, .*sztrain.data.TensorSamples.* got "


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (None, "None"),
        (tensors(), "a TensorSamples"),
        ((tensors(),), r"a tuple of 1 \(TensorSamples\)"),
        ([tensors()] * 6, r"a list of 6 \(TensorSamples, TensorSamples, .*, \.\.\.\)"),
        ((IMAGES, LABELS), r"a tuple of 2 \(Tensor, Tensor\)"),
        ((tensors(), None), r"a tuple of 2 \(TensorSamples, NoneType\)"),
        ({"train": tensors(), "test": tensors()}, "a dict"),
        (IMAGES, r"torch.uint8 of shape \(20, 1, 6, 6\)"),
    ],
)
def test_what_is_not_two_samples_is_refused(returned, found):
    refuse(TWO + found, returned)


def refuse(message, returned, **options):
    data = Shapes(returned, **options)
    with pytest.raises(InputError, match=message) as caught:
        data.setup()
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    class Absent(Shapes):
        def load(self):
            return np.load(self.root / "shapes.npz")

    with pytest.raises(UnavailableError, match=r"Absent is not on disk: .*shapes\.npz.*root"):
        Absent(None, root=str(tmp_path)).setup()


INT64 = "labels of the {} part of Shapes to be int64 of shape \\(N,\\), got "
READ = r"`read` of the {} part of Shapes to give float32 of shape \(1, 1, 6, 6\) for one sample, "
SHAPE = "`image_shape` of the {} part of Shapes to be \\(C, H, W\\), got "


@pytest.mark.parametrize("part", ["training", "test"])
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (Own(labels=None), f"{INT64}None"),
        (Own(labels=[0, 1]), f"{INT64}a list of 2"),
        (Own(labels=LABELS.float()), f"{INT64}torch.float32 of shape \\(20,\\)"),
        (Own(labels=LABELS.int()), f"{INT64}torch.int32"),
        (Own(labels=LABELS[:, None]), f"{INT64}torch.int64 of shape \\(20, 1\\)"),
        (Own(labels=LABELS[:0]), "the {} part of Shapes has no samples"),
        (Own(labels=LABELS + 1), "has label 4 but num_classes=4"),
        (Own(labels=LABELS - 1), "has label -1 but num_classes=4"),
        (Own(image_shape=(6, 6)), f"{SHAPE}\\(6, 6\\)"),
        (Own(image_shape=torch.Size([1, 0, 6])), f"{SHAPE}torch.Size"),
        (Own(image_shape=[1, 6, 6]), f"{SHAPE}\\[1, 6, 6\\]"),
        (Own(answer=np.zeros((1, 1, 6, 6))), f"{READ}got a ndarray"),
        (Own(answer=IMAGES[:1]), f"{READ}got torch.uint8"),
        (Own(answer=IMAGES[0] / 255), f"{READ}got .* shape \\(1, 6, 6\\)"),
        (Own(answer=IMAGES[:1] / 127 - 1), r"`read` of the {} part .* in \[0, 1\], got -0.598"),
        (Own(answer=IMAGES[:1] * torch.nan), r"`read` of the {} part .* got nan to nan"),
        (tensors(images=IMAGES.expand(20, 3, 6, 6)), "images of Shapes have 3 channels but in_"),
        (
            tensors(images=IMAGES[..., :5]),
            "all images of Shapes to be of shape .* or another part, got",
        ),
    ],
)
def test_samples_of_another_form_are_refused(samples, message, part):
    parts = (samples, tensors()) if part == "training" else (tensors(), samples)
    refuse(message.format(part), parts)


def test_images_are_of_the_shape_that_the_class_states(monkeypatch):
    monkeypatch.setattr(Shapes, "fixed_shape", (1, 6, 6))
    Shapes((tensors(), tensors())).setup()
    monkeypatch.setattr(Shapes, "fixed_shape", (1, 28, 28))
    expected = r"all images of Shapes to be of shape \(1, 28, 28\), as its `fixed_shape`"
    refuse(rf"{expected} .* got \(1, 6, 6\)", (tensors(), tensors()))


def test_data_of_one_class_is_refused_where_nobody_says_how_many_there_are():
    one = tensors(labels=torch.zeros_like(LABELS))
    Shapes((one, one)).setup()  # of the four that it says
    refuse("Shapes to have samples of at least 2 classes, got 1", (one, one), num_classes=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES.numpy()}, "to be tensors, got ndarray and Tensor; torch.from_numpy"),
        ({"labels": [0] * 20}, "to be tensors, got Tensor and list"),
        ({"labels": LABELS[:19]}, r"got \(20, 1, 6, 6\) and \(19,\)"),
        ({"labels": LABELS.int()}, "labels to be int64, got torch.int32; labels.long()"),
        ({"images": IMAGES[:, 0]}, r"of shape \(N, C, H, W\) with .* got \(20, 6, 6\)"),
        ({"images": IMAGES[..., :0]}, r"of shape \(N, C, H, W\) with .* got \(20, 1, 6, 0\)"),
        ({"images": IMAGES.to(torch.complex64)}, "real numbers, got torch.complex64"),
        ({"images": IMAGES.to(torch.uint16)}, "hardly computes with torch.uint16"),
        ({"scale": 1}, r"from 51 to 51; `scale` is the value that stands for 1\.0"),
        ({"images": IMAGES / 51 - 2, "scale": 1}, "from -1 to -1; give them unnormalised"),
        ({"scale": 0}, "`scale` to be positive, got 0"),
        ({"scale": "255"}, "`scale` to be a number, got '255'"),
    ],
)
def test_tensors_that_are_no_samples_are_refused_at_once(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        tensors(**changes)
    assert "\n" not in str(caught.value)
