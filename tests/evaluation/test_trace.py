"""Traces of σ-zero against a transcription that keeps every iterate, and against the attack."""

from dataclasses import fields

import pytest
import torch
from torch import nn

from sztrain.attacks import SigmaZero
from sztrain.errors import InputError
from sztrain.evaluation.trace import trace_attack
from sztrain.types import AttackResult

VARIANTS = [
    {},
    {"unit": "pixels", "tau": 0.5},
    {"step_rule": "sgd", "sigma": 0.1},
    {"targeted": True, "eta": 0.5},
]


def make_net(seed=0, first=nn.Flatten):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(first(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 4)).double()


def sample(net, seed=0, *, targeted=False, wrong=False):
    """An image and the class the net sees in it, or another one."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(1, 3, 4, 4, generator=generator, dtype=torch.float64)
    return inputs, (net(inputs.clone()).argmax(dim=1) + int(targeted or wrong)) % 4


def iterates_by_hand(net, x, y, attack):
    """Every x + δ of Algorithm 1 for one sample, the clean one first."""
    delta = torch.zeros_like(x, requires_grad=True)
    rule = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[attack.step_rule]
    optimizer = rule([delta], lr=attack.eta)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, attack.num_steps, attack.eta / 10
    )
    tau, iterates = attack.tau, [x]
    for _ in range(attack.num_steps):
        optimizer.zero_grad()
        square = delta**2 if attack.unit == "features" else (delta**2).sum(dim=1)
        margin = margin_by_hand(net(x + delta)[0], y, attack.targeted)
        norm = (square / (square + attack.sigma)).sum() / square.numel()
        (norm + margin.clamp(min=0)).backward()
        delta.grad /= delta.grad.abs().max()
        optimizer.step()
        with torch.no_grad():
            delta.copy_((x + delta).clamp(0, 1) - x)
            size = delta.abs() if attack.unit == "features" else delta.abs().amax(1, keepdim=True)
            delta.masked_fill_(size < tau, 0)
            schedule.step()
            predicted = net(x + delta).argmax() == y
            broken = predicted if attack.targeted else not predicted
            step = attack.tau_factor * schedule.get_last_lr()[0]
            tau = min(max(tau + step if broken else tau - step, 0), 1)
        iterates.append((x + delta).detach())
    return torch.cat(iterates)


def margin_by_hand(logits, y, targeted):
    margin = logits[y] - max(logit for k, logit in enumerate(logits) if k != y)
    return -margin if targeted else margin


@pytest.mark.parametrize("options", VARIANTS)
def test_the_iterates_are_those_of_algorithm_1(options):
    net, attack = make_net(), SigmaZero(num_steps=30, **options)
    inputs, labels = sample(net, targeted=attack.targeted)
    trace = trace_attack(net, attack, inputs, labels, keep="all")
    expected = iterates_by_hand(net, inputs, int(labels), attack)
    torch.testing.assert_close(trace.iterates, expected, rtol=0, atol=1e-9)
    assert trace.kept_steps.tolist() == list(range(31))
    assert trace.num_steps == 30
    assert (trace.label, trace.unit, trace.attack) == (int(labels), attack.unit, attack)
    assert torch.equal(trace.inputs, inputs)


@pytest.mark.parametrize("options", VARIANTS)
def test_the_terms_are_those_of_equations_4_6_and_7(options):
    net, attack = make_net(), SigmaZero(num_steps=30, **options)
    inputs, labels = sample(net, targeted=attack.targeted)
    trace = trace_attack(net, attack, inputs, labels, keep="all")
    for i, iterate in enumerate(trace.iterates):
        logits = net(iterate.unsqueeze(0))[0].tolist()
        assert trace.predictions[i] == logits.index(max(logits))
        adversarial = (trace.predictions[i] == labels) == attack.targeted
        assert trace.adversarial[i] == adversarial
        margin = margin_by_hand(logits, int(labels), attack.targeted)
        loss = max(margin, 0) + (not adversarial)
        assert float(trace.loss[i]) == pytest.approx(loss, abs=1e-9)
        positions = (iterate - inputs[0]).flatten(1).T.tolist()  # channels of each pixel
        units = positions if attack.unit == "pixels" else [[v] for p in positions for v in p]
        assert trace.l0[i] == sum(any(unit) for unit in units)
        squares = [sum(value**2 for value in unit) for unit in units]
        penalty = sum(s / (s + attack.sigma) for s in squares) / len(units)
        assert float(trace.penalty[i]) == pytest.approx(penalty, abs=1e-9)
    assert 0 < trace.adversarial.sum() < 31  # both kinds were there to be told apart


@pytest.mark.parametrize("recheck", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_sparsest_iterate_is_the_answer_of_the_attack(seed, recheck):
    net, attack = make_net(seed), SigmaZero(num_steps=40, recheck=recheck)
    inputs, labels = sample(net, seed)
    trace = trace_attack(net, attack, inputs, labels)
    assert trace.num_steps == 40  # and not 41: the pass that verifies is none of the search
    assert trace.l0[trace.adversarial].min() == trace.result.l0
    assert torch.equal(trace.iterate(trace.sparsest_step), trace.result.adv_inputs)
    assert trace.l0[trace.sparsest_step] == trace.result.l0
    assert not (trace.l0[: trace.sparsest_step] <= trace.result.l0)[
        trace.adversarial[: trace.sparsest_step]
    ].any()


def test_improvements_are_kept_and_are_sparser_each_time():
    net = make_net()
    inputs, labels = sample(net)
    trace = trace_attack(net, SigmaZero(num_steps=40), inputs, labels)
    everything = trace_attack(net, SigmaZero(num_steps=40), inputs, labels, keep="all")
    best, expected = torch.inf, []
    for step in range(41):
        if everything.adversarial[step] and everything.l0[step] < best:
            best = float(everything.l0[step])
            expected.append(step)
    assert len(expected) > 3
    assert trace.improvements == everything.improvements == expected == trace.kept_steps.tolist()
    assert trace.sparsest_step == expected[-1]
    assert torch.equal(trace.iterates, everything.iterates[expected])


@pytest.mark.parametrize("options", [{}, {"budget": 20}, {"patience": 2}])
def test_the_attack_knows_nothing_of_its_trace(options):
    net, attack = make_net(), SigmaZero(num_steps=30, **options)
    inputs, labels = sample(net)
    traced, plain = trace_attack(net, attack, inputs, labels).result, attack(net, inputs, labels)
    for field in fields(AttackResult):
        assert torch.equal(getattr(traced, field.name), getattr(plain, field.name))
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


@pytest.mark.parametrize("options", [{"budget": 20}, {"patience": 2}])
def test_a_search_that_ends_early_has_a_short_trace(options):
    net = make_net()
    inputs, labels = sample(net)
    trace = trace_attack(net, SigmaZero(num_steps=30, **options), inputs, labels)
    whole = trace_attack(net, SigmaZero(num_steps=30), inputs, labels)
    end = trace.num_steps
    assert 0 < end < 30
    assert torch.equal(trace.l0, whole.l0[: end + 1])
    assert torch.equal(trace.loss, whole.loss[: end + 1])
    if "budget" in options:
        assert trace.l0[end] == trace.result.l0 <= 20
        assert trace.sparsest_step == end


def test_a_sample_wrong_from_the_start_takes_no_step():
    net = make_net()
    inputs, labels = sample(net, wrong=True)
    trace = trace_attack(net, SigmaZero(num_steps=10), inputs, labels)
    assert (trace.num_steps, trace.sparsest_step, trace.improvements) == (0, 0, [0])
    assert trace.loss.tolist() == trace.penalty.tolist() == trace.l0.tolist() == [0]
    assert torch.equal(trace.iterates, inputs)


def test_a_sample_that_is_never_broken_has_no_sparsest_step():
    class Constant(nn.Module):
        def forward(self, inputs):
            return inputs.sum(dim=1, keepdim=True) * 0 + torch.tensor([1.0, 0.0])

    trace = trace_attack(Constant(), SigmaZero(num_steps=5), torch.rand(1, 6), torch.tensor([0]))
    assert trace.sparsest_step is None
    assert trace.improvements == []
    assert trace.loss.tolist() == [2.0] * 6  # margin 1, and 1 for being right
    assert trace.iterates.shape == (0, 6)


def test_a_net_that_works_in_place_is_traced_alike():
    class InPlace(nn.Module):
        def forward(self, inputs):
            return inputs.mul_(2).flatten(1) / 2

    plain, hasty = make_net(), make_net(first=InPlace)
    inputs, labels = sample(plain)
    expected = trace_attack(plain, SigmaZero(num_steps=20), inputs, labels, keep="all")
    found = trace_attack(hasty, SigmaZero(num_steps=20), inputs, labels, keep="all")
    assert torch.equal(found.iterates, expected.iterates)
    assert torch.equal(found.l0, expected.l0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_trace_needs_no_gradients_of_its_caller(mode):
    net = make_net()
    inputs, labels = sample(net)
    expected = trace_attack(net, SigmaZero(num_steps=10), inputs, labels)
    with mode():
        found = trace_attack(net, SigmaZero(num_steps=10), inputs.clone(), labels.clone())
        assert torch.equal(found.loss, expected.loss)
    assert not found.loss.requires_grad


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"inputs": torch.rand(2, 3, 4, 4)}, "expected 1 sample to trace, got 2"),
        ({"autocast": True}, {}, "autocast=False to trace, got autocast=True"),
        ({"cuda_graph": True}, {}, "cuda_graph=False to trace, got cuda_graph=True"),
        ({}, {"keep": "best"}, "`keep` to be one of improvements, all, got best"),
        ({}, {"labels": torch.tensor([9])}, "labels from 0 to 3"),
        ({}, {"net": nn.Flatten(0)}, r"logits of shape \(N, K\)"),
    ],
)
def test_what_cannot_be_traced_is_refused_in_one_line(options, arguments, message):
    net = make_net()
    inputs, labels = sample(net)
    arguments = {"net": net, "inputs": inputs, "labels": labels, **arguments}
    with pytest.raises(InputError, match=message) as error:
        trace_attack(attack=SigmaZero(num_steps=3, **options), **arguments)
    assert "\n" not in str(error.value)
    assert not arguments["net"]._forward_hooks


def test_an_iterate_that_was_not_kept_is_named():
    net = make_net()
    inputs, labels = sample(net)
    trace = trace_attack(net, SigmaZero(num_steps=5), inputs, labels)
    kept = ", ".join(map(str, trace.improvements))
    with pytest.raises(InputError, match=rf"was kept \({kept}\), got 77"):
        trace.iterate(77)


def test_passes_after_the_search_is_over_are_left_out(monkeypatch):
    """On an accelerator the attack looks only now and then whether a sample is done."""
    net, attack = make_net(), SigmaZero(num_steps=30, budget=20)
    inputs, labels = sample(net)
    expected = trace_attack(net, attack, inputs, labels, keep="all")
    passes = []
    net.register_forward_hook(lambda *_: passes.append(1))
    monkeypatch.setattr("sztrain.attacks.sigma_zero.steps_between_syncs", lambda device: 8)
    found = trace_attack(net, attack, inputs, labels, keep="all")
    assert len(passes) > expected.num_steps + 2  # it went on after the end
    assert found.num_steps == expected.num_steps
    assert torch.equal(found.iterates, expected.iterates)
    assert torch.equal(found.loss, expected.loss)


@pytest.mark.gpu
def test_a_trace_on_a_gpu_is_that_of_the_cpu():
    net, attack = make_net(), SigmaZero(num_steps=30, budget=20)
    inputs, labels = sample(net)
    expected = trace_attack(net, attack, inputs, labels)
    found = trace_attack(net.cuda(), attack, inputs.cuda(), labels.cuda())
    assert found.num_steps == expected.num_steps
    assert found.l0.device.type == found.iterates.device.type == "cpu"
    torch.testing.assert_close(found.l0, expected.l0)
    torch.testing.assert_close(found.loss, expected.loss)
    assert found.kept_steps.tolist() == expected.kept_steps.tolist()
