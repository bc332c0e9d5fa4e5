"""The data sets themselves: what is on disk is what comes out, and damage is refused."""

import hashlib
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from sztrain.data import CIFAR10, CIFAR100, MNIST, Digits
from sztrain.data.files import Official, check_files
from sztrain.errors import InputError, SztrainWarning

DATA_DIR = os.environ.get("SZTRAIN_DATA_DIR", "")
needs_mnist = pytest.mark.skipif(
    not (Path(DATA_DIR) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file(),
    reason="SZTRAIN_DATA_DIR is unset or has no MNIST/raw",
)


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    source = load_digits()
    data = Digits()
    sizes = [len(data.part(split)) for split in ("train", "val", "test")]
    assert sizes == [1294, 144, 359]  # 20 % of 1,797 for the test, 10 % of the rest
    expected = {
        (label, *(image / 16).ravel())
        for image, label in zip(source.images, source.target, strict=True)
    }
    found = []
    for split in ("train", "val", "test"):
        part = data.part(split)
        images = part.samples.read(torch.arange(len(part))).flatten(1).tolist()
        found += [(y, *x) for x, y in zip(images, part.samples.labels.tolist(), strict=True)]
    assert len(found) == 1797
    assert set(found) == expected
    assert (data.num_classes, data.in_channels, data.image_shape) == (10, 1, (1, 8, 8))
    counts = torch.bincount(data.part("test").samples.labels)
    assert abs(counts.float() - 35.9).max() < 2


def test_digits_test_part_depends_on_the_split_seed_alone(fingerprint):
    assert fingerprint(Digits(seed=9), "test") == fingerprint(Digits(), "test")
    assert fingerprint(Digits(split_seed=9), "test") != fingerprint(Digits(), "test")


def test_digits_augmentation_shifts_by_one_pixel_at_most():
    part = Digits(augment=True).part("train")
    plain = torch.nn.functional.pad(part[0][0], [1] * 4)
    shifts = [plain[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    for epoch in range(20):
        assert any(torch.equal(part[epoch, 0][0], shift) for shift in shifts)


@needs_mnist
def test_mnist_is_read_as_torchvision_reads_it_without_writing():
    data = MNIST(root=DATA_DIR, augment=True)
    assert [len(data.part(split)) for split in ("train", "val", "test")] == [54000, 6000, 10000]
    source = datasets.MNIST(DATA_DIR, train=False)
    inputs, labels = next(iter(data.test_dataloader()))
    assert torch.equal(inputs, source.data[:128, None] / 255)
    assert torch.equal(labels, source.targets[:128])
    inputs, _ = next(iter(data.train_dataloader()))
    assert inputs.shape == (128, *data.image_shape)
    assert inputs.min() == 0
    assert inputs.max() == 1


def write_mnist(root, num_images=30):
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (num_images, 28, 28)).astype(np.uint8)
    labels = (np.arange(num_images) % 10).astype(np.uint8)
    for prefix in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return images


def test_mnist_layout_with_other_images(tmp_path, monkeypatch):
    images = write_mnist(tmp_path)
    monkeypatch.setenv("SZTRAIN_DATA_DIR", str(tmp_path))
    with pytest.warns(SztrainWarning, match="is not the file of MNIST that was published") as told:
        inputs, _ = next(iter(MNIST().test_dataloader()))
    assert torch.equal(inputs[:, 0], torch.from_numpy(images) / 255)
    assert len(told) == 4  # each of the files is another


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x03\x00", b"not an idx file at all"])
def test_mnist_damaged_file_is_named(tmp_path, name, content):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is damaged: it is cut short or no IDX") as caught:
        MNIST(root=str(tmp_path)).setup()
    assert "fetch it again" in one_line(caught)


def test_mnist_file_that_ends_early_is_damaged(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="train-images-idx3-ubyte is damaged"):
        MNIST(root=str(tmp_path)).setup()


def test_file_of_the_official_size_must_have_the_official_checksum(tmp_path):
    (tmp_path / "batch").write_bytes(b"good")
    officials = {"batch": Official(hashlib.md5(b"good").hexdigest(), 4)}
    check_files(tmp_path, officials, title="X")
    (tmp_path / "batch").write_bytes(b"gold")
    with pytest.raises(InputError, match="batch is damaged: its md5 is") as caught:
        check_files(tmp_path, officials, title="X")
    one_line(caught)


@pytest.mark.parametrize(
    ("data_class", "folder"),
    [
        (MNIST, "MNIST/raw"),
        (CIFAR10, "cifar-10-batches-py"),
        (CIFAR100, "cifar-100-python"),
    ],
)
def test_missing_data_names_the_folder_and_the_remedy(tmp_path, data_class, folder):
    with pytest.raises(InputError, match="is not on disk: expected") as caught:
        data_class(root=str(tmp_path)).setup()
    message = one_line(caught)
    assert str(tmp_path / folder) in message
    assert "data.download=true" in message


@pytest.mark.parametrize("data_class", [MNIST, CIFAR10, CIFAR100])
def test_failed_download_is_one_line(tmp_path, monkeypatch, data_class):
    def fail(*args, **kwargs):
        raise RuntimeError("no network\nat all")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(InputError, match=r"could not be downloaded into .*no network at all") as e:
        data_class(root=str(tmp_path), download=True).prepare_data()
    one_line(e)


def test_cifar10_format_is_read_back(tmp_path, cifar_files):
    written = cifar_files.write_cifar10(tmp_path)
    data = CIFAR10(root=str(tmp_path), augment=False, split_seed=1)
    with pytest.warns(SztrainWarning, match="is not the file of CIFAR-10 that was published"):
        inputs, labels = next(iter(data.test_dataloader()))
    images, expected = written["test_batch"]
    assert torch.equal(inputs, torch.from_numpy(images) / 255)
    assert labels.tolist() == expected.tolist()
    assert [len(data.part(split)) for split in ("train", "val")] == [180, 20]
    train = np.concatenate([written[f"data_batch_{i}"][0] for i in range(1, 6)])
    parts = [data.part(split).samples.images.numpy() for split in ("train", "val")]
    assert sorted(map(bytes, np.concatenate(parts))) == sorted(map(bytes, train))


def test_cifar10_files_are_those_that_torchvision_reads(tmp_path, cifar_files, monkeypatch):
    cifar_files.write_cifar10(tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    source = datasets.CIFAR10(tmp_path, train=True)
    data = CIFAR10(root=str(tmp_path))
    train, _ = data.load()
    assert torch.equal(train.images, torch.from_numpy(source.data).permute(0, 3, 1, 2))
    assert train.labels.tolist() == source.targets


def test_cifar10_augments_only_the_training(tmp_path, cifar_files):
    cifar_files.write_cifar10(tmp_path)
    plain, augmented = (CIFAR10(root=str(tmp_path), augment=flag) for flag in (False, True))
    pairs = [(data.part("train"), data.part("val")) for data in (plain, augmented)]
    assert torch.equal(pairs[0][0][0, 5][0], pairs[0][0][5][0])
    assert not torch.equal(pairs[1][0][0, 5][0], pairs[0][0][5][0])
    for first, second in zip(plain.val_dataloader(), augmented.val_dataloader(), strict=True):
        assert torch.equal(first[0], second[0])


def test_cifar100_uses_fine_labels(tmp_path, cifar_files):
    written = cifar_files.write_cifar100(tmp_path)
    data = CIFAR100(root=str(tmp_path))
    assert data.part("test").samples.labels.tolist() == written["test"][1].tolist()
    assert (data.num_classes, data.image_shape) == (100, (3, 32, 32))


def replace_batch(root, **changes):
    path = root / "cifar-10-batches-py" / "data_batch_2"
    content = pickle.loads(path.read_bytes()) | changes
    content = {key: value for key, value in content.items() if value is not None}
    path.write_bytes(pickle.dumps(content))


class RunsCode:
    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "it has no entry 'labels'"),
        ({"labels": [0]}, "it has 40 images but 1 labels"),
        ({"data": np.zeros((40, 100), np.uint8)}, r"expected uint8 data of shape \(N, 3072\)"),
        ({"data": np.zeros((40, 3072))}, "got float64"),
        ({"extra": RunsCode()}, "it asks for posix.getcwd|it asks for nt.getcwd"),
    ],
)
def test_cifar10_damaged_content_is_refused(tmp_path, cifar_files, changes, message):
    cifar_files.write_cifar10(tmp_path)
    replace_batch(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        CIFAR10(root=str(tmp_path)).setup()
    assert "data_batch_2 is damaged" in one_line(caught)


@pytest.mark.parametrize("keep", [0, 1, 100, 60_000])
def test_cifar10_file_cut_short_is_refused(tmp_path, cifar_files, keep):
    cifar_files.write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="test_batch is damaged") as caught:
        CIFAR10(root=str(tmp_path)).setup()
    one_line(caught)


def test_cifar10_label_outside_the_classes(tmp_path, cifar_files):
    cifar_files.write_cifar10(tmp_path)
    replace_batch(tmp_path, labels=[10] * 40)
    with pytest.raises(InputError, match="the data set has label 10 but num_classes=10"):
        CIFAR10(root=str(tmp_path)).setup()


@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar10_reads_bytes_keys_and_every_pickle_protocol(tmp_path, cifar_files, protocol):
    cifar_files.write_cifar10(tmp_path)
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        content = pickle.loads(path.read_bytes())
        content = {key.encode(): value for key, value in content.items()}
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert len(CIFAR10(root=str(tmp_path)).part("test")) == 30


def test_data_directory_is_found_from_the_environment(tmp_path, cifar_files, monkeypatch):
    cifar_files.write_cifar10(tmp_path / "one")
    monkeypatch.setenv("SZTRAIN_DATA_DIR", str(tmp_path / "one"))
    assert len(CIFAR10().part("test")) == 30
    monkeypatch.delenv("SZTRAIN_DATA_DIR")
    monkeypatch.chdir(tmp_path)
    shutil.move("one", "data")
    assert len(CIFAR10().part("test")) == 30
