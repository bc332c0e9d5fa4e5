"""The nets of the paper: their facts, and the way from a file or a download to the net."""

import hashlib
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision

from sztrain.errors import InputError, UnavailableError
from sztrain.evaluation.published import net_rows
from sztrain.models import (
    CARDS,
    build_net,
    describe_net,
    digits_cnn,
    load_net,
    preact_resnet18,
    robustbench_net,
    robustbench_nets,
    small_cnn,
    state_dicts,
    zoo,
)

PAPER = {row.model: row for row in net_rows()}
ROBUSTBENCH = [name for name, row in PAPER.items() if row.rb_arch and name != "I1"]
LARGE = ("C1", "C2", "C6", "C7", "C8", "I6")  # seconds each; C6 has 267 million parameters


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder of weights, and no way to download."""

    def refuse(url):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(zoo, "download", refuse)
    monkeypatch.setattr(robustbench_nets, "download", refuse)
    monkeypatch.setattr(robustbench_nets, "require_answer", refuse)
    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", str(tmp_path))
    return tmp_path


def publish(monkeypatch, path, of="C5", **changes):
    """A card X for what lies or shall lie at ``path``: a small net, but otherwise like another."""
    changes = {"spec": {"_target_": "sztrain.models.small_cnn"}, "file": path.name, **changes}
    card = replace(CARDS[of], name="X", **changes)
    monkeypatch.setattr(zoo, "CARDS", {"X": card})
    return card


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Facts


def test_every_net_of_the_paper_has_a_card():
    assert list(PAPER) == list(CARDS)[:18]
    for name, row in PAPER.items():
        assert describe_net(name)["data"] == {"name": row.dataset}


def test_robustbench_nets_are_those_that_the_authors_load():
    assert len(ROBUSTBENCH) == 13
    for name in ROBUSTBENCH:
        reference, data, threat_model = re.fullmatch(
            r"(\S+) \((\w+), (\w+)\)", PAPER[name].authors_code_ref
        ).groups()
        assert describe_net(name)["net"] == {
            "_target_": "sztrain.models.robustbench_net",
            "name": reference,
            "dataset": data,
            "threat_model": threat_model,
        }
        assert CARDS[name].description.startswith(f"{PAPER[name].rb_arch}, ")
        place = Path(CARDS[name].file)
        entry = robustbench_nets._find(reference, data, threat_model)
        registered = robustbench_nets._timm_name(reference, data, threat_model)
        assert place.parts[:2] == (data, threat_model)
        assert place.name == next(iter(robustbench_nets._published(entry, reference, registered)))


def test_nets_of_the_authors_are_their_files():
    for name in ("M1", "M2", "C5", "C10"):
        file = re.search(r"models/\w+/[\w.]+$", PAPER[name].authors_code_ref).group()
        assert CARDS[name].url.endswith(f"/raw/HEAD/{file}")
        assert CARDS[name].url.startswith("https://github.com/")
        assert file.endswith(f"/{CARDS[name].file}")


def test_i1_is_torchvisions():
    from torchvision.models import ResNet18_Weights

    weights, spec = ResNet18_Weights.DEFAULT, CARDS["I1"].spec
    assert weights is ResNet18_Weights.IMAGENET1K_V1
    assert CARDS["I1"].url == weights.url
    assert CARDS["I1"].url.endswith(f"/{CARDS['I1'].file}")
    assert CARDS["I1"].file == f"resnet18-{CARDS['I1'].sha256}.pth"
    assert spec["mean"] == weights.transforms().mean
    assert spec["std"] == weights.transforms().std
    assert spec["num_classes"] == len(weights.meta["categories"])


def test_cards_say_where_the_paper_and_its_code_disagree():
    for name, row in PAPER.items():
        if "DISAGREEMENT" in row.notes or "PAPER-INTERNAL" in row.notes:
            assert CARDS[name].remark, name
    for name, words in {
        "C4": "Table IV has Linf and L2",
        "C6": "Table IV: Gowal2020Uncovering, L2",
        "I1": "Table IV: Standard_R18",
        "I4": "figures of Salman2020Do_R50",
        "I5": "Table IV and Sect. III-A: Linf",
    }.items():
        assert words in CARDS[name].remark


def test_description_is_plain_and_cannot_change_the_card():
    for name in PAPER:
        described = describe_net(name)
        assert json.loads(json.dumps(described)) == described
    describe_net("I1")["net"]["mean"][0] = 0.0
    assert CARDS["I1"].spec["mean"][0] == 0.485


# Loading


def save_compactly(net_state, path):
    """Save random weights with the same numbers for each output channel: a much smaller file."""
    compact = {
        key: tensor[:1].clone().expand_as(tensor) if tensor.ndim == 4 else tensor
        for key, tensor in net_state.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(compact, path)
    return compact


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in ROBUSTBENCH],
)
def test_robustbench_net_is_loaded_by_its_name(name, folder):
    card, spec = CARDS[name], dict(CARDS[name].spec)
    del spec["_target_"]
    reference = robustbench_net(**spec, pretrained=False)
    path = folder / card.file
    if name == "C7":
        for index, member in enumerate(reference.models):
            member.load_state_dict(
                save_compactly(
                    member.state_dict(), path.with_name(f"{spec['name']}.pt_m{index}.pt")
                )
            )
    elif card.data == "imagenet":
        # Published are the weights of the net behind the normalisation; XCiT has none.
        behind = getattr(reference, "model", reference)
        behind.load_state_dict(save_compactly(behind.state_dict(), path))
    else:
        reference.load_state_dict(save_compactly(reference.state_dict(), path))
    inputs = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = reference.eval()(inputs)
        del reference
        net = load_net(name)
        assert not net.training
        torch.testing.assert_close(net(inputs), expected)
    assert expected.shape == (2, 1000 if card.data == "imagenet" else 10)
    assert len(files_in(folder)) == (3 if name == "C7" else 1)


def preact_resnet18_of(weights, inputs):
    """The net that the paper's C5 and C10 are, written out."""

    def conv(name, hidden, stride=1, padding=1):
        return F.conv2d(hidden, weights[f"{name}.weight"], stride=stride, padding=padding)

    def norm(name, hidden):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(hidden, *(weights[f"{name}.{key}"] for key in keys))

    hidden = conv("conv1", inputs)
    for stage in range(1, 5):
        for block in range(2):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            active = F.softplus(norm(f"{at}.bn1", hidden))
            if stride == 2:
                hidden = conv(f"{at}.shortcut.0", active, 2, padding=0)
            active = F.softplus(norm(f"{at}.bn2", conv(f"{at}.conv1", active, stride)))
            hidden = hidden + conv(f"{at}.conv2", active)
    features = F.relu(norm("bn", hidden)).mean(dim=(2, 3))
    return F.linear(features, weights["linear.weight"], weights["linear.bias"])


@pytest.mark.parametrize(
    ("name", "prefix", "key"), [("C5", "", None), ("C10", "1.", None), ("C10", "", "state_dict")]
)
def test_l1_robust_net_is_loaded_by_its_name(name, prefix, key, folder):
    net = preact_resnet18(10, activation="softplus")
    net.bn.running_mean.normal_()  # so that the last activation sees both signs
    path = folder / CARDS[name].file
    weights = {prefix + key: tensor for key, tensor in net.state_dict().items()}
    torch.save(weights if key is None else {key: weights, "epoch": 3}, path)
    inputs = torch.rand(2, 3, 32, 32)
    loaded = load_net(name)
    assert not loaded.training
    torch.testing.assert_close(loaded(inputs), preact_resnet18_of(net.state_dict(), inputs))
    assert files_in(folder) == [path.name, f"{path.name}.sha256"]


def test_i1_normalises_and_is_checked_by_the_digits_in_its_name(folder, monkeypatch):
    reference = torchvision.models.resnet18().eval()
    path = folder / CARDS["I1"].file
    torch.save(reference.state_dict(), path)
    with pytest.raises(InputError, match=r"sha256 is \w{64}, expected f37072fd; remove"):
        load_net("I1")
    card = replace(CARDS["I1"], sha256=digest_of(path)[:8])
    monkeypatch.setattr(zoo, "CARDS", {"I1": card})
    inputs = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (inputs - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(load_net("I1")(inputs), reference(normalised))
    assert files_in(folder) == [path.name]


def test_published_file_is_checked_like_any_other(folder, monkeypatch):
    path = folder / "x.pth"
    net = small_cnn()
    net.classifier.fc3.bias.data[0] = torch.nan
    for content, match in [
        (net.state_dict(), "NaN or infinite"),
        (digits_cnn().state_dict(), "another architecture"),
        ([1, 2], "no state dict, but list"),
        ({"state_dict": {}, "args": Path("any object")}, "plain containers and tensors"),
    ]:
        torch.save(content, path)
        for digest in (digest_of(path), None):
            publish(monkeypatch, path, sha256=digest)
            with pytest.raises(InputError, match=match) as caught:
                load_net("X")
            assert type(caught.value) is InputError
            assert str(path) in str(caught.value)
            assert files_in(folder) == ["x.pth"]  # what does not load is not pinned
    path.write_bytes(b"text")
    with pytest.raises(InputError, match=r"x\.pth is damaged"):
        load_net("X")


# Downloading


@pytest.mark.parametrize("name", PAPER)
def test_net_that_cannot_be_had(name, folder, capfd):
    with pytest.raises(UnavailableError, match=r"\(no route to host\)") as caught:
        load_net(name)
    message = str(caught.value)
    assert "\n" not in message
    assert f"put them at {folder / CARDS[name].file}, or set SZTRAIN_WEIGHTS_DIR" in message
    assert message.endswith(CARDS[name].file)
    assert capfd.readouterr() == ("", "")
    assert list(folder.iterdir()) == []


def test_download_is_kept(folder, monkeypatch):
    published, here = folder / "published.pth", folder / "here"
    net = small_cnn().eval()
    torch.save(net.state_dict(), published)
    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", str(here))
    monkeypatch.setattr(zoo, "download", state_dicts.download)
    card = publish(monkeypatch, here / "x.pth", url=published.as_uri())
    inputs = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(load_net("X")(inputs), net(inputs))
    assert files_in(here) == ["x.pth", "x.pth.sha256"]
    assert (here / "x.pth").read_bytes() == published.read_bytes()
    published.unlink()
    torch.testing.assert_close(load_net("X")(inputs), net(inputs))
    (here / card.file).unlink()
    with pytest.raises(UnavailableError, match="No such file"):
        load_net("X")


@pytest.mark.parametrize(
    ("content", "changes", "match"),
    [
        (b"<html>", {}, "https://x.org/x.pth is damaged"),
        (b"<html>", {"sha256": CARDS["M1"].sha256}, "x.org/x.pth is not the .* [0-9a-f]+$"),
    ],
)
def test_bad_download_leaves_nothing(folder, monkeypatch, content, changes, match):
    publish(monkeypatch, folder / "x.pth", url="https://x.org/x.pth", **changes)
    monkeypatch.setattr(zoo, "download", lambda url: content)
    with pytest.raises(InputError, match=match) as caught:
        load_net("X")
    assert type(caught.value) is InputError
    assert list(folder.iterdir()) == []


def test_download_that_cannot_be_kept_still_loads(folder, monkeypatch):
    torch.save(small_cnn().state_dict(), folder / "published.pth")
    content = (folder / "published.pth").read_bytes()
    publish(monkeypatch, folder / "x.pth", sha256=digest_of(folder / "published.pth"))
    monkeypatch.setattr(zoo, "download", lambda url: content)

    def read_only(path, content):
        raise InputError(f"{path} cannot be written (read-only folder)")

    monkeypatch.setattr(zoo, "write_whole", read_only)
    with pytest.warns(UserWarning, match=r"x\.pth cannot be written \(read-only folder") as caught:
        load_net("X")
    assert caught[0].filename == __file__


# Checksums


def test_published_checksum_is_always_checked(folder):
    for name in ("M1", "M2"):
        assert re.fullmatch("[0-9a-f]{64}", CARDS[name].sha256)
        torch.save(small_cnn().state_dict(), folder / CARDS[name].file)
        with pytest.raises(
            InputError, match=f"sha256 is .*, expected {CARDS[name].sha256}; remove it"
        ):
            load_net(name)


def test_first_file_is_pinned_where_no_checksum_is_published(folder, monkeypatch):
    assert [name for name in CARDS if CARDS[name].url and not CARDS[name].sha256] == ["C5", "C10"]
    path, pin = folder / "x.pth", folder / "x.pth.sha256"
    publish(monkeypatch, path)
    torch.save(small_cnn().state_dict(), path)
    load_net("X")
    assert pin.read_text() == f"{digest_of(path)}  x.pth\n"
    checked = subprocess.run(["sha256sum", "-c", pin.name], cwd=folder, capture_output=True)
    assert checked.returncode == 0
    load_net("X")
    first = digest_of(path)
    torch.save(small_cnn().state_dict(), path)
    with pytest.raises(InputError, match=f"{digest_of(path)}, expected {first}; delete") as caught:
        load_net("X")
    assert type(caught.value) is InputError
    # A new download is checked against what was used here before, too.
    second = path.read_bytes()
    monkeypatch.setattr(zoo, "download", lambda url: second)
    path.unlink()
    with pytest.raises(InputError, match=f"expected {first}"):
        load_net("X")
    assert files_in(folder) == ["x.pth.sha256"]
    pin.unlink()
    load_net("X")
    assert files_in(folder) == ["x.pth", "x.pth.sha256"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"text"])
def test_damaged_pin_refuses_in_one_line(folder, monkeypatch, content):
    path = folder / "x.pth"
    publish(monkeypatch, path)
    torch.save(small_cnn().state_dict(), path)
    Path(f"{path}.sha256").write_bytes(content)
    with pytest.raises(InputError, match=r"delete .*x\.pth\.sha256") as caught:
        load_net("X")
    assert "\n" not in str(caught.value)


def test_net_of_the_authors_is_described_as_it_is_built():
    shapes = {"M1": (1, 1, 28, 28), "C5": (1, 3, 32, 32), "I1": (1, 3, 64, 64)}
    for name, shape in shapes.items():
        net = build_net(describe_net(name)["net"]).eval()
        assert net(torch.zeros(shape)).shape == (1, 1000 if name == "I1" else 10)
