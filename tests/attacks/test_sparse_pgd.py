"""sparse-PGD against a transcription with gradients in closed form, and what it owes."""

from dataclasses import replace
from importlib import import_module
from itertools import pairwise

import pytest
import torch
from torch import nn

from sztrain.attacks import SparsePGD, sparse_pgd
from sztrain.errors import InputError

module = import_module("sztrain.attacks.sparse_pgd")

CHANNELS, POSITIONS, CLASSES = 3, 16, 3


class Linear(nn.Module):
    """Logits W z + b of images, with a margin that nothing overcomes."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = CHANNELS * POSITIONS
        weight = 0.1 * torch.randn(CLASSES, size, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor([9.0, 0.0, 0.0], dtype=torch.float64))

    def forward(self, inputs):
        return inputs.flatten(1) @ self.weight.T + self.bias

    def loss_gradient(self, z):
        """Of the cross-entropy with class 0: the softmax minus one there, back through W."""
        residual = self(z).softmax(dim=1)
        residual[:, 0] -= 1
        return (residual @ self.weight).view_as(z).detach()


def chosen(mask, k):
    kept = torch.zeros_like(mask)
    kept[mask.sort(descending=True).indices[:k]] = 1
    return kept


def transcription(net, x, noise, masks, k, attack):
    """All iterates of one sample, how often its mask was drawn anew, and which steps changed it.

    ``masks[t]`` is what is drawn in step t.
    """
    p = noise.clamp(-x, 1 - x)
    m, counter, redraws, iterates, changed = masks[0], 0, 0, [], []
    kept_before = p_gradient = mask_gradient = torch.empty(0)
    for t in range(attack.num_steps + 1):
        if t > 0:
            length = mask_gradient.norm()
            if length >= 2e-10:
                m = m + attack.beta * len(m) ** 0.5 * mask_gradient / (length + 1e-10)
            p = (p + attack.alpha * p_gradient.sign()).clamp(-1, 1).clamp(-x, 1 - x)
        kept = chosen(m, k)
        z = x + p * kept
        g = net.loss_gradient(z.unsqueeze(0))[0]
        s = torch.sigmoid(m)
        p_gradient = g * (kept if attack.projected else s)
        mask_gradient = (g * p).sum(dim=0) * s * (1 - s)
        iterates.append(z)
        if t > 0:
            same = torch.equal(kept, kept_before)
            changed.append(not same)
            counter = counter + 1 if same else 0
            if counter == attack.patience:
                m, counter, redraws = masks[t], 0, redraws + 1
        kept_before = chosen(m, k)
    return iterates, redraws, changed


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("unit", ["features", "pixels"])
@pytest.mark.parametrize("options", [{}, {"alpha": 0.1, "beta": 0.05, "patience": 2}])
def test_a_run_is_that_of_the_paper_whatever_the_budgets_of_the_others(
    spy_on, projected, unit, options
):
    net, num_samples = Linear(seed=1), 6
    attack = SparsePGD(num_steps=25, projected=projected, unit=unit, **options)
    shape = (CHANNELS, POSITIONS) if unit == "pixels" else (1, CHANNELS * POSITIONS)
    inputs = torch.rand(
        num_samples, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    budgets = torch.tensor([1, 2, 3, 5, 8, shape[1]])
    spy = spy_on(net)
    sparse_pgd.sparse_pgd(
        net,
        inputs,
        torch.zeros(num_samples, dtype=torch.int64),
        budgets,
        attack,
        torch.Generator().manual_seed(4),
    )
    seen = torch.stack(spy.inputs)
    assert len(seen) == 26
    drawn = torch.Generator().manual_seed(4)
    noise = torch.empty_like(inputs).uniform_(-1, 1, generator=drawn)
    masks = [torch.empty_like(inputs[:, 0]).normal_(generator=drawn) for _ in range(26)]
    redrawn, moves = 0, []
    for i, k in enumerate(budgets.tolist()):
        own = [mask[i] for mask in masks]
        iterates, redraws, changed = transcription(net, inputs[i], noise[i], own, k, attack)
        torch.testing.assert_close(seen[:, i], torch.stack(iterates), rtol=0, atol=1e-9)
        redrawn += redraws
        moves += changed
    assert redrawn > 3
    assert any(moves)


class Silent(nn.Module):
    """Nearly the same answer to everything."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, inputs):
        change = self.slope * inputs.flatten(1).sum(dim=1, keepdim=True)
        return torch.tensor([1.0, 0.0]) + torch.cat([change, -change], dim=1)


def runs(values):
    """How often each value follows itself."""
    lengths = [1]
    for before, now in pairwise(values):
        if before == now:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return lengths


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
@pytest.mark.parametrize("slope", [0, 2e-10])  # too small a gradient moves no mask
def test_a_mask_that_stays_is_drawn_anew_and_the_magnitudes_stay(spy_on, patience, slope):
    inputs = 0.25 + 0.5 * torch.rand(2, 40, generator=torch.Generator().manual_seed(0))
    net = Silent(slope)
    spy = spy_on(net)
    attack = SparsePGD(num_steps=4 * patience, budget=4, beta=2.0, patience=patience, recheck=False)
    attack(net, inputs, torch.zeros(2, dtype=torch.int64))
    seen = torch.stack(spy.inputs[1:])
    for i in range(2):
        supports = [frozenset((z[i] != inputs[i]).nonzero().flatten().tolist()) for z in seen]
        # The start is no step; after it, every mask lasts as many steps as there is patience.
        assert runs(supports) == [patience + 1, patience, patience, patience]
        if slope == 0:
            for j in range(40):
                assert len({z[i, j].item() for z in seen if z[i, j] != inputs[i, j]}) <= 1


@pytest.mark.parametrize("slope", [0, 1e-5])  # in float16 the square of the latter is 0
def test_in_half_precision_a_small_gradient_leaves_the_mask_a_number(slope, monkeypatch):
    masks = []
    move = module._move

    def noting(attack, ascent, most):
        move(attack, ascent, most)
        masks.append(ascent.mask.clone())

    monkeypatch.setattr(module, "_move", noting)
    inputs = torch.full((2, 40), 0.5, dtype=torch.float16)
    SparsePGD(num_steps=5, budget=4)(Silent(slope), inputs, torch.zeros(2, dtype=torch.int64))
    assert len(masks) == 5
    assert torch.stack(masks).isfinite().all()


class Scripted(nn.Module):
    """Gives its answers one after the other, whatever it is asked."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)

    def forward(self, inputs):
        return torch.tensor([self.answers.pop(0)]) + 0 * inputs.sum()


def test_what_fools_the_net_counts_though_the_loss_was_higher_before(spy_on):
    """Cross-entropy is higher where the net hesitates, but no other class wins there."""
    hesitant = [1.0, 0.9, 0.9]
    net = Scripted([1.0, 0.0, 0.0], hesitant, hesitant, [1.0, 1.1, -5.0])
    spy = spy_on(net)
    attack = SparsePGD(num_steps=9, budget=2, patience=1, recheck=False)
    result = attack(net, torch.full((1, 8), 0.5), torch.tensor([0]))
    assert result.success.item()
    assert torch.equal(result.adv_inputs, spy.inputs[3])
    assert not torch.equal(spy.inputs[3], spy.inputs[2])


def test_where_the_variants_differ_is_what_does_not_show(spy_on):
    """With a mask that cannot move, hidden magnitudes move in the unprojected variant only."""
    net = Linear(seed=2)
    inputs = torch.rand(4, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.zeros(4, dtype=torch.int64)
    seen = {}
    for projected in (False, True):
        spy = spy_on(net)
        attack = SparsePGD(
            num_steps=12, budget=5, projected=projected, beta=1e-12, patience=6, recheck=False
        )
        attack(net, inputs, labels)
        seen[projected] = torch.stack(spy.inputs[1:])
    # Both show the same until the mask is drawn anew, after step 6.
    torch.testing.assert_close(seen[False][:7], seen[True][:7], rtol=0, atol=1e-12)
    assert (seen[False][7] != seen[True][7]).any()
    new = (seen[False][7] != inputs) & (seen[False][6] == inputs)
    assert new.any()
    # Six steps of 0.25 take a hidden value to its bound; the projected variant left it in between.
    assert ((seen[False][7] == 0) | (seen[False][7] == 1))[new].all()
    assert not ((seen[True][7] == 0) | (seen[True][7] == 1))[new].all()


@pytest.mark.parametrize("budget", [2, 6])
def test_what_is_not_broken_ends_at_its_highest_loss_within_the_budget(make_batch, spy_on, budget):
    batch = make_batch(num_wrong=0, num_samples=8)
    batch.net.head.bias.data[batch.labels.mode().values] += 2
    labels = batch.net(batch.inputs).argmax(dim=1)
    attack = SparsePGD(num_steps=10, budget=budget, recheck=False)
    for i in range(8):  # alone, so that all that the net sees is about this sample
        spy = spy_on(batch.net)
        result = attack(batch.net, batch.inputs[i : i + 1], labels[i : i + 1])
        seen, logits = torch.cat(spy.inputs[1:]), torch.cat(spy.logits[1:])
        assert ((seen != batch.inputs[i]).flatten(1).sum(dim=1) <= budget).all()
        if result.success:
            assert (logits[:-1].argmax(dim=1) == labels[i]).all()
            assert logits[-1].argmax() != labels[i]
            assert torch.equal(result.adv_inputs[0], seen[-1])
            assert torch.equal(result.last_inputs[0], seen[-1])
        else:
            loss = nn.functional.cross_entropy(logits, labels[i].expand(11), reduction="none")
            assert torch.equal(result.last_inputs[0], seen[loss.argmax()])
            assert torch.equal(result.best_inputs[0], batch.inputs[i])


def test_a_run_costs_a_pass_more_than_steps_and_who_is_broken_leaves(make_batch, spy_on):
    batch = make_batch(num_wrong=2, num_samples=16)
    spy = spy_on(batch.net)
    result = SparsePGD(num_steps=9, budget=2)(batch.net, batch.inputs, batch.labels)
    assert spy.forward_rows[:2] == [16, 14]
    assert spy.forward_rows[1:-1] == sorted(spy.forward_rows[1:-1], reverse=True)
    assert sum(spy.forward_rows) == result.num_forwards.sum()
    assert sum(spy.backward_rows) == result.num_backwards.sum()
    assert result.num_forwards[:2].tolist() == [2, 2]
    assert result.num_backwards[:2].tolist() == [0, 0]
    missed = ~result.success
    assert missed.any()
    assert result.success[2:].any()
    assert (result.num_forwards[missed] == 1 + 10 + 1).all()
    assert (result.num_backwards[missed] == 9).all()
    assert (result.num_forwards[2:][result.success[2:]] < 1 + 10 + 1).any()


def test_who_leaves_later_reports_the_same(make_batch, spy_on, monkeypatch):
    """An accelerator is asked only now and then who is done: what is found then stays found."""
    batch = make_batch(num_wrong=0, num_samples=16)
    monkeypatch.setattr(sparse_pgd, "steps_between_syncs", lambda device: 4)
    spy = spy_on(batch.net)
    attack = SparsePGD(num_steps=11, budget=2, recheck=False)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert 2 < result.success.sum() < 16
    assert spy.forward_rows[1:5] == [16] * 4
    first = spy.logits[1].argmax(dim=1) != batch.labels
    for step in range(2, 5):
        seen, logits = spy.inputs[step], spy.logits[step]
        fooled = logits.argmax(dim=1) != batch.labels
        for i in (fooled & ~first).nonzero().flatten():
            assert torch.equal(result.adv_inputs[i], seen[i])
            assert result.num_forwards[i] == step + 1
        first |= fooled
    assert first.any()
    assert sum(spy.forward_rows) > result.num_forwards.sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "expected `patience` to be at least 1, got 0"),
        ({"alpha": 0}, "expected `alpha` to be positive, got 0"),
        ({"beta": float("nan")}, "expected `beta` to be positive, got nan"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        SparsePGD(**options)


class RootOfZero(nn.Module):
    """Finite logits whose gradient is NaN wherever an input is zero."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net(inputs) + 0 * inputs.sqrt().flatten(1).sum(dim=1, keepdim=True)


def test_a_gradient_of_nan_moves_nothing(make_batch):
    batch = make_batch(num_wrong=0)
    batch.inputs[:, :, 0, 0] = 0
    net = RootOfZero(batch.net)
    labels = net(batch.inputs).argmax(dim=1)
    for projected in (False, True):
        attack = SparsePGD(num_steps=8, budget=3, projected=projected)
        result = attack(net, batch.inputs, labels)
        again = replace(attack, seed=1)(net, batch.inputs, labels)
        assert result.last_inputs.isfinite().all()
        assert not torch.equal(result.last_inputs, again.last_inputs)
