"""The fixed-budget attacks where there is a GPU: `pytest -m gpu`."""

import warnings
from dataclasses import replace

import pytest
import torch
from fixed_budget_attacks import ATTACKS, MODULES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

every_attack = pytest.mark.parametrize("attack", ATTACKS[1:], ids=lambda a: type(a).__name__)


@pytest.fixture
def on_gpu(make_batch):
    batch = make_batch(num_samples=24, num_wrong=2, seed=1)
    return batch.net.cuda(), batch.inputs.cuda(), batch.labels.cuda()


@every_attack
@pytest.mark.parametrize("budget", [None, 3])
@pytest.mark.parametrize("unit", ["features", "pixels"])
def test_its_claims_are_true_and_its_seed_decides(on_gpu, attack, budget, unit):
    net, inputs, labels = on_gpu
    attack = replace(attack, num_steps=60, budget=budget, unit=unit)
    result, again = attack(net, inputs, labels), attack(net, inputs, labels)
    for name, value in vars(result).items():
        assert torch.equal(getattr(again, name), value), name
    assert torch.equal(net(result.adv_inputs).argmax(dim=1) != labels, result.success)
    assert result.success.sum() > 2
    changed = result.adv_inputs != inputs
    changed = changed.any(dim=1) if unit == "pixels" else changed
    l0 = changed.flatten(1).sum(dim=1)
    assert torch.equal(result.l0, torch.where(result.success, l0, torch.inf))
    assert budget is None or (l0 <= budget).all()


@every_attack
def test_a_step_does_not_wait_for_the_gpu(on_gpu, attack, monkeypatch):
    monkeypatch.setattr(MODULES[type(attack)], "steps_between_syncs", lambda device: 1000)
    waits = []
    for num_steps in (10, 50):
        limited = replace(attack, num_steps=num_steps, budget=2)
        limited(*on_gpu)  # libraries set themselves up
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                limited(*on_gpu)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchronizing" in str(warning.message) for warning in caught))
    assert waits[0] == waits[1]
