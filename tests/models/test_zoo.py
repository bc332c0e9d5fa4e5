import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from published import mnist_test_images, published_net
from torch import nn

from sztrain.attacks import SigmaZero, SparsePGD
from sztrain.errors import InputError
from sztrain.models import (
    CARDS,
    build_net,
    describe_net,
    digits_cnn,
    load_net,
    save_net,
    small_cnn,
    weights_dir,
    zoo,
)

HYPER_PARAMETERS = {
    "net": {"_target_": "sztrain.models.digits_cnn", "num_classes": 10, "width": 4},
    "data": {"name": "digits"},
    "unit": "features",
    "method": {"name": "standard", "lr": 0.001, "milestones": [10, 20], "budget": None},
}


def published(name):
    """Skip where the published weights are not at hand."""
    folder = os.environ.get("SZTRAIN_WEIGHTS_DIR")
    if folder is None:
        pytest.skip("SZTRAIN_WEIGHTS_DIR is not set: the published weights are needed")
    if not (Path(folder) / CARDS[name].file).is_file():
        pytest.skip(f"SZTRAIN_WEIGHTS_DIR has no {CARDS[name].file}")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize(
    ("name", "clean_accuracy"),
    [
        ("M1", 0.990),
        ("M2", 0.994),
        ("mnist_sparse_at", 0.991),
        ("mnist_trades", 0.989),
        ("mnist_trades_ema", 0.986),
    ],
)
def test_a_net_has_its_clean_accuracy(name, clean_accuracy):
    if CARDS[name].url:
        published(name)
    root = os.environ.get("SZTRAIN_DATA_DIR")
    if root is None:
        pytest.skip("SZTRAIN_DATA_DIR is not set: MNIST is needed")
    from torchvision.datasets import MNIST

    try:
        data = MNIST(root, train=False)
    except RuntimeError:
        pytest.skip("SZTRAIN_DATA_DIR has no MNIST")
    inputs = data.data[:1000].unsqueeze(1).float() / 255
    net = load_net(name)
    assert not net.training
    with torch.no_grad():
        correct = net(inputs).argmax(dim=1) == data.targets[:1000]
    assert correct.double().mean().item() == pytest.approx(clean_accuracy, abs=1e-9)


@pytest.mark.slow
def test_the_shipped_mnist_nets_withstand_what_breaks_m1():
    """With all five attacks more is broken, of M1 nearly all: see the README."""
    inputs, labels = mnist_test_images(32)

    def left(net):
        robust = torch.arange(len(labels))
        for attack in (
            SigmaZero(num_steps=60, budget=24),
            SigmaZero(num_steps=60, budget=24, step_rule="sgd"),
            SparsePGD(num_steps=60, budget=24),
        ):  # what one has broken the next need not
            robust = robust[~attack(net, inputs[robust], labels[robust]).success]
        return len(robust) / len(labels)

    assert left(published_net("M1")) < 0.4
    ours = ("mnist_sparse_at", "mnist_trades", "mnist_trades_ema")
    assert min(left(load_net(name)) for name in ours) > 0.6


@pytest.mark.parametrize("name", ["M1", "M2"])
def test_published_state_dict_loads_strictly_as_it_is(name):
    published(name)
    path = weights_dir() / CARDS[name].file
    small_cnn().load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


@pytest.mark.parametrize("name", ["M1", "M2"])
def test_describe_published_net(name):
    described = describe_net(name)
    assert list(described) == ["net", "data", "unit", "method"]
    assert described["data"] == {"name": "mnist"}
    assert described["unit"] == "features"
    assert json.loads(json.dumps(described)) == described  # plain containers
    assert build_net(described["net"])(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_weights_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", "~/here")
    assert weights_dir() == tmp_path / "here"
    monkeypatch.delenv("SZTRAIN_WEIGHTS_DIR")
    assert weights_dir() == tmp_path / ".cache" / "sztrain" / "weights"


def test_a_file_is_no_folder_of_weights(monkeypatch, tmp_path):
    (tmp_path / "net.pth").touch()
    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", str(tmp_path / "net.pth"))
    with pytest.raises(InputError, match=f"got the file .*net.pth, which lies in {tmp_path}$"):
        load_net("M1")


def test_shipped_net_is_read_from_the_package(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    net = digits_cnn(width=4)
    save_net(net, HYPER_PARAMETERS, folder / "digits_standard.safetensors")
    asked = []
    monkeypatch.setattr(zoo, "files", lambda package: asked.append(package) or tmp_path)
    inputs = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(load_net("digits_standard")(inputs), net(inputs))
    assert describe_net("digits_standard") == HYPER_PARAMETERS
    assert set(asked) == {"sztrain.models"}
    with pytest.raises(InputError, match=r"digits_sparse_at\.safetensors"):
        load_net("digits_sparse_at")


def test_save_and_load_is_a_round_trip(path):
    net = digits_cnn(width=4).train()
    save_net(net, HYPER_PARAMETERS, path)
    loaded = load_net(path)
    inputs = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(loaded(inputs), net(inputs), rtol=0, atol=0)
    assert not loaded.training
    assert net.training
    assert describe_net(str(path)) == HYPER_PARAMETERS


def test_saved_file_can_be_read_by_others(path):
    net = digits_cnn(width=4)
    save_net(net, HYPER_PARAMETERS, path)
    tensors = safetensors.torch.load_file(path)
    assert tensors.keys() == net.state_dict().keys()
    with safetensors.safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["sztrain"]) == HYPER_PARAMETERS


def test_a_saved_file_is_as_open_to_others_as_any(tmp_path):
    path = tmp_path / "new" / "net.safetensors"
    save_net(digits_cnn(width=4), HYPER_PARAMETERS, path)
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_save_net_takes_weights_that_share_memory_or_are_transposed(path):
    net = digits_cnn(width=4)
    linear = net.classifier[1]
    linear.weight = nn.Parameter(linear.weight.detach().t().contiguous().t())
    net.features[2].bias = net.features[5].bias
    save_net(net, HYPER_PARAMETERS, path)
    inputs = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(load_net(path)(inputs), net(inputs))


@pytest.mark.parametrize(
    ("net", "changes", "match"),
    [
        (digits_cnn(width=8), {}, "another architecture"),
        (digits_cnn(width=4), {"unit": "bytes"}, "`unit`"),
        (digits_cnn(width=4), {"method": object()}, "no plain containers"),
        (digits_cnn(width=4), {"method": {"lr": float("nan")}}, "no plain containers"),
        (digits_cnn(width=4), {"net": {"_target_": "os.system"}}, "`_target_`"),
        (digits_cnn(width=4).state_dict(), {}, "`net` to be a torch.nn.Module, got a OrderedDict"),
    ],
    ids=["architecture", "unit", "object", "nan", "target", "weights"],
)
def test_save_net_refuses_what_could_not_be_read_back(path, net, changes, match):
    with pytest.raises(InputError, match=match):
        save_net(net, {**HYPER_PARAMETERS, **changes}, path)
    assert not path.exists()


@pytest.mark.parametrize("name", [None, 7])
def test_save_net_refuses_what_is_no_path(name):
    with pytest.raises(InputError, match=r"name of a \.safetensors file as text, got"):
        save_net(digits_cnn(width=4), HYPER_PARAMETERS, name)


def test_save_net_refuses_nan(path):
    net = digits_cnn(width=4)
    net.classifier[3].bias.data[0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        save_net(net, HYPER_PARAMETERS, path)
    assert not path.exists()


def test_safetensors_files_that_are_no_nets(path):
    with pytest.raises(InputError, match="there is no file"):
        load_net(path)
    tensors = digits_cnn(width=4).state_dict()
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(InputError, match="no sztrain hyper-parameters"):
        load_net(path)
    safetensors.torch.save_file(tensors, path, metadata={"sztrain": "{"})
    with pytest.raises(InputError, match="damaged or no safetensors file"):
        load_net(path)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged or no safetensors file") as caught:
            describe_net(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [load_net, describe_net])
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("M7", "M1, M2, C1, .*, I6, digits_standard, digits_sparse_at"),
        ("c10", "did you mean C10"),
        ("digits-standard", "got digits-standard; did you mean digits_standard"),
        ("net.pth", "or a .ckpt or .safetensors file, got net.pth"),
        ("", "expected a net's name"),
        (None, "expected the name of a net, or of its .ckpt or .* file, as text, got None"),
        (7, "as text, got a int"),
        (["M1"], "as text, got a list"),
        (digits_cnn(), "as text, got a DigitsCNN"),
    ],
)
def test_refuses_other_names(load, name, match):
    with pytest.raises(InputError, match=match) as caught:
        load(name)
    assert "\n" not in str(caught.value)
