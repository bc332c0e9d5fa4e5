"""What holds for all attacks of other libraries alike: any rank, any device."""

import pytest
import torch
from peer_libraries import marks_of
from torch import nn

from sztrain import attacks

NUM_STEPS = {
    "AdvLibSigmaZero": 100,
    "BB": 40,
    "BBadv": 40,
    "EAD": 50,
    "FMN": 100,
    "PDPGD": 100,
    "SparseFool": 20,
    "VFGA": 50,
}


def row(name, num_steps):
    attack = getattr(attacks, name)(num_steps=num_steps)
    return pytest.param(attack, marks=marks_of(name), id=name)


all_attacks = pytest.mark.parametrize("attack", [row(*item) for item in NUM_STEPS.items()])


class Linear(nn.Module):
    """Two classes, told apart by the sign of ``weight @ x + bias``."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, inputs):
        score = inputs.flatten(1) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1)


def linear_case(shape):
    """Samples of both classes, and the fewest features that break each: the greedy count."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, inputs = Linear(torch.randn(24), torch.tensor(0.0)), torch.rand(8, 24)
    net.bias.data = -(inputs @ net.weight.data).median() - 0.05
    with torch.no_grad():
        score = inputs @ net.weight + net.bias
    towards = -score.sign().unsqueeze(1) * net.weight.data
    reach = torch.where(towards > 0, towards * (1 - inputs), -towards * inputs)
    moved = score.abs().unsqueeze(1) - reach.sort(dim=1, descending=True).values.cumsum(dim=1)
    return net, inputs.view(8, *shape), (score > 0).long(), (moved > 0).sum(dim=1) + 1


@all_attacks
@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4), (2, 1, 3, 4)])
def test_samples_may_have_any_rank_and_nobody_is_better_than_the_optimum(attack, shape):
    net, inputs, labels, optimum = linear_case(shape)
    result = attack(net, inputs, labels)
    assert result.adv_inputs.shape == inputs.shape
    assert result.success.all()
    assert (result.l0 >= optimum).all()


@pytest.mark.parametrize("attack", [row(name, 200) for name in ("AdvLibSigmaZero", "FMN", "VFGA")])
def test_those_that_minimise_l0_come_near_the_optimum(attack):
    net, inputs, labels, optimum = linear_case((24,))
    result = attack(net, inputs, labels)
    assert (result.l0 <= (1.25 * optimum).ceil()).all()


@all_attacks
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_works_on_the_device_of_the_batch(attack):
    net, inputs, labels, optimum = linear_case((2, 3, 4))
    net, inputs, labels = net.cuda(), inputs.cuda(), labels.cuda()
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    answers = [attack(net, inputs, labels) for _ in range(2)]
    for result in answers:
        assert {value.device for value in vars(result).values()} == {inputs.device}
        assert result.success.all()
        assert (result.l0.cpu() >= optimum).all()
    assert torch.equal(answers[0].adv_inputs, answers[1].adv_inputs)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(torch.cuda.get_rng_state(), before[1])
    assert net.weight.device == inputs.device
