import ast
import importlib.util
import re
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch
from pace import slow_after
from torch import nn
from torchvision.models import resnet50

from sztrain.errors import InputError, UnavailableError
from sztrain.models import robustbench_net, robustbench_nets
from sztrain.models.checkpoint import assemble

NAME = "Addepalli2022Efficient_RN18"


@pytest.fixture
def robustbench():
    return robustbench_nets._import_robustbench()


@pytest.fixture
def no_network(robustbench, monkeypatch):
    def download(*args, **kwargs):
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr(robustbench_nets, "require_answer", lambda url: None)
    monkeypatch.setattr(robustbench_nets, "download", download)
    monkeypatch.setattr(robustbench.utils.gdown, "download", download)


@pytest.fixture
def google_drive(robustbench, monkeypatch):
    """Files by their number there; what RobustBench's client fetches, it takes from here."""
    published = {}

    def download(output, **source):
        content = published[source["id"]]
        Path(output).write_bytes(content[:10])
        if len(content) <= 10:
            raise ConnectionError("broke off")
        Path(output).write_bytes(content)

    monkeypatch.setattr(robustbench_nets, "require_answer", lambda url: None)
    monkeypatch.setattr(robustbench.utils.gdown, "download", download)
    return published


def put(net, folder, name=NAME, dataset="cifar10", threat_model="Linf"):
    path = folder / dataset / threat_model / f"{name}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(net, path)
    return path


@pytest.mark.slow
def test_no_file_imports_another_zoo_before_it_is_needed():
    files = sorted(Path(robustbench_nets.__file__).parent.glob("*.py"))
    assert "robustbench_nets.py" in [file.name for file in files]
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not re.search(r"\b(timm|robustbench|pyautoattack)\b", ast.unparse(node))


def test_robustbench_finds_autoattack_under_the_name_it_imports(robustbench):
    # As published it cannot be imported: what is installed is called `pyautoattack`.
    if importlib.util.find_spec("pyautoattack") is None:
        pytest.skip("pyautoattack is not installed: autoattack itself is")
    import pyautoattack.state

    assert sys.modules["autoattack"] is pyautoattack
    assert sys.modules["autoattack.state"] is pyautoattack.state
    assert robustbench.eval.AutoAttack is pyautoattack.AutoAttack


def test_robustbench_that_another_package_has_written_over(monkeypatch, tmp_path):
    """As torchattacks does, whose wheel brings an old copy along."""
    package, record = tmp_path / "robustbench", tmp_path / "robustbench-1.1.1.dist-info"
    for folder in (package, record):
        folder.mkdir()
    (package / "utils.py").write_text("own = True\n", encoding="utf-8")
    (record / "METADATA").write_text("Name: robustbench\nVersion: 1.1.1\n", encoding="utf-8")
    (record / "RECORD").write_text("robustbench/utils.py,,11\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    robustbench_nets._require_own_files("robustbench", "robustbench/utils.py")
    (package / "utils.py").write_text("own = False\n", encoding="utf-8")
    with pytest.raises(UnavailableError, match=r"--force-reinstall robustbench==1\.1\.1$"):
        robustbench_net(NAME)


def test_robustbench_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(InputError, match=r"robustbench cannot be imported.*setuptools<81"):
        robustbench_net(NAME)


@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"state_dict": weights}])
@pytest.mark.parametrize("prefix", slow_after(1, ["", "module."]))
def test_robustbench_net_reads_the_file_at_its_place(
    robustbench, no_network, tmp_path, monkeypatch, wrap, prefix
):
    reference = robustbench.model_zoo.architectures.resnet.ResNet18()
    weights = {prefix + key: tensor for key, tensor in reference.state_dict().items()}
    put(wrap(weights), tmp_path)
    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", str(tmp_path))
    net = robustbench_net(NAME)
    inputs = torch.rand(2, 3, 32, 32)
    assert not net.training
    torch.testing.assert_close(net(inputs), reference.eval()(inputs))


def test_robustbench_net_takes_a_folder(robustbench, no_network, tmp_path):
    put(robustbench.model_zoo.architectures.resnet.ResNet18().state_dict(), tmp_path)
    assert robustbench_net(NAME, model_dir=str(tmp_path))(torch.zeros(1, 3, 32, 32)).shape == (
        1,
        10,
    )


@pytest.mark.slow
def test_robustbench_net_that_timm_registers(robustbench, tmp_path):
    from timm.models.xcit import Xcit

    name = "Debenedetti2022Light_XCiT-S12"
    published = Xcit(
        img_size=32, patch_size=16, embed_dim=384, depth=12, num_heads=8, eta=1.0,
        tokens_norm=True, num_classes=10,
    )  # fmt: skip
    put({"state_dict": published.state_dict()}, tmp_path, name)
    net = robustbench_net(name, model_dir=tmp_path)
    expected = published.state_dict()
    for key in ("head.weight", "blocks.11.mlp.fc1.weight", "norm.bias"):
        torch.testing.assert_close(net.model.state_dict()[key], expected[key])
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_robustbench_net_without_a_network_names_the_file(no_network, tmp_path, capfd):
    place = tmp_path / "cifar10" / "Linf" / f"{NAME}.pt"
    with pytest.raises(
        UnavailableError, match=r"downloaded from .* \(no route to host\)"
    ) as caught:
        robustbench_net(NAME, model_dir=tmp_path)
    assert f"put them at {place}, or" in str(caught.value)
    assert "https://drive.google.com/uc?id=1m5vhdzIUUKhDbsZdOG9z76Eyp6f4xe_f" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_host_that_does_not_answer_is_not_waited_for(robustbench, tmp_path, monkeypatch):
    def require_answer(url):
        assert url.startswith("https://drive.google.com/")
        raise TimeoutError("timed out")

    monkeypatch.setattr(robustbench_nets, "require_answer", require_answer)
    monkeypatch.setattr(robustbench.utils.gdown, "download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(UnavailableError, match=r"\(timed out\)"):
        robustbench_net(NAME, model_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_without_a_network_names_its_first_absent_file(no_network, tmp_path):
    # RobustBench appends the member's number to a name that already has an ending.
    for index in range(3):
        path = tmp_path / "cifar10" / "Linf" / f"Chen2020Adversarial.pt_m{index}.pt"
        with pytest.raises(UnavailableError, match=f"put them at {re.escape(str(path))}, or"):
            robustbench_net("Chen2020Adversarial", model_dir=tmp_path)
        path.write_bytes(b"")
    with pytest.raises(InputError, match="damaged") as caught:
        robustbench_net("Chen2020Adversarial", model_dir=tmp_path)
    assert not isinstance(caught.value, UnavailableError)


def test_net_that_timm_registers_without_a_network(no_network, tmp_path):
    name = "Debenedetti2022Light_XCiT-S12"
    with pytest.raises(UnavailableError, match=r"from http.*xcit-s-imagenet-linf") as caught:
        robustbench_net(name, "imagenet", model_dir=tmp_path)
    assert str(tmp_path / "imagenet" / "Linf" / f"{name}.pt") in str(caught.value)


def test_missing_weights_are_downloaded_to_their_place(robustbench, google_drive, tmp_path, capfd):
    reference = robustbench.model_zoo.architectures.resnet.ResNet18()
    file = BytesIO()
    torch.save(reference.state_dict(), file)
    google_drive["1m5vhdzIUUKhDbsZdOG9z76Eyp6f4xe_f"] = file.getvalue()
    net = robustbench_net(NAME, model_dir=tmp_path)
    inputs = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net(inputs), reference.eval()(inputs))
    (path,) = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert path == tmp_path / "cifar10" / "Linf" / f"{NAME}.pt"
    assert path.read_bytes() == file.getvalue()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"half", UnavailableError, r"\(broke off\)"),
        (b"<html>sign in, please</html>", InputError, "damaged or holds another net"),
    ],
)
def test_bad_download_leaves_nothing(google_drive, tmp_path, content, error, match):
    google_drive["1m5vhdzIUUKhDbsZdOG9z76Eyp6f4xe_f"] = content
    with pytest.raises(error, match=match) as caught:
        robustbench_net(NAME, model_dir=tmp_path)
    assert type(caught.value) is error
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_net_that_timm_registers_executes_nothing(tmp_path):
    name = "Debenedetti2022Light_XCiT-S12"
    put({"state_dict": {}, "args": Path("any object")}, tmp_path, name)
    with pytest.raises(InputError, match="plain containers and tensors"):
        robustbench_net(name, model_dir=tmp_path)


@pytest.mark.parametrize(
    "content", [{"conv1.weight": torch.zeros(1)}, "no weights", [1, 2]], ids=lambda c: str(type(c))
)
def test_robustbench_net_refuses_other_weights(no_network, tmp_path, content):
    path = put(content, tmp_path)
    with pytest.raises(InputError, match="damaged or holds another net") as caught:
        robustbench_net(NAME, model_dir=tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_robustbench_net_refuses_a_damaged_file(robustbench, no_network, tmp_path):
    path = put(robustbench.model_zoo.architectures.resnet.ResNet18().state_dict(), tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        robustbench_net(NAME, model_dir=tmp_path)


def test_robustbench_net_refuses_nan(robustbench, no_network, tmp_path):
    net = robustbench.model_zoo.architectures.resnet.ResNet18()
    net.linear.bias.data[3] = torch.nan
    put(net.state_dict(), tmp_path)
    with pytest.raises(InputError, match=r"NaN or infinite in 1 of .* linear\.bias"):
        robustbench_net(NAME, model_dir=tmp_path)


def test_bare_architecture_needs_no_file(no_network, tmp_path):
    net = robustbench_net(NAME, model_dir=tmp_path / "none", pretrained=False)
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert not (tmp_path / "none").exists()


def test_bare_architecture_of_torchvision_is_the_one_that_comes_with_weights(
    robustbench, no_network, monkeypatch
):
    """A checkpoint of a fine-tuned one is put into the bare one."""
    monkeypatch.setattr(
        robustbench.model_zoo.imagenet.pt_models, "resnet50", lambda pretrained=False: resnet50()
    )
    published = robustbench_net("Standard_R50", dataset="imagenet")
    spec = {
        "_target_": "sztrain.models.robustbench_net",
        "name": "Standard_R50",
        "dataset": "imagenet",
    }
    net = assemble({"net": spec}, published.state_dict(), "net.ckpt")
    inputs = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net(inputs), published(inputs))


def test_bare_architecture_that_cannot_be_built_here(robustbench, monkeypatch):
    def build():
        raise RuntimeError("no NVIDIA driver\nsecond line")

    monkeypatch.setitem(
        robustbench.model_zoo.model_dicts[robustbench.model_zoo.enums.BenchmarkDataset.cifar_10][
            robustbench.model_zoo.enums.ThreatModel.Linf
        ][NAME],
        "model",
        build,
    )
    with pytest.raises(InputError, match=r"cannot build .* here: no NVIDIA driver$"):
        robustbench_net(NAME, pretrained=False)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "addepalli2022efficient-RN18"}, f"did you mean {NAME}"),
        ({"name": NAME, "dataset": "cifar"}, "`dataset` to be one of cifar10, cifar100, imagenet"),
        ({"name": NAME, "threat_model": "L0"}, "`threat_model` to be one of .*Linf.*, got L0"),
        ({"name": NAME, "threat_model": "L2"}, "no net .* for dataset=cifar10 and threat_model=L2"),
    ],
)
def test_robustbench_net_refuses(arguments, match):
    with pytest.raises(InputError, match=match):
        robustbench_net(**arguments)


@pytest.mark.parametrize("kept", ["all", "one", "none"])
def test_a_net_that_robustbench_loads_loosely_has_to_be_whole(no_network, tmp_path, kept):
    name = "Salman2020Do_R18"
    bare = robustbench_net(name, dataset="imagenet", pretrained=False)
    weights = {
        f"module.{key.removeprefix('model.')}": torch.ones_like(value)
        for key, value in bare.state_dict().items()
        if key.startswith("model.")
    }
    keys = {"all": list(weights), "one": ["module.conv1.weight"], "none": []}[kept]
    content = {key: weights[key] for key in keys} | {"module.of_another_net": torch.zeros(3)}
    put({"state_dict": content}, tmp_path, name, dataset="imagenet")
    load = nn.Module.load_state_dict
    if kept == "all":
        net = robustbench_net(name, dataset="imagenet", model_dir=tmp_path)
        assert all(bool((parameter == 1).all()) for parameter in net.parameters())
    else:
        with pytest.raises(InputError, match=r"another net than Salman2020Do_R18: .* are missing"):
            robustbench_net(name, dataset="imagenet", model_dir=tmp_path)
    assert nn.Module.load_state_dict is load
