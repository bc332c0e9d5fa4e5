"""Attacks without the passes that training makes itself."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from toy_training import NUM_CLASSES, toy_data, toy_net

from sztrain.attacks import AttackMix, BudgetedSigmaZero, SigmaZero, SparsePGD
from sztrain.training import craft_examples

SIGMA_ZERO = [SigmaZero(), SigmaZero(step_rule="sgd")]
CLIMBING = [SparsePGD(), SparsePGD(projected=True), BudgetedSigmaZero()]
ALL = [*SIGMA_ZERO, *CLIMBING, AttackMix(seed=0), AttackMix(seed=1)]

every_attack = pytest.mark.parametrize("attack", ALL, ids=repr)
every_climbing_attack = pytest.mark.parametrize("attack", CLIMBING, ids=repr)


@pytest.fixture
def unbreakable(make_batch):
    """A batch whose net never errs on it, though its gradients say where it might."""
    batch = make_batch(num_wrong=0)
    batch.net.head.bias.data[0] += 100
    batch.labels.zero_()
    return batch


def test_both_kinds_of_member_are_tried():
    kinds = {kind_of(mix) for mix in ALL if isinstance(mix, AttackMix)}
    assert kinds == {SigmaZero, SparsePGD}


def kind_of(attack):
    return type(attack.drawn(attack.seed)[1] if isinstance(attack, AttackMix) else attack)


@every_attack
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_a_run_is_its_steps_and_where_there_is_a_choice_a_look(
    unbreakable, spy_on, attack, num_steps
):
    spy = spy_on(unbreakable.net)
    attack = replace(attack, num_steps=num_steps, budget=3, recheck=False, lean=True)
    result = attack(unbreakable.net, unbreakable.inputs, unbreakable.labels)
    looks = 0 if num_steps == 1 or kind_of(attack) is SigmaZero else 1
    assert spy.forward_rows == [6] * (num_steps + looks)
    assert spy.backward_rows == [6] * num_steps
    assert result.num_forwards.tolist() == [num_steps + looks] * 6
    assert result.num_backwards.tolist() == [num_steps] * 6
    assert not result.success.any()


@every_attack
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_it_ends_where_another_run_does_but_never_at_its_start(
    unbreakable, spy_on, attack, num_steps
):
    attack = replace(attack, num_steps=num_steps, budget=3, recheck=False)
    spy = spy_on(unbreakable.net)
    expected = attack(unbreakable.net, unbreakable.inputs, unbreakable.labels).last_inputs
    if num_steps == 1:
        expected = spy.inputs[-1].view_as(unbreakable.inputs)
    result = replace(attack, lean=True)(unbreakable.net, unbreakable.inputs, unbreakable.labels)
    assert torch.equal(result.last_inputs, expected)
    assert (expected != unbreakable.inputs).any()


@every_attack
def test_what_it_has_not_looked_at_it_does_not_claim(make_batch, attack):
    batch = make_batch(num_samples=60, num_wrong=0)
    num_steps = 2 if kind_of(attack) is SigmaZero else 1
    attack = replace(attack, num_steps=num_steps, budget=60, recheck=False)
    looking = attack(batch.net, batch.inputs, batch.labels)
    result = replace(attack, lean=True)(batch.net, batch.inputs, batch.labels)
    assert 0 < result.success.sum() < looking.success.sum()
    assert looking.success[result.success].all()
    for name in ("adv_inputs", "l0", "last_inputs"):
        found, expected = getattr(result, name), getattr(looking, name)
        assert torch.equal(found[result.success], expected[result.success])


@pytest.mark.parametrize(
    ("step_rule", "num_steps"), [("adam", 3), ("adam", 8), ("sgd", 1), ("sgd", 3)]
)
def test_training_sees_the_same_examples_of_sigma_zero(step_rule, num_steps):
    net, (inputs, labels) = toy_net(), toy_data(60).tensors
    labels = net(inputs).argmax(dim=1)
    labels[:5] = (labels[:5] + 1) % NUM_CLASSES
    attack = SigmaZero(step_rule=step_rule, num_steps=num_steps, budget=12, recheck=False)
    expected = craft_examples(attack, net, inputs, labels)
    found = craft_examples(replace(attack, lean=True), net, inputs, labels)
    torch.testing.assert_close(found.inputs, expected.inputs)
    assert expected.broken[found.broken].all()
    assert found.broken.sum() < expected.broken.sum()
    assert (expected.all_seen, found.all_seen) == (True, False)


@every_climbing_attack
def test_who_is_misclassified_is_attacked_like_the_others(make_batch, spy_on, attack):
    batch = make_batch(num_wrong=6)
    spy = spy_on(batch.net)
    attack = replace(attack, num_steps=2, budget=3, recheck=False, lean=True)
    result = attack(batch.net, batch.inputs, batch.labels)
    start = spy.inputs[0].view_as(batch.inputs)
    assert (start != batch.inputs).flatten(1).any(dim=1).all()
    broken = spy.logits[0].argmax(dim=1) != batch.labels
    assert broken.any()
    assert torch.equal(result.adv_inputs[broken], start[broken])


@every_climbing_attack
def test_a_search_for_the_budget_looks_all_the_same(make_batch, attack):
    batch = make_batch(num_samples=12)
    attack = replace(attack, num_steps=40, initial_budget=4)
    expected = attack(batch.net, batch.inputs, batch.labels)
    found = replace(attack, lean=True)(batch.net, batch.inputs, batch.labels)
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found, name), value), name


@every_attack
def test_the_last_step_takes_nothing_from_who_is_broken(make_batch, spy_on, monkeypatch, attack):
    """An accelerator is asked now and then who is done; until then all rows go on moving."""
    for name in ("sigma_zero", "sparse_pgd", "budgeted_sigma_zero"):
        module = import_module(f"sztrain.attacks.{name}")
        monkeypatch.setattr(module, "steps_between_syncs", lambda device: 1000)
    batch = make_batch(num_samples=60, num_wrong=0)
    spy = spy_on(batch.net)
    num_steps = 2 if kind_of(attack) is SigmaZero else 1
    attack = replace(attack, num_steps=num_steps, budget=60, recheck=False, lean=True)
    result = attack(batch.net, batch.inputs, batch.labels)
    broken = result.success
    assert 0 < broken.sum() < 60
    assert torch.equal(result.last_inputs[broken], result.adv_inputs[broken])
    passed = torch.cat(spy.inputs).view(-1, *batch.inputs.shape[1:])
    seen = (result.last_inputs.unsqueeze(1) == passed).flatten(2).all(dim=2).any(dim=1)
    assert seen[broken].all()
    assert not seen[~broken].any()
