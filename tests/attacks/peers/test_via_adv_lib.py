"""adv-lib's attacks: what the library itself answers, and where it would fail."""

import importlib
import importlib.util
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from sztrain.attacks import FMN, PDPGD, VFGA, AdvLibSigmaZero
from sztrain.attacks.peers.via_adv_lib import load_adv_lib

if importlib.util.find_spec("adv_lib") is None:
    pytest.skip("needs adv_lib", allow_module_level=True)


def bare(name, net, inputs, labels, **options):
    """What the library answers to a direct call, and whom it fools."""
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adv_inputs = getattr(load_adv_lib(), name)(net, inputs, labels, **options)
    return adv_inputs.detach(), net(adv_inputs).argmax(dim=1) != labels


class Columns(nn.Module):
    """A net that is shown an image as one channel, entry by entry."""

    def __init__(self, net, shape):
        super().__init__()
        self.net = net
        self.shape = shape

    def forward(self, inputs):
        return self.net(inputs.reshape(-1, *self.shape))


def assert_same(result, adv_inputs, fooled, inputs):
    assert fooled.any()
    assert torch.equal(result.success, fooled)
    assert torch.equal(result.adv_inputs[fooled], adv_inputs[fooled])
    assert torch.equal(result.adv_inputs[~fooled], inputs[~fooled])


@pytest.mark.parametrize(
    ("attack", "name", "options"),
    [
        (FMN(num_steps=20), "fmn", {"norm": 0, "steps": 20}),
        (
            FMN(num_steps=9, alpha_init=2.0, alpha_final=0.5, gamma_init=0.3, gamma_final=0.1),
            "fmn",
            {"norm": 0, "steps": 9, "α_init": 2.0, "α_final": 0.5, "γ_init": 0.3, "γ_final": 0.1},
        ),
        (VFGA(num_steps=3), "vfga", {"targeted": False, "max_iter": 3}),
        (VFGA(num_steps=20, num_draws=2), "vfga", {"targeted": False, "n_samples": 2}),
        (PDPGD(num_steps=400, unit="pixels"), "pdpgd", {"norm": 0, "num_steps": 400}),
        (
            PDPGD(num_steps=30, unit="pixels", step_size=0.5, dual_ratio=1e-4),
            "pdpgd",
            {"norm": 0, "num_steps": 30, "primal_lr": 0.5, "dual_ratio_init": 1e-4},
        ),
        (
            PDPGD(num_steps=100, unit="pixels", proximal_operator="l23"),
            "pdpgd",
            {"norm": 0, "num_steps": 100, "proximal_operator": 23},
        ),
        (AdvLibSigmaZero(num_steps=25), "sigma_zero", {"num_steps": 25}),
        (
            AdvLibSigmaZero(num_steps=25, eta=0.5, sigma=0.01, tau=0.1, tau_factor=0.1),
            "sigma_zero",
            {"num_steps": 25, "η_0": 0.5, "σ": 0.01, "τ_0": 0.1, "τ_factor": 0.1},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_answer_is_that_of_the_library(attack, name, options, make_batch):
    batch = make_batch(num_samples=12, num_wrong=0, dtype=torch.float32)
    adv_inputs, fooled = bare(name, batch.net, batch.inputs, batch.labels, **options)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert_same(result, adv_inputs, fooled, batch.inputs)


def test_pdpgd_moves_single_values_where_features_count_and_positions_where_pixels_do(make_batch):
    batch = make_batch(num_samples=8, num_wrong=0, dtype=torch.float32)
    net = Columns(batch.net, batch.inputs.shape[1:])
    columns = batch.inputs.reshape(8, 1, 5, 15)
    adv_inputs, fooled = bare("pdpgd", net, columns, batch.labels, norm=0, num_steps=400)
    by_feature = PDPGD(num_steps=400)(batch.net, batch.inputs, batch.labels)
    assert_same(by_feature, adv_inputs.view_as(batch.inputs), fooled, batch.inputs)
    by_pixel = PDPGD(num_steps=400, unit="pixels")(batch.net, batch.inputs, batch.labels)
    changed = (by_pixel.adv_inputs != batch.inputs).flatten(2)
    # An entry that was at its bound already cannot move with its position.
    assert changed.all(dim=1).sum() >= 0.9 * changed.any(dim=1).sum()
    assert torch.equal(by_pixel.l0, changed.any(dim=1).sum(dim=1).float())
    assert by_feature.l0.sum() < changed.sum()


class OneFeature(nn.Module):
    """Two classes, told apart by the first feature."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.linear.weight.data[1, 0] = 1.0
        self.linear.bias.data[0] = 0.5

    def forward(self, inputs):
        return self.linear(inputs.flatten(1))


def test_fmn_survives_a_batch_that_one_feature_breaks():
    net, inputs, labels = OneFeature(), torch.full((1, 1, 2, 3), 0.4), torch.tensor([0])
    with pytest.raises(RuntimeError, match="out of bounds"):
        bare("fmn", net, inputs, labels, norm=0, steps=50)
    result = FMN(num_steps=50)(net, inputs, labels)
    assert result.l0.tolist() == [1]
    assert (result.adv_inputs != inputs).flatten().nonzero().tolist() == [[0]]


def test_fmn_survives_a_batch_that_is_all_misclassified():
    net, inputs, labels = OneFeature(), torch.full((4, 1, 2, 3), 0.4), torch.ones(4).long()
    with pytest.raises(RuntimeError, match="out of bounds"):
        bare("fmn", net, inputs, labels, norm=0, steps=50)
    assert FMN(num_steps=50)(net, inputs, labels).l0.tolist() == [0] * 4


def test_vfga_does_not_touch_what_is_misclassified():
    net, inputs, labels = OneFeature(), torch.full((4, 1, 2, 3), 0.4), torch.ones(4).long()
    adv_inputs, _ = bare("vfga", net, inputs, labels, targeted=False, max_iter=9)
    assert ((adv_inputs != inputs).flatten(1).sum(dim=1) == 1).all()
    assert VFGA(num_steps=9)(net, inputs, labels).l0.tolist() == [0] * 4


def test_the_library_is_left_as_it_was_also_after_an_error(make_batch):
    module = importlib.import_module("adv_lib.attacks.fast_minimum_norm")
    original, batch = module.l0_projection_, make_batch(dtype=torch.float32)

    def fail(net, args):
        if len(passes) == 3:
            raise KeyError
        passes.append(module.l0_projection_)

    passes = []
    batch.net.register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        FMN(num_steps=9)(batch.net, batch.inputs, batch.labels)
    assert module.l0_projection_ is original
    assert passes[-1] is not original


@pytest.mark.parametrize(
    "attack",
    [FMN(num_steps=1), VFGA(num_steps=1), PDPGD(num_steps=2), AdvLibSigmaZero(num_steps=1)],
)
def test_a_sample_that_comes_back_as_it_was_is_a_failure(attack, make_batch):
    batch = make_batch(num_samples=6, num_wrong=0, dtype=torch.float32)
    batch.net.head.bias.data[batch.labels[0]] += 100  # nothing breaks it in one step
    labels = batch.labels[:1].expand(6)
    result = attack(batch.net, batch.inputs, labels)
    assert not result.success.any()
    assert result.l0.tolist() == [torch.inf] * 6
    assert torch.equal(result.adv_inputs, batch.inputs)


def test_no_graph_is_kept_of_the_passes_of_vfga_that_nobody_differentiates(make_batch):
    batch, graphs = make_batch(num_wrong=0, dtype=torch.float32), []
    batch.net.register_forward_hook(lambda net, args, logits: graphs.append(logits.requires_grad))
    VFGA(num_steps=1)(batch.net, batch.inputs, batch.labels)
    # Clean; one pass for the gradient, ten for twice ten draws; the verdict.
    assert graphs == [False, True, *[False] * 10, False]


# ---- the import ---------------------------------------------------------------------------------


@pytest.fixture
def not_imported(monkeypatch):
    """A process in which neither adv-lib nor visdom were imported yet."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("adv_lib", "visdom"):
            monkeypatch.delitem(sys.modules, name)
    yield monkeypatch
    for name in list(sys.modules):  # what the test imported would stand beside the old modules
        if name.split(".")[0] in ("adv_lib", "visdom"):
            del sys.modules[name]


def test_visdom_is_stood_in_for_and_nothing_of_it_stays(not_imported):
    not_imported.setattr(importlib.util, "find_spec", lambda name: None)
    library = load_adv_lib()
    assert library.fmn is not None
    assert "visdom" not in sys.modules
    assert load_adv_lib() is library


def test_a_stand_in_of_somebody_else_is_left_alone(not_imported, monkeypatch):
    foreign = ModuleType("visdom")  # without a spec: importlib would raise at it
    monkeypatch.setitem(sys.modules, "visdom", foreign)
    load_adv_lib()
    assert sys.modules["visdom"] is foreign


def test_a_visdom_that_is_there_is_the_one_that_is_used(not_imported, tmp_path):
    (tmp_path / "visdom.py").write_text("class Visdom:\n    pass\n")
    not_imported.syspath_prepend(tmp_path)
    load_adv_lib()
    visdom = sys.modules["visdom"]
    assert visdom.__file__ == str(tmp_path / "visdom.py")
    assert isinstance(visdom, ModuleType)
