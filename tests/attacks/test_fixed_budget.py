"""What all fixed-budget attacks share: budgets, seeds, the search, and figures that are known."""

from dataclasses import replace

import pytest
import torch
from fixed_budget_attacks import ATTACKS, MODULES
from host_reads import HostReads
from linear_optimum import fewest_changes
from published import mnist_test_images, published_net
from torch import nn

from sztrain import attacks
from sztrain.attacks import (
    PGDL0,
    AttackMix,
    BudgetedSigmaZero,
    LinSparse,
    SparseAutoAttack,
    SparsePGD,
    SparseRS,
)
from sztrain.attacks.fixed_budget import FixedBudgetAttack
from sztrain.errors import InputError

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)


def test_every_one_of_them_is_tried():
    exported = {kind for kind in vars(attacks).values() if isinstance(kind, type)}
    fixed = {kind for kind in exported if issubclass(kind, FixedBudgetAttack)}
    assert {type(attack) for attack in ATTACKS} == set(MODULES) == fixed


def changed(moved, inputs, unit):
    differs = moved != inputs
    return (differs.any(dim=1) if unit == "pixels" else differs).flatten(1).sum(dim=1)


@every_attack
@pytest.mark.parametrize("unit", ["features", "pixels"])
@pytest.mark.parametrize("budget", [1, 3, 25])
def test_whatever_it_returns_is_within_the_budget(make_batch, attack, unit, budget):
    batch = make_batch(num_samples=10, num_wrong=1)
    attack = replace(attack, num_steps=8, unit=unit, budget=budget)
    result = attack(batch.net, batch.inputs, batch.labels)
    for moved in (result.adv_inputs, result.best_inputs, result.last_inputs):
        assert (changed(moved, batch.inputs, unit) <= budget).all()
    if unit == "pixels" and budget < 25:
        assert (changed(result.last_inputs, batch.inputs, "features") > budget).any()
    assert (changed(result.last_inputs, batch.inputs, unit)[1:] > 0).all()
    assert torch.equal(result.last_inputs[:1], batch.inputs[:1])  # misclassified: not attacked


@every_attack
@pytest.mark.parametrize("budget", [None, 4])
def test_a_seed_is_one_course_of_events(make_batch, attack, budget):
    batch = make_batch(num_samples=8)
    attack = replace(attack, num_steps=60, budget=budget)
    first = attack(batch.net, batch.inputs, batch.labels)
    again = replace(attack, seed=0)(batch.net, batch.inputs, batch.labels)
    other = replace(attack, seed=1)(batch.net, batch.inputs, batch.labels)
    for name, value in vars(first).items():
        assert torch.equal(getattr(again, name), value), name
    assert not torch.equal(other.last_inputs, first.last_inputs)


@every_attack
def test_slices_do_not_repeat_each_others_chances(make_batch, spy_on, attack):
    batch = make_batch(num_wrong=0, num_samples=1)
    inputs, labels = batch.inputs.expand(2, -1, -1, -1), batch.labels.expand(2)
    spy = spy_on(batch.net)
    attack = replace(attack, num_steps=4, budget=2, batch_size=1, recheck=False)
    attack(batch.net, inputs, labels)
    clean, start, *others = spy.inputs
    assert torch.equal(clean, batch.inputs)
    assert sum(torch.equal(clean, other) for other in others) == 1  # the second slice begins
    assert not any(torch.equal(start, other) for other in others)


@every_attack
def test_without_a_budget_the_steps_are_shared_by_the_rounds(make_batch, spy_on, attack):
    batch = make_batch(num_wrong=0, num_samples=2)
    batch.net.head.weight.data.zero_()  # nobody is ever broken: the budget doubles
    labels = batch.net(batch.inputs).argmax(dim=1)
    spy = spy_on(batch.net)
    attack = replace(attack, num_steps=32, num_rounds=3, initial_budget=2, recheck=False)
    result = attack(batch.net, batch.inputs, labels)
    passes = {PGDL0: 9, SparsePGD: 11, SparseRS: 10, BudgetedSigmaZero: 11}[type(attack)]
    l0 = [changed(x, batch.inputs, "features").tolist() for x in spy.inputs]
    assert l0 == [[0, 0]] + [[2, 2]] * passes + [[4, 4]] * passes + [[8, 8]] * passes
    assert result.num_forwards.tolist() == [1 + 3 * passes] * 2
    assert not result.success.any()


@every_attack
def test_too_few_steps_for_a_search_are_refused(make_batch, attack):
    batch = make_batch()
    fewest = 8 * (2 if isinstance(attack, PGDL0) else 1)
    replace(attack, num_steps=fewest, num_rounds=8)(batch.net, batch.inputs, batch.labels)
    replace(attack, num_steps=fewest - 1, budget=3)(batch.net, batch.inputs, batch.labels)
    message = (
        f"^expected `num_steps` to be at least {fewest} without a budget, which is then searched "
        f"for in 8 rounds, got {fewest - 1}$"
    )
    with pytest.raises(InputError, match=message):
        replace(attack, num_steps=fewest - 1, num_rounds=8)(batch.net, batch.inputs, batch.labels)


@every_attack
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "expected `seed` to be at least 0, got -1"),
        ({"seed": 0.5}, r"expected `seed` to be a whole number, got 0\.5"),
        ({"num_rounds": 0}, "expected `num_rounds` to be at least 1, got 0"),
        ({"initial_budget": 0}, "expected `initial_budget` to be at least 1, got 0"),
        ({"batch_size": 0}, "expected `batch_size` to be at least 1, got 0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(attack, options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        replace(attack, **options)


@every_attack
def test_a_step_reads_nothing_back(make_batch, attack, monkeypatch):
    """A GPU is waited for where it is asked who is done, and nowhere else."""
    batch, reads = make_batch(num_wrong=1, num_samples=6), []
    monkeypatch.setattr(MODULES[type(attack)], "steps_between_syncs", lambda device: 1000)
    for num_steps in (5, 40):
        with HostReads() as mode:
            replace(attack, num_steps=num_steps, budget=2)(batch.net, batch.inputs, batch.labels)
        reads.append(mode.num_reads)
    assert reads[0] == reads[1] > 0


@every_attack
def test_nobody_is_attacked_where_the_net_is_always_wrong(make_batch, spy_on, attack):
    batch = make_batch(num_wrong=6)
    spy = spy_on(batch.net)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert spy.forward_rows == [6, 6]
    assert result.l0.tolist() == [0.0] * 6


@every_attack
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("budget", [None, 4])
def test_half_precision_stays_finite_and_true(attack, dtype, budget):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)
    inputs = torch.rand(12, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    labels = net(inputs).argmax(dim=1)
    result = replace(attack, num_steps=100, budget=budget)(net, inputs, labels)
    assert result.success.any()
    assert result.adv_inputs.dtype == dtype
    assert result.last_inputs.isfinite().all()
    assert torch.equal(net(result.adv_inputs).argmax(dim=1) != labels, result.success)
    assert torch.equal(
        result.l0[result.success],
        changed(result.adv_inputs, inputs, "features")[result.success].float(),
    )


@pytest.mark.parametrize(
    ("attack", "excess"),
    [
        (PGDL0(num_steps=500), 1.1),
        (SparsePGD(num_steps=500), 1.05),
        (SparsePGD(num_steps=500, projected=True), 1.35),
        (SparseRS(num_steps=2000), 1.1),
        (BudgetedSigmaZero(num_steps=500), 1.1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_linear_net_is_never_broken_with_less_than_the_optimum(attack, excess):
    """Measured, mean l0 over mean optimum: 1.06, 1.00, 1.24, 1.04, 1.07."""
    generator = torch.Generator().manual_seed(1)
    net = nn.Linear(48, 3).double()
    net.weight.data.normal_(generator=generator)
    inputs = torch.rand(40, 48, generator=generator, dtype=torch.float64)
    net.bias.data = torch.tensor([3.0, 0.0, 0.0]).double()
    labels = net(inputs).argmax(dim=1)
    result = attack(net, inputs, labels)
    weight, bias = net.weight.detach(), net.bias.detach()
    rows = zip(inputs, labels.tolist(), strict=True)
    optima = torch.tensor([float(fewest_changes(weight, bias, *row, "features")) for row in rows])
    assert result.success.all()
    assert (result.l0 >= optima).all()
    assert result.l0.mean() <= excess * optima.mean()


# ---- figures that are known ---------------------------------------------------------------------

# On the first 32 MNIST test images and M1, of the implementations of the papers' authors at a fixed
# budget, and of a search over the budget around them.
FIXED = [
    (PGDL0(num_steps=100, budget=24), 68.8),
    (PGDL0(num_steps=100, budget=50), 100),
    (SparseRS(num_steps=200, budget=24), 31.2),
    (SparseRS(num_steps=200, budget=50), 50.0),
    (SparsePGD(num_steps=100, budget=24), 65.6),
    (SparsePGD(num_steps=100, budget=50), 100),
    (SparsePGD(num_steps=100, budget=24, projected=True), 40.6),
    (SparsePGD(num_steps=100, budget=50, projected=True), 84.4),
]
MINIMAL = [
    (PGDL0(num_steps=100), 23.5, 4),
    (SparsePGD(num_steps=100), 27.0, 4),
    (SparsePGD(num_steps=100, projected=True), 36.5, 4),
    (SparseRS(num_steps=400), 80.0, 15),
    (PGDL0(num_steps=1000), 19.0, 2),
    (SparsePGD(num_steps=1000), 22.0, 2),
    (SparsePGD(num_steps=1000, projected=True), 25.5, 2),
    (SparseRS(num_steps=4000), 20.0, 2),
]


def attack_m1(attack, num_samples=32):
    inputs, labels = mnist_test_images(num_samples)
    return attack(published_net("M1"), inputs, labels)


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "percent"), FIXED[:6:2])
def test_a_published_net_is_broken_as_often_as_by_the_authors_code(attack, percent):
    success = attack_m1(attack).success
    assert 100 * success.double().mean().item() == pytest.approx(percent, abs=10)


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "percent"), FIXED)
def test_published_nets_at_fixed_budgets(attack, percent):
    success = attack_m1(attack).success
    assert 100 * success.double().mean().item() == pytest.approx(percent, abs=10)


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "median", "tolerance"), MINIMAL)
def test_published_nets_with_a_search_over_the_budget(attack, median, tolerance):
    result = attack_m1(attack)
    assert result.success.all()
    ordered = result.l0.sort().values
    assert (ordered[15] + ordered[16]).item() / 2 == pytest.approx(median, abs=tolerance)


@pytest.mark.parametrize("unit", ["features", "pixels"])
def test_rows_are_contiguous_whatever_the_layout_of_the_images(make_batch, unit, monkeypatch):
    batch, seen = make_batch(dtype=torch.float32), []
    run = SparseRS.run

    def watched(self, logits_of, inputs, labels, budgets, generator):
        seen.append(inputs.is_contiguous())
        return run(self, logits_of, inputs, labels, budgets, generator)

    monkeypatch.setattr(SparseRS, "run", watched)
    inputs = batch.inputs.to(memory_format=torch.channels_last)
    attacks = ("sigma_zero", "sparse_rs")
    ensemble = SparseAutoAttack(attacks=attacks, num_steps=2, num_queries=5, unit=unit, budget=1)
    for attack in (SparseRS(num_steps=5, unit=unit, budget=1), ensemble):
        attack(batch.net, inputs, batch.labels)
    assert seen == [True, True]


@pytest.mark.parametrize(
    "attack_class", [SparsePGD, SparseRS, LinSparse, AttackMix, SparseAutoAttack]
)
def test_seeds_beyond_those_of_torch_are_refused(attack_class):
    attack_class(seed=2**63 - 1)
    with pytest.raises(InputError, match=f"`seed` to be at most {2**63 - 1}, got {2**63}"):
        attack_class(seed=2**63)
