"""The ensemble: who attacks whom, who gets the credit, and that it is as strong as its members."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from pace import slow_after

from sztrain.attacks import SigmaZero, SparseAutoAttack, SparsePGD, SparseRS, sparse_autoattack
from sztrain.attacks.fixed_budget import FixedBudgetAttack
from sztrain.errors import InputError
from sztrain.types import EnsembleResult

NAMES = ["sigma_zero", "sigma_zero_sgd", "sparse_pgd", "sparse_pgd_projected", "sparse_rs"]


# Short runs at a budget of 2: each member breaks some of the samples, and some are left.
SHORT = {"num_steps": 12, "num_queries": 80, "budget": 2}


@pytest.fixture
def segments(monkeypatch):
    """The passes of the net that each member makes."""
    begins = []
    find, sigma_zero = FixedBudgetAttack.find, sparse_autoattack.sigma_zero

    def noting(spy):
        def find_noting(self, *args, **kwargs):
            begins.append(len(spy.inputs))
            return find(self, *args, **kwargs)

        def sigma_zero_noting(*args, **kwargs):
            begins.append(len(spy.inputs))
            return sigma_zero(*args, **kwargs)

        monkeypatch.setattr(FixedBudgetAttack, "find", find_noting)
        monkeypatch.setattr(sparse_autoattack, "sigma_zero", sigma_zero_noting)

        def parts():
            bounds = [*begins, len(spy.inputs) - 1]  # the last pass is the verification
            return [spy.inputs[a:b] for a, b in pairwise(bounds)]

        return parts

    return noting


def who(rows, inputs, budget):
    """Which samples rows within the budget belong to."""
    distance = (rows.unsqueeze(1) != inputs.unsqueeze(0)).flatten(2).sum(dim=2)
    nearest = distance.min(dim=1)
    assert (nearest.values <= budget).all()
    return set(nearest.indices.tolist())


def test_each_member_attacks_those_that_stand_and_gets_the_credit_for_its_own(
    make_batch, spy_on, segments
):
    batch, budget = make_batch(num_samples=60, num_wrong=2), 2
    spy = spy_on(batch.net)
    parts = segments(spy)
    attack = SparseAutoAttack(**SHORT)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert isinstance(result, EnsembleResult)
    assert list(attack.members) == NAMES
    assert sum(spy.forward_rows) == result.num_forwards.sum()
    assert sum(spy.backward_rows) == result.num_backwards.sum()
    broken_by, passes = result.broken_by.tolist(), parts()
    assert len(passes) == 5
    standing = set(range(2, 60))
    for i in range(5):
        if i > 0:
            # σ-zero starts at the image, and then goes where it likes.
            rows = passes[i][0] if NAMES[i] == "sigma_zero_sgd" else torch.cat(passes[i])
            assert who(rows, batch.inputs, budget) == standing
        broken = {j for j in range(60) if broken_by[j] == i}
        assert broken  # otherwise nothing was looked at
        assert broken <= standing
        for j in broken:
            assert any((z == result.adv_inputs[j]).all() for z in torch.cat(passes[i]))
        standing -= broken
    assert standing == {j for j in range(2, 60) if not result.success[j]}
    assert standing
    assert all(broken_by[j] == -1 for j in standing | {0, 1})
    assert result.success[:2].all()  # misclassified: nobody's merit


@pytest.mark.parametrize("unit", slow_after(1, ["features", "pixels"]))
def test_at_a_budget_it_breaks_what_any_member_breaks(make_batch, unit):
    """At the cost of the members that saw the sample; one sample at a time, so that a member meets
    the same chances alone and in the ensemble."""
    batch = make_batch(num_samples=40, num_wrong=2)
    attack = SparseAutoAttack(**SHORT, unit=unit)
    winners = set()
    for i in range(40):
        sample = batch.inputs[i : i + 1], batch.labels[i : i + 1]
        results = [member(batch.net, *sample) for member in attack.members.values()]
        alone = [result.success.item() for result in results]
        result = attack(batch.net, *sample)
        assert result.success.item() == any(alone)
        saw_it = results[: alone.index(True) + 1] if any(alone) else results
        cost = sum(seen.num_forwards.item() for seen in saw_it)
        # Alone, each member verifies its claims and all but the first look at the clean sample.
        assert cost - 2 * (len(saw_it) - 1) <= result.num_forwards.item() <= cost
        assert result.num_backwards.item() == sum(seen.num_backwards.item() for seen in saw_it)
        expected = alone.index(True) if any(alone) and i > 1 else -1
        assert result.broken_by.item() == expected
        winners.add(expected)
    assert len(winners) > 3


def test_without_a_budget_the_sparsest_example_of_all_members_wins(make_batch):
    batch = make_batch(num_samples=60, num_wrong=2)
    attack = SparseAutoAttack(num_steps=30, num_queries=200)
    result = attack(batch.net, batch.inputs, batch.labels)
    alone = [member(batch.net, batch.inputs, batch.labels) for member in attack.members.values()]
    first = alone[0].l0
    assert (result.l0 <= first).all()
    assert torch.equal(result.broken_by == 0, (result.l0 == first) & (result.l0 > 0))
    assert torch.equal(result.broken_by == -1, result.l0 == 0)
    assert len(result.broken_by.unique()) == 5
    for member in alone:
        assert result.l0.mean() <= member.l0.mean()


def test_without_a_budget_members_look_only_for_less_than_is_known(make_batch, spy_on, segments):
    batch = make_batch(num_samples=60, num_wrong=2)
    spy = spy_on(batch.net)
    parts = segments(spy)
    attack = SparseAutoAttack(num_steps=20, num_queries=200)
    attack(batch.net, batch.inputs, batch.labels)
    _, second, *others = parts()
    by_rule = [attack.members[name](batch.net, batch.inputs, batch.labels).l0 for name in NAMES[:2]]
    assert who(second[0], batch.inputs, 0) == set((by_rule[0] > 1).nonzero().flatten().tolist())
    known = torch.minimum(*by_rule)
    attacked = set()
    for rows in others:
        distance = (torch.cat(rows).unsqueeze(1) != batch.inputs).flatten(2).sum(dim=2)
        nearest = distance.min(dim=1)
        assert (nearest.values < known[nearest.indices]).all()
        attacked |= set(nearest.indices.tolist())
    assert attacked == set((known > 1).nonzero().flatten().tolist())


def test_nobody_looks_for_less_than_a_single_change(make_batch, spy_on, segments):
    batch = make_batch(num_samples=6, num_wrong=6)
    spy = spy_on(batch.net)
    parts = segments(spy)
    attack = SparseAutoAttack(num_steps=20, num_queries=20)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert len(parts()) == 1
    assert spy.forward_rows == [6, 6]
    assert result.broken_by.tolist() == [-1] * 6


def test_slices_are_put_together(make_batch):
    batch = make_batch(num_samples=24, num_wrong=2)
    attack = SparseAutoAttack(**SHORT, batch_size=5)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert result.broken_by.shape == (24,)
    assert torch.equal(result.broken_by == -1, ~result.success | (result.l0 == 0))
    assert (result.broken_by >= 0).any()


# ---- hyper-parameters ---------------------------------------------------------------------------


def test_the_members_are_those_of_the_paper_behind_sigma_zero():
    attack = SparseAutoAttack(
        num_steps=30, num_queries=70, budget=5, unit="pixels", seed=3, batch_size=9
    )
    shared = {"budget": 5, "unit": "pixels"}
    assert attack.members == {
        "sigma_zero": SigmaZero(num_steps=30, **shared),
        "sigma_zero_sgd": SigmaZero(num_steps=30, step_rule="sgd", **shared),
        "sparse_pgd": SparsePGD(num_steps=30, seed=3, **shared),
        "sparse_pgd_projected": SparsePGD(num_steps=30, seed=3, projected=True, **shared),
        "sparse_rs": SparseRS(num_steps=70, seed=3, loss="ce", alpha=0.8, **shared),
    }


def test_a_preset_sets_both_numbers():
    fast, full = SparseAutoAttack(preset="fast"), SparseAutoAttack(preset="full")
    assert (fast.num_steps, fast.num_queries) == (100, 400)
    assert (full.num_steps, full.num_queries) == (10_000, 10_000)
    assert fast == SparseAutoAttack()
    assert replace(fast, num_steps=40).num_steps == 40
    assert replace(SparseAutoAttack(), preset="full") == full
    assert replace(full, budget=3) == SparseAutoAttack(preset="full", budget=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "slow"}, "expected `preset` to be one of fast, full, got slow"),
        (
            {"preset": "full", "num_steps": 500},
            "expected `num_steps` or `preset`, got num_steps=500 beside preset=full, which sets it "
            "to 10000",
        ),
        ({"num_queries": 0}, "expected `num_queries` to be at least 1, got 0"),
        ({"seed": -1}, "expected `seed` to be at least 0, got -1"),
        ({"batch_size": 0}, "expected `batch_size` to be at least 1, got 0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        SparseAutoAttack(**options)


@pytest.mark.parametrize("name", ["num_steps", "num_queries"])
def test_too_few_for_a_search_are_refused_by_name(make_batch, name):
    batch = make_batch()
    attack = SparseAutoAttack(**{"num_steps": 10, "num_queries": 10, name: 9})
    with pytest.raises(InputError, match=f"^expected `{name}` to be at least 10 without a budget"):
        attack(batch.net, batch.inputs, batch.labels)
    replace(attack, budget=3)(batch.net, batch.inputs, batch.labels)


# ---- some of the members ------------------------------------------------------------------------


def test_the_worst_case_of_some_members_is_run_in_the_order_of_all():
    attack = SparseAutoAttack(attacks=["sparse_rs", "sigma_zero_sgd"])
    assert attack == SparseAutoAttack(attacks=("sigma_zero_sgd", "sparse_rs"))
    assert hash(attack) == hash(replace(attack))
    every = SparseAutoAttack().members
    assert attack.members == {name: every[name] for name in ("sigma_zero_sgd", "sparse_rs")}
    assert list(attack.members) == ["sigma_zero_sgd", "sparse_rs"]


@pytest.mark.parametrize("budget", [2, None])
@pytest.mark.parametrize("name", NAMES)
def test_one_member_alone_finds_what_it_finds_by_itself(make_batch, name, budget):
    batch = make_batch(num_samples=20, num_wrong=2)
    attack = SparseAutoAttack(num_steps=20, num_queries=100, budget=budget, attacks=(name,))
    result = attack(batch.net, batch.inputs, batch.labels)
    alone = attack.members[name](batch.net, batch.inputs, batch.labels)
    for key in ("adv_inputs", "l0", "success", "num_forwards", "num_backwards"):
        assert torch.equal(getattr(result, key), getattr(alone, key)), key
    assert torch.equal(result.broken_by == 0, alone.success & (alone.l0 > 0))
    assert result.broken_by[:2].tolist() == [-1, -1]  # misclassified
    assert (result.broken_by == 0).any()


def test_some_members_leave_what_none_of_them_breaks(make_batch):
    batch = make_batch(num_samples=60, num_wrong=2)
    some = SparseAutoAttack(**SHORT, attacks=("sparse_pgd", "sparse_rs"))
    result = some(batch.net, batch.inputs, batch.labels)
    first = some.members["sparse_pgd"](batch.net, batch.inputs, batch.labels)
    assert torch.equal(result.broken_by == 0, first.success & (first.l0 > 0))
    by_search = result.broken_by == 1
    assert by_search.any()
    assert not first.success[by_search].any()
    assert torch.equal(result.success, first.success | by_search)


@pytest.mark.parametrize("attacks", [(), ("fgsm",), ("sigma_zero", "fgsm"), "sigma_zero"])
def test_members_that_there_are_not_are_refused(attacks):
    message = r"^expected `attacks` to name some of sigma_zero, .*sparse_rs, got "
    with pytest.raises(InputError, match=message):
        SparseAutoAttack(attacks=attacks)


def test_steps_are_too_few_only_for_a_member_that_searches(make_batch):
    batch = make_batch()
    few = {"num_steps": 9, "num_queries": 9}
    SparseAutoAttack(**few, attacks=NAMES[:2])(batch.net, batch.inputs, batch.labels)
    for attacks, name in ((("sparse_pgd",), "num_steps"), (("sparse_rs",), "num_queries")):
        attack = SparseAutoAttack(**few, attacks=attacks)
        with pytest.raises(InputError, match=f"^expected `{name}` to be at least 10 without"):
            attack(batch.net, batch.inputs, batch.labels)
