"""GSE against a transcription that solves its proximal steps by Newton's method, and properties."""

import math
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pace import slow_after
from published import mnist_test_images, published_net
from scipy import ndimage
from torch import nn

from sztrain.attacks import GSE, SigmaZero
from sztrain.attacks._half_norm import adjusted_trade_off, half_prox, largest_trade_off
from sztrain.errors import InputError
from sztrain.norms import l0_norm, num_changed_windows

# Sparse enough for tiny nets, whose gradients are large: several runs fail, several succeed.
QUICK = {"num_steps": 100, "sigma": 30.0, "mu": 0.0005, "q": 0.5, "switch": 0.5, "patch": 2}


def prox_by_newton(u, trade_off):
    """Smallest (w - u)² + λ√|w|, from its stationary point s³ - |u| s + λ/4 = 0 with w = s²."""
    size = np.abs(u)
    s = np.sqrt(size)
    for _ in range(60):
        slope = 3 * s**2 - size
        s = np.where(
            slope > 0, s - (s**3 - size * s + trade_off / 4) / np.where(slope > 0, slope, 1), s
        )
        s = np.maximum(s, 0)
    w = s**2
    stationary = np.abs(s**3 - size * s + trade_off / 4) < 1e-9
    better = (w - size) ** 2 + trade_off * np.sqrt(w) < size**2
    return np.where(stationary & better, np.sign(u) * w, 0)


def transcription(net, x, y, attack, low=0.0, high=1.0):
    """One sample in the box [low, high], run by run and step by step, in numpy."""

    def margin(w):
        leaf = torch.tensor(x + w, requires_grad=True)
        logits = net(leaf.unsqueeze(0))[0]
        rival = torch.cat([logits[:y], logits[y + 1 :]]).max()
        value = rival - logits[y] if attack.targeted else logits[y] - rival
        value.clamp(min=0).backward()
        predicted = logits.argmax().item()
        return leaf.grad.numpy(), predicted == y if attack.targeted else predicted != y

    x = x.numpy()
    found = SimpleNamespace(best=np.zeros_like(x), l0=math.inf, runs=[], trade_offs=[])
    fewest, lower, upper = math.inf, 0.0, math.inf
    g, adversarial = margin(np.zeros_like(x))
    if adversarial:
        found.l0 = 0
        return found
    trade_off = 0.01 * 8 / math.sqrt(54) * math.sqrt(attack.sigma) * np.abs(g).max() ** 1.5
    num_runs = attack.num_runs
    num_steps = attack.num_steps // num_runs
    for run in range(num_runs):
        late = run >= num_runs - 2 and math.isinf(found.l0)
        sigma = attack.sigma * (10 if late else 1)
        w = w_old = np.zeros_like(x)
        penalty = np.full((1, *x.shape[1:]), trade_off)
        alpha, success, supports, mask = 1.0, False, [], None
        for k in range(num_steps):
            g, _ = margin(w)
            g = g + attack.mu * 2 * w
            alpha_next = (1 + math.sqrt(1 + 4 * alpha**2)) / 2
            if k == round(attack.switch * num_steps):
                mask = penalty <= trade_off
                w = w_old = mask * w
            u = w - sigma * g
            u = prox_by_newton(u, sigma * penalty) if mask is None else mask * u
            if attack.momentum == "average":
                r = alpha / alpha_next
                mixed = r * u + (1 - r) * w_old
            else:
                mixed = u + (alpha - 1) / alpha_next * (u - w_old)
            w_old = u
            if mask is None:
                moved = (mixed != 0).any(axis=0, keepdims=True).astype(float)
                blur = ndimage.gaussian_filter(moved[0], 1.5, mode="mirror", radius=2)[None]
                penalty = np.where(blur > 0, penalty / (1 + blur), penalty / attack.q)
            else:
                supports.append((mixed != 0).any(axis=0, keepdims=True) <= mask)
            w = np.clip(x + mixed, low, high) - x
            alpha = alpha_next
            _, success = margin(w)
            if success:
                break
        found.runs.append(SimpleNamespace(w=w, success=success, within_mask=np.all(supports)))
        found.trade_offs.append(trade_off)
        moved = (w != 0).any(axis=0)
        windows = np.lib.stride_tricks.sliding_window_view(moved, (attack.patch, attack.patch))
        windows = windows.any(axis=(2, 3)).sum()
        l0 = moved.sum() if attack.unit == "pixels" else (w != 0).sum()
        within = attack.budget is not None and l0 <= attack.budget
        if success:
            if windows < fewest or within:
                fewest, found.best, found.l0 = windows, w, l0
            lower = trade_off
            trade_off = 2 * trade_off if math.isinf(upper) else (upper + trade_off) / 2
        else:
            upper = trade_off
            trade_off = 0.9 * lower + 0.1 * trade_off
        if within and success:
            break
    return found


VARIANTS = [
    {},
    {"momentum": "nesterov"},
    {"targeted": True},
    {"unit": "pixels"},
    {"budget": 4},
    {"unit": "pixels", "budget": 2, "momentum": "nesterov"},
    {"switch": 1.0, "q": 0.9},
    {"switch": 0.0},
    {"num_runs": 4, "sigma": 0.3},
    {"num_runs": 3, "sigma": 0.01, "num_steps": 30},  # nobody is broken before the last two runs
]


@pytest.mark.parametrize(
    "options", slow_after(4, VARIANTS), ids=lambda o: ",".join(map(str, o.items()))
)
def test_equals_the_transcription(make_batch, options):
    attack = GSE(**QUICK | options)
    batch = make_batch(num_wrong=1, num_samples=6)
    labels = (batch.labels + 1) % 4 if attack.targeted else batch.labels
    result = attack(batch.net, batch.inputs, labels)
    verdicts = set()
    for i, (x, y) in enumerate(zip(batch.inputs, labels.tolist(), strict=True)):
        one = transcription(batch.net, x, y, attack)
        success = one.l0 <= (x.numel() if attack.budget is None else attack.budget)
        assert result.l0[i] == (one.l0 if success else torch.inf)
        best = x + torch.as_tensor(one.best)
        torch.testing.assert_close(result.best_inputs[i], best, rtol=0, atol=1e-7)
        last = x + torch.as_tensor(one.runs[-1].w) if one.runs else x
        if attack.budget is None:
            torch.testing.assert_close(result.last_inputs[i], last, rtol=0, atol=1e-7)
        assert all(run.within_mask for run in one.runs)
        verdicts |= {run.success for run in one.runs}
    assert True in verdicts
    assert result.success.sum() >= 2


def test_trials_succeed_and_fail(make_batch):
    """The comparison above would be empty if the search over the trade-off never turned."""
    batch = make_batch(num_wrong=0, num_samples=6)
    found = [
        transcription(batch.net, x, y, GSE(**QUICK))
        for x, y in zip(batch.inputs, batch.labels.tolist(), strict=True)
    ]
    assert sum({run.success for run in one.runs} == {True, False} for one in found) >= 4
    for one in found:  # doubled until the first failure
        first = next(
            i
            for i, run in enumerate([*one.runs, SimpleNamespace(success=False)])
            if not run.success
        )
        ratios = np.divide(one.trade_offs[1 : first + 1], one.trade_offs[:first])
        np.testing.assert_allclose(ratios[:first], 2)


# ---- the parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("trade_off", [0.0, 0.01, 0.1, 0.5, 1.0, 2.0])
def test_prox_is_the_minimum_on_a_grid(trade_off):
    u = torch.linspace(-3, 3, 241, dtype=torch.float64)
    threshold = 54 ** (1 / 3) / 4 * trade_off ** (2 / 3)
    u = u[(u.abs() - threshold).abs() > 1e-9]  # there, two values are minimal
    w = half_prox(u, trade_off)
    grid = torch.linspace(-3, 3, 60001, dtype=torch.float64)
    objective = (grid - u[:, None]) ** 2 + trade_off * grid.abs().sqrt()
    lowest, where = objective.min(dim=1)
    assert (w - grid[where]).abs().max() <= 1e-4  # the grid's spacing
    found = (w - u) ** 2 + trade_off * w.abs().sqrt()
    assert (found <= lowest + 1e-12).all()
    np.testing.assert_allclose(w, prox_by_newton(u.numpy(), trade_off), atol=1e-9)
    torch.testing.assert_close(half_prox(-u, trade_off), -w, rtol=0, atol=0)
    assert (w.diff() >= 0).all()
    assert ((w == 0) | (w.abs() >= 2 / 3 * threshold)).all()
    assert (w[u == 0] == 0).all()
    if trade_off == 0:
        torch.testing.assert_close(w, u)


def test_prox_stays_finite_at_both_ends():
    u = torch.tensor([0.0, 1e-30, 1.0, 1e30])
    for trade_off in (0.0, 1e-38, 1.0, 1e38, torch.inf):
        assert half_prox(u, trade_off).isfinite().all()
    # Just above the threshold, 1.5, the value is two thirds of it.
    assert half_prox(torch.tensor([1.5 + 1e-6]), 2.0).item() == pytest.approx(1, abs=1e-3)
    per_pixel = torch.tensor([[[[0.0, 2.0]]]])
    moved = half_prox(torch.tensor([[[[1.4, 1.4]], [[1.6, 1.6]]]]), per_pixel)
    assert (moved != 0).tolist() == [[[[True, False]], [[True, True]]]]


@pytest.mark.parametrize("sigma", [0.00125, 0.75, 10.0])
def test_largest_trade_off_is_the_first_that_moves_nothing(sigma):
    gradient = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    largest = largest_trade_off(gradient, sigma).view(5, 1, 1, 1)
    assert not half_prox(sigma * gradient, sigma * 1.001 * largest).any()
    moved = half_prox(sigma * gradient, sigma * 0.999 * largest)
    assert moved.flatten(1).any(dim=1).all()
    assert largest_trade_off(torch.zeros(1, 4), sigma) == 0


def test_trade_off_around_one_changed_pixel():
    before = torch.full((1, 1, 11, 11), 3.0, dtype=torch.float64)
    moved = torch.zeros(1, 2, 11, 11, dtype=torch.float64)
    moved[0, 1, 5, 4] = -1e-9
    after = before / adjusted_trade_off(before, moved, q=0.25)
    assert after[0, 0, 5, 4].item() == pytest.approx(1.0853, abs=1e-4)
    for corner in ((3, 2), (3, 6), (7, 2), (7, 6)):
        assert after[0, 0, *corner].item() == pytest.approx(1.0144, abs=1e-4)
    outside = torch.ones(11, 11, dtype=torch.bool)
    outside[3:8, 2:7] = False
    assert (after[0, 0][outside] == 0.25).all()
    still = adjusted_trade_off(before, torch.zeros_like(moved), q=0.9)
    torch.testing.assert_close(still, before / 0.9)


def test_the_answer_has_the_fewest_windows_of_all_runs_that_succeeded(make_batch, monkeypatch):
    batch = make_batch(num_wrong=0, num_samples=6)
    module, ends = import_module("sztrain.attacks.gse"), []

    def recorded(*args, run_once=module.run_once, **options):
        ends.append(run_once(*args, **options))
        return ends[-1]

    monkeypatch.setattr(module, "run_once", recorded)
    attack = GSE(**QUICK)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert len(ends) == 10
    windows = torch.stack(
        [
            num_changed_windows(end.best_inputs - batch.inputs, attack.patch).masked_fill(
                end.best_l0.isinf(), torch.inf
            )
            for end in ends
        ]
    )
    assert (windows.isfinite() & (windows > windows.amin(dim=0))).any()  # there was a choice
    reached = num_changed_windows(result.adv_inputs - batch.inputs, attack.patch)
    assert result.success.all()
    assert torch.equal(reached, windows.amin(dim=0))


class FromSymmetricBox(nn.Module):
    """The net for images in [-1, 1]."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net((inputs + 1) / 2)


@pytest.mark.parametrize("momentum", ["average", "nesterov"])
def test_step_and_weight_are_those_of_the_authors_box_rescaled(make_batch, momentum):
    """In [-1, 1], as the authors have it, σ is four times as large and μ a quarter."""
    batch = make_batch(num_wrong=0, num_samples=6)
    attack = GSE(**QUICK | {"num_steps": 60, "momentum": momentum, "sigma": 8.0, "mu": 0.02})
    theirs = GSE(**QUICK | {"num_steps": 60, "momentum": momentum, "sigma": 32.0, "mu": 0.005})
    result = attack(batch.net, batch.inputs, batch.labels)
    for i, (x, y) in enumerate(zip(batch.inputs, batch.labels.tolist(), strict=True)):
        one = transcription(FromSymmetricBox(batch.net), 2 * x - 1, y, theirs, low=-1.0)
        delta = (result.best_inputs[i] - batch.inputs[i]).numpy()
        assert np.array_equal(delta != 0, one.best != 0)
        np.testing.assert_allclose(one.best, 2 * delta, atol=1e-7)


# ---- queries, and samples that do not see each other --------------------------------------------


def test_the_clean_image_is_passed_once_for_all_runs(make_batch, spy_on):
    batch = make_batch(num_wrong=2, num_samples=7)
    spy = spy_on(batch.net)
    # Steps too small to get anywhere: each run takes all its steps.
    attack = GSE(num_steps=53, num_runs=5, sigma=1e-9, patch=2, recheck=False)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert spy.forward_rows == [7] + [5] * 50  # 53 steps are ten for each of five runs
    assert spy.backward_rows == [7] + [5] * 45
    assert result.num_forwards.tolist() == [1, 1] + [51] * 5
    assert result.num_backwards.tolist() == [1, 1] + [46] * 5
    assert not result.success[2:].any()
    assert result.l0[:2].tolist() == [0, 0]


@pytest.mark.parametrize("num_steps", [1, 3])
def test_fewer_steps_than_runs_are_as_many_runs(make_batch, spy_on, num_steps):
    batch = make_batch(num_wrong=0)
    spy = spy_on(batch.net)
    GSE(num_steps=num_steps, sigma=1e-9, patch=2, recheck=False)(
        batch.net, batch.inputs, batch.labels
    )
    assert spy.forward_rows == [6] * (1 + num_steps)


@pytest.mark.parametrize("options", [{}, {"budget": 6}, {"momentum": "nesterov"}])
def test_order_and_size_of_the_batch_change_no_sample(make_batch, options):
    batch = make_batch(num_samples=9, num_wrong=2, seed=1)
    attack = GSE(**QUICK | options)
    together = attack(batch.net, batch.inputs, batch.labels)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    for index in order.split([4, 2, 1, 1, 1]):
        alone = attack(batch.net, batch.inputs[index], batch.labels[index])
        for name, value in vars(alone).items():
            expected = getattr(together, name)[index]
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("options", [{}, {"budget": 6}])
def test_who_leaves_when_changes_no_answer(make_batch, spy_on, monkeypatch, options):
    batch = make_batch(num_samples=9, num_wrong=2, seed=1)
    attack = GSE(**QUICK | options)
    expected = attack(batch.net, batch.inputs, batch.labels)
    module = import_module("sztrain.attacks._gse_run")
    monkeypatch.setattr(module, "steps_between_syncs", lambda device: 8)
    spy = spy_on(batch.net)
    found = attack(batch.net, batch.inputs, batch.labels)
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=1e-9, msg=name)
    assert sum(spy.forward_rows) > found.num_forwards.sum()


# ---- what it is for, and what it refuses --------------------------------------------------------


def test_a_constant_net_is_not_broken_and_nothing_is_nan(make_batch):
    batch = make_batch(num_wrong=0)
    batch.net.head.weight.data.zero_()
    batch.net.head.bias.data = torch.tensor([0.0, 1.0, 0.0, 0.0]).double()
    result = GSE(**QUICK)(batch.net, batch.inputs, torch.ones(6, dtype=torch.int64))
    assert not result.success.any()
    assert torch.equal(result.last_inputs, batch.inputs)


class RootOfZero(nn.Module):
    """Finite logits whose gradient is NaN wherever an input is zero."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net(inputs) + 0 * inputs.sqrt().flatten(1).sum(dim=1, keepdim=True)


def test_a_gradient_of_nan_moves_nothing(make_batch):
    batch = make_batch(num_wrong=0)
    inputs = batch.inputs.clone()
    inputs[:, 1, 2, 2] = 0
    labels = batch.net(inputs).argmax(dim=1)
    result = GSE(**QUICK)(RootOfZero(batch.net), inputs, labels)
    assert result.last_inputs.isfinite().all()
    assert (result.best_inputs[:, 1, 2, 2] == 0).all()
    assert result.success.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_true(make_batch, dtype):
    batch = make_batch(num_wrong=0, dtype=torch.float32)
    net, inputs = batch.net.to(dtype), batch.inputs.to(dtype)
    with torch.no_grad():
        labels = net(inputs).argmax(dim=1)
    result = GSE(**QUICK)(net, inputs, labels)
    assert result.success.any()
    assert result.adv_inputs.dtype == dtype
    assert result.last_inputs.isfinite().all()


@pytest.mark.parametrize("shape", [(24,), (8, 8), (1, 7, 9), (1, 8, 8, 8)])
def test_what_is_no_image_of_the_windows_size_is_refused(shape):
    inputs = torch.rand(2, *shape)
    message = r"^GSE needs images of shape \(N, C, H, W\) of at least 8 pixels a side, got inputs"
    with pytest.raises(InputError, match=message):
        GSE()(nn.Flatten(), inputs, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0}, "expected `sigma` to be positive, got 0"),
        ({"mu": -1}, "expected `mu` to be at least 0, got -1"),
        ({"switch": 30}, r"expected `switch` to be in \[0, 1\], got 30"),
        ({"q": 0}, r"expected `q` to be in \(0, 1\], got 0"),
        ({"q": 1.5}, r"expected `q` to be in \(0, 1\], got 1.5"),
        ({"momentum": "nag"}, "expected `momentum` to be one of average, nesterov, got nag"),
        ({"num_runs": 0}, "expected `num_runs` to be at least 1, got 0"),
        ({"patch": 0}, "expected `patch` to be at least 1, got 0"),
        ({"batch_size": 0}, "expected `batch_size` to be at least 1, got 0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        GSE(**options)


def num_clusters(delta):
    return [ndimage.label((one != 0).any(dim=0))[1] for one in delta]


@pytest.mark.slow
def test_changes_of_a_published_net_lie_in_fewer_clusters_than_sigma_zeros():
    """A trial of the method with another program, on 24 other images: 51 pixels, 1.3 clusters."""
    inputs, labels = mnist_test_images(32)
    net = published_net("M1")
    attack = GSE(sigma=0.75, mu=0.0005, switch=0.75, q=0.9)
    grouped, sparse = (a(net, inputs, labels) for a in (attack, SigmaZero(num_steps=100)))
    assert grouped.success.all()
    delta = grouped.adv_inputs - inputs
    clusters, scattered = (np.mean(num_clusters(r.adv_inputs - inputs)) for r in (grouped, sparse))
    assert clusters < 0.3 * scattered
    assert clusters == pytest.approx(1.3, abs=0.5)
    assert l0_norm(delta, "pixels").mean().item() == pytest.approx(51, rel=0.2)
    assert num_changed_windows(delta).mean().item() == pytest.approx(182, rel=0.1)
    # The step for CIFAR-10 gets nowhere against the pull of the 2-norm.
    assert not GSE(num_steps=300)(net, inputs, labels).success.any()
