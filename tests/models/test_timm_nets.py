import pickle

import pytest
import torch

from sztrain.errors import InputError
from sztrain.models import build_net, timm_net


def test_timm_net_is_timms():
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = timm.create_model("resnet10t", num_classes=5, in_chans=1).eval()
    net = timm_net("resnet10t", num_classes=5, in_channels=1, mean=[0.5], std=[0.25]).eval()
    net.net.load_state_dict(reference.state_dict())
    inputs = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(net(inputs), reference((inputs - 0.5) / 0.25))


def test_timm_net_passes_options_on():
    net = timm_net("resnet10t", num_classes=5, drop_rate=0.25)
    assert net.drop_rate == 0.25


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "resnet10"}, "no architecture named 'resnet10'; did you mean .*resnet10t"),
        (
            {"name": "resnet10t", "no_such_option": 1},
            "timm cannot build 'resnet10t'.*no_such_option",
        ),
        ({"name": "resnet10t.no_such_tag"}, "timm cannot build"),
        ({"name": "resnet10t", "num_classes": 0}, "`num_classes`"),
        ({"name": "resnet10t", "in_channels": 0}, "`in_channels`"),
    ],
)
def test_timm_net_refuses(arguments, match):
    with pytest.raises(InputError, match=match) as caught:
        timm_net(**{"num_classes": 10, **arguments})
    assert "\n" not in str(caught.value)


def test_timm_net_without_a_network(monkeypatch):
    import timm

    def create_model(name, pretrained, **kwargs):
        assert pretrained
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(InputError, match="cannot load the weights of 'resnet10t': no route"):
        timm_net("resnet10t", num_classes=10, pretrained=True)


def test_timm_knows_the_hub_that_is_installed():
    from timm.models._hub import has_hf_hub

    assert has_hf_hub()


def test_timm_net_reads_no_file_that_would_be_executed(tmp_path):
    path = tmp_path / "net.pth"

    class Payload:
        def __reduce__(self):
            return (path.with_name("executed").touch, ())

    path.write_bytes(pickle.dumps(Payload()))
    spec = {"_target_": "sztrain.models.timm_net", "name": "resnet10t", "num_classes": 10}
    files = {"checkpoint_path": str(path), "pretrained_cfg": {"file": str(path)}}
    files["pretrained_cfg_overlay"] = {"file": str(path)}
    for option, value in files.items():
        with pytest.raises(InputError, match=f"expected no {option}: timm executes"):
            build_net({**spec, option: value})
    assert list(tmp_path.iterdir()) == [path]
