"""Lin et al. against a transcription with the authors' loss, and against closed forms."""

import math
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from published import mnist_test_images, published_net
from torch import nn

from sztrain.attacks import LinSparse
from sztrain.attacks.lin_sparse import _aim, _start, _weigh, activated
from sztrain.errors import InputError

QUICK = {"num_steps": 25, "epsilon": 0.3, "tau": 0.3, "step": 100.0, "amplitude": "full"}


def cross_entropy(net, x, label):
    return F.cross_entropy(net(x.unsqueeze(0)), torch.tensor([label]))


def l0_of(change, unit):
    change = change.abs().sum(dim=0) if unit == "pixels" else change
    return change.count_nonzero().item()


def transcription(net, x, y, attack):
    """Both stages for one sample, with the loss as the authors write it, its l0 term included."""
    found = SimpleNamespace(best=x, l0=torch.inf, num_looks=0, last=x)

    def look(moved):
        found.num_looks += 1
        found.last = moved
        l0 = l0_of(moved - x, attack.unit)
        if net(moved.unsqueeze(0)).argmax().item() != y and l0 < found.l0:
            found.best, found.l0 = moved, l0

    total, moved = torch.zeros_like(x), x
    for _ in range(attack.dense_steps):
        look(moved)
        if found.l0 == 0:
            return found
        leaf = moved.clone().requires_grad_()
        cross_entropy(net, leaf, y).backward()
        total = total + leaf.grad
        moved = (x + attack.epsilon * total.sign()).clamp(0, 1)
    look(moved)
    found.dense = moved
    logits = net(moved.unsqueeze(0))[0]
    goal = max((value.item(), c) for c, value in enumerate(logits) if c != y)[1]
    dense = moved - x
    room = torch.minimum(x, 1 - x)
    if attack.amplitude == "full":
        dense = attack.epsilon * dense.sign()
        room = torch.where(dense > 0, 1 - x, x)
    generator = torch.Generator().manual_seed(attack.seed)
    weights = torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x.dtype)
    # The three factors in the authors' code, of which only the product matters.
    beta, weight = 100, 1000
    rate = attack.step / (beta * weight)
    for _ in range(attack.num_steps):
        moved = (x + weights * dense).clamp(0, 1)
        look(moved)
        if found.l0 <= (attack.budget or 1):
            return found
        leaf = weights.clone().requires_grad_()
        at = x + leaf * dense
        at = at + (moved - at).detach()  # the clip, without its gradient
        sparsity = torch.linalg.vector_norm(leaf, ord=0)
        (beta * (weight * cross_entropy(net, at, goal) + sparsity)).backward()
        weights = (
            room
            / attack.epsilon
            * torch.tanh((weights - rate * leaf.grad - attack.tau / attack.epsilon).clamp(min=0))
        )
    look((x + weights * dense).clamp(0, 1))
    return found


VARIANTS = [
    {},
    {"amplitude": "half"},
    {"unit": "pixels"},
    {"budget": 12},
    {"seed": 5, "num_steps": 3},
    {"dense_steps": 1, "num_steps": 1},
    {"epsilon": 0.1, "tau": 0.05, "step": 10.0},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: ",".join(map(str, o.items())))
def test_equals_the_transcription_with_the_authors_loss(make_batch, options):
    attack = LinSparse(**QUICK | options)
    batch = make_batch(num_wrong=1, num_samples=8)
    result = attack(batch.net, batch.inputs, batch.labels)
    for i, (x, y) in enumerate(zip(batch.inputs, batch.labels.tolist(), strict=True)):
        one = transcription(batch.net, x, y, attack)
        success = one.l0 <= (x.numel() if attack.budget is None else attack.budget)
        assert result.l0[i] == (one.l0 if success else torch.inf)
        torch.testing.assert_close(result.best_inputs[i], one.best, rtol=0, atol=1e-9)
        torch.testing.assert_close(result.last_inputs[i], one.last, rtol=0, atol=1e-9)
        assert result.num_forwards[i] == one.num_looks + 1
    full = attack.dense_steps + 1 + attack.num_steps + 1
    # The last look of each stage goes without a gradient.
    assert set(result.num_backwards[result.num_forwards == full + 1].tolist()) <= {full - 2}
    assert result.num_backwards[0] == 1
    assert result.success.sum() >= 4


# ---- the parts ----------------------------------------------------------------------------------


def stages(spy, attack, inputs):
    """What the net saw in stage 2, and the Δ that stage 1 ended with."""
    dense = spy.inputs[attack.dense_steps]
    first = attack.dense_steps + 1
    return spy.inputs[first : first + attack.num_steps + 1], dense - inputs


@pytest.mark.parametrize("amplitude", ["half", "full"])
def test_iterates_keep_within_the_room_and_along_the_dense_perturbation(
    make_batch, spy_on, amplitude
):
    batch = make_batch(num_wrong=0)
    spy = spy_on(batch.net)
    attack = LinSparse(**QUICK | {"amplitude": amplitude}, recheck=False)
    attack(batch.net, batch.inputs, batch.labels)
    seen, dense = stages(spy, attack, batch.inputs)
    assert (dense.abs() <= attack.epsilon + 1e-12).all()
    inside = batch.inputs + attack.epsilon <= 1
    assert (dense[inside & (dense > 0)] > attack.epsilon - 1e-12).all()
    room = torch.minimum(batch.inputs, 1 - batch.inputs)
    if amplitude == "full":
        room = torch.where(dense > 0, 1 - batch.inputs, batch.inputs)
    for moved in spy.inputs:
        assert ((moved >= 0) & (moved <= 1)).all()
    sizes = []
    for moved in seen[1:]:  # the first one has weights of both signs
        change = moved - batch.inputs
        assert (change.abs() <= room + 1e-12).all()
        assert ((change == 0) | (change.sign() == dense.sign())).all()
        sizes.append(change.count_nonzero().item())
    assert min(sizes) < 0.5 * batch.inputs.numel()
    assert len(set(sizes)) >= 3


def test_one_dense_step_is_fgsm(make_batch, spy_on):
    batch = make_batch(num_wrong=0)
    spy = spy_on(batch.net)
    LinSparse(**QUICK | {"dense_steps": 1})(batch.net, batch.inputs, batch.labels)
    leaf = batch.inputs.clone().requires_grad_()
    F.cross_entropy(batch.net(leaf), batch.labels).backward()
    expected = (batch.inputs + 0.3 * leaf.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(spy.inputs[1], expected, rtol=0, atol=1e-12)


def test_activation_is_zero_up_to_the_cut_then_rises_to_the_room():
    weights = torch.linspace(-5, 40, 901, dtype=torch.float64)
    values = activated(weights, 1.5, torch.full_like(weights, 3.0))
    assert torch.equal(values == 0, weights <= 1.5)
    assert (values.diff() >= 0).all()
    assert values[-1] == 3
    assert (values <= 3).all()


class Linear(nn.Module):
    """Two classes, ``Z_0 - Z_1 = w·x + b``."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.bias = bias

    def forward(self, inputs):
        margin = inputs @ self.weight + self.bias
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


@pytest.mark.parametrize(("share", "on"), [(0.99, False), (1.01, True)])
def test_a_feature_switches_on_where_the_slope_is_above_its_threshold(share, on):
    """From zero weights: above g* = τ / (s ε²), and along Δ only."""
    attack = LinSparse(epsilon=0.1, tau=0.4, step=50.0, amplitude="full")
    slope = share * attack.tau / (attack.step * attack.epsilon**2)
    # With a margin of 40, the slope of the cross-entropy to class 1 is that of the margin.
    net = Linear([slope, -slope, slope, -slope, 0.0], 40.0)
    inputs = torch.full((1, 5), 0.5, dtype=torch.float64)
    search = _start(inputs, torch.tensor([0]), attack)
    search.delta.copy_(torch.tensor([[-0.1, 0.1, 0.1, -0.1, 0.1]]))
    _aim(attack, search, search.look(net, "features"))
    assert search.goal.item() == 1
    search.weights.zero_()
    search.delta.zero_()
    _weigh(attack, search, search.look(net, "features"))
    # The margin falls along the first two entries of Δ and rises along the next two.
    assert (search.delta != 0).tolist() == [[on, on, False, False, False]]
    assert (search.delta.sign() * search.dense.sign() >= 0).all()


def test_without_a_gradient_amplitudes_follow_their_recursion():
    def amplitudes(room, tau, epsilon, num_steps):
        weights = torch.tensor([room / epsilon], dtype=torch.float64)
        full, values = weights.clone(), []
        for _ in range(num_steps):
            before = epsilon * weights.item()
            weights = activated(weights, tau / epsilon, full)
            values.append(epsilon * weights.item())
            expected = room * math.tanh(max(before - tau, 0) / epsilon)
            assert values[-1] == pytest.approx(expected, abs=1e-12)
        return values

    assert amplitudes(0.5, 0.45, 6 / 255, 4)[-1] == 0
    assert amplitudes(0.5, 0.45, 6 / 255, 1)[0] > 0
    assert amplitudes(0.2, 0.45, 6 / 255, 1) == [0]
    assert amplitudes(0.5, 0.2, 10 / 255, 500)[-1] > 0.49  # on for good


class Constant(nn.Module):
    def forward(self, inputs):
        return torch.tensor([[0.0, 1.0, 0.5]]).expand(len(inputs), 3) + 0 * inputs.flatten(1)[:, :1]


def test_a_net_without_a_gradient_ends_without_weights(spy_on):
    inputs, net = torch.full((2, 5), 0.5), Constant()
    spy = spy_on(net)
    attack = LinSparse(num_steps=12, recheck=False)
    result = attack(net, inputs, torch.tensor([1, 0]))
    assert result.success.tolist() == [False, True]  # the second is misclassified from the start
    assert result.l0.tolist() == [torch.inf, 0]
    assert torch.equal(result.adv_inputs, inputs)
    assert torch.equal(result.last_inputs, inputs)
    assert result.num_forwards.tolist() == [10 + 1 + 12 + 1, 1]
    assert spy.forward_rows[:2] == [2, 1]


def test_a_sample_broken_by_one_change_is_done(spy_on):
    net = Linear([9.0, 0.1, 0.1], -4.0)
    inputs = torch.full((1, 3), 0.5, dtype=torch.float64)
    spy = spy_on(net)
    result = LinSparse(recheck=False)(net, inputs, torch.tensor([0]))
    assert result.l0.tolist() == [1]
    l0 = [(moved != inputs).sum().item() for moved in spy.inputs]
    assert l0[-1] == 1
    assert 1 not in l0[:-1]
    assert len(l0) < 50


class RootOfZero(nn.Module):
    """Finite logits whose gradient is NaN wherever an input is zero."""

    def forward(self, inputs):
        return Linear([1.0, 1.0, 1.0], -0.7)(inputs) + 0 * inputs.sqrt().sum(dim=1, keepdim=True)


def test_a_gradient_of_nan_moves_nothing():
    inputs = torch.tensor([[0.9, 0.0, 0.5], [0.9, 0.3, 0.5]], dtype=torch.float64)
    attack = LinSparse(**QUICK | {"step": 10.0}, recheck=False)
    result = attack(RootOfZero(), inputs, torch.tensor([0, 0]))
    assert result.last_inputs[0, 1] == 0
    assert result.last_inputs.isfinite().all()
    assert result.success.all()
    assert result.adv_inputs[0, 1] == 0


def test_a_failed_first_stage_aims_at_the_likeliest_wrong_class(make_batch, spy_on):
    """With a tiny ε nothing is reached; the loss to go down must not be that of the true class."""
    batch = make_batch(num_wrong=0)
    spy = spy_on(batch.net)
    attack = LinSparse(
        num_steps=15, epsilon=1e-4, tau=1e-4, step=1e6, amplitude="full", recheck=False
    )
    attack(batch.net, batch.inputs, batch.labels)
    dense_logits = spy.logits[attack.dense_steps]
    assert (dense_logits.argmax(dim=1) == batch.labels).all()
    others = dense_logits.scatter(1, batch.labels.unsqueeze(1), -torch.inf)
    goal = others.argmax(dim=1)
    before, after = (
        F.cross_entropy(spy.logits[k], goal, reduction="none") for k in (0, attack.dense_steps + 2)
    )
    assert (after < before).all()


# ---- samples do not see each other --------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"budget": 12}, {"prune_steps": 20}, {"amplitude": "half"}]
)
def test_order_and_size_of_the_batch_change_no_sample(make_batch, options):
    batch = make_batch(num_samples=9, num_wrong=2, seed=1)
    attack = LinSparse(**QUICK | options)
    together = attack(batch.net, batch.inputs, batch.labels)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    for index in order.split([4, 2, 1, 1, 1]):
        alone = attack(batch.net, batch.inputs[index], batch.labels[index])
        for name, value in vars(alone).items():
            expected = getattr(together, name)[index]
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-9, msg=name)


def test_who_leaves_when_changes_no_answer(make_batch, monkeypatch):
    batch = make_batch(num_samples=9, num_wrong=2, seed=1)
    attack = LinSparse(**QUICK, budget=12)
    expected = attack(batch.net, batch.inputs, batch.labels)
    assert expected.num_forwards[2:].unique().numel() > 1
    module = import_module("sztrain.attacks.lin_sparse")
    monkeypatch.setattr(module, "steps_between_syncs", lambda device: 8)
    found = attack(batch.net, batch.inputs, batch.labels)
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=1e-9, msg=name)


def test_the_seed_decides_the_first_weights_alone(make_batch, spy_on):
    batch = make_batch(num_wrong=0)
    spy, answers = spy_on(batch.net), []
    for seed in (0, 0, 1):
        attack = LinSparse(**QUICK, seed=seed, recheck=False)
        attack(batch.net, batch.inputs, batch.labels)
        answers.append(spy.inputs[attack.dense_steps : attack.dense_steps + 2])
        spy.inputs.clear()
    assert torch.equal(answers[0][1], answers[1][1])
    assert torch.equal(answers[0][0], answers[2][0])
    assert not torch.equal(answers[0][1], answers[2][1])


@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4), (1, 2, 3, 4)])
def test_any_rank_gives_what_the_flat_input_gives(shape):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    flat = torch.rand(5, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = net(flat).argmax(dim=1)
    expected = LinSparse(**QUICK)(net, flat, labels)
    result = LinSparse(**QUICK)(net, flat.view(5, *shape), labels)
    assert expected.success.any()
    assert torch.equal(result.l0, expected.l0)
    assert torch.equal(result.adv_inputs.flatten(1), expected.adv_inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_true(make_batch, dtype):
    batch = make_batch(num_wrong=0, dtype=torch.float32)
    net, inputs = batch.net.to(dtype), batch.inputs.to(dtype)
    with torch.no_grad():
        labels = net(inputs).argmax(dim=1)
    result = LinSparse(**QUICK)(net, inputs, labels)
    assert result.success.any()
    assert result.adv_inputs.dtype == dtype
    assert result.last_inputs.isfinite().all()


def test_black_and_white_images_need_the_full_amplitude(make_batch):
    batch = make_batch(num_wrong=0)
    inputs = batch.inputs.round()
    with torch.no_grad():
        labels = batch.net(inputs).argmax(dim=1)
    half = LinSparse(**QUICK | {"amplitude": "half"})(batch.net, inputs, labels)
    full = LinSparse(**QUICK)(batch.net, inputs, labels)
    assert torch.equal(half.last_inputs, inputs)  # what is left is the dense example of stage 1
    assert half.success.all()
    assert full.l0.mean() < 0.7 * half.l0.mean()


def test_pruning_never_adds_a_change(make_batch):
    batch = make_batch(num_wrong=1, num_samples=8)
    attack = LinSparse(**QUICK)
    before = attack(batch.net, batch.inputs, batch.labels)
    after = replace(attack, prune_steps=75)(batch.net, batch.inputs, batch.labels)
    assert torch.equal(after.success, before.success)
    assert (after.l0 <= before.l0).all()
    assert after.l0[after.success].sum() < 0.8 * before.l0[before.success].sum()
    assert (after.num_forwards - before.num_forwards <= before.l0.clamp(max=75)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0}, r"expected `epsilon` to be in \(0, 1\], got 0"),
        ({"epsilon": 6}, r"expected `epsilon` to be in \(0, 1\], got 6"),
        ({"tau": -0.1}, "expected `tau` to be at least 0, got -0.1"),
        ({"step": 0}, "expected `step` to be positive, got 0"),
        ({"amplitude": "whole"}, "expected `amplitude` to be one of half, full, got whole"),
        ({"dense_steps": 0}, "expected `dense_steps` to be at least 1, got 0"),
        ({"prune_steps": 0.5}, "expected `prune_steps` to be a whole number, got 0.5"),
        ({"seed": None}, "expected `seed` to be a whole number, got None"),
        ({"batch_size": 0}, "expected `batch_size` to be at least 1, got 0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        LinSparse(**options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "median"),
    [(30.0, 31), (10.0, 28)],
)
def test_published_net_is_broken_as_sparsely_as_measured(step, median):
    """A trial of the method with another program: 26 on other images with a step of 10."""
    inputs, labels = mnist_test_images(32)
    net = published_net("M1")
    attack = LinSparse(epsilon=96 / 255, amplitude="full", step=step)
    result = attack(net, inputs, labels)
    assert result.success.all()
    assert result.l0.median().item() == pytest.approx(median, abs=5)
    # As the authors have it, black and white features stay: nothing sparse is found.
    half = replace(attack, amplitude="half", num_steps=60)(net, inputs, labels)
    assert (half.l0 < 50).float().mean() <= 0.1
