"""PGD-l0: its projection against all supports, its run against a plain transcription."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_optimum import fewest_changes
from torch import nn

from sztrain.attacks import PGDL0, pgd_l0
from sztrain.attacks.fixed_budget import largest
from sztrain.attacks.pgd_l0 import project
from sztrain.errors import InputError

# ---- the projection -----------------------------------------------------------------------------


def nearest_by_force(z, x, k):
    """Squared distance from z to the nearest image that differs from x in at most k positions."""
    clipped = z.clamp(0, 1)
    distances = []
    for support in combinations(range(z.shape[1]), k):
        image = x.clone()
        image[:, list(support)] = clipped[:, list(support)]
        distances.append((image - z).square().sum())
    return min(distances)


# Few values, so that many of them tie, at the bounds of the box and beyond.
VALUES = st.sampled_from([-3.0, -0.25, 0.0, 0.25, 0.5, 1.0, 1.5, 40.0])


@given(st.data(), st.integers(1, 3), st.integers(1, 5))
def test_the_projection_is_the_nearest_of_all_allowed_images(data, channels, positions):
    def draw(values):
        size = channels * positions
        drawn = data.draw(st.lists(values, min_size=3 * size, max_size=3 * size))
        return torch.tensor(drawn, dtype=torch.float64).view(3, channels, positions)

    z, x = draw(VALUES), draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    budgets = torch.tensor(data.draw(st.lists(st.integers(0, positions), min_size=3, max_size=3)))
    moved = z.clone()
    project(moved, x, budgets, int(budgets.max()))
    assert ((moved >= 0) & (moved <= 1)).all()
    assert ((moved != x).any(dim=1).sum(dim=1) <= budgets).all()
    for one, image, clean, k in zip(z, moved, x, budgets.tolist(), strict=True):
        assert (image - one).square().sum() == pytest.approx(nearest_by_force(one, clean, k))


def test_a_full_budget_clips_and_none_restores():
    z, x = torch.randn(2, 1, 6), torch.rand(2, 1, 6)
    moved = z.clone()
    project(moved, x, torch.tensor([6, 0]), 6)
    assert torch.equal(moved[0], z[0].clamp(0, 1))
    assert torch.equal(moved[1], x[1])


@given(st.lists(st.integers(0, 3), min_size=7, max_size=7), st.integers(0, 7))
def test_marked_are_the_largest_and_never_more_than_allowed(scores, budget):
    scores = torch.tensor([scores, scores[::-1]]).float()
    marks = largest(scores, torch.tensor([budget, 7 - budget]), max(budget, 7 - budget)).squeeze(1)
    for row, marked, count in zip(scores, marks.bool(), (budget, 7 - budget), strict=True):
        assert marked.sum() == count
        assert torch.equal(
            row[marked].sort(descending=True).values, row.sort(descending=True).values[:count]
        )


# ---- a run --------------------------------------------------------------------------------------


def transcription(net, x, y, z, k, attack):
    """All iterates of one sample from the start z on; pixels if x has channels."""

    def projected(z):
        c = z.clamp(0, 1)
        kept_minus_dropped = ((z - x) ** 2 - (z - c) ** 2).sum(dim=0).flatten()
        image = x.flatten(1).clone()
        for j in kept_minus_dropped.sort(descending=True).indices[:k].tolist():
            image[:, j] = c.flatten(1)[:, j]
        return image.view_as(x)

    z = projected(z)
    iterates = [z]
    for _ in range(1, attack.num_steps):
        z = z.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(net(z.unsqueeze(0)), torch.tensor([y]))
        (g,) = torch.autograd.grad(loss, z)
        z = projected(z.detach() + attack.eta * g / (g.abs().sum() + 1e-10))
        iterates.append(z)
    return iterates


@pytest.mark.parametrize("unit", ["features", "pixels"])
@pytest.mark.parametrize("eta", [120_000 / 255, 2.0])
def test_a_run_is_that_of_the_paper_whatever_the_budgets_of_the_others(
    make_batch, spy_on, unit, eta
):
    batch = make_batch(num_wrong=0, num_samples=5)
    attack = PGDL0(num_steps=7, unit=unit, eta=eta)
    shape = (5, 3, 25) if unit == "pixels" else (5, 1, 75)
    budgets = torch.tensor([1, 4, 9, 2, 25])
    spy = spy_on(batch.net)
    pgd_l0.pgd_l0(
        lambda z: batch.net(z.view(-1, 3, 5, 5)),
        batch.inputs.view(shape),
        batch.labels,
        budgets,
        attack,
        torch.Generator().manual_seed(3),
    )
    start = torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    seen = torch.stack(spy.inputs)
    assert len(seen) == 6  # the last iterate is not looked at
    view = (3, 5, 5) if unit == "pixels" else (1, 75)
    for i, k in enumerate(budgets.tolist()):
        net = lambda z: batch.net(z.view(-1, 3, 5, 5))  # noqa: E731
        x = batch.inputs[i].view(view)
        expected = transcription(net, x, batch.labels[i].item(), start[i].view(view), k, attack)
        for step in range(6):
            torch.testing.assert_close(
                seen[step, i].flatten(), expected[step].flatten(), rtol=0, atol=1e-7
            )


def test_the_sparsest_adversarial_iterate_is_the_answer_and_the_last_iterate_is_last(
    make_batch, spy_on
):
    batch = make_batch(num_wrong=0, num_samples=12)
    spy = spy_on(batch.net)
    attack = PGDL0(num_steps=9, budget=2, evaluate_last=True, recheck=False)
    result = attack(batch.net, batch.inputs, batch.labels)
    seen = torch.stack(spy.inputs[1:])
    fooled = torch.stack(spy.logits[1:]).argmax(dim=2) != batch.labels
    l0 = (seen != batch.inputs).flatten(2).sum(dim=2)
    assert (l0 <= 2).all()
    assert torch.equal(result.success, fooled.any(dim=0))
    assert 0 < result.success.sum() < 12
    assert torch.equal(result.l0, torch.where(fooled, l0, torch.inf).amin(dim=0))
    assert torch.equal(result.last_inputs, seen[-1])


@pytest.mark.parametrize(
    ("options", "num_forwards"), [({}, 1 + 8 + 1), ({"evaluate_last": True}, 1 + 9 + 1)]
)
def test_a_run_looks_at_all_iterates_but_perhaps_the_last(
    make_batch, spy_on, options, num_forwards
):
    batch = make_batch(num_wrong=2, num_samples=6)
    spy = spy_on(batch.net)
    attack = PGDL0(num_steps=9, budget=2, **options)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert spy.forward_rows == [6, *[4] * (num_forwards - 2), 6]
    assert spy.backward_rows == [4] * 8
    assert result.num_forwards.tolist() == [2, 2, *[num_forwards] * 4]
    assert result.num_backwards.tolist() == [0, 0, *[8] * 4]


@pytest.mark.parametrize("interval", [1, 4])
def test_stopping_at_the_first_example_changes_no_verdict(make_batch, interval, monkeypatch):
    batch = make_batch(num_wrong=0, num_samples=16)
    attack = PGDL0(num_steps=20, budget=2)
    full = attack(batch.net, batch.inputs, batch.labels)
    one_by_one = replace(attack, early_stop=True)(batch.net, batch.inputs, batch.labels)
    monkeypatch.setattr(pgd_l0, "steps_between_syncs", lambda device: interval)
    early = replace(attack, early_stop=True)(batch.net, batch.inputs, batch.labels)
    for name, value in vars(one_by_one).items():
        torch.testing.assert_close(getattr(early, name), value, rtol=0, atol=1e-9, msg=name)
    assert torch.equal(early.success, full.success)
    assert 2 < early.success.sum() < 16
    assert (early.num_forwards[early.success] < full.num_forwards[early.success]).any()
    assert torch.equal(early.num_forwards[~early.success], full.num_forwards[~early.success])
    assert torch.equal(early.last_inputs[early.success], early.best_inputs[early.success])


@pytest.mark.parametrize("unit", ["features", "pixels"])
def test_a_linear_net_of_two_classes_is_broken_with_the_fewest_changes(unit):
    """The gradient has one direction, so that the projection alone decides."""
    generator = torch.Generator().manual_seed(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    net[1].weight.data.normal_(generator=generator)
    net[1].bias.data = torch.tensor([6.0, 0.0]).double()
    inputs = torch.rand(40, 3, 4, 4, generator=generator, dtype=torch.float64)
    labels = net(inputs).argmax(dim=1)
    result = PGDL0(num_steps=100, unit=unit)(net, inputs, labels)
    weight, bias = net[1].weight.detach(), net[1].bias.detach()
    optima = [
        float(fewest_changes(weight, bias, x, y, unit))
        for x, y in zip(inputs, labels.tolist(), strict=True)
    ]
    assert result.l0.tolist() == optima
    assert len(set(optima)) > 2


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
    result = PGDL0(num_steps=5, budget=3)(net, batch.inputs, labels)
    assert result.last_inputs.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 1}, "expected `num_steps` to be at least 2, got 1"),
        ({"eta": 0}, "expected `eta` to be positive, got 0"),
        ({"eta": float("nan")}, "expected `eta` to be positive, got nan"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        PGDL0(**options)
    PGDL0(num_steps=1, evaluate_last=True)
