import errno
import os
import re

import pytest
import pytorch_lightning as pl
import torch

from sztrain.errors import InputError
from sztrain.models import (
    NET_FACTORIES,
    build_net,
    describe_net,
    digits_cnn,
    load_net,
    net_from_checkpoint,
    read_checkpoint,
    robustbench_net,
)
from sztrain.models import checkpoint as checkpoint_module

SPEC = {"_target_": "sztrain.models.digits_cnn", "num_classes": 10, "width": 4}
HYPER_PARAMETERS = {
    "net": SPEC,
    "data": {"name": "digits", "batch_size": 64},
    "unit": "pixels",
    "method": {"name": "sparse_at", "budget": 6},
}


def write(path, net, prefix="net.", extra=None, **changes):
    state_dict = {prefix + key: tensor for key, tensor in net.state_dict().items()}
    checkpoint = {
        "state_dict": state_dict | (extra or {}),
        "hyper_parameters": HYPER_PARAMETERS,
        "epoch": 3,
        **changes,
    }
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "best.ckpt"


def same(net, other):
    inputs = torch.rand(2, 1, 8, 8)
    return torch.equal(net.eval()(inputs), other.eval()(inputs))


def test_build_net_calls_the_named_factory():
    net = build_net({**SPEC, "mean": [0.5], "std": [0.25]})
    assert sum(parameter.numel() for parameter in net.parameters()) == sum(
        parameter.numel() for parameter in digits_cnn(width=4).parameters()
    )
    assert net.normalize.mean.item() == 0.5


@pytest.mark.parametrize("name", NET_FACTORIES)
def test_every_name_on_the_list_is_importable_as_a_target(name):
    import sztrain.models

    assert getattr(sztrain.models, name) is NET_FACTORIES[name]


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({}, "got none"),
        ({"_target_": "os.system", "command": "true"}, "got os.system"),
        ({"_target_": "digits_cnn"}, "got digits_cnn; did you mean digits_cnn"),
        ({"_target_": "sztrain.models.load_net"}, r"got sztrain\.models\.load_net"),
        ({"_target_": "sztrain.models.wrn_28", "num_classes": 10}, "did you mean wrn28"),
        ({"_target_": "sztrain.models.wrn28"}, "wrn28: missing .*num_classes.*; it takes num_cl"),
        ({**SPEC, "depth": 3}, "digits_cnn: .*unexpected .*depth.*; it takes num_classes, in_ch"),
        ({**SPEC, "width": 0}, "expected `width`"),
    ],
)
def test_build_net_refuses(spec, match):
    with pytest.raises(InputError, match=match) as caught:
        build_net(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["net.", "net._orig_mod."])
def test_net_comes_back_with_its_weights(path, prefix):
    net = digits_cnn(width=4)
    loaded = net_from_checkpoint(write(path, net, prefix))
    assert same(loaded, net)
    assert not loaded.training


@pytest.mark.slow
def test_a_compiled_net_comes_back(path):
    net = digits_cnn(width=4)
    module = torch.nn.Module()
    module.net = torch.compile(net)  # nothing is compiled before the first call
    write(path, module, prefix="")
    assert same(net_from_checkpoint(path), net)


def test_other_entries_are_not_read(path):
    net = digits_cnn(width=4)
    extra = {"teacher.weight": torch.full((3,), torch.nan), "network.bias": torch.zeros(1)}
    assert same(net_from_checkpoint(write(path, net, extra=extra)), net)


# Lightning 2.6 on torch 2.14, and its advice on loaders: neither is the matter of this test.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*does not have many workers")
def test_a_checkpoint_that_lightning_wrote(path):
    class Method(pl.LightningModule):
        def __init__(self, net, hyper_parameters):
            super().__init__()
            self.net = net
            self.save_hyperparameters(hyper_parameters)

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.rand(4, 1, 8, 8)), batch_size=4
    )
    method = Method(digits_cnn(width=4), {**HYPER_PARAMETERS, "lr": 0.1})
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=path.parent,
    )  # fmt: skip
    trainer.fit(method, loader)
    trainer.save_checkpoint(path)
    assert same(load_net(path), method.net)
    assert describe_net(path) == HYPER_PARAMETERS


def test_describe_net_returns_the_hyper_parameters_alone(path):
    write(path, digits_cnn(width=4), hyper_parameters={**HYPER_PARAMETERS, "lr": 0.1})
    assert describe_net(str(path)) == HYPER_PARAMETERS
    assert read_checkpoint(path)["epoch"] == 3


def without(key):
    return {name: value for name, value in HYPER_PARAMETERS.items() if name != key}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"hyper_parameters": None},
            "no sztrain hyper-parameters: net, data, unit, method missing",
        ),
        ({"hyper_parameters": {}}, "no sztrain hyper-parameters"),
        ({"hyper_parameters": without("method")}, "hyper-parameters: method missing"),
        ({"hyper_parameters": {**HYPER_PARAMETERS, "net": "wrn28"}}, "`net` to be a mapping"),
        ({"hyper_parameters": {**HYPER_PARAMETERS, "data": {}}}, "`data` to be a mapping with a"),
        ({"hyper_parameters": {**HYPER_PARAMETERS, "unit": "bytes"}}, "`unit` to be one of"),
        ({"hyper_parameters": {**HYPER_PARAMETERS, "net": {"_target_": "os.system"}}}, "os.system"),
        ({"state_dict": {}}, "no state dict"),
        ({"state_dict": {"net.x": 3}}, "'net.x' is of type int, expected a tensor"),
    ],
)
def test_refuses_other_contents(path, changes, match):
    write(path, digits_cnn(width=4), **changes)
    with pytest.raises(InputError, match=match) as caught:
        net_from_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("saved", "match"),
    [
        ({"width": 8}, "0 keys missing, 0 unexpected, 9 of another shape; first: features.0.weight "
         r"has shape (8, 1, 3, 3), expected (4, 1, 3, 3)"),
        ({"num_classes": 7}, "0 keys missing, 0 unexpected, 2 of another shape; first: "
         "classifier.3.weight has shape (7, 8), expected (10, 8)"),
    ],
)  # fmt: skip
def test_refuses_other_shapes(path, saved, match):
    write(path, digits_cnn(**{"width": 4, **saved}))
    with pytest.raises(InputError, match=re.escape(match)):
        net_from_checkpoint(path)


def test_refuses_missing_and_unexpected_keys(path):
    net = digits_cnn(width=4)
    state_dict = {f"net.{key}": tensor for key, tensor in net.state_dict().items()}
    bias = state_dict.pop("net.features.0.bias")
    write(path, net, state_dict=state_dict)
    with pytest.raises(InputError, match=r"1 keys missing, 0 .*: features\.0\.bias is missing"):
        net_from_checkpoint(path)
    write(path, net, state_dict={**state_dict, "net.features.0.bias": bias, "net.fc.bias": bias})
    with pytest.raises(InputError, match=r"0 keys missing, 1 .*: fc\.bias is not part of the net"):
        net_from_checkpoint(path)
    write(path, net, prefix="model.")
    with pytest.raises(InputError, match="10 keys missing"):
        net_from_checkpoint(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_refuses_weights_that_are_not_finite(path, value):
    net = digits_cnn(width=4)
    net.classifier[3].bias.data[2] = value
    with pytest.raises(InputError, match=r"NaN or infinite in 1 of 10 .*classifier\.3\.bias"):
        load_net(write(path, net))


@pytest.mark.parametrize("load", [read_checkpoint, net_from_checkpoint])
def test_refuses_what_is_no_path(load):
    with pytest.raises(InputError, match="expected the name of a checkpoint as text, got None"):
        load(None)


def test_refuses_missing_and_damaged_files(path):
    with pytest.raises(InputError, match="there is no checkpoint"):
        load_net(path)
    write(path, digits_cnn(width=4))
    whole = path.read_bytes()
    for content in (b"", b"text", b"not a checkpoint", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged, or no file") as caught:
            load_net(path)
        assert "\n" not in str(caught.value)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="is no Lightning checkpoint"):
        load_net(path)
    with pytest.raises(InputError, match="there is no checkpoint"):
        load_net(f"{path.parent}/folder.ckpt")


def test_a_file_that_may_not_be_read_is_not_called_damaged(path, monkeypatch):
    write(path, digits_cnn(width=4))

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(torch, "load", refused)
    with pytest.raises(InputError, match=r"best\.ckpt cannot be read \(Permission denied\)$"):
        load_net(path)


class Intruder:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_in_a_checkpoint_is_executed(path, capsys):
    write(path, digits_cnn(width=4), callbacks=Intruder())
    with pytest.raises(InputError, match="is damaged, or no file of plain containers"):
        load_net(path)
    assert capsys.readouterr().out == ""


def test_nets_of_other_libraries_come_back_without_a_download(path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("went to the network")

    robustbench = checkpoint_module.robustbench_net.__globals__["_import_robustbench"]()
    monkeypatch.setattr(robustbench.utils, "load_model", refuse)
    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    specs = [
        {
            "_target_": "sztrain.models.robustbench_net",
            "name": "Addepalli2022Efficient_RN18",
            "pretrained": True,
        },
        {
            "_target_": "sztrain.models.timm_net",
            "name": "resnet10t",
            "num_classes": 10,
            "pretrained": True,
        },
    ]
    nets = [
        robustbench_net("Addepalli2022Efficient_RN18", pretrained=False),
        build_net({**specs[1], "pretrained": False}),
    ]
    inputs = torch.rand(1, 3, 32, 32)
    for spec, net in zip(specs, nets, strict=True):
        write(path, net, hyper_parameters={**HYPER_PARAMETERS, "net": spec})
        torch.testing.assert_close(load_net(path)(inputs), net.eval()(inputs))
