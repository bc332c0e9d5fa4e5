"""Attacking batch after batch: what goes in, what comes out, what it costs."""

from dataclasses import replace

import pytest
import torch
from toy_training import ScriptedAttack, toy_data, toy_net

from sztrain.attacks import SigmaZero
from sztrain.errors import InputError
from sztrain.evaluation import runner
from sztrain.evaluation.runner import attack_batches, predict

IMAGES, LABELS = toy_data(10).tensors
BATCHES = [(IMAGES[:4], LABELS[:4]), (IMAGES[4:8], LABELS[4:8]), (IMAGES[8:], LABELS[8:])]


def test_batches_come_out_in_order_with_the_attacks_answer():
    net = toy_net()
    attack = SigmaZero(num_steps=15)
    found = list(attack_batches(net, attack, BATCHES))
    assert len(found) == 3
    for batch, (inputs, labels) in zip(found, BATCHES, strict=True):
        assert torch.equal(batch.inputs, inputs)
        assert torch.equal(batch.labels, labels)
        assert torch.equal(batch.clean_predictions, net(inputs).argmax(dim=1))
        expected = attack(net, inputs, labels)
        assert torch.equal(batch.result.adv_inputs, expected.adv_inputs)
        assert torch.equal(batch.result.l0, expected.l0)


def test_it_is_lazy():
    taken = []

    def batches():
        for index, batch in enumerate(BATCHES):
            taken.append(index)
            yield batch

    attack = ScriptedAttack()
    running = attack_batches(toy_net(), attack, batches())
    assert taken == []
    next(running)
    assert taken == [0]
    assert len(attack.calls) == 1


def test_seconds_are_those_of_the_attack_alone(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(runner, "perf_counter", lambda: clock[0])

    class Slow(torch.nn.Module):
        def forward(self, inputs):
            clock[0] += 10  # a clean prediction is no part of the attack
            return inputs.flatten(1)[:, :3]

    class Attack(ScriptedAttack):
        def __call__(self, net, inputs, labels):
            clock[0] += 3
            return super().__call__(net, inputs, labels)

    found = list(attack_batches(Slow(), Attack(), BATCHES))
    assert [batch.seconds for batch in found] == [3, 3, 3]


def test_batches_go_to_the_device():
    # A second device that every machine has; tensors on it hold no data.
    seen = []

    class Attack:
        def __call__(self, net, inputs, labels):
            seen.extend([inputs.device.type, labels.device.type])

    with pytest.raises(InputError, match="no AttackResult"):  # after the attack
        list(attack_batches(toy_net().to("meta"), Attack(), BATCHES[:1], torch.device("meta")))
    assert seen == ["meta", "meta"]


def test_an_answer_that_claims_what_it_does_not_show_is_refused():
    class Attack(ScriptedAttack):
        def __call__(self, net, inputs, labels):
            return replace(
                super().__call__(net, inputs, labels), l0=torch.full((len(inputs),), 2.0)
            )

    with pytest.raises(InputError, match="Attack answered an `l0`"):
        list(attack_batches(toy_net(), Attack(), BATCHES))


def test_what_the_attack_refuses_is_refused():
    with pytest.raises(InputError, match=r"inputs in \[0, 1\]"):
        list(attack_batches(toy_net(), SigmaZero(num_steps=2), [(2 * IMAGES, LABELS)]))


def test_a_batch_beyond_the_memory_is_predicted_in_halves():
    net, sizes = toy_net(), []

    def hook(module, arguments):
        sizes.append(len(arguments[0]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    expected = predict(net, IMAGES)
    net.register_forward_pre_hook(hook)
    assert torch.equal(predict(net, IMAGES), expected)
    assert max(sizes[1:]) < sizes[0] == len(IMAGES)
    assert predict(net, IMAGES[:0]).shape == (0,)


def test_predictions_in_eval_mode_without_a_trace():
    net = toy_net(extra=[torch.nn.BatchNorm1d(16), torch.nn.Dropout()])
    net[4].eval()  # one module is not as the others
    flags = [module.training for module in net.modules()]
    buffers = [buffer.clone() for buffer in net.buffers()]
    state = torch.get_rng_state()
    found = predict(net, IMAGES)
    assert found.dtype == torch.int64
    assert not found.requires_grad
    assert [module.training for module in net.modules()] == flags
    assert all(map(torch.equal, net.buffers(), buffers))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found, net.eval()(IMAGES).argmax(dim=1))
