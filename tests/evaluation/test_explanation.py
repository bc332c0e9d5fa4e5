"""What explains an example: closed forms of linear nets, completeness, and CAM by hand."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sztrain.errors import InputError, UnavailableError
from sztrain.evaluation.explanation import (
    class_activation_maps,
    fooled_without,
    label_noise,
    logit_gradients,
    noise_scores,
)


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().double()


class PooledNet(nn.Module):
    """Convolutions, global average pooling, a linear layer; dropout to be disturbed."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.last = nn.Conv2d(5, 7, 3, stride=2, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(7, 4, bias=False)

    def features(self, inputs):
        return self.last(self.norm(self.first(inputs)).relu())

    def forward(self, inputs):
        return self.head(self.dropout(self.features(inputs)).mean(dim=(2, 3)))


@pytest.fixture
def net():
    return seeded(PooledNet)  # in train mode: what looks at it must not mind


def images(num_samples=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_samples, 3, 8, 8, generator=generator, dtype=torch.float64)


CLASSES = torch.tensor([0, 1, 2, 3, 1])


def moved(inputs, num_pixels=10, seed=2):
    """Other values at some pixels of each image."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(len(inputs), 1, 64, generator=generator).argsort(dim=2)
    mask = (order < num_pixels).view(len(inputs), 1, 8, 8)
    noise = torch.rand(inputs.shape, generator=generator, dtype=torch.float64)
    return torch.where(mask, noise, inputs)


def in_eval(net, inputs):
    net = net.eval()
    with torch.no_grad():
        logits = net(inputs)
    net.train()
    return logits


# ---- gradients ----------------------------------------------------------------------------------


def test_logit_gradients_are_those_of_each_image_by_itself(net):
    inputs, found = images(), logit_gradients(net, images(), CLASSES)
    net.eval()
    for i, label in enumerate(CLASSES):
        leaf = inputs[i : i + 1].clone().requires_grad_()
        net(leaf)[0, label].backward()
        torch.testing.assert_close(found[i], leaf.grad[0])


# ---- scores and kinds ---------------------------------------------------------------------------


def test_scores_of_a_linear_net_are_its_weights_times_the_changes():
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    inputs = images()
    adv_inputs, targets = moved(inputs), (CLASSES + 1) % 4
    delta = adv_inputs - inputs
    centred = net[1].weight.detach() - net[1].weight.detach().mean(dim=0)
    obscuring, leading = noise_scores(net, inputs, adv_inputs, CLASSES, targets, num_points=1)
    for scores, classes, sign in ((obscuring, CLASSES, -1), (leading, targets, 1)):
        expected = sign * (centred[classes].view_as(delta) * delta).sum(dim=1)
        torch.testing.assert_close(scores, expected)
    again = noise_scores(net, inputs, adv_inputs, CLASSES, targets, num_points=7)
    torch.testing.assert_close(again[0], obscuring)


def test_scores_add_up_to_what_the_centred_logits_change_by(net):
    inputs = images()
    adv_inputs, targets = moved(inputs), (CLASSES + 1) % 4
    obscuring, leading = noise_scores(net, inputs, adv_inputs, CLASSES, targets, num_points=64)
    before, after = (in_eval(net, x) for x in (inputs, adv_inputs))
    before, after = (logits - logits.mean(dim=1, keepdim=True) for logits in (before, after))
    scale = (after - before).abs().amax()
    rows = torch.arange(5)
    lost = (before - after)[rows, CLASSES]
    gained = (after - before)[rows, targets]
    assert (obscuring.sum(dim=(1, 2)) - lost).abs().max() < 0.02 * scale
    assert (leading.sum(dim=(1, 2)) - gained).abs().max() < 0.02 * scale
    unchanged = (adv_inputs == inputs).all(dim=1)
    assert not obscuring[unchanged].any()
    assert not leading[unchanged].any()


def test_points_lie_in_the_middle_of_their_parts():
    """Then one point is exact for a quadratic net."""

    class Quadratic(nn.Module):
        def forward(self, inputs):
            flat = inputs.flatten(1)
            return torch.stack([flat.square().sum(dim=1), flat.sum(dim=1)], dim=1)

    inputs = images()
    adv_inputs = moved(inputs)
    classes = torch.zeros(5, dtype=torch.int64)
    _, leading = noise_scores(Quadratic(), inputs, adv_inputs, classes, classes, num_points=1)
    change = adv_inputs.square() - adv_inputs - inputs.square() + inputs
    torch.testing.assert_close(leading, change.sum(dim=1) / 2)


def test_kinds_of_changes_whose_work_is_known():
    """Class 0 is the first pixel, class 1 the second; the third speaks for both alike."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False)).double()
    net[1].weight.data = torch.tensor(
        [[1.0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.float64
    )
    inputs = torch.tensor([[[[0.9, 0.3], [0.5, 0.5]]]], dtype=torch.float64)
    adv_inputs = torch.tensor([[[[0.1, 0.9], [0.0, 0.5]]]], dtype=torch.float64)
    labels = torch.tensor([0])
    kinds = label_noise(net, inputs, adv_inputs, labels)
    assert kinds.obscuring.flatten().tolist() == [True, False, True, False]
    assert kinds.leading.flatten().tolist() == [False, True, False, False]
    assert not kinds.neutral.any()
    back = {
        name: fooled_without(net, inputs, adv_inputs, labels, mask).item()
        for name, mask in kinds._asdict().items()
    }
    assert back == {"obscuring": False, "leading": True, "neutral": True}


def test_kinds_partition_the_support_and_neutral_ones_change_no_verdict():
    net = seeded(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 4, bias=False)
        )
    )
    inputs = images(40)
    labels = in_eval(net, inputs).argmax(dim=1)
    adv_inputs = moved(inputs, num_pixels=25)
    fooled = in_eval(net, adv_inputs).argmax(dim=1) != labels
    assert fooled.sum() >= 5
    inputs, adv_inputs, labels = inputs[fooled], adv_inputs[fooled], labels[fooled]
    kinds = label_noise(net, inputs, adv_inputs, labels)
    changed = (adv_inputs != inputs).any(dim=1)
    assert torch.equal(sum(mask.int() for mask in kinds), changed.int())
    assert all(mask.any() for mask in kinds)
    assert fooled_without(net, inputs, adv_inputs, labels, kinds.neutral).double().mean() >= 0.9
    assert not fooled_without(net, inputs, adv_inputs, labels, changed).any()
    helpful = kinds.obscuring | kinds.leading
    assert fooled_without(net, inputs, adv_inputs, labels, helpful).double().mean() <= 0.5


# ---- class activation maps ----------------------------------------------------------------------


def scaled(maps):
    return torch.stack([one / one.max() for one in maps])


def test_of_a_pooled_net_they_are_cam(net):
    """Zhou et al., arXiv:1512.04150: the head's weights of the class, summed over the maps."""
    pytest.importorskip("captum")
    inputs = images()
    found = class_activation_maps(net, inputs, CLASSES)
    net.eval()
    with torch.no_grad():
        cam = torch.einsum("nk,nkij->nij", net.head.weight[CLASSES], net.features(inputs))
    enlarged = F.interpolate(cam.relu().unsqueeze(1), size=(8, 8), mode="bilinear")
    assert found.shape == (5, 1, 8, 8)
    some = enlarged.flatten(1).any(dim=1)
    assert some.sum() >= 4
    torch.testing.assert_close(found[some], scaled(enlarged[some]))
    assert not found[~some].any()


@pytest.mark.parametrize("layer", ["first", "norm", "last"])
def test_of_any_layer_they_are_the_formula_of_grad_cam(net, layer):
    pytest.importorskip("captum")
    inputs, kept = images(), []
    found = class_activation_maps(net, inputs, CLASSES, layer)
    net.eval()
    handle = net.get_submodule(layer).register_forward_hook(
        lambda module, args, output: kept.append(output)
    )
    logits = net(inputs)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, CLASSES.unsqueeze(1)).sum(), kept[0])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam = (weights * kept[0]).sum(dim=1, keepdim=True).relu().detach()
    enlarged = F.interpolate(cam, size=(8, 8), mode="bilinear")
    some = enlarged.flatten(1).any(dim=1)
    assert some.sum() >= 2
    torch.testing.assert_close(found[some], scaled(enlarged[some]))


def test_nothing_that_speaks_for_a_class_is_an_empty_map(net):
    pytest.importorskip("captum")
    net.head.weight.data[2] = 0
    assert not class_activation_maps(net, images(), torch.full((5,), 2)).any()


def test_where_all_of_an_image_speaks_for_a_class_all_of_it_shows():
    """A last convolution of one place: its map says the same everywhere, and not nothing."""
    pytest.importorskip("captum")
    net = nn.Sequential(nn.Conv2d(3, 2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2))
    net.to(images().dtype)
    nn.init.constant_(net[0].weight, 0.1)
    nn.init.constant_(net[3].weight, 1.0)
    found = class_activation_maps(net, images()[:2], torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.ones_like(found))


def test_without_captum_the_message_says_how_to_get_it(net, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    message = r"^class activation maps need captum, .*: pip install -c constraints\.txt -e "
    with pytest.raises(UnavailableError, match=message):
        class_activation_maps(net, images(), CLASSES)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer4", "expected `layer` to be one of first, norm, last, dropout, head, got layer4"),
        ("head", "expected the output of layer head to be maps of shape .*"),
    ],
)
def test_a_layer_that_has_no_maps_is_refused(net, layer, message):
    pytest.importorskip("captum")
    with pytest.raises(InputError, match=f"^{message}$") as caught:
        class_activation_maps(net, images(), CLASSES, layer)
    assert "\n" not in str(caught.value)


def test_a_net_without_a_convolution_needs_a_layer():
    pytest.importorskip("captum")
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    with pytest.raises(InputError, match=r"^expected a net with a convolution, found none; name a"):
        class_activation_maps(net, images(), CLASSES)


# ---- what they leave behind, and where they work ------------------------------------------------


def explain(net, inputs):
    classes = CLASSES * 1  # made under the mode of the caller, as the inputs are
    kinds = label_noise(net, inputs, moved(inputs), classes, num_points=3)
    return [
        *kinds,
        logit_gradients(net, inputs, classes),
        class_activation_maps(net, inputs, classes),
        fooled_without(net, inputs, moved(inputs), classes, kinds.leading),
    ]


def snapshot(net):
    state = {key: value.clone() for key, value in net.state_dict().items()}
    state |= {f"gradient {key}": p.grad for key, p in net.named_parameters()}
    state |= {f"needs {key}": p.requires_grad for key, p in net.named_parameters()}
    for key, module in net.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        state[f"module {key}"] = (module.training, *(len(kind) for kind in hooks))
    state["random"] = torch.get_rng_state()
    return state


def assert_untouched(before, after):
    for key, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(after[key], value), key
        else:
            assert after[key] == value, key


def test_the_net_is_left_as_it_was(net):
    pytest.importorskip("captum")
    net.first.weight.requires_grad_(False)
    net.last.eval()
    inputs = images()
    before = snapshot(net)
    explain(net, inputs)
    assert_untouched(before, snapshot(net))
    assert torch.equal(inputs, images())
    for parameter in net.parameters():  # and a net whose weights are all frozen is explained too
        parameter.requires_grad_(False)
    explain(net, inputs)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off_outside(net, mode):
    pytest.importorskip("captum")
    expected = explain(net, images())
    with mode():
        found = explain(net, images() * 1)
    for one, other in zip(found, expected, strict=True):
        assert not one.requires_grad
        torch.testing.assert_close(one, other)


class InPlace(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net(inputs.sub_(0.5))


def test_a_net_that_works_in_place_spoils_nothing(net):
    pytest.importorskip("captum")
    inputs = images()
    explain(InPlace(net), inputs)
    assert torch.equal(inputs, images())


@pytest.mark.parametrize("call", [logit_gradients, class_activation_maps])
def test_classes_that_the_net_does_not_have_are_refused(net, call):
    pytest.importorskip("captum")
    with pytest.raises(InputError, match="expected labels from 0 to 3, the net's classes, got"):
        call(net, images(), CLASSES + 1)


def test_what_are_no_pairs_of_images_is_refused(net):
    with pytest.raises(InputError, match=r"^expected `adv_inputs` to have the shape of `inputs`"):
        noise_scores(net, images(), images(4), CLASSES, CLASSES)
    with pytest.raises(InputError, match=r"^expected `inputs` to be images of shape \(N, C"):
        noise_scores(net, images().flatten(1), images().flatten(1), CLASSES, CLASSES)
    with pytest.raises(InputError, match=r"^expected `num_points` to be at least 1, got 0$"):
        noise_scores(net, images(), images(), CLASSES, CLASSES, num_points=0)
    linear = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    with pytest.raises(InputError, match=r"^expected `adv_inputs` to have the shape of `inputs`"):
        label_noise(linear, images(), images()[..., :7], CLASSES)


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (torch.ones(1, 8, 8, dtype=torch.bool), r"torch\.bool of shape \(1, 8, 8\)"),
        (torch.ones(5, 1, 8, 8, dtype=torch.bool), r"torch\.bool of shape \(5, 1, 8, 8\)"),
        (torch.ones(5, 8, 8), r"torch\.float32 of shape \(5, 8, 8\)"),
    ],
)
def test_what_is_no_mask_of_the_pixels_of_each_image_is_refused(net, mask, found):
    """One mask would have stood for those of all images."""
    message = rf"^expected `mask` to be bool of shape \(5, 8, 8\), got {found}$"
    with pytest.raises(InputError, match=message):
        fooled_without(net, images(), moved(images()), CLASSES, mask)


def test_a_net_that_returns_no_logits_is_refused(net):
    class Two(nn.Module):
        def forward(self, inputs):
            return net(inputs), inputs

    mask = torch.ones(5, 8, 8, dtype=torch.bool)
    with pytest.raises(InputError, match=r"^expected the net to return logits .*, got tuple$"):
        fooled_without(Two(), images(), moved(images()), CLASSES, mask)
    with pytest.raises(InputError, match=r"^expected the net to return logits .*, got tuple$"):
        label_noise(Two(), images(), moved(images()), CLASSES)
