"""The budgeted σ-zero against a transcription with gradients in closed form, and what it owes."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from sztrain.attacks import BudgetedSigmaZero, budgeted_sigma_zero
from sztrain.attacks.budgeted_sigma_zero import Descent
from sztrain.errors import InputError

CHANNELS, POSITIONS, CLASSES = 3, 16, 8


class Linear(nn.Module):
    """Logits W z + b of images, with a margin that nothing overcomes."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = CHANNELS * POSITIONS
        weight = 0.1 * torch.randn(CLASSES, size, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(9 * torch.eye(CLASSES, dtype=torch.float64)[0])

    def forward(self, inputs):
        return inputs.flatten(1) @ self.weight.T + self.bias

    def rival(self, z):
        """The class after class 0."""
        return 1 + self(z.unsqueeze(0))[0, 1:].argmax().item()

    def margin_gradient(self, z):
        """Of the logit of class 0 less that of its rival."""
        return (self.weight[0] - self.weight[self.rival(z)]).view_as(z).detach()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_starts_at_the_same_places(dtype):
    """Its random numbers would tie, and positions in front would be taken more often."""
    inputs, budgets = torch.full((50, 1, 784), 0.25), torch.full((50,), 4)
    labels = torch.zeros(50, dtype=torch.int64)

    def places(inputs):
        generator = torch.Generator().manual_seed(0)
        return Descent.start(inputs, labels, budgets, 4, generator).delta != 0

    assert torch.equal(places(inputs.to(dtype)), places(inputs))
    assert (places(inputs).sum(dim=(1, 2)) == 4).all()


def chosen(scores, k):
    kept = torch.zeros_like(scores)
    kept[scores.sort(descending=True).indices[:k]] = 1
    return kept


def transcription(net, x, keys, corners, factors, k, attack):
    """All iterates of one sample, and the rivals that it met; ``factors[i]`` are those of step i.

    It starts at random corners, in the k positions of the largest random keys.
    """
    delta = (corners - x) * chosen(keys, k)
    iterates, rivals = [x + delta], [net.rival(x + delta)]
    for i in range(attack.num_steps):
        eta = attack.eta * (0.1 + 0.9 * (1 + math.cos(math.pi * i / attack.num_steps)) / 2)
        g = net.margin_gradient(x + delta)
        delta = (x + delta - eta * g / g.abs().max()).clamp(0, 1) - x
        s = (delta.abs() * g.abs()).sum(dim=0) * factors[i]
        delta = delta * chosen(s, k)
        iterates.append(x + delta)
        rivals.append(net.rival(x + delta))
    return iterates, rivals


def changes(values):
    return sum(before != now for before, now in pairwise(values))


@pytest.mark.parametrize("unit", ["features", "pixels"])
@pytest.mark.parametrize("jitter", [0, 0.3, 1])
@pytest.mark.parametrize("eta", [1.0, 0.2])
def test_a_run_is_that_of_the_docs_whatever_the_budgets_of_the_others(spy_on, unit, jitter, eta):
    net, num_samples, num_steps = Linear(seed=17), 6, 25
    attack = BudgetedSigmaZero(num_steps=num_steps, jitter=jitter, unit=unit, eta=eta)
    shape = (CHANNELS, POSITIONS) if unit == "pixels" else (1, CHANNELS * POSITIONS)
    inputs = torch.rand(
        num_samples, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    budgets = torch.tensor([1, 2, 3, 5, 8, shape[1]])
    spy = spy_on(net)
    budgeted_sigma_zero.budgeted_sigma_zero(
        net,
        inputs,
        torch.zeros(num_samples, dtype=torch.int64),
        budgets,
        attack,
        torch.Generator().manual_seed(4),
    )
    seen = torch.stack(spy.inputs)
    assert len(seen) == num_steps + 1
    drawn = torch.Generator().manual_seed(4)
    keys = torch.empty_like(inputs[:, 0]).uniform_(generator=drawn)
    corners = torch.empty_like(inputs).bernoulli_(generator=drawn)
    normal = [torch.empty_like(keys).normal_(generator=drawn) for _ in range(num_steps)]
    factors = torch.stack(normal, dim=1).mul(jitter).exp()
    rivals, moves = 0, 0
    for i, k in enumerate(budgets.tolist()):
        iterates, met = transcription(net, inputs[i], keys[i], corners[i], factors[i], k, attack)
        torch.testing.assert_close(seen[:, i], torch.stack(iterates), rtol=0, atol=1e-9)
        rivals += changes(met)
        moves += changes([tuple((z != inputs[i]).flatten().tolist()) for z in iterates])
    # Without jitter, this net lets what is kept change once.
    assert moves > 3 * num_samples * jitter
    assert rivals > 0 or jitter == 0


def run_of(spy_on, inputs, **options):
    """Everything that a net sees that is never wrong about ``inputs``: clean, start, iterates."""
    net = Linear(seed=2).to(inputs.dtype)
    spy = spy_on(net)
    attack = BudgetedSigmaZero(**{"num_steps": 12, "budget": 5, "recheck": False} | options)
    result = attack(net, inputs, torch.zeros(len(inputs), dtype=torch.int64))
    assert not result.success.any()
    return torch.stack(spy.inputs)


def images(num_samples, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num_samples, CHANNELS, 4, 4, generator=generator, dtype=dtype)


def test_without_jitter_the_seed_decides_on_the_start_alone(spy_on, monkeypatch):
    start = Descent.start
    inputs = images(4)
    for jitter in (0, 1):
        monkeypatch.setattr(Descent, "start", start)
        first, other = (run_of(spy_on, inputs, jitter=jitter, seed=seed) for seed in (0, 1))
        assert (first[1] != other[1]).flatten(1).any(dim=1).all()
        monkeypatch.setattr(
            Descent, "start", lambda *args: start(*args[:-1], torch.Generator().manual_seed(0))
        )
        first, other = (run_of(spy_on, inputs, jitter=jitter, seed=seed) for seed in (0, 1))
        assert torch.equal(first[1], other[1])
        assert torch.equal(first, other) == (jitter == 0)


@pytest.mark.parametrize("unit", ["features", "pixels"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_iterate_is_an_image_within_the_budget(spy_on, unit, dtype):
    inputs = images(8, dtype)
    inputs[inputs < 0.2], inputs[inputs > 0.8] = 0, 1
    for budget in (1, 5, 16):
        seen = run_of(spy_on, inputs, unit=unit, budget=budget)
        assert len(seen) == 1 + 1 + 12
        assert ((seen >= 0) & (seen <= 1)).all()
        differs = seen != inputs
        differs = differs.any(dim=2) if unit == "pixels" else differs
        assert (differs.flatten(2).sum(dim=2) <= budget).all()


@pytest.mark.parametrize("unit", ["features", "pixels"])
def test_the_start_is_at_corners_in_as_many_positions_as_the_budget(spy_on, unit):
    inputs = 0.25 + 0.5 * images(20)
    for budget in (1, 7, 16):
        _, start, *_ = run_of(spy_on, inputs, unit=unit, budget=budget)
        changed = start != inputs
        assert set(start[changed].tolist()) == {0.0, 1.0}
        if unit == "pixels":  # with all its channels, to all eight corners
            assert torch.equal(changed.all(dim=1), changed.any(dim=1))
            values = start.movedim(1, -1)[changed.all(dim=1)]
            assert budget == 1 or len({tuple(value.tolist()) for value in values}) == 8
            changed = changed.any(dim=1)
        assert (changed.flatten(1).sum(dim=1) == budget).all()
        assert budget == 16 or len({tuple(row.flatten().tolist()) for row in changed}) > 10


def test_a_corner_that_a_clean_value_is_at_is_no_change(spy_on):
    """It is one of the positions that the budget allows all the same."""
    inputs = images(40).round()
    _, start, *_ = run_of(spy_on, inputs, budget=8)
    assert ((start == 0) | (start == 1)).all()
    num_changed = (start != inputs).flatten(1).sum(dim=1)
    assert (num_changed <= 8).all()
    assert 3 < num_changed.double().mean() < 5  # every second, by chance


def test_a_step_is_the_step_size_where_nothing_stops_it_and_ends_at_a_tenth(spy_on):
    """With weights of one size a whole step is taken by all that stand at the other bound."""
    net = nn.Linear(24, 2).double()
    net.weight.data = torch.stack([torch.tensor([1.0, -1.0]).repeat(12), torch.zeros(24)]).double()
    net.bias.data = torch.tensor([99.0, 0.0]).double()
    spy = spy_on(net)
    attack = BudgetedSigmaZero(num_steps=100, budget=24, eta=0.015, recheck=False)
    attack(net, torch.full((1, 24), 0.5).double(), torch.tensor([0]))
    downhill = -net.weight[0].sign()
    sizes = []
    for before, now in pairwise(torch.cat(spy.inputs[1:])):
        moved = (now - before) * downhill
        size = moved.max().item()
        assert all(value == pytest.approx(size) for value in moved[moved != 0].tolist())
        sizes.append(size)
    assert len(sizes) == 100
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(0.015)
    assert sizes[50] == pytest.approx((0.015 + 0.0015) / 2)
    assert sizes[-1] == pytest.approx(0.0015, rel=0.01)


@pytest.mark.parametrize("budget", [2, 6])
def test_what_is_not_broken_ends_at_its_smallest_margin(make_batch, spy_on, budget):
    batch = make_batch(num_wrong=0, num_samples=8)
    batch.net.head.bias.data[batch.labels.mode().values] += 2
    labels = batch.net(batch.inputs).argmax(dim=1)
    attack = BudgetedSigmaZero(num_steps=10, budget=budget, recheck=False)
    broken, last = 0, 0
    for i in range(8):  # alone, so that all that the net sees is about this sample
        spy = spy_on(batch.net)
        result = attack(batch.net, batch.inputs[i : i + 1], labels[i : i + 1])
        seen, logits = torch.cat(spy.inputs[1:]), torch.cat(spy.logits[1:])
        if result.success:
            assert (logits[:-1].argmax(dim=1) == labels[i]).all()
            assert logits[-1].argmax() != labels[i]
            assert torch.equal(result.adv_inputs[0], seen[-1])
            assert torch.equal(result.last_inputs[0], seen[-1])
            broken += 1
        else:
            others = torch.arange(4) != labels[i]
            margin = logits[:, labels[i]] - logits[:, others].amax(dim=1)
            assert len(seen) == 11
            assert torch.equal(result.last_inputs[0], seen[margin.argmin()])
            assert torch.equal(result.best_inputs[0], batch.inputs[i])
            last += margin.argmin() == 10
    assert broken + last < 8  # of someone neither the first example nor the last iterate counts


def test_a_run_costs_a_pass_more_than_steps_and_who_is_broken_leaves(make_batch, spy_on):
    batch = make_batch(num_wrong=2, num_samples=16)
    spy = spy_on(batch.net)
    result = BudgetedSigmaZero(num_steps=9, budget=2)(batch.net, batch.inputs, batch.labels)
    assert spy.forward_rows[:2] == [16, 14]
    assert spy.forward_rows[1:-1] == sorted(spy.forward_rows[1:-1], reverse=True)
    assert sum(spy.forward_rows) == result.num_forwards.sum()
    assert sum(spy.backward_rows) == result.num_backwards.sum()
    assert result.num_forwards[:2].tolist() == [2, 2]
    assert result.num_backwards[:2].tolist() == [0, 0]
    missed, found = ~result.success, result.success.clone()
    found[:2] = False
    assert missed.any()
    assert (result.num_forwards[missed] == 1 + 10 + 1).all()
    assert (result.num_backwards[missed] == 9).all()
    assert (result.num_forwards[found] < 1 + 10 + 1).any()
    # Every look but the last comes with a gradient, and it is not known before who is broken.
    looks = result.num_forwards[found] - 2
    assert torch.equal(result.num_backwards[found], looks.clamp(max=9))


def test_who_leaves_later_reports_the_same(make_batch, spy_on, monkeypatch):
    """An accelerator is asked only now and then who is done: what is found then stays found."""
    batch = make_batch(num_wrong=0, num_samples=24)
    monkeypatch.setattr(budgeted_sigma_zero, "steps_between_syncs", lambda device: 4)
    spy = spy_on(batch.net)
    attack = BudgetedSigmaZero(num_steps=11, budget=2, recheck=False)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert 2 < result.success.sum() < 24
    start = spy.logits[1].argmax(dim=1) != batch.labels
    assert 0 < start.sum() < 24
    still = 24 - start.sum().item()
    assert spy.forward_rows[1:5] == [24, still, still, still]  # asked before the first step too
    assert torch.equal(result.adv_inputs[start], spy.inputs[1][start])
    assert (result.num_forwards[start] == 2).all()
    assert (result.num_backwards[start] == 1).all()
    index, first = (~start).nonzero().flatten(), torch.zeros(still, dtype=torch.bool)
    for step in range(2, 5):
        seen, logits = spy.inputs[step], spy.logits[step]
        fooled = logits.argmax(dim=1) != batch.labels[index]
        for row in (fooled & ~first).nonzero().flatten():
            assert torch.equal(result.adv_inputs[index[row]], seen[row])
            assert result.num_forwards[index[row]] == step + 1
            assert result.num_backwards[index[row]] == step
        first |= fooled
    assert first.any()
    assert sum(spy.forward_rows) > result.num_forwards.sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 0}, "expected `eta` to be positive, got 0"),
        ({"eta": float("nan")}, "expected `eta` to be positive, got nan"),
        ({"jitter": -0.5}, r"expected `jitter` to be at least 0, got -0\.5"),
        ({"jitter": float("nan")}, "expected `jitter` to be at least 0, got nan"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        BudgetedSigmaZero(**options)


OVERFLOWS = [math.nan, math.inf, -math.inf]


class Overflow(nn.Module):
    """Finite logits, the gradient of which is ``value`` where the mask says so."""

    def __init__(self, net, mask, value):
        super().__init__()
        self.net, self.mask, self.value = net, mask, value

    def forward(self, inputs):
        inputs = inputs.clone()
        if inputs.requires_grad:
            inputs.register_hook(lambda gradient: gradient.masked_fill(self.mask, self.value))
        return self.net(inputs)


class Flat(nn.Module):
    """The same answer to everything."""

    def forward(self, inputs):
        return inputs.new_tensor([1, 0]) + 0 * inputs.flatten(1).sum(dim=1, keepdim=True)


@pytest.mark.parametrize("jitter", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_gradient_that_overflows_or_vanishes_everywhere_moves_nothing(spy_on, jitter, dtype):
    inputs = (0.25 + 0.5 * images(3)).to(dtype)
    everywhere = torch.ones(CHANNELS, 4, 4, dtype=torch.bool)
    overflowing = [Overflow(Linear(seed=2).to(dtype), everywhere, value) for value in OVERFLOWS]
    for net in (*overflowing, Flat()):
        spy = spy_on(net)
        attack = BudgetedSigmaZero(num_steps=8, budget=5, jitter=jitter, recheck=False)
        result = attack(net, inputs, torch.zeros(3, dtype=torch.int64))
        _, start, *iterates = spy.inputs
        assert len(iterates) == 8
        assert ((start != inputs).flatten(1).sum(dim=1) == 5).all()
        for z in iterates:
            assert torch.equal(z, start)
        assert torch.equal(result.last_inputs, start)


@pytest.mark.parametrize("value", OVERFLOWS)
def test_where_a_gradient_overflows_in_some_features_the_others_move(spy_on, value):
    inputs, mask = 0.25 + 0.5 * images(3), torch.zeros(CHANNELS, 4, 4, dtype=torch.bool)
    mask[:, :, :2] = True
    net = Overflow(Linear(seed=2), mask, value)
    spy = spy_on(net)
    attack = BudgetedSigmaZero(num_steps=8, budget=5, recheck=False)
    attack(net, inputs, torch.zeros(3, dtype=torch.int64))
    clean, start, *iterates = spy.inputs
    assert (start != clean)[:, mask].any()
    for z in iterates:
        assert torch.equal(z[:, mask], clean[:, mask])
        assert ((z != clean).flatten(1).sum(dim=1) == 5).all()
