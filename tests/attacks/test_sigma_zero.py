"""σ-zero against a naive transcription of its paper, optima in closed form, and what it owes."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from linear_optimum import fewest_changes
from pace import slow_after
from published import mnist_test_images, published_net
from torch import nn

from sztrain.attacks import ASLO, SigmaZero
from sztrain.attacks._search import AdamSearch
from sztrain.attacks.sigma_zero import cosine_annealing
from sztrain.errors import InputError, SztrainWarning


def transcription(net, x, y, attack):
    """Algorithm 1 of arXiv:2402.01879 for one sample, line by line and without any economy.

    Line 8 runs the net anew, line 5 is a step of torch's own optimizers, line 7 torch's own
    schedule. Line 11 is the infinite l0 of a result without ``best``.
    """

    def adversarial(delta):
        predicted = net((x + delta).unsqueeze(0)).argmax().item()
        return predicted == y if attack.targeted else predicted != y

    def per_unit(values):
        return values.sum(dim=0) if attack.unit == "pixels" else values

    delta = torch.zeros_like(x, requires_grad=True)  # line 1
    found = SimpleNamespace(best=None, l0=torch.inf, last=delta.detach(), tau=[], num_steps=0)
    if adversarial(delta):  # below Eq. 3: its solution is δ = 0
        found.best, found.l0 = torch.zeros_like(x), 0
        return found
    rule = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[attack.step_rule]
    optimizer = rule([delta], lr=attack.eta)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=attack.num_steps, eta_min=attack.eta / 10
    )
    tau = attack.tau
    for _ in range(attack.num_steps):  # line 2
        logits = net((x + delta).unsqueeze(0))[0]
        rival = torch.cat([logits[:y], logits[y + 1 :]]).max()
        margin = rival - logits[y] if attack.targeted else logits[y] - rival
        square = per_unit(delta**2)
        objective = (square / (square + attack.sigma)).sum() / square.numel()  # Eq. 7
        if margin > 0:
            objective = objective + margin  # Eq. 6
        optimizer.zero_grad()
        objective.backward()  # line 3
        delta.grad /= delta.grad.abs().max()  # line 4
        optimizer.step()
        with torch.no_grad():
            delta.copy_((x + delta).clamp(0, 1) - x)  # line 5
            size = delta.abs()
            size = size.amax(dim=0, keepdim=True) if attack.unit == "pixels" else size
            delta[(size < tau).expand_as(delta)] = 0  # line 6
            schedule.step()  # line 7
            (eta,) = schedule.get_last_lr()
            broken = adversarial(delta)
            tau = min(max(tau + (1 if broken else -1) * attack.tau_factor * eta, 0), 1)  # line 8
            l0 = per_unit(delta.abs()).count_nonzero().item()
            if broken and l0 < found.l0:  # line 9
                found.best, found.l0 = delta.detach().clone(), l0
        found.num_steps += 1
        found.tau.append(tau)
        if attack.budget is not None and found.l0 <= attack.budget:
            break
    found.last = delta.detach()
    return found  # line 12


DEFAULTS = {"num_steps": 40}
VARIANTS = [
    {"step_rule": rule, "unit": unit, "targeted": targeted}
    for rule in ("adam", "sgd")
    for unit in ("features", "pixels")
    for targeted in (False, True)
]
VARIANTS += [
    {"eta": 0.5, "sigma": 0.05, "tau": 0.1, "tau_factor": 0.04},
    {"tau": 0.9, "tau_factor": 0.2},  # τ reaches 1
    {"tau": 0.01, "tau_factor": 0.9, "eta": 0.01, "step_rule": "sgd"},  # τ reaches 0
    {"tau": 0.1, "tau_factor": 0.2, "step_rule": "sgd", "eta": 0.1},  # ... and rises from there
    {"tau_factor": 0.0},
    {"num_steps": 1},
    {"num_steps": 2, "step_rule": "sgd"},
    {"budget": 5},
    {"budget": 3, "step_rule": "sgd"},
    {"budget": 2, "unit": "pixels"},
    {"budget": 4, "targeted": True},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: ",".join(map(str, o.values())))
def test_equals_the_transcription_of_algorithm_1(make_batch, options):
    attack = SigmaZero(**DEFAULTS | options)
    batch = make_batch(num_wrong=1, num_samples=8)
    labels = (batch.labels + 1) % 4 if attack.targeted else batch.labels
    if attack.targeted:
        labels[0] = batch.net(batch.inputs[:1]).argmax()  # one is there from the start
    result = attack(batch.net, batch.inputs, labels)
    expected = [
        transcription(batch.net, x, y, attack)
        for x, y in zip(batch.inputs, labels.tolist(), strict=True)
    ]
    for i, (x, one) in enumerate(zip(batch.inputs, expected, strict=True)):
        best = torch.zeros_like(x) if one.best is None else one.best
        success = one.l0 <= (x.numel() if attack.budget is None else attack.budget)
        assert result.success[i] == success
        assert result.l0[i] == (one.l0 if success else torch.inf)
        close = {"rtol": 0, "atol": 1e-9}
        torch.testing.assert_close(result.best_inputs[i], x + best, **close)
        torch.testing.assert_close(result.adv_inputs[i], x + best if success else x, **close)
        torch.testing.assert_close(result.last_inputs[i], x + one.last, **close)
        steps = one.num_steps
        # One pass before the first step; the pass after the last step needs no gradient.
        assert result.num_forwards[i] == steps + 1 + 1
        assert result.num_backwards[i] == min(steps + 1, attack.num_steps)
    assert 0 in result.l0.tolist()


@pytest.mark.slow
def test_variants_reach_what_they_are_there_for(make_batch):
    """The comparison above would be empty if nothing were found, or τ never moved or clipped."""
    batch = make_batch(num_wrong=0, num_samples=8)

    def run(**options):
        attack = SigmaZero(**DEFAULTS | options)
        pairs = zip(batch.inputs, batch.labels.tolist(), strict=True)
        return [transcription(batch.net, x, y, attack) for x, y in pairs]

    plain, budget = run(), run(budget=5)
    assert all(0 < one.l0 < 30 for one in plain)
    assert {one.num_steps < 40 for one in budget} == {True, False}
    slow = run(tau=0.01, tau_factor=0.9, eta=0.01, step_rule="sgd")
    assert min(tau for one in slow for tau in one.tau) == 0
    assert max(tau for one in run(tau=0.9, tau_factor=0.2) for tau in one.tau) == 1
    for one in plain:
        assert {first < second for first, second in pairwise(one.tau)} == {True, False}


def test_step_size_follows_torchs_cosine_annealing():
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.7)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=25, eta_min=0.07)
    for step in range(26):
        assert cosine_annealing(0.7, step, 25) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


# ---- queries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recheck", [True, False])
def test_one_run_costs_n_plus_one_forwards_and_n_backwards(make_batch, spy_on, recheck):
    batch = make_batch(num_wrong=0)
    spy = spy_on(batch.net)
    result = SigmaZero(num_steps=9, recheck=recheck)(batch.net, batch.inputs, batch.labels)
    assert spy.forward_rows == [6] * (9 + 1 + recheck)
    assert spy.backward_rows == [6] * 9
    assert result.num_forwards.tolist() == [9 + 1 + recheck] * 6
    assert result.num_backwards.tolist() == [9] * 6


def test_samples_that_are_done_cost_nothing_more(make_batch, spy_on):
    batch = make_batch(num_wrong=2, num_samples=8)
    spy = spy_on(batch.net)
    result = SigmaZero(num_steps=30, budget=4)(batch.net, batch.inputs, batch.labels)
    assert sum(spy.forward_rows) == result.num_forwards.sum()
    assert sum(spy.backward_rows) == result.num_backwards.sum()
    assert result.num_forwards[:2].tolist() == [1 + 1] * 2
    assert result.num_backwards[:2].tolist() == [1] * 2
    assert result.num_forwards.unique().numel() > 3  # samples left at various steps
    assert spy.forward_rows[:-1] == sorted(spy.forward_rows[:-1], reverse=True)


def test_nothing_runs_when_everything_is_misclassified(make_batch, spy_on):
    batch = make_batch(num_wrong=6)
    spy = spy_on(batch.net)
    result = SigmaZero(num_steps=50)(batch.net, batch.inputs, batch.labels)
    assert spy.forward_rows == [6, 6]
    assert torch.equal(result.adv_inputs, batch.inputs)
    assert result.l0.tolist() == [0.0] * 6


# ---- optima in closed form ----------------------------------------------------------------------


class LinearNets(nn.Module):
    """One random linear net for each row of the batch, which must therefore stay whole."""

    def __init__(self, num_samples, num_classes, num_features, generator):
        super().__init__()
        options = {"generator": generator, "dtype": torch.float64}
        self.weight = nn.Parameter(torch.randn(num_samples, num_classes, num_features, **options))
        self.bias = nn.Parameter(torch.randn(num_samples, num_classes, **options))

    def forward(self, inputs):
        return torch.einsum("nf,nkf->nk", inputs.flatten(1), self.weight) + self.bias


@pytest.mark.parametrize(
    ("shape", "unit"),
    slow_after(
        1,
        [
            ((3, 4, 4), "pixels"),
            ((48,), "features"),
            ((4, 12), "features"),
            ((3, 4, 4), "features"),
        ],
    ),
)
def test_linear_nets_are_broken_with_the_fewest_changes(shape, unit, record_property):
    """Measured: 96.7, 95.8, 95.6 and 97.5 % of 480 samples at their optimum."""
    share = []
    for num_classes in (2, 3, 10):
        generator = torch.Generator().manual_seed(len(shape) * num_classes)
        net = LinearNets(160, num_classes, 48, generator)
        inputs = torch.rand(160, *shape, generator=generator, dtype=torch.float64)
        labels = net(inputs).argmax(dim=1)
        result = SigmaZero(num_steps=1000, unit=unit, batch_size=160)(net, inputs, labels)
        rows = zip(net.weight, net.bias, inputs, labels, strict=True)
        optima = torch.tensor([float(fewest_changes(*row, unit)) for row in rows])
        assert (result.l0 >= optima).all()
        assert result.l0.mean() <= 1.1 * optima.mean()
        assert optima.unique().numel() > 2  # not one feature for everyone
        share.append((result.l0 == optima).double().mean().item())
    record_property("share_at_optimum", share)
    assert sum(share) / len(share) >= 0.95


@pytest.mark.parametrize(
    ("bias", "success"), [(0.0, [True, True]), (9.0, [False, True]), (-9.0, [True, False])]
)
def test_a_sample_that_no_change_can_break_is_a_failure(bias, success):
    net = nn.Linear(4, 2).double()
    net.weight.data = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0]]).double()
    net.bias.data = torch.tensor([bias, 0.5]).double()  # class 0 where the sum is above 0.5 - bias
    inputs = torch.tensor([[0.9, 0.9, 0.9, 0.9], [0.2, 0.1, 0.0, 0.1]]).double()
    result = SigmaZero(num_steps=60)(net, inputs, torch.tensor([0, 1]))
    assert result.success.tolist() == success
    failed = ~result.success
    assert result.l0.isinf().tolist() == failed.tolist()
    assert torch.equal(result.adv_inputs[failed], inputs[failed])
    assert torch.equal(result.best_inputs[failed], inputs[failed])
    assert not torch.equal(result.last_inputs[failed], inputs[failed]) or not failed.any()


# ---- along one run ------------------------------------------------------------------------------


def iterates(spy, batch, unit="features"):
    """Each iterate's l0 and whether it is adversarial, ``(N + 1, B)``, from what the net saw."""
    passes = spy.forward_rows.count(len(batch.inputs))
    assert passes == len(spy.inputs)  # nobody left the batch
    moved = torch.stack(spy.inputs) != batch.inputs
    moved = moved.any(dim=2) if unit == "pixels" else moved
    l0 = moved.flatten(2).sum(dim=2)
    return l0, torch.stack(spy.logits).argmax(dim=2) != batch.labels


@pytest.mark.parametrize("unit", ["features", "pixels"])
def test_the_answer_is_the_sparsest_adversarial_iterate_of_the_run(make_batch, spy_on, unit):
    batch = make_batch(num_wrong=0)
    spy = spy_on(batch.net)
    attack = SigmaZero(num_steps=60, unit=unit, recheck=False)
    result = attack(batch.net, batch.inputs, batch.labels)
    l0, adversarial = iterates(spy, batch, unit)
    known = torch.where(adversarial, l0.float(), torch.inf).cummin(dim=0)
    assert torch.equal(result.l0, known.values[-1])
    assert (known.values[-1] < known.values[5]).any()  # it got better on the way
    first = (known.values == known.values[-1]).int().argmax(dim=0)
    seen = torch.stack(spy.inputs)[first, torch.arange(len(first))]
    assert torch.equal(result.best_inputs, seen)
    assert torch.equal(result.adv_inputs, seen)
    assert torch.equal(result.last_inputs, spy.inputs[-1])


def test_the_threshold_moves_with_the_verdict_and_is_obeyed(make_batch, spy_on):
    batch = make_batch(num_wrong=0)
    spy = spy_on(batch.net)
    attack = SigmaZero(num_steps=60, tau_factor=0.05, recheck=False)
    attack(batch.net, batch.inputs, batch.labels)
    _, adversarial = iterates(spy, batch)
    tau = torch.full((6,), 0.3)
    largest = []
    for step in range(1, 61):
        sizes = (spy.inputs[step] - batch.inputs).abs().flatten(1)
        smallest = sizes.masked_fill(sizes == 0, torch.inf).amin(dim=1)
        assert (smallest >= tau - 1e-6).all()
        largest.append(tau.max().item())
        sign = torch.where(adversarial[step], 1, -1)
        tau = (tau + sign * 0.05 * cosine_annealing(1.0, step, 60)).clamp(0, 1)
    assert max(largest) > 0.5


@pytest.mark.parametrize(("tau_factor", "l0"), [(0.0, torch.inf), (0.5, 1.0)])
def test_a_step_below_the_threshold_gets_through_once_it_has_fallen(tau_factor, l0):
    net = nn.Linear(1, 2).double()  # class 0 above 0.4
    net.weight.data = torch.tensor([[1.0], [0.0]]).double()
    net.bias.data = torch.tensor([0.0, 0.4]).double()
    inputs, labels = torch.tensor([[0.5]]).double(), torch.tensor([0])
    attack = SigmaZero(num_steps=8, eta=0.2, tau=0.3, tau_factor=tau_factor, step_rule="sgd")
    result = attack(net, inputs, labels)
    # The gradient is 1 at every step: 0.2 is cut off until τ, which loses η/2 a step, is below it.
    assert result.l0.item() == l0
    assert torch.equal(result.best_inputs, inputs) == (tau_factor == 0)


def test_a_change_as_large_as_the_threshold_stays():
    net = nn.Linear(2, 2).double()  # class 1 above 0.2
    net.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.5]]).double()
    net.bias.data = torch.tensor([0.2, 0.0]).double()
    attack = SigmaZero(num_steps=1, eta=0.3, tau=0.3, step_rule="sgd")
    result = attack(net, torch.zeros(1, 2).double(), torch.tensor([0]))
    assert result.last_inputs.tolist() == [[0.3, 0.0]]  # the step of 0.15 is cut off
    assert result.l0.tolist() == [1.0]


# ---- samples do not see each other --------------------------------------------------------------


def rows(result, index):
    return {name: getattr(result, name)[index] for name in vars(result)}


def assert_same(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("options", [{}, {"budget": 5}, {"budget": 3, "unit": "pixels"}])
@pytest.mark.parametrize("step_rule", ["adam", "sgd"])
def test_order_and_size_of_the_batch_change_no_sample(make_batch, options, step_rule):
    batch = make_batch(num_samples=9, num_wrong=2, seed=1)
    attack = SigmaZero(num_steps=30, step_rule=step_rule, **options)
    together = attack(batch.net, batch.inputs, batch.labels)
    generator = torch.Generator().manual_seed(3)
    for sizes in ([9], [1] * 9, [4, 5], [2, 7]):
        order = torch.randperm(9, generator=generator)
        for index in order.split(sizes):
            alone = attack(batch.net, batch.inputs[index], batch.labels[index])
            assert_same(rows(alone, slice(None)), rows(together, index))


@pytest.mark.parametrize(("unit", "budget"), [("features", 5), ("pixels", 2)])
def test_stopping_early_changes_no_verdict(make_batch, unit, budget):
    batch = make_batch(num_samples=16, num_wrong=2, seed=2)
    attack = SigmaZero(num_steps=40, unit=unit)
    full = attack(batch.net, batch.inputs, batch.labels)
    early = replace(attack, budget=budget)(batch.net, batch.inputs, batch.labels)
    assert torch.equal(early.success, full.l0 <= budget)
    assert 2 < early.success.sum() < 16
    assert (early.num_forwards[early.success] < 40 + 2).any()
    assert (early.l0[early.success] <= budget).all()
    assert (early.l0[early.success] >= full.l0[early.success]).all()
    assert torch.equal(early.adv_inputs[early.success], early.best_inputs[early.success])
    # What was not broken within the budget ran to the end, as without one.
    missed = ~early.success
    assert early.l0[missed].isinf().all()
    assert torch.equal(early.adv_inputs[missed], batch.inputs[missed])
    assert_same(
        {name: getattr(early, name)[missed] for name in ("best_inputs", "last_inputs")},
        {name: getattr(full, name)[missed] for name in ("best_inputs", "last_inputs")},
    )
    assert (early.num_forwards[missed] == 40 + 2).all()
    assert full.success.all()  # so there is a best beyond the budget, and it is kept
    assert not torch.equal(early.best_inputs[missed], batch.inputs[missed])


def test_a_larger_budget_breaks_no_less(make_batch):
    batch = make_batch(num_samples=16, num_wrong=0, seed=3)
    success = [
        SigmaZero(num_steps=25, budget=budget)(batch.net, batch.inputs, batch.labels).success
        for budget in (1, 3, 6, 12, 75)
    ]
    for small, large in pairwise(success):
        assert (large | ~small).all()
    assert success[0].sum() < success[-1].sum() == 16


# ---- shapes and units ---------------------------------------------------------------------------


def flat_net(num_features, num_classes=3, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(num_features, 16), nn.ReLU(), nn.Linear(16, num_classes)
    return nn.Sequential(nn.Flatten(), *layers).double()


@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4), (1, 2, 3, 4)])
def test_any_rank_gives_what_the_flat_input_gives(shape):
    net = flat_net(24)
    flat = torch.rand(5, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = net(flat).argmax(dim=1)
    expected = SigmaZero(num_steps=30)(net, flat, labels)
    result = SigmaZero(num_steps=30)(net, flat.view(5, *shape), labels)
    assert result.adv_inputs.shape == (5, *shape)
    assert torch.equal(result.l0, expected.l0)
    assert torch.equal(result.adv_inputs.flatten(1), expected.adv_inputs)
    assert torch.equal(result.last_inputs.flatten(1), expected.last_inputs)


@pytest.mark.parametrize("shape", [(24,), (4, 6), (1, 2, 3, 4)])
def test_pixels_of_what_is_no_image_are_refused(shape):
    inputs, labels = torch.rand(2, *shape, dtype=torch.float64), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"^unit=pixels needs images of shape \(N, C, H, W\), got"):
        SigmaZero(unit="pixels")(flat_net(24), inputs, labels)


def test_pixels_of_one_channel_are_features():
    net = flat_net(24)
    inputs = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = net(inputs).argmax(dim=1)
    features = SigmaZero(num_steps=30)(net, inputs, labels)
    pixels = SigmaZero(num_steps=30, unit="pixels")(net, inputs, labels)
    assert_same(rows(pixels, slice(None)), rows(features, slice(None)))


def test_channels_of_a_pixel_vanish_together(make_batch):
    """A pixel that needs one large change keeps its small ones, which alone would be cut off."""
    batch = make_batch(num_wrong=0)
    result = SigmaZero(num_steps=40, unit="pixels")(batch.net, batch.inputs, batch.labels)
    delta = (result.adv_inputs - batch.inputs).abs()
    counted = delta.amax(dim=1).flatten(1).count_nonzero(dim=1)
    assert torch.equal(result.l0, counted.float())
    assert (result.l0 < delta.flatten(1).count_nonzero(dim=1)).all()
    assert delta[delta > 0].min() < 0.1


# ---- numbers that break down --------------------------------------------------------------------


class Overflowing(nn.Module):
    """Logits that are NaN, and gradients that are, once the mean of the input is above a limit."""

    def __init__(self, net, limit):
        super().__init__()
        self.net = net
        self.limit = limit

    def forward(self, inputs):
        room = self.limit - inputs.flatten(1).mean(dim=1, keepdim=True)
        return self.net(inputs) + 0 * room.sqrt()


def test_a_net_that_answers_nan_is_not_fooled(in_eval):
    net = Overflowing(flat_net(24, seed=4), 0.55)
    inputs = 0.6 * torch.rand(12, 24, generator=torch.Generator().manual_seed(1)).double()
    labels = net(inputs).argmax(dim=1)
    for recheck in (True, False):
        with pytest.warns(SztrainWarning, match="the net answered NaN to inputs"):
            result = SigmaZero(num_steps=30, recheck=recheck)(net, inputs, labels)
        assert result.success.any()
        logits = in_eval(net, result.adv_inputs)
        assert logits.isfinite().all()
        assert torch.equal(logits.argmax(dim=1) != labels, result.success)
        for moved in (result.adv_inputs, result.best_inputs, result.last_inputs):
            assert ((moved >= 0) & (moved <= 1)).all()
    assert net(result.last_inputs).isnan().any()  # otherwise the net was too kind


class RootOfZero(nn.Module):
    """Finite logits whose gradient is NaN wherever an input is zero."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net(inputs) + 0 * inputs.sqrt().flatten(1).sum(dim=1, keepdim=True)


def test_a_gradient_of_nan_moves_nothing():
    net = RootOfZero(flat_net(24))
    inputs = torch.rand(4, 24, generator=torch.Generator().manual_seed(1)).double()
    inputs[:2, 3] = 0
    labels = net(inputs).argmax(dim=1)
    result = SigmaZero(num_steps=10)(net, inputs, labels)
    assert torch.equal(result.last_inputs[:2, 3], inputs[:2, 3])
    assert result.success.all()  # by the other features


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_true(dtype):
    net = flat_net(24)
    net[1].weight.data[:, ::2] = 0  # no gradient there: 0 / 0 without care
    net = net.to(dtype)
    inputs = torch.rand(6, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    labels = net(inputs).argmax(dim=1)
    result = SigmaZero(num_steps=40)(net, inputs, labels)
    assert result.success.any()
    assert result.adv_inputs.dtype == dtype
    assert result.last_inputs.isfinite().all()
    assert torch.equal(net(result.adv_inputs).argmax(dim=1) != labels, result.success)
    moved = (result.adv_inputs != inputs).sum(dim=1)
    assert torch.equal(result.l0[result.success], moved[result.success].float())
    assert (result.l0[result.success] <= 12).all()


def test_default_dtype_decides_no_count_and_no_threshold(make_batch):
    batch = make_batch(num_wrong=0, shape=(3, 11, 11))  # 363 features; bfloat16 counts to 256
    attack = SigmaZero(num_steps=3, tau=0.0)
    expected = attack(batch.net, batch.inputs, batch.labels)
    torch.set_default_dtype(torch.bfloat16)
    try:
        result = attack(batch.net, batch.inputs, batch.labels)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(rows(result, slice(None)), rows(expected, slice(None)))
    assert (result.l0 > 256).any()


# ---- hyper-parameters ---------------------------------------------------------------------------


def test_defaults_are_those_of_the_paper():
    attack = SigmaZero()
    assert (attack.num_steps, attack.eta, attack.sigma, attack.tau) == (1000, 1.0, 1e-3, 0.3)
    assert (attack.tau_factor, attack.unit, attack.budget) == (0.01, "features", None)
    assert (attack.targeted, attack.recheck, attack.step_rule) == (False, True, "adam")
    assert (attack.patience, attack.autocast, attack.batch_size) == (None, False, None)
    assert not attack.cuda_graph


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "expected `num_steps` to be at least 1, got 0"),
        ({"num_steps": 1e3}, "expected `num_steps` to be a whole number, got 1000.0"),
        ({"budget": 0}, "expected `budget` to be at least 1, got 0"),
        ({"budget": -3}, "expected `budget` to be at least 1, got -3"),
        ({"budget": 2.5}, "expected `budget` to be a whole number, got 2.5"),
        ({"patience": 0}, "expected `patience` to be at least 1, got 0"),
        ({"patience": 1.5}, r"expected `patience` to be a whole number, got 1\.5"),
        ({"batch_size": 0}, "expected `batch_size` to be at least 1, got 0"),
        ({"unit": "pixel"}, "expected `unit` to be one of features, pixels, got pixel"),
        ({"step_rule": "Adam"}, "expected `step_rule` to be one of adam, sgd, got Adam"),
        ({"tau_factor": -0.1}, "expected `tau_factor` to be at least 0, got -0.1"),
        ({"tau_factor": float("nan")}, "expected `tau_factor` to be at least 0, got nan"),
        ({"eta": 0}, "expected `eta` to be positive, got 0"),
        ({"eta": float("nan")}, "expected `eta` to be positive, got nan"),
        ({"sigma": 0.0}, "expected `sigma` to be positive, got 0.0"),
        ({"sigma": -1e-3}, "expected `sigma` to be positive, got -0.001"),
        ({"tau": -0.1}, r"expected `tau` to be in \[0, 1\], got -0.1"),
        ({"tau": 1.1}, r"expected `tau` to be in \[0, 1\], got 1.1"),
        ({"tau": float("nan")}, r"expected `tau` to be in \[0, 1\], got nan"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        SigmaZero(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"tau": 0},
        {"tau": 1},
        {"tau_factor": 0},
        {"num_steps": 1},
        {"budget": 1},
        {"eta": 1e-9},
        {"patience": 1},
        {"batch_size": 1},
    ],
)
def test_bounds_themselves_are_accepted(make_batch, options):
    batch = make_batch()
    SigmaZero(**{"num_steps": 2} | options)(batch.net, batch.inputs, batch.labels)


# ---- published nets -----------------------------------------------------------------------------


def median_l0(name, num_samples, batch_size=64):
    """Median of Tables I and V: misclassified samples at 0, the middle two averaged."""
    inputs, labels = mnist_test_images(num_samples)
    net, attack = published_net(name), SigmaZero(num_steps=100)
    l0 = []
    for batch in zip(inputs.split(batch_size), labels.split(batch_size), strict=True):
        result = attack(net, *batch)
        with torch.no_grad():
            assert (net(result.adv_inputs).argmax(dim=1) != batch[1]).all()
        assert result.success.all()
        assert torch.equal(result.l0, (result.adv_inputs != batch[0]).flatten(1).sum(1).float())
        l0.append(result.l0)
    ordered = torch.cat(l0).sort().values
    return (ordered[(num_samples - 1) // 2] + ordered[num_samples // 2]).item() / 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "adversarial_library"), [("M1", 21), ("M2", 12)])
def test_published_nets_are_broken_as_sparsely_as_by_a_peer(name, adversarial_library):
    """The peer's figure: adversarial-library's σ-zero, N = 100, first 1,000 MNIST test images."""
    assert median_l0(name, 64) == pytest.approx(adversarial_library, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "paper", "adversarial_library"), [("M1", 22, 21), ("M2", 13, 12)])
def test_published_medians_are_reproduced(name, paper, adversarial_library):
    """Table V of arXiv:2402.01879, N = 100, here on the first 1,000 test images.

    Measured: 20 and 12. On the first 384 images and M1 the two means are 21.20 here and 21.25 for
    the peer, which is the sparser one for 40 % of the samples and the less sparse one for 38 %.
    """
    median = median_l0(name, 1000)
    assert median == pytest.approx(adversarial_library, abs=1)
    assert median <= paper


class Roots(nn.Module):
    """Roots of the features: at 0 their gradient is infinite."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net(inputs.sqrt())


@pytest.mark.parametrize(
    "attack",
    [SigmaZero(num_steps=50), SigmaZero(num_steps=50, step_rule="sgd"), ASLO(num_steps=50)],
    ids=["adam", "sgd", "aslo"],
)
def test_one_infinite_gradient_leaves_the_other_features_to_move(make_batch, attack, in_eval):
    batch = make_batch(num_wrong=0)
    net, inputs = Roots(batch.net), batch.inputs.clone()
    inputs[:, 0, 2, 2] = 0
    labels = in_eval(net, inputs).argmax(dim=1)
    result = attack(net, inputs, labels)
    assert result.success.sum() >= 4


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float16, 1e-6), (torch.bfloat16, 1e-6), (torch.float32, 1e-9)]
)
def test_the_gradient_is_normalised_however_small_it_is(dtype, size):
    inputs = torch.zeros(1, 4, dtype=dtype)
    search = AdamSearch.start(inputs, torch.tensor([0]), tau=0.3)
    search.gradient.copy_(size * torch.tensor([[1.0, -0.5, 0.0, torch.inf]]))
    expected = torch.tensor([[1.0, -0.5, 0.0, 0.0]])
    torch.testing.assert_close(search.normalise_gradient().float(), expected, atol=0.05, rtol=0)
