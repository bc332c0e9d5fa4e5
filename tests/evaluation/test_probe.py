"""What is left under two attacks, from scripted answers of both."""

import pytest
import torch
from torch import nn
from toy_training import INF, ScriptedAttack, toy_data

from sztrain.attacks import SigmaZero
from sztrain.errors import InputError
from sztrain.evaluation import runner
from sztrain.evaluation.probe import ProbeTally, check_probe

FIRST = [torch.tensor([0.0, 2, 5, INF]), torch.tensor([3.0, INF, 9, INF])]
PROBE = ((4.0, 3, 1, 2), (INF, 6, INF, INF))


def batches():
    images, labels = toy_data(8).tensors
    return list(zip(images.split(4), labels.split(4), strict=True))


def probed(net, probe, budgets):
    both = ProbeTally(probe, budgets)
    for (inputs, labels), l0 in zip(batches(), FIRST, strict=True):
        both.add(net, inputs, labels, l0)
    return both.values()


@pytest.fixture
def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 3))


@pytest.mark.parametrize(
    ("k", "probe", "worst"),
    [
        # More than k changes were needed by the probe; by both.
        (1, 7, 6),
        (2, 6, 4),
        (3, 5, 3),
        (4, 4, 3),
        (6, 3, 2),
        (9, 3, 1),
        (32, 3, 1),
    ],
)
def test_a_sample_is_left_if_both_attacks_leave_it(net, k, probe, worst):
    attack = ScriptedAttack(script=PROBE)
    values = probed(net, attack, [k])
    assert values.pop("probe_seconds") > 0
    assert values == {f"robust_acc_probe@{k}": probe / 8, f"robust_acc_worst@{k}": worst / 8}


def test_a_probe_with_a_budget_is_judged_there_alone(net):
    attack = ScriptedAttack(script=((2.0, INF, 1, 2), (INF, INF, INF, 1)), budget=2)
    values = probed(net, attack, [1, 5])
    del values["probe_seconds"]
    assert values == {"robust_acc_probe@2": 0.5, "robust_acc_worst@2": 3 / 8}


def test_pixels_are_named(net):
    attack = ScriptedAttack(script=PROBE, unit="pixels")
    values = probed(net, attack, [3])
    assert set(values) == {"robust_acc_probe_px@3", "robust_acc_worst_px@3", "probe_seconds"}


def test_the_probe_sees_the_samples_and_its_time_is_told(net, monkeypatch):
    ticks = iter(range(10**6))
    monkeypatch.setattr(runner, "perf_counter", lambda: float(next(ticks)))
    attack = ScriptedAttack(script=PROBE)
    values = probed(net, attack, [3])
    assert values["probe_seconds"] == 2  # a tick a batch
    for call, (inputs, labels) in zip(attack.calls, batches(), strict=True):
        assert torch.equal(call.inputs, inputs)
        assert torch.equal(call.labels, labels)


def test_answers_of_another_batch_are_a_mistake(net):
    (inputs, labels), *_ = batches()
    with pytest.raises(RuntimeError, match="size"):
        ProbeTally(ScriptedAttack(script=PROBE), [3]).add(net, inputs, labels, FIRST[0][:3])


def test_a_probe_that_counts_something_else_is_refused():
    message = "expected `probe` to count features, as the attack"
    with pytest.raises(InputError, match=message):
        check_probe(SigmaZero(unit="pixels"), "features")
