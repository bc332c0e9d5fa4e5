import shutil
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sztrain.data import ImageFolders, ImageNet
from sztrain.errors import InputError, SztrainWarning


def write_images(folder, num_images=6, size=(9, 7), classes=("cat", "ant", "bee")):
    """Noise of ``size`` = (width, height) as PNG files."""
    generator = np.random.default_rng(len(str(folder)))
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(num_images):
            pixels = generator.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture
def parts(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", num_images=2)
    return tmp_path


def test_images_and_labels_come_from_the_folders(parts):
    (parts / "train" / "ant" / "notes.txt").write_text("no image")
    (parts / "train" / ".hidden").mkdir()
    (parts / "train" / "ant" / "._0.png").write_bytes(b"what macOS leaves beside a file")
    data = ImageFolders(root=str(parts), val_fraction=1 / 3, batch_size=4)
    inputs, labels = zip(*data.test_dataloader(), strict=True)
    inputs, labels = torch.cat(inputs), torch.cat(labels)
    files = data.part("test").samples.names
    assert set(files) == {f"test/{name}/{i}.png" for name in ("ant", "bee", "cat") for i in (0, 1)}
    for image, label, file in zip(inputs, labels.tolist(), files, strict=True):
        assert ("ant", "bee", "cat")[label] == Path(file).parent.name
        pixels = torch.from_numpy(np.array(Image.open(parts / file))).permute(2, 0, 1)
        assert torch.equal(image, pixels / 255)
    assert (data.num_classes, data.image_shape) == (3, (3, 7, 9))
    names = [data.part(split).samples.names for split in ("train", "val")]
    assert torch.bincount(data.part("val").samples.labels).tolist() == [2, 2, 2]
    assert len({*names[0], *names[1]}) == 18


def test_without_parts_the_test_is_cut_by_the_split_seed(tmp_path):
    write_images(tmp_path, num_images=10)

    def names(**options):
        data = ImageFolders(root=str(tmp_path), test_fraction=0.3, **options)
        return [set(data.part(split).samples.names) for split in ("train", "val", "test")]

    train, val, test = names()
    assert (len(train), len(val), len(test)) == (19, 2, 9)
    assert len(train | val | test) == 30
    assert names(seed=5) == [train, val, test]
    assert names(split_seed=5)[2] != test


@pytest.mark.parametrize("has_parts", [True, False])
@pytest.mark.parametrize("split", ["val", "test"])
def test_the_first_images_to_judge_are_of_all_classes(tmp_path, has_parts, split):
    folders = [tmp_path / "train", tmp_path / "test"] if has_parts else [tmp_path]
    for folder in folders:
        write_images(folder, num_images=40, size=(2, 2))

    def labels(**options):
        data = ImageFolders(root=str(tmp_path), test_fraction=0.5, val_fraction=0.5, **options)
        return data.part(split).samples.labels

    assert torch.bincount(labels()[:24], minlength=3).min() >= 3
    assert torch.equal(labels(seed=1), labels())
    assert not torch.equal(labels(split_seed=1), labels())


def image_of(data, name):
    """The test image of a file, whatever its place in the order."""
    inputs, _ = next(iter(data.test_dataloader()))
    return inputs[[Path(file).as_posix() for file in data.part("test").samples.names].index(name)]


def test_grey_images_and_resizing(parts):
    data = ImageFolders(root=str(parts), image_size=5, in_channels=1)
    assert data.image_shape == (1, 5, 5)
    inputs, _ = next(iter(data.test_dataloader()))
    assert inputs.shape == (6, 1, 5, 5)
    # 9x7 becomes 6x5 (its shorter side is 5), of which the middle 5 columns stay.
    with Image.open(parts / "test" / "ant" / "0.png") as image:
        expected = image.convert("L").resize((6, 5), Image.Resampling.BILINEAR)
    wide = torch.from_numpy(np.array(expected)) / 255
    found = image_of(data, "test/ant/0.png")[0]
    assert any(torch.equal(found, wide[:, left : left + 5]) for left in (0, 1))


@pytest.mark.parametrize("augment", ["none", "cifar", "imagenet"])
def test_augmentation_depends_on_seed_epoch_and_index_alone(parts, augment, rng_untouched):
    def image(seed, epoch, index, neighbours=()):
        data = ImageFolders(root=str(parts), augment=augment, seed=seed)
        keys = [*((epoch, i) for i in neighbours), (epoch, index)]
        return data.part("train").__getitems__(keys)[-1][0]

    first = image(0, 0, 4)
    assert first.shape == (3, 7, 9)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, image(0, 0, 4, neighbours=(1, 2)))
    changed = [not torch.equal(first, other) for other in (image(1, 0, 4), image(0, 1, 4))]
    assert changed == [augment != "none"] * 2


@pytest.mark.parametrize("in_channels", [1, 3])
def test_grey_images_of_16_bits_are_scaled(parts, in_channels):
    ramp = np.linspace(0, 65535, 63).reshape(7, 9).astype(np.uint16)
    for path in parts.rglob("*.png"):
        Image.fromarray(ramp).save(path)
    data = ImageFolders(root=str(parts), in_channels=in_channels)
    images, _ = next(iter(data.test_dataloader()))
    expected = torch.from_numpy(ramp / 65535).float().expand(in_channels, 7, 9)
    assert (images - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_portable_grey_maps_of_16_bits_are_scaled(parts):
    ramp = np.linspace(0, 65535, 63).reshape(7, 9).astype(np.uint16)
    for path in parts.rglob("*.png"):
        path.with_suffix(".pgm").write_bytes(b"P5 9 7 65535\n" + ramp.astype(">u2").tobytes())
        path.unlink()
    data = ImageFolders(root=str(parts), in_channels=1)
    images, _ = next(iter(data.test_dataloader()))
    assert (images - torch.from_numpy(ramp / 65535).float()).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("opacity", [255, 254, 0])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_dropped_and_warned_of_where_it_hides_anything(
    parts, mode, opacity, in_channels
):
    image = Image.fromarray(np.full((7, 9, 3), 204, dtype=np.uint8))
    if mode == "P":
        image, options = image.convert("P"), {"transparency": bytes([opacity]) * 256}
    else:
        image.putalpha(opacity)
        image, options = image.convert(mode), {}
    for path in parts.rglob("*.png"):
        image.save(path, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = ImageFolders(root=str(parts), in_channels=in_channels, eval_batch_size=6)
        images, _ = next(iter(data.test_dataloader()))
    assert torch.equal(images, torch.full((6, in_channels, 7, 9), 0.8))
    texts = {(item.category, str(item.message).partition(",")[0]) for item in caught}
    told = {(SztrainWarning, "images have transparent places")}
    assert texts == (set() if opacity == 255 else told)
    assert len({str(item.message) for item in caught}) <= 1  # so that it is shown once


def test_colours_of_16_bits_keep_the_upper_8(parts):
    colours = np.linspace(0, 65535, 7 * 9 * 3).reshape(7, 9, 3).astype(">u2")
    for path in parts.rglob("*.png"):
        path.write_bytes(png_of_16_bits(colours))
    images, _ = next(iter(ImageFolders(root=str(parts)).test_dataloader()))
    expected = torch.from_numpy((colours >> 8).astype(np.float32)).permute(2, 0, 1) / 255
    assert torch.equal(images, expected.expand(6, -1, -1, -1))


def png_of_16_bits(colours):
    """A PNG file of three channels of 16 bits each, which Pillow cannot write."""
    height, width, _ = colours.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in colours)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    written = (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def test_images_of_an_unknown_range_are_refused(parts):
    path = parts / "test" / "bee" / "1.tiff"
    Image.fromarray(np.zeros((7, 9), dtype=np.float32)).save(path)
    with pytest.raises(InputError, match=r"1\.tiff cannot be read as an image \(.* mode F\)"):
        list(ImageFolders(root=str(parts)).test_dataloader())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_change_nothing(parts, rng_untouched):
    batches = [
        list(
            ImageFolders(
                root=str(parts), augment="imagenet", batch_size=4, num_workers=num
            ).train_dataloader()
        )
        for num in (0, 2)
    ]
    for one, two in zip(*batches, strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


@pytest.mark.parametrize("place", ["imagenet", "."])
def test_imagenet_layout_and_evaluation_crop(tmp_path, place):
    write_images(tmp_path / place / "train", size=(40, 32))
    write_images(tmp_path / place / "val", num_images=1, size=(40, 32))
    data = ImageNet(root=str(tmp_path), image_size=28, num_classes=3)
    assert data.image_shape == (3, 28, 28)
    # 8/7 of 28 is 32: nothing is resized, the middle 28x28 of 40x32 are cropped.
    with Image.open(tmp_path / place / "val" / "ant" / "0.png") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    assert torch.equal(image_of(data, "val/ant/0.png"), pixels[:, 2:30, 6:34])
    inputs, _ = next(iter(data.train_dataloader()))
    assert inputs.shape[1:] == (3, 28, 28)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 4}, "has 3 class folders but num_classes=4; set data.num_classes=3"),
        ({"augment": "autoaugment"}, "expected `augment` to be one of none, cifar, imagenet"),
        ({"in_channels": 2}, "expected `in_channels` to be one of 1, 3, got 2"),
        ({"image_size": 0}, "expected `image_size` to be at least 1, got 0"),
        ({"image_size": 5.5}, "expected `image_size` to be a whole number, got 5.5"),
        ({"batch_size": 2.5}, "expected `batch_size` to be a whole number, got 2.5"),
        ({"limit_train": 10.5}, "expected `limit_train` to be a whole number, got 10.5"),
        ({"test_fraction": 0.0}, "expected `test_fraction` to be above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(parts, options, message):
    with pytest.raises(InputError, match=message):
        ImageFolders(root=str(parts), **options).setup()


def test_images_of_several_sizes_need_image_size(parts):
    Image.new("RGB", (8, 8)).save(parts / "test" / "bee" / "1.png")
    with pytest.raises(InputError, match=r"images differ in size: .*1\.png has 8x8") as caught:
        ImageFolders(root=str(parts)).setup()
    assert "9x7" in str(caught.value)
    assert "set data.image_size" in str(caught.value)
    assert len(next(iter(ImageFolders(root=str(parts), image_size=6).test_dataloader()))[0]) == 6


def missing(root):
    return root / "nowhere"


def empty(root):
    (root / "empty").mkdir()
    return root / "empty"


def empty_class(root):
    (root / "train" / "dog").mkdir()
    return root


def unknown_class(root):
    (root / "test" / "dog").mkdir()
    return root


def one_class(root):
    for path in root.glob("*/[!c]*"):
        shutil.rmtree(path)
    return root


def no_test(root):
    (root / "test").rename(root / "tests")
    return root


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, "there is no folder .*nowhere; put the images there"),
        (empty, "has no class folders"),
        (empty_class, "dog has no images"),
        (unknown_class, "has the class folder dog, which the training part lacks"),
        (no_test, "there is no folder .*test; put"),
        (one_class, "ImageFolders to have samples of at least 2 classes, got 1; add the others"),
    ],
)
def test_folders_that_are_not_complete_are_refused(parts, spoil, message):
    with pytest.raises(InputError, match=message) as caught:
        ImageFolders(root=str(spoil(parts))).setup()
    assert "\n" not in str(caught.value)


def test_missing_imagenet_names_both_folders(tmp_path):
    with pytest.raises(InputError, match=r"ImageNet is not on disk: .*imagenet.train and .*val"):
        ImageNet(root=str(tmp_path)).setup()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_damaged_image_is_one_line_also_from_a_worker(parts, num_workers):
    path = parts / "test" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    data = ImageFolders(root=str(parts), image_size=7, num_workers=num_workers)
    with pytest.raises(InputError, match=r"^[^\n]*1\.png cannot be read as an image") as caught:
        list(data.test_dataloader())
    assert "\n" not in str(caught.value)
    with path.open("wb") as file:
        file.write(b"no image")
    with pytest.raises(InputError, match=r"1\.png cannot be read as an image"):
        ImageFolders(root=str(parts)).setup()
