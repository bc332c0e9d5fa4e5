"""EAD and both Brendel & Bethge attacks: what foolbox answers, and where it would fail."""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sztrain.attacks import BB, EAD, BBadv
from sztrain.attacks.peers.isolation import CountedNet
from sztrain.attacks.peers.via_foolbox import adversarial_rows, load_foolbox, wrapped
from sztrain.errors import InputError

HERE = {name: importlib.util.find_spec(name) is not None for name in ("foolbox", "numba")}
needs_foolbox = pytest.mark.skipif(not HERE["foolbox"], reason="needs foolbox")
needs_solver = pytest.mark.skipif(not all(HERE.values()), reason="needs foolbox and numba")


def linear(weight, bias):
    net = nn.Sequential(nn.Flatten(), nn.Linear(len(weight[0]), len(weight)))
    net[1].weight.data, net[1].bias.data = torch.tensor(weight), torch.tensor(bias)
    return net


# ---- EAD ----------------------------------------------------------------------------------------


def bare_ead(net, inputs, labels, **options):
    """What the library answers to a direct call."""
    library = load_foolbox()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    model = library.PyTorchModel(net, bounds=(0, 1), device="cpu")
    _, adv_inputs, _ = library.attacks.EADAttack(**options)(model, inputs, labels, epsilons=None)
    return adv_inputs


@needs_foolbox
@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (EAD(num_steps=20), {"steps": 20}),
        (
            EAD(
                num_steps=10,
                num_searches=4,
                initial_const=3.0,
                step_size=0.05,
                l1_weight=0.1,
                decision_rule="L1",
                abort_early=False,
            ),
            {
                "steps": 10,
                "binary_search_steps": 4,
                "initial_const": 3.0,
                "initial_stepsize": 0.05,
                "regularization": 0.1,
                "decision_rule": "L1",
                "abort_early": False,
            },
        ),
    ],
    ids=["defaults", "all other"],
)
def test_the_answer_of_ead_is_that_of_the_library(attack, options, make_batch):
    batch = make_batch(num_samples=8, num_wrong=0, dtype=torch.float32)
    adv_inputs = bare_ead(batch.net, batch.inputs, batch.labels, **options)
    found = adv_inputs.flatten(1).any(dim=1)
    result = attack(batch.net, batch.inputs, batch.labels)
    assert found.any()
    assert torch.equal(result.success, found)
    assert torch.equal(result.adv_inputs[found], adv_inputs[found])


class Dim(nn.Module):
    """Class 1 on dark images alone, without a gradient that says so."""

    def forward(self, inputs):
        total = inputs.flatten(1).sum(dim=1)
        return torch.stack([(total > 0.01) + 0 * total, 0.5 + 0 * total], dim=1)


@needs_foolbox
@pytest.mark.parametrize("recheck", [True, False])
def test_a_black_image_is_a_failure_even_where_it_is_adversarial(recheck):
    net, inputs, labels = Dim().eval(), torch.full((3, 1, 2, 2), 0.5), torch.zeros(3).long()
    adv_inputs = bare_ead(net, inputs, labels, binary_search_steps=1, steps=10)
    assert not adv_inputs.any()
    assert (net(adv_inputs).argmax(dim=1) == 1).all()
    result = EAD(num_searches=1, num_steps=10, recheck=recheck)(net, inputs, labels)
    assert result.l0.tolist() == [torch.inf] * 3
    assert torch.equal(result.adv_inputs, inputs)


@needs_foolbox
def test_a_black_feature_is_no_failure():
    net = linear([[1.0, 0.0], [0.0, 0.0]], [0.0, 0.2])
    inputs = torch.tensor([[0.5, 0.5], [0.5, 0.0]]).view(2, 1, 1, 2)
    result = EAD(num_steps=50)(net, inputs, torch.zeros(2).long())
    assert result.l0.tolist() == [1, 1]


@needs_foolbox
def test_foolbox_is_told_to_leave_the_net_on_its_device(monkeypatch):
    library, inputs = load_foolbox(), torch.rand(2, 3)
    net = CountedNet(lambda samples: samples, like=inputs)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert library.models.pytorch.get_device(None).type == "cuda"  # where it would move it
    assert wrapped(library, net, inputs).device == inputs.device


# ---- the import ---------------------------------------------------------------------------------


@needs_foolbox
@pytest.mark.parametrize("told", [None, "warn"])
def test_the_environment_stays_as_it_was(told, monkeypatch):
    if told is None:
        monkeypatch.delenv("GIT_PYTHON_REFRESH", raising=False)
    else:
        monkeypatch.setenv("GIT_PYTHON_REFRESH", told)
    load_foolbox()
    assert os.environ.get("GIT_PYTHON_REFRESH") == told


@needs_foolbox
@pytest.mark.slow
def test_foolbox_is_imported_where_there_is_no_git_and_warnings_are_errors():
    code = "from sztrain.attacks.peers.via_foolbox import load_foolbox; load_foolbox()"
    environment = os.environ | {"PATH": ""}
    environment.pop("GIT_PYTHON_REFRESH", None)
    command = [sys.executable, "-W", "error::DeprecationWarning:scipy", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---- the starts of BB and BBadv, with a stand-in for the solver ---------------------------------


class Library:
    """foolbox as far as the attacks call it; its walk ends at the corner of all ones."""

    def __init__(self, noise):
        self.walks = []
        self.noisy_labels = []
        walks, noisy_labels = self.walks, self.noisy_labels

        class Walk:
            def __init__(self, **options):
                self.options = options

            def run(self, model, inputs, labels, *, starting_points):
                walks.append(SimpleNamespace(**vars(self), inputs=inputs, starts=starting_points))
                return torch.ones_like(inputs)

        class Noise:
            def run(self, model, inputs, labels):
                noisy_labels.extend(labels.tolist())
                return noise[: len(inputs)]

        self.attacks = SimpleNamespace(
            L0BrendelBethgeAttack=Walk, LinearSearchBlendedUniformNoiseAttack=Noise
        )

    def PyTorchModel(self, net, bounds, device):  # noqa: N802
        return net

    def Misclassification(self, labels):  # noqa: N802
        return labels


FIRST = linear([[0.0, 0.0], [1.0, 0.0]], [0.5, 0.0])  # class 1 where the first value is above 1/2


def test_a_failed_start_fails_its_own_sample_alone():
    inputs = torch.tensor([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]])
    noise = torch.tensor([[0.9, 0.1], [0.4, 0.9], [1.2, -0.3]])
    library = Library(noise)
    moved = BB(num_steps=7).search(library, FIRST, inputs, torch.zeros(3).long())
    (walk,) = library.walks
    assert torch.equal(walk.inputs, inputs[[0, 2]])
    assert torch.equal(walk.starts, torch.tensor([[0.9, 0.1], [1.0, 0.0]]))
    assert moved.tolist() == [[1.0, 1.0], inputs[1].tolist(), [1.0, 1.0]]
    assert walk.options["steps"] == 7


def test_a_batch_whose_starts_all_fail_is_a_batch_of_failures():
    inputs = torch.tensor([[0.1, 0.0], [0.2, 0.0]])
    library = Library(noise=torch.zeros(2, 2))
    moved = BB().search(library, FIRST, inputs, torch.zeros(2).long())
    assert library.walks == []
    assert torch.equal(moved, inputs)


@pytest.mark.parametrize(
    ("options", "num_good", "told"),
    [
        ({}, 32, 1e-3),
        ({}, 1, 32e-3),
        ({}, 8, 4e-3),
        ({"radius": 0.01, "radius_batch_size": 16}, 4, 0.04),
        ({"radius_batch_size": None}, 1, 1e-3),
        ({"radius_batch_size": None}, 8, 1e-3),
    ],
)
def test_the_radius_does_not_grow_with_the_batch_unless_asked_to(options, num_good, told):
    inputs = torch.zeros(num_good + 1, 2)
    noise = torch.ones(num_good + 1, 2)
    noise[-1] = 0  # no start: it is not among those who walk
    library = Library(noise)
    attack = BB(momentum=0.5, overshoot=1.5, **options)
    attack.search(library, FIRST, inputs, torch.zeros(num_good + 1).long())
    assert library.walks[0].options["lr"] == pytest.approx(told)
    assert library.walks[0].options["momentum"] == 0.5
    assert library.walks[0].options["overshoot"] == 1.5


def test_bbadv_starts_from_any_other_sample_with_another_label():
    net = nn.Identity()
    inputs = torch.eye(3)[[0, 1, 1, 2]]
    labels, seen = inputs.argmax(dim=1), [set() for _ in inputs]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(40):
            library = Library(noise=None)
            BBadv().search(library, net, inputs, labels)
            for where, start in zip(seen, library.walks[0].starts, strict=True):
                where.add(int(start.argmax()))
    assert seen == [{1, 2}, {0, 2}, {0, 2}, {0, 1}]
    assert library.noisy_labels == []


def test_bbadv_starts_from_noise_where_no_other_label_is_there():
    library = Library(noise=torch.ones(3, 2))
    moved = BBadv().search(library, FIRST, torch.zeros(3, 2), torch.zeros(3).long())
    assert library.noisy_labels == [0, 0, 0]
    assert torch.equal(moved, torch.ones(3, 2))


class Crowded(nn.Module):
    """A net whose third sample loses its class as soon as it has fewer than three neighbours."""

    def forward(self, inputs):
        logits = inputs.clone()
        if len(inputs) < 3:
            logits[-1] = torch.tensor([1.0, 0.0])
        return logits


def test_starts_have_to_hold_in_the_batch_that_walks():
    starts = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    # All three pass; the second is not adversarial; of the other two the last one is lost, too,
    # and so is the first when it is alone.
    assert adversarial_rows(Crowded(), starts, torch.zeros(3).long()).tolist() == []
    assert adversarial_rows(nn.Identity(), starts, torch.zeros(3).long()).tolist() == [0, 2]


# ---- BB and BBadv themselves --------------------------------------------------------------------


@needs_solver
@pytest.mark.slow
@pytest.mark.parametrize("attack", [BB(num_steps=40), BBadv(num_steps=40)])
def test_a_batch_of_one_and_a_batch_of_one_label_get_normal_results(attack, make_batch):
    batch = make_batch(num_samples=12, num_wrong=0, dtype=torch.float32)
    one = attack(batch.net, batch.inputs[:1], batch.labels[:1])
    same = (batch.labels == batch.labels.mode().values).nonzero().squeeze(1)
    assert len(same) > 1
    alike = attack(batch.net, batch.inputs[same], batch.labels[same])
    for result in (one, alike):
        assert result.success.all()
        assert result.l0.median() < 0.5 * batch.inputs[0].numel()


@needs_solver
@pytest.mark.slow
def test_noise_that_falls_into_one_class_does_not_fail_the_batch():
    # Noise has a sum around 8: always class 1, so a sample of class 1 has no start.
    net = linear([[0.0] * 16, [1.0] * 16], [4.0, 0.0])
    inputs = torch.cat([torch.full((2, 1, 4, 4), 0.2), torch.full((2, 1, 4, 4), 0.8)])
    labels = torch.tensor([0, 0, 1, 1])
    bare = load_foolbox()
    model = bare.PyTorchModel(net.eval(), bounds=(0, 1), device="cpu")
    with pytest.warns(UserWarning, match="failed to draw"), pytest.raises(AssertionError):
        bare.attacks.L0BrendelBethgeAttack(steps=5).run(model, inputs, labels)
    result = BB(num_steps=40)(net, inputs, labels)
    assert result.success.tolist() == [True, True, False, False]
    assert result.l0[:2].max() < 16


class Rough(nn.Module):
    """A net whose gradient is NaN where its first value is 0."""

    def forward(self, inputs):
        total = inputs.flatten(1).sum(dim=1) + 1e-3 * (0 * inputs.flatten(1)[:, 0]).sqrt()
        return torch.stack([torch.full_like(total, 2.5), total], dim=1)


def test_a_net_that_answers_at_random_is_refused_in_one_line(monkeypatch):
    def walk(*arguments, **options):
        assert False  # noqa: B011, PT015 - as the library finds that the net is right at a start

    library = Library(noise=torch.ones(2, 2))
    monkeypatch.setattr(library.attacks.L0BrendelBethgeAttack, "run", walk)
    with pytest.raises(InputError, match="answers the same image in different ways"):
        BB().search(library, FIRST, torch.zeros(2, 2), torch.zeros(2).long())


@needs_solver
@pytest.mark.slow
def test_the_solver_is_compiled_before_an_attack_is_called():
    with torch.inference_mode():  # in which a gauge may be
        BB().prepare()
    from foolbox.attacks.brendel_bethge import L0Optimizer

    before = compiled(L0Optimizer)
    net = linear([[0.0] * 16, [1.0] * 16], [4.0, 0.0])
    result = BB(num_steps=3)(net, torch.full((2, 1, 4, 4), 0.2), torch.zeros(2).long())
    assert result.success.all()
    assert compiled(L0Optimizer) == before > 0


def compiled(kind):
    """How many versions of its methods numba has made."""
    methods = kind.class_type.jit_methods.values()
    return sum(len(method.signatures) for method in methods)


@needs_solver
@pytest.mark.slow
def test_a_gradient_that_is_not_finite_does_not_keep_the_solver_for_ever():
    result = BB(num_steps=10)(Rough(), torch.full((2, 1, 3, 3), 0.1), torch.zeros(2).long())
    assert result.success.all()
