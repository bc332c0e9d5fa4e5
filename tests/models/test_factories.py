"""Every factory: shapes, published sizes, and logits of independent implementations."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision

from sztrain.errors import InputError
from sztrain.models import (
    digits_cnn,
    preact_resnet18,
    resnet18,
    small_cnn,
    wrn28,
)
from sztrain.models.checkpoint import NET_FACTORIES
from sztrain.models.robustbench_nets import _import_robustbench

SIDES = {digits_cnn: 8, small_cnn: 28, preact_resnet18: 32, resnet18: 32, wrn28: 32}
OF_OTHERS = {"timm_net", "robustbench_net"}  # which have tests of their own
SMALL = {wrn28: {"depth": 10, "width": 1}}


def test_every_factory_is_tried():
    assert {factory.__name__ for factory in SIDES} | OF_OTHERS == set(NET_FACTORIES)


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


def randomize(net):
    """Give BatchNorm statistics and affine parameters that are not those of the identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net.eval()


@pytest.mark.parametrize("factory", SIDES, ids=lambda factory: factory.__name__)
class TestEveryFactory:
    def test_maps_images_to_logits(self, factory):
        net = factory(num_classes=7, in_channels=2, **SMALL.get(factory, {})).eval()
        inputs = torch.rand(3, 2, SIDES[factory], SIDES[factory])
        logits = net(inputs)
        assert logits.shape == (3, 7)
        # Samples do not see each other, and nothing squashes the outputs to probabilities.
        torch.testing.assert_close(net(inputs[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(logits.sum(dim=1), torch.ones(3))

    def test_normalises_first_and_keeps_its_keys(self, factory):
        mean, std = [0.3, 0.6], [0.2, 0.4]
        plain = factory(num_classes=3, in_channels=2, **SMALL.get(factory, {})).eval()
        net = factory(num_classes=3, in_channels=2, mean=mean, std=std, **SMALL.get(factory, {}))
        net.eval().load_state_dict(plain.state_dict())
        inputs = torch.rand(2, 2, SIDES[factory], SIDES[factory])
        by_hand = (inputs - torch.tensor(mean).view(2, 1, 1)) / torch.tensor(std).view(2, 1, 1)
        torch.testing.assert_close(net(inputs), plain(by_hand))
        assert not torch.allclose(net(inputs), plain(inputs))

    @pytest.mark.parametrize(
        "arguments",
        [
            {"num_classes": 1},
            {"num_classes": 2.5},
            {"num_classes": "ten"},
            {"num_classes": True},
            {"num_classes": 10, "in_channels": 0},
            {"num_classes": 10, "mean": [0.5]},
            {"num_classes": 10, "mean": [0.5, 0.5], "std": [0.5, 0.5]},
        ],
    )
    def test_refuses(self, factory, arguments):
        with pytest.raises(InputError, match="expected `") as caught:
            factory(**arguments)
        assert "\n" not in str(caught.value)


def test_digits_cnn_is_small_and_takes_larger_images():
    assert count(digits_cnn()) == 72_842
    assert digits_cnn()(torch.rand(1, 1, 28, 31)).shape == (1, 10)
    assert count(digits_cnn(width=8)) < count(digits_cnn(width=16))
    with pytest.raises(InputError, match="`width`"):
        digits_cnn(width=0)


@pytest.mark.parametrize("shape", [(1, 1, 7, 8), (1, 3, 8, 8), (1, 64)])
def test_digits_cnn_refuses_other_images(shape):
    with pytest.raises(InputError, match="digits_cnn takes images of shape"):
        digits_cnn()(torch.zeros(shape))


def test_digits_cnn_learns():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 4
    inputs = torch.rand(64, 1, 8, 8, generator=generator) * 0.3
    for index, label in enumerate(labels.tolist()):
        inputs[index, 0, 2 * label : 2 * label + 2] += 0.6
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = digits_cnn(num_classes=4, width=8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    assert (net(inputs).argmax(dim=1) == labels).all()


def test_small_cnn_is_the_published_layout():
    assert count(small_cnn()) == 312_202
    with pytest.raises(InputError, match=r"small_cnn takes images of shape \(N, 1, 28, 28\)"):
        small_cnn()(torch.zeros(1, 1, 8, 8))


def test_small_cnn_layer_by_layer():
    net = small_cnn()
    weights = net.state_dict()

    def convolve(hidden, name):
        name = f"feature_extractor.{name}"
        return F.relu(F.conv2d(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"]))

    def connect(hidden, name):
        return F.linear(
            hidden, weights[f"classifier.{name}.weight"], weights[f"classifier.{name}.bias"]
        )

    inputs = torch.rand(2, 1, 28, 28)
    hidden = F.max_pool2d(convolve(convolve(inputs, "conv1"), "conv2"), 2)
    hidden = F.max_pool2d(convolve(convolve(hidden, "conv3"), "conv4"), 2).flatten(1)
    hidden = connect(F.relu(connect(F.relu(connect(hidden, "fc1")), "fc2")), "fc3")
    torch.testing.assert_close(net(inputs), hidden)


def test_published_parameter_counts():
    with torch.device("meta"):  # counts need no memory and no initialisation
        assert count(wrn28(10)) == 36_479_194
        assert count(resnet18(10)) == 11_173_962
        assert count(resnet18(1000, stem="imagenet")) == 11_689_512
        assert count(preact_resnet18(10)) == 11_172_170


def test_resnet18_with_the_large_stem_is_torchvisions():
    reference = randomize(torchvision.models.resnet18())
    net = resnet18(1000, stem="imagenet").eval()
    net.load_state_dict(reference.state_dict())
    inputs = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net(inputs), reference(inputs))


def test_resnet18_with_the_small_stem_is_robustbenchs():
    architectures = _import_robustbench().model_zoo.architectures
    reference = randomize(architectures.resnet.ResNet18())
    renamed = {
        key.replace("shortcut", "downsample").replace("linear", "fc"): tensor
        for key, tensor in reference.state_dict().items()
    }
    net = resnet18(10).eval()
    net.load_state_dict(renamed)
    inputs = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net(inputs), reference(inputs), rtol=1e-4, atol=1e-4)


def test_preact_resnet18_is_robustbenchs():
    module = _import_robustbench().model_zoo.architectures.resnet
    # The layout of the paper: the shortcut takes the activated input, and BatchNorm comes last.
    options = {"bn_before_fc": True, "out_shortcut": True}
    reference = randomize(module.PreActResNet(module.PreActBlock, [2, 2, 2, 2], **options))
    net = preact_resnet18(10).eval()
    net.load_state_dict(reference.state_dict())
    inputs = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net(inputs), reference(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_wrn_is_robustbenchs(depth, width):
    module = _import_robustbench().model_zoo.architectures.wide_resnet
    reference = randomize(module.WideResNet(depth=depth, widen_factor=width))
    net = wrn28(10, depth=depth, width=width).eval()
    if width == 1:
        # With width 1 the first stage keeps its 16 channels: both need no shortcut there.
        assert net.block1.layer[0].convShortcut is None
    net.load_state_dict(reference.state_dict())
    inputs = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net(inputs), reference(inputs), rtol=1e-4, atol=1e-4)


def test_a_narrow_preact_resnet18_is_robustbenchs_with_fewer_channels():
    module = _import_robustbench().model_zoo.architectures.resnet
    reference = module.PreActResNet(
        module.PreActBlock, [2, 2, 2, 2], bn_before_fc=True, out_shortcut=True
    )
    shapes = {name: tensor.shape for name, tensor in reference.state_dict().items()}
    eighth = {  # of all channels but those of the images and of the classes
        name: torch.Size(size // 8 if size >= 64 else size for size in shape)
        for name, shape in shapes.items()
    }
    narrow = preact_resnet18(10, width=8)
    assert {name: tensor.shape for name, tensor in narrow.state_dict().items()} == eighth
    assert narrow(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_activation_is_the_one_that_was_asked_for():
    relu = preact_resnet18(3)
    softplus = preact_resnet18(3, activation="softplus")
    softplus.load_state_dict(relu.state_dict())
    for net in (relu, softplus):
        net.eval()
        net.bn.weight.data.zero_()
        net.bn.bias.data.fill_(-5.0)  # so the last activation sees -5 everywhere
    inputs = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(relu(inputs), relu.linear.bias[None])
    shift = softplus.linear.weight.sum(dim=1) * math.log1p(math.exp(-5.0))
    torch.testing.assert_close(softplus(inputs), (softplus.linear.bias + shift)[None])


def test_dropout_acts_in_training_alone():
    net = wrn28(3, depth=10, width=1, dropout=0.5)
    inputs = torch.rand(2, 3, 16, 16)
    dropouts = [module for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    assert [module.p for module in dropouts] == [0.5] * 3
    assert not torch.equal(net(inputs), net(inputs))
    net.eval()
    torch.testing.assert_close(net(inputs), net(inputs), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("factory", "arguments", "match"),
    [
        (wrn28, {"depth": 27}, r"`depth` to be 6n \+ 4"),
        (wrn28, {"depth": 4}, "`depth` to be at least 10"),
        (wrn28, {"width": 0}, "`width`"),
        (wrn28, {"dropout": 1.0}, "`dropout`"),
        (wrn28, {"dropout": -0.1}, "`dropout`"),
        (wrn28, {"dropout": "much"}, "`dropout`"),
        (resnet18, {"stem": "large"}, "`stem` to be one of cifar, imagenet, got large"),
        (preact_resnet18, {"activation": "gelu"}, "`activation` to be one of relu, softplus"),
    ],
)
def test_refuses_other_options(factory, arguments, match):
    with pytest.raises(InputError, match=match):
        factory(num_classes=10, **arguments)
