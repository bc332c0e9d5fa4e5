"""What the contract makes of a library: a stand-in for one says what it was given."""

import random
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sztrain import attacks
from sztrain.attacks.peers import PeerAttack, check_library
from sztrain.errors import InputError, UnavailableError


class Sum(nn.Module):
    """Class 1 where the sum of the sample is above 1; has a weight, which it multiplies by."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        total = self.weight * inputs.flatten(1).sum(dim=1)
        return torch.stack([torch.zeros_like(total), total - 1], dim=1)


@dataclass(frozen=True, kw_only=True)
class Stub(PeerAttack):
    """An attack of a library whose attack is ``answer``."""

    answer: object
    log: list = field(default_factory=list)
    one_by_one: bool = False

    @staticmethod
    def load():
        return ModuleType("library")

    def search(self, library, net, inputs, labels):
        state = [parameter.requires_grad for parameter in net.parameters()]
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        self.log.append(SimpleNamespace(net=net, inputs=inputs, labels=labels, modes=modes))
        assert not any(state)
        return self.answer(net, inputs, labels)


INPUTS = torch.tensor([[0.2, 0.3, 0.1], [0.9, 0.8, 0.0], [0.4, 0.5, 0.0], [0.1, 0.1, 0.1]])
LABELS = torch.tensor([0, 0, 0, 0])  # the second one is misclassified


def brighten(net, inputs, labels):
    """Change the first feature alone: that is enough for all but the last sample."""
    return torch.cat([torch.ones_like(inputs[:, :1]), inputs[:, 1:]], dim=1)


def test_only_samples_that_are_correct_reach_the_library():
    attack = Stub(answer=brighten)
    result = attack(Sum(), INPUTS, LABELS)
    (call,) = attack.log
    assert torch.equal(call.inputs, INPUTS[[0, 2, 3]])
    assert torch.equal(call.labels, LABELS[[0, 2, 3]])
    assert result.l0.tolist() == [1, 0, 1, 1]
    assert torch.equal(result.adv_inputs[1], INPUTS[1])


def test_what_is_no_net_or_no_tensor_is_refused():
    attack = Stub(answer=brighten)
    for arguments, message in (
        ((torch.relu, INPUTS, LABELS), r"`net` to be a torch\.nn\.Module .* got relu"),
        ((Sum(), INPUTS.tolist(), LABELS), "inputs to be a tensor, got list"),
    ):
        with pytest.raises(InputError, match=message):
            attack(*arguments)
    assert attack.log == []


@pytest.mark.parametrize("recheck", [False, True])
def test_samples_that_are_all_misclassified_cost_one_query(recheck):
    attack, net, passes = Stub(answer=brighten, recheck=recheck), Sum(), []
    net.register_forward_hook(lambda module, args, logits: passes.append(len(logits)))
    result = attack(net, INPUTS, torch.tensor([1, 0, 1, 1]))
    assert attack.log == []
    assert result.l0.tolist() == [0, 0, 0, 0]
    assert result.success.all()
    assert passes == [4] * (1 + recheck)
    assert result.num_forwards.tolist() == [1 + recheck] * 4


@pytest.mark.parametrize("recheck", [True, False])
@pytest.mark.parametrize(
    ("proposal", "moved"),
    [
        ([1.0, 0.3, 0.1], True),
        ([torch.nan, 0.3, 1.0], False),
        ([torch.inf, 0.3, 0.1], False),
        ([1.1, 0.3, 0.1], False),
        ([-0.1, 1.0, 1.0], False),
        ([0.3, 0.3, 0.1], False),  # not adversarial
        ([0.2, 0.3, 0.1], False),  # the clean sample
    ],
)
def test_what_a_library_returns_is_a_proposal(proposal, moved, recheck):
    attack = Stub(answer=lambda net, inputs, labels: torch.tensor([proposal]), recheck=recheck)
    result = attack(Sum(), INPUTS[:1], LABELS[:1])
    assert result.success.tolist() == [moved]
    assert result.l0.tolist() == [1.0 if moved else torch.inf]
    assert torch.equal(result.adv_inputs, torch.tensor([proposal]) if moved else INPUTS[:1])
    assert ((result.last_inputs >= 0) & (result.last_inputs <= 1)).all()


def test_success_is_within_the_budget():
    answer = lambda net, inputs, labels: 1 - inputs  # noqa: E731
    result = Stub(answer=answer, budget=2)(Sum(), INPUTS[:1], LABELS[:1])
    assert not result.success.any()
    assert result.l0.tolist() == [torch.inf]
    assert torch.equal(result.best_inputs, 1 - INPUTS[:1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_works_in_single_precision_and_gives_back_the_values_it_got(dtype):
    inputs = INPUTS.double().add_(1e-12).clamp_(0, 1).to(dtype)
    attack, seen = Stub(answer=brighten), []
    net = Sum().to(dtype)
    net.register_forward_hook(lambda module, args, logits: seen.append(args[0].dtype))
    result = attack(net, inputs, LABELS)
    assert attack.log[0].inputs.dtype == torch.float32
    assert set(seen) == {dtype}
    assert result.adv_inputs.dtype == dtype
    assert result.l0.tolist() == [1, 0, 1, 1]
    assert torch.equal(result.adv_inputs[:, 1:], inputs[:, 1:])


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_library_may_differentiate_and_keep_nothing(mode):
    net, attack = Sum(), Stub(answer=brighten)
    with mode():
        attack(net, INPUTS * 1, LABELS)
    (call,) = attack.log
    assert call.modes == (True, False)
    assert not call.inputs.is_inference()
    assert call.net is not net
    assert not call.net.training
    assert net not in set(call.net.modules())
    assert net.training
    assert net.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_library_may_work_in_place(dtype):
    def brighten_in_place(net, inputs, labels):
        inputs[:, 0] = 1
        labels.fill_(7)
        return inputs

    inputs, labels = INPUTS.to(dtype), LABELS.clone()
    result = Stub(answer=brighten_in_place)(Sum().to(dtype), inputs, labels)
    assert result.l0.tolist() == [1, 0, 1, 1]
    assert torch.equal(inputs, INPUTS.to(dtype))
    assert torch.equal(labels, LABELS)


def test_the_batch_that_the_library_gets_is_contiguous():
    inputs = torch.rand(3, 4, 5, 6).clamp(max=0.001).to(memory_format=torch.channels_last)
    attack = Stub(answer=lambda net, inputs, labels: inputs)
    attack(Sum(), inputs, torch.zeros(3, dtype=torch.int64))
    assert attack.log[0].inputs.is_contiguous()


def differentiate_weights(net, inputs, labels):
    net(inputs.requires_grad_())[:, 1].sum().backward()
    return brighten(net, inputs.detach(), labels)


@pytest.mark.parametrize("recheck", [True, False])
def test_no_gradient_reaches_the_weights_even_by_way_of_autocast(recheck):
    net = nn.Linear(3, 2)
    labels = net(INPUTS).argmax(dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(INPUTS)  # casts the weights, and keeps them
        Stub(answer=differentiate_weights, recheck=recheck)(net, INPUTS, labels)
    assert net.weight.grad is None
    assert net.weight.requires_grad


# ---- random numbers -----------------------------------------------------------------------------


def draw(net, inputs, labels):
    """Put random numbers of both generators where they can be read, and break the sample."""
    moved = torch.ones_like(inputs)
    moved[:, 0] = torch.rand(len(inputs))
    moved[:, 1] = torch.from_numpy(np.random.rand(len(inputs)))
    return moved


def states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def test_random_numbers_follow_the_seed_and_nothing_else():
    answers = {}
    for outside in (1, 2):
        for seed in (0, 0, 5):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(outside)
                answer = Stub(answer=draw, seed=seed)(Sum(), INPUTS[:1], LABELS[:1])
            answers.setdefault(seed, []).append(tuple(answer.adv_inputs.flatten().tolist()))
    assert [len(set(answers[seed])) for seed in (0, 5)] == [1, 1]
    assert answers[0][0][0] != answers[5][0][0]
    assert answers[0][0][1] != answers[5][0][1]


def test_the_random_state_outside_stays_also_after_an_error():
    def fail(net, inputs, labels):
        draw(net, inputs, labels)
        raise KeyError

    before = states()
    Stub(answer=draw)(Sum(), INPUTS, LABELS)
    assert states() == before
    net = Sum()
    with pytest.raises(KeyError):
        Stub(answer=fail)(net, INPUTS, LABELS)
    assert states() == before
    assert net.weight.requires_grad


# ---- passes -------------------------------------------------------------------------------------


def passing(num_forwards, num_backwards):
    """An attack that passes the net so often, with a first sample of the batch once more."""

    def answer(net, inputs, labels):
        for i in range(num_forwards):
            logits = net(inputs.requires_grad_())
            if i < num_backwards:
                logits[:, 1].sum().backward()
        net(inputs[:1])
        return brighten(net, inputs.detach(), labels)

    return answer


def test_samples_share_the_passes_of_their_batch():
    result = Stub(answer=passing(5, 2))(Sum(), INPUTS, LABELS)
    # 16 forwards for three samples, a clean pass and a verifying one for each.
    assert result.num_forwards.tolist() == [6 + 2, 0 + 2, 5 + 2, 5 + 2]
    assert result.num_backwards.tolist() == [2, 0, 2, 2]


def test_passes_are_exact_where_samples_are_attacked_one_by_one():
    calls = []

    def answer(net, inputs, labels):
        calls.append(len(inputs))
        return passing(len(calls), 1)(net, inputs, labels)

    result = Stub(answer=answer, one_by_one=True)(Sum(), INPUTS, LABELS)
    assert calls == [1, 1, 1]
    assert result.num_forwards.tolist() == [1 + 3, 2, 2 + 3, 3 + 3]
    assert result.num_backwards.tolist() == [1, 0, 1, 1]
    assert result.l0.tolist() == [1, 0, 1, 1]


def test_a_batch_that_memory_does_not_suffice_for_is_attacked_in_halves():
    sizes = []

    def answer(net, inputs, labels):
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return brighten(net, inputs, labels)

    inputs = INPUTS[[0, 2, 3, 0, 2, 3]]
    result = Stub(answer=answer)(Sum(), inputs, torch.zeros(6, dtype=torch.int64))
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    assert result.l0.tolist() == [1] * 6


def test_batch_size_bounds_what_the_library_gets():
    attack = Stub(answer=brighten, batch_size=2)
    attack(Sum(), INPUTS, LABELS)
    assert [len(call.inputs) for call in attack.log] == [1, 2]  # without the misclassified one


# ---- what is refused ----------------------------------------------------------------------------

PEERS = ("AdvLibSigmaZero", "BB", "BBadv", "EAD", "FMN", "PDPGD", "SparseFool", "VFGA")


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "expected `seed` to be at least 0, got -1"),
        ({"seed": 2**32}, "expected `seed` to be at most 4294967295, got 4294967296"),
        ({"seed": 0.5}, r"expected `seed` to be a whole number, got 0\.5"),
        ({"batch_size": 0}, "expected `batch_size` to be at least 1, got 0"),
    ],
)
def test_settings_that_all_share_are_checked(name, options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        getattr(attacks, name)(**options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("FMN", {"alpha_init": 0.0}, "`alpha_init` to be positive"),
        ("FMN", {"gamma_final": float("nan")}, "`gamma_final` to be positive, got nan"),
        ("VFGA", {"num_draws": 0}, "`num_draws` to be at least 1"),
        ("PDPGD", {"num_steps": 1}, "`num_steps` to be at least 2"),
        ("PDPGD", {"proximal_operator": "l1"}, "`proximal_operator` to be one of l0, l23"),
        ("PDPGD", {"dual_ratio": 0.0}, "`dual_ratio` to be positive"),
        ("EAD", {"decision_rule": "L0"}, "`decision_rule` to be one of EN, L1"),
        ("EAD", {"num_searches": 0}, "`num_searches` to be at least 1"),
        ("EAD", {"initial_const": 0.0}, "`initial_const` to be positive"),
        ("BB", {"radius": -1.0}, "`radius` to be positive"),
        ("BBadv", {"radius_batch_size": 0}, "`radius_batch_size` to be at least 1"),
        ("BB", {"momentum": -0.1}, "`momentum` to be at least 0"),
        ("SparseFool", {"max_rounds": 0}, "`max_rounds` to be at least 1"),
        ("SparseFool", {"lam": 0.0}, "`lam` to be positive"),
        ("AdvLibSigmaZero", {"sigma": 0.0}, "`sigma` to be positive"),
        ("AdvLibSigmaZero", {"tau": -0.1}, "`tau` to be at least 0"),
    ],
)
def test_settings_of_one_attack_are_checked(name, options, message):
    with pytest.raises(InputError, match=f"^expected {message}"):
        getattr(attacks, name)(**options)


@pytest.mark.parametrize("name", PEERS)
def test_a_missing_library_ends_in_one_line_that_says_how_to_install_it(name, monkeypatch):
    for library in ("adv_lib.attacks", "foolbox", "torchattacks"):
        monkeypatch.setitem(sys.modules, library, None)  # what Python takes for missing
    with pytest.raises(UnavailableError) as caught:
        getattr(attacks, name)()(Sum(), INPUTS, LABELS)
    message = str(caught.value)
    assert "\n" not in message
    assert "pip install -c constraints.txt -e '.[peers]'" in message
    assert "pip install --no-deps adv-lib==0.2.8 torchattacks==3.5.1" in message


def test_a_missing_numba_is_named_by_the_attacks_that_need_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("BB", "BBadv"):
        with pytest.raises(UnavailableError, match=r"^numba cannot be imported .*pip install"):
            getattr(attacks, name)()(Sum(), INPUTS, LABELS)


@pytest.mark.parametrize("recheck", [False, True])
def test_a_library_that_fails_makes_no_net_look_random(recheck, recwarn):
    """It moves every sample, and says of none whether the net errs on it."""

    def darken(net, inputs, labels):
        return 0 * inputs

    inputs = 0.1 + torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) / 5
    labels = torch.zeros(40, dtype=torch.int64)
    result = Stub(answer=darken, recheck=recheck)(Sum(), inputs, labels)
    assert not result.success.any()
    assert not recwarn.list


@dataclass(frozen=True, kw_only=True)
class Several(attacks.SigmaZero):
    members = {"sigma_zero": attacks.SigmaZero(), "fmn": attacks.FMN()}  # noqa: RUF012


def test_libraries_of_attacks_inside_an_attack_are_looked_for(monkeypatch):
    def missing():
        raise UnavailableError("it is not here")

    monkeypatch.setattr(attacks.FMN, "load", staticmethod(missing))
    check_library(attacks.SigmaZero())
    with pytest.raises(UnavailableError, match="it is not here"):
        check_library(Several())
