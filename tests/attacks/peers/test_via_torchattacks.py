"""SparseFool: what torchattacks itself answers, and what it leaves to its caller."""

import importlib.util
import warnings

import pytest
import torch
from torch import nn

from sztrain.attacks import SparseFool

if importlib.util.find_spec("torchattacks") is None:
    pytest.skip("needs torchattacks", allow_module_level=True)


class Shown(nn.Module):
    """A net that torchattacks may not switch."""

    def __init__(self, net):
        super().__init__()
        self.logits_of = net.forward

    def forward(self, inputs):
        return self.logits_of(inputs)


def bare(net, inputs, labels, **options):
    """What the library answers to a direct call, and whom it fools."""
    import torchattacks

    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adv_inputs = torchattacks.SparseFool(Shown(net), **options)(inputs, labels)
    return adv_inputs, net(adv_inputs).argmax(dim=1) != labels


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (SparseFool(), {"steps": 20}),
        (SparseFool(num_steps=1), {"steps": 1}),
        (SparseFool(num_steps=1000, max_rounds=2, lam=2.0), {"steps": 2, "lam": 2.0}),
        (SparseFool(overshoot=0.5), {"steps": 20, "overshoot": 0.5}),
    ],
)
def test_the_answer_is_that_of_the_library(attack, options, make_batch, capsys):
    batch = make_batch(num_samples=7, num_wrong=0, seed=3, dtype=torch.float32)
    adv_inputs, fooled = bare(batch.net, batch.inputs, batch.labels, **options)
    capsys.readouterr()
    result = attack(batch.net, batch.inputs, batch.labels)
    assert fooled.any()
    assert torch.equal(result.success, fooled)
    assert torch.equal(result.adv_inputs[fooled], adv_inputs[fooled])
    assert torch.equal(result.adv_inputs[~fooled], batch.inputs[~fooled])
    assert capsys.readouterr().out == ""  # it prints where it finds no device


class Deceiving(nn.Module):
    """A net that grows ever more certain where its gradient says that it does not."""

    def forward(self, inputs):
        total = inputs.flatten(1).sum(dim=1)
        return torch.stack([2 + 2.5 * total.detach() - 1.5 * total, total * 0], dim=1)


@pytest.mark.parametrize("recheck", [True, False])
def test_a_last_iterate_that_is_not_adversarial_is_a_failure(recheck):
    inputs, labels = torch.full((2, 1, 2, 3), 0.1), torch.tensor([0, 0])
    net = Deceiving()
    adv_inputs, fooled = bare(net, inputs, labels, steps=3)
    assert not fooled.any()
    assert (adv_inputs != inputs).any()  # dense, and not adversarial
    result = SparseFool(num_steps=3, recheck=recheck)(net, inputs, labels)
    assert result.l0.tolist() == [torch.inf] * 2
    assert torch.equal(result.adv_inputs, inputs)
    assert torch.equal(result.last_inputs, adv_inputs)


def test_every_sample_has_its_own_passes_counted(make_batch, spy_on):
    batch, attack = make_batch(num_wrong=1, dtype=torch.float32), SparseFool(num_steps=2)
    result = attack(batch.net, batch.inputs, batch.labels)
    spy = spy_on(batch.net)
    for i in range(6):
        seen = len(spy.forward_rows), len(spy.backward_rows)
        attack(batch.net, batch.inputs[i : i + 1], batch.labels[i : i + 1])
        assert result.num_forwards[i] == sum(spy.forward_rows[seen[0] :])
        assert result.num_backwards[i] == sum(spy.backward_rows[seen[1] :])
    assert result.num_forwards.unique().numel() > 2


def test_a_gradient_of_zero_is_a_failure_and_no_error():
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    nn.init.zeros_(net[1].weight)
    net[1].bias.data = torch.tensor([1.0, 0.0, 0.0])
    result = SparseFool()(net, torch.rand(2, 1, 2, 3), torch.tensor([0, 0]))
    assert result.l0.tolist() == [torch.inf] * 2
