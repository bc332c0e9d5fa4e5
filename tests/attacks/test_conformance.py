"""What every attack of ``sztrain.attacks`` owes its caller: a new attack adds a row to ATTACKS."""

import copy
import pickle
import random
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pace import slow_after
from peer_libraries import marks_of, missing_for
from torch import nn

from sztrain import attacks
from sztrain.attacks.checks import require_attack
from sztrain.errors import InputError, UnavailableError
from sztrain.types import Attack

# Each attack with a budget of queries that is small, and still enough to break something.
ATTACKS = {
    "ASLO": {"num_steps": 12, "prune_steps": 5},
    "BudgetedSigmaZero": {"num_steps": 50},
    "AttackMix": {"num_steps": 50},
    "GSE": {"num_steps": 60, "sigma": 30.0, "mu": 0.0005, "q": 0.5, "switch": 0.5, "patch": 2},
    "LinSparse": {
        "num_steps": 20,
        "dense_steps": 4,
        "epsilon": 0.3,
        "tau": 0.3,
        "step": 100.0,
        "amplitude": "full",
    },
    "PGDL0": {"num_steps": 50},
    "SigmaZero": {"num_steps": 12},
    "SparseAutoAttack": {"num_steps": 20, "num_queries": 40},
    "SparsePGD": {"num_steps": 50},
    "SparseRS": {"num_steps": 200},
    "AdvLibSigmaZero": {"num_steps": 12},
    "BB": {"num_steps": 8},
    "BBadv": {"num_steps": 8},
    "EAD": {"num_steps": 8},
    "FMN": {"num_steps": 12},
    "PDPGD": {"num_steps": 20, "dual_ratio": 5e-4},
    "SparseFool": {"num_steps": 2},
    "VFGA": {"num_steps": 12},
}

# Budgets in features and in pixels within which such an attack breaks something, but not all.
BUDGETS = {"EAD": (40, None), "PDPGD": (60, 24)}

# Those whose libraries are installed; each of the others has a test that says what it needs.
HERE = [name for name in ATTACKS if not missing_for(name)]

# Attacks that refuse to count pixels.
FEATURES_ONLY = {"AdvLibSigmaZero", "BB", "BBadv", "EAD", "FMN", "SparseFool", "VFGA"}

# What an algorithm does not keep, and cannot be made to.
DRAWS = "draws random numbers for the rows of a batch"
RANDOM = (
    "AttackMix",
    "BudgetedSigmaZero",
    "PGDL0",
    "SparsePGD",
    "SparseRS",
    "VFGA",
    "BB",
    "BBadv",
)
EXCEPTIONS = {
    **{(name, "equal samples get equal answers"): DRAWS for name in RANDOM if name != "VFGA"},
    **{(name, "a sample does not see its batch"): DRAWS for name in RANDOM},
    ("BBadv", "a sample does not see its batch"): "starts from another sample of the batch",
}
# What an algorithm keeps or not, as chance has it.
UNDECIDED = {
    ("EAD", "a sample does not see its batch"),  # ends a search by the loss of the whole batch
    ("SparseAutoAttack", "equal samples get equal answers"),  # draws, for some of its members
    ("SparseAutoAttack", "a sample does not see its batch"),
    ("VFGA", "equal samples get equal answers"),  # draws
}


def row(name, *more, promise=None):
    """One case of an attack that is here, and what is known of it."""
    marks = marks_of(name)
    if (name, promise) in EXCEPTIONS:
        reason = f"{name} {EXCEPTIONS[name, promise]}"
        marks.append(pytest.mark.xfail(raises=AssertionError, reason=reason, strict=True))
    return pytest.param(name, *more, marks=marks)


def promised(promise):
    names = [name for name in HERE if (name, promise) not in UNDECIDED]
    return pytest.mark.parametrize("name", [row(name, promise=promise) for name in names])


attack_names = pytest.mark.parametrize("name", [row(name) for name in HERE])


def make_attack(name, **options):
    return getattr(attacks, name)(**ATTACKS[name] | options)


def variants(name):
    """The settings under which the answers of an attack are looked at."""
    known = {field.name for field in fields(getattr(attacks, name))}
    num_features, num_pixels = BUDGETS.get(name, (6, 3))
    yield {}
    yield {"budget": num_features}
    if name not in FEATURES_ONLY:
        yield {"unit": "pixels"}
        yield {"unit": "pixels", "budget": num_pixels}
    if "patience" in known:
        yield {"patience": 3}
    for option in ("early_stop", "evaluate_last", "projected"):
        if option in known:
            yield {option: True}
            yield {option: True, "budget": 6}
    if "loss" in known:
        yield {"loss": "ce", "budget": 6}
    if "targeted" in known:
        yield {"targeted": True}
        yield {"targeted": True, "budget": 6}


all_variants = pytest.mark.parametrize(
    ("name", "options"), [row(name, options) for name in HERE for options in variants(name)]
)


def test_every_exported_attack_has_a_row():
    exported = {name for name in attacks.__all__ if hasattr(getattr(attacks, name), "num_steps")}
    assert exported == set(ATTACKS)


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - set(HERE)))
def test_an_attack_without_its_library_says_so(name):
    inputs, labels = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    missing = missing_for(name)
    with pytest.raises(UnavailableError, match="|".join(missing)):
        make_attack(name)(nn.Linear(4, 2), inputs, labels)
    pytest.skip(f"all else of {name} needs {' and '.join(missing)}")


# ---- what it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_a_frozen_set_of_hyper_parameters(name):
    attack = make_attack(name)
    require_attack("attack", attack)
    assert isinstance(attack, Attack)
    assert attack.num_steps == ATTACKS[name]["num_steps"]
    assert (attack.unit, attack.budget) == ("features", None)
    assert replace(attack, budget=3) == make_attack(name, budget=3) != attack
    assert pickle.loads(pickle.dumps(attack)) == copy.deepcopy(attack) == attack
    with pytest.raises(FrozenInstanceError):
        attack.budget = 3
    with pytest.raises(TypeError):
        getattr(attacks, name)(1)  # by name only


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "expected `num_steps` to be at least 1, got 0"),
        ({"num_steps": 2.5}, r"expected `num_steps` to be a whole number, got 2\.5"),
        ({"budget": 0}, "expected `budget` to be at least 1, got 0"),
        ({"unit": "voxels"}, "expected `unit` to be one of features, pixels, got voxels"),
    ],
)
def test_it_refuses_hyper_parameters_out_of_range(name, options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        make_attack(name, **options)


@pytest.mark.parametrize("name", sorted(FEATURES_ONLY))
def test_it_refuses_to_count_what_it_cannot_count(name):
    message = f"^{name} changes single values: expected `unit` to be features, got pixels$"
    with pytest.raises(InputError, match=message):
        make_attack(name, unit="pixels")


# ---- what it answers ----------------------------------------------------------------------------


def count(delta, unit):
    moved = delta != 0
    moved = moved.any(dim=1, keepdim=True) if unit == "pixels" else moved
    return moved.flatten(1).sum(dim=1).float()


def check_answer(attack, result, inputs, labels, logits_of):
    """Every claim of a result, found out anew from its tensors; returns the clean verdict."""

    def fooled(moved):
        predictions = logits_of(moved).argmax(dim=1)
        return (
            predictions == labels if getattr(attack, "targeted", False) else predictions != labels
        )

    num_samples = len(inputs)
    for moved in (result.adv_inputs, result.best_inputs, result.last_inputs):
        assert moved.shape == inputs.shape
        assert moved.dtype == inputs.dtype
        assert not moved.requires_grad
        assert not moved.is_inference()
        assert ((moved >= 0) & (moved <= 1)).all()
    assert result.success.dtype == torch.bool
    assert result.l0.is_floating_point()
    for counts in (result.num_forwards, result.num_backwards):
        assert counts.dtype == torch.int64
        assert counts.shape == (num_samples,)
    assert (result.num_forwards >= 1).all()
    assert (result.num_backwards >= 0).all()

    success = result.success
    assert success.shape == result.l0.shape == (num_samples,)
    assert fooled(result.adv_inputs)[success].all()
    l0 = count(result.adv_inputs - inputs, attack.unit)
    assert torch.equal(result.l0, l0.where(success, torch.inf))
    assert torch.equal(result.adv_inputs[~success], inputs[~success])
    assert torch.equal(result.best_inputs[success], result.adv_inputs[success])
    if attack.budget is None:
        assert torch.equal(result.best_inputs, result.adv_inputs)
    else:
        assert (l0 <= attack.budget).all()
        beyond = count(result.best_inputs - inputs, attack.unit)[~success]
        assert ((beyond == 0) | (beyond > attack.budget)).all()
        found = ~success & (result.best_inputs != inputs).flatten(1).any(dim=1)
        assert fooled(result.best_inputs)[found].all()

    broken_from_start = fooled(inputs)
    assert (success | ~broken_from_start).all()
    assert torch.equal(result.l0 == 0, broken_from_start)
    assert torch.equal(result.adv_inputs[broken_from_start], inputs[broken_from_start])
    return broken_from_start


@all_variants
@pytest.mark.parametrize("dtype", slow_after(1, [torch.float32, torch.float64]))
def test_its_claims_are_true(name, options, dtype, make_batch, in_eval):
    attack, num_broken = make_attack(name, **options), 0
    for seed in range(3):
        batch = make_batch(num_samples=7, num_wrong=2, seed=seed, dtype=dtype)
        result = attack(batch.net, batch.inputs, batch.labels)
        start = check_answer(
            attack, result, batch.inputs, batch.labels, lambda x, net=batch.net: in_eval(net, x)
        )
        num_broken += int((result.success & ~start).sum())
    assert num_broken > 0  # otherwise nothing was looked at


SIGMA_ZERO_SETTINGS = st.fixed_dictionaries(
    {
        "num_steps": st.integers(1, 15),
        "eta": st.sampled_from([0.01, 0.3, 1.0, 4.0]),
        "sigma": st.sampled_from([1e-6, 1e-3, 1.0]),
        "tau": st.floats(0, 1),
        "tau_factor": st.sampled_from([0.0, 0.01, 0.5]),
        "step_rule": st.sampled_from(["adam", "sgd"]),
        "targeted": st.booleans(),
        "unit": st.sampled_from(["features", "pixels"]),
        "budget": st.none() | st.integers(1, 25),
        "patience": st.none() | st.integers(1, 10),
        "batch_size": st.none() | st.integers(1, 3),
    }
)


@given(SIGMA_ZERO_SETTINGS, st.integers(0, 1000), st.sampled_from([torch.float32, torch.float64]))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_claims_of_sigma_zero_are_true_at_any_setting(make_batch, in_eval, options, seed, dtype):
    batch, attack = make_batch(seed=seed, num_samples=4, dtype=dtype), attacks.SigmaZero(**options)
    result = attack(batch.net, batch.inputs, batch.labels)
    check_answer(attack, result, batch.inputs, batch.labels, lambda x: in_eval(batch.net, x))
    if dtype == torch.float64:  # where rounding decides nothing, the search is right by itself
        believed = replace(attack, recheck=False)(batch.net, batch.inputs, batch.labels)
        assert torch.equal(believed.l0, result.l0)
        assert torch.equal(believed.adv_inputs, result.adv_inputs)


@attack_names
@pytest.mark.parametrize("budget", [None, 4])
def test_a_net_that_cannot_be_broken_is_not_claimed_to_be(name, budget, make_batch):
    batch = make_batch(num_wrong=0, dtype=torch.float32)
    batch.net.head.weight.data.zero_()
    batch.net.head.bias.data = torch.tensor([0.0, 1.0, 0.0, 0.0])
    labels = torch.ones_like(batch.labels)
    result = make_attack(name, budget=budget)(batch.net, batch.inputs, labels)
    assert not result.success.any()
    assert result.l0.tolist() == [torch.inf] * 6
    assert torch.equal(result.adv_inputs, batch.inputs)
    assert torch.equal(result.best_inputs, batch.inputs)


@attack_names
@pytest.mark.parametrize("budget", [None, 5])
def test_it_counts_what_the_net_computes(name, budget, make_batch, spy_on):
    batch = make_batch(num_samples=8, num_wrong=2)
    spy = spy_on(batch.net)
    result = make_attack(name, budget=budget)(batch.net, batch.inputs, batch.labels)
    assert sum(spy.forward_rows) == result.num_forwards.sum()
    assert sum(spy.backward_rows) == result.num_backwards.sum()


@attack_names
def test_it_is_a_function_of_its_arguments(name, make_batch):
    batch, attack, answers = make_batch(dtype=torch.float32), make_attack(name), []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            answers.append(attack(batch.net, batch.inputs, batch.labels))
    assert_same_answer(*answers)


# ---- what it leaves behind ----------------------------------------------------------------------


def snapshot(net):
    """All that an attack could change in a net or around it."""
    state = {f"state {key}": value.clone() for key, value in net.state_dict().items()}
    for key, parameter in net.named_parameters():
        state[f"needs gradient {key}"] = parameter.requires_grad
        state[f"gradient {key}"] = None if parameter.grad is None else parameter.grad.clone()
    for key, module in net.named_modules():
        state[f"training {key}"] = module.training
        state[f"hooks {key}"] = len(module._forward_hooks) + len(module._forward_pre_hooks)
    state["torch"] = torch.get_rng_state()
    state["python"] = random.getstate()
    name, keys, *rest = np.random.get_state()
    state["numpy"] = name, keys.tobytes(), *rest
    state["modes"] = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    state["autocast"] = torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()
    return state


def assert_untouched(before, after):
    assert before.keys() == after.keys()
    for key, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(after[key], value), key
        else:
            assert after[key] == value, key


def in_training(batch):
    """The net with mixed flags, mixed ``requires_grad``, and gradients of some parameters."""
    net = batch.net
    for module in (net, net.conv, net.norm, net.dropout):
        module.training = True
    assert {module.training for module in net.modules()} == {True, False}
    net.conv.weight.requires_grad_(False)
    for key, parameter in net.named_parameters():
        if key.startswith("head"):
            parameter.grad = torch.full_like(parameter, 0.25)
    return net


@all_variants
def test_it_leaves_the_net_and_the_random_state_as_they_were(name, options, make_batch):
    batch = make_batch(dtype=torch.float32)
    net, kept = in_training(batch), (batch.inputs.clone(), batch.labels.clone())
    before = snapshot(net)
    make_attack(name, **options)(net, batch.inputs, batch.labels)
    assert_untouched(before, snapshot(net))
    assert torch.equal(batch.inputs, kept[0])
    assert torch.equal(batch.labels, kept[1])


class NetError(Exception):
    """What the net raises."""


@attack_names
@pytest.mark.parametrize("failing_pass", [1, 2, 4])
def test_it_leaves_everything_as_it_was_when_the_net_raises(name, failing_pass, make_batch):
    batch = make_batch(dtype=torch.float32)
    net, passes = in_training(batch), []

    def fail(module, args):
        passes.append(len(args[0]))
        torch.rand(3)  # a net may draw random numbers, too
        if len(passes) == failing_pass:
            raise NetError

    net.register_forward_pre_hook(fail)
    before = snapshot(net)
    with pytest.raises(NetError):
        make_attack(name)(net, batch.inputs, batch.labels)
    assert_untouched(before, snapshot(net))


@attack_names
def test_its_answer_shares_no_memory_with_the_batch(name, make_batch):
    batch = make_batch(dtype=torch.float32)
    kept = batch.inputs.clone()
    result = make_attack(name)(batch.net, batch.inputs, batch.labels)
    adv_inputs = result.adv_inputs.clone()
    last_inputs = result.last_inputs.clone()
    result.best_inputs.fill_(9)
    assert torch.equal(result.last_inputs, last_inputs)
    result.last_inputs.fill_(9)
    assert torch.equal(result.adv_inputs, adv_inputs)
    result.adv_inputs.fill_(9)
    assert torch.equal(batch.inputs, kept)


# ---- where it works -----------------------------------------------------------------------------


def assert_same_answer(found, expected):
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=0, msg=name)


@attack_names
@pytest.mark.parametrize("mode", slow_after(1, [torch.inference_mode, torch.no_grad]))
@pytest.mark.parametrize("budget", [None, 5])
def test_it_works_where_gradients_are_off(name, mode, budget, make_batch, in_eval):
    batch, attack = make_batch(dtype=torch.float32), make_attack(name, budget=budget)
    expected = attack(batch.net, batch.inputs, batch.labels)
    with mode():
        inputs, labels = batch.inputs * 1, batch.labels * 1  # made under this very mode
        assert inputs.is_inference() == (mode is torch.inference_mode)
        before = snapshot(batch.net)
        result = attack(batch.net, inputs, labels)
        assert_untouched(before, snapshot(batch.net))
    assert_same_answer(result, expected)
    check_answer(attack, result, batch.inputs, batch.labels, lambda x: in_eval(batch.net, x))
    # The answer can be trained on.
    torch.nn.functional.cross_entropy(batch.net(result.adv_inputs), batch.labels).backward()
    assert batch.net.head.weight.grad.any()


@attack_names
def test_it_attacks_in_eval_mode_whatever_the_mode_outside(name, make_batch):
    batch, attack = make_batch(dtype=torch.float32), make_attack(name)
    expected = attack(batch.net, batch.inputs, batch.labels)
    net = in_training(batch)
    assert_same_answer(attack(net, batch.inputs, batch.labels), expected)


@attack_names
@pytest.mark.parametrize("limited", slow_after(1, [False, True]))
def test_it_works_under_autocast_and_claims_hold_in_full_precision(
    name, limited, make_batch, in_eval
):
    num_broken, budget = 0, BUDGETS.get(name, (6, 3))[0] if limited else None
    for seed in range(4):
        batch = make_batch(num_samples=8, seed=seed, dtype=torch.float32)
        attack = make_attack(name, budget=budget)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            before = snapshot(batch.net)
            result = attack(batch.net, batch.inputs, batch.labels)
            assert_untouched(before, snapshot(batch.net))
        num_broken += int(result.success[1:].sum())
        predictions = in_eval(batch.net, result.adv_inputs).argmax(dim=1)
        assert (predictions != batch.labels)[result.success].all()
        assert torch.equal(
            result.l0[result.success],
            count(result.adv_inputs - batch.inputs, "features")[result.success],
        )
    assert num_broken > 0


@attack_names
def test_training_goes_on_after_it_in_the_same_autocast_region(name, make_batch):
    batch, gradients = make_batch(dtype=torch.float32), []
    for attacked in (False, True):
        batch.net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if attacked:
                make_attack(name)(batch.net, batch.inputs, batch.labels)
            loss = torch.nn.functional.cross_entropy(batch.net(batch.inputs), batch.labels)
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in batch.net.parameters()])
    for plain, after_attack in zip(*gradients, strict=True):
        assert torch.equal(plain, after_attack)


@attack_names
def test_the_layout_of_the_batch_does_not_matter(name, make_batch):
    batch, attack = make_batch(), make_attack(name)
    expected = attack(batch.net, batch.inputs, batch.labels)
    wide = torch.zeros(6, 3, 5, 10, dtype=torch.float64)
    wide[..., ::2] = batch.inputs
    for inputs in (
        batch.inputs.clone(memory_format=torch.channels_last),
        wide[..., ::2],
        batch.inputs.clone().requires_grad_(),
    ):
        result = attack(batch.net, inputs, batch.labels)
        torch.testing.assert_close(result.adv_inputs, expected.adv_inputs, rtol=0, atol=1e-9)
        assert torch.equal(result.l0, expected.l0)
        assert inputs.grad is None


@promised("equal samples get equal answers")
def test_equal_samples_get_equal_answers(name, make_batch):
    batch = make_batch(num_wrong=0)
    same = batch.inputs[:1].expand(6, -1, -1, -1)
    result = make_attack(name)(batch.net, same, batch.labels[:1].expand(6))
    assert result.l0.unique().numel() == 1
    first = result.adv_inputs[:1].expand_as(same)
    torch.testing.assert_close(result.adv_inputs, first, rtol=0, atol=1e-9)


@promised("a sample does not see its batch")
def test_a_sample_does_not_see_its_batch(name, make_batch):
    batch, attack = make_batch(num_samples=5), make_attack(name)
    together = attack(batch.net, batch.inputs, batch.labels)
    assert together.success[1:].any()
    for i in range(5):
        alone = attack(batch.net, batch.inputs[i : i + 1], batch.labels[i : i + 1])
        assert torch.equal(alone.l0, together.l0[i : i + 1])
        torch.testing.assert_close(
            alone.adv_inputs, together.adv_inputs[i : i + 1], rtol=0, atol=1e-5
        )


class InPlace(nn.Module):
    """A net whose first layer overwrites its input, as a normalisation may."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        return self.net(inputs.sub_(0.5).mul_(2))


@all_variants
def test_a_net_that_works_in_place_spoils_nothing(name, options, make_batch, in_eval):
    batch, attack = make_batch(dtype=torch.float32), make_attack(name, **options)
    net, kept = InPlace(batch.net), batch.inputs.clone()
    labels = in_eval(net, batch.inputs).argmax(dim=1)
    result = attack(net, batch.inputs, labels)
    assert torch.equal(batch.inputs, kept)
    check_answer(attack, result, kept, labels, lambda x: in_eval(net, x))


# ---- what it refuses ----------------------------------------------------------------------------


def bad_batches():
    images, labels = torch.rand(4, 3, 5, 5), torch.tensor([0, 1, 2, 3])
    nan = images.clone()
    nan[1, 2, 0, 0] = torch.nan
    yield "no batch", images[0, 0, 0], labels[:1], "non-empty float tensor"
    yield "empty", images[:0], labels[:0], "non-empty float tensor"
    yield "bytes", (255 * images).byte(), labels, "non-empty float tensor"
    yield "normalised", 2 * images - 1, labels, "expected inputs in"
    yield "to 255", 255 * images, labels, "expected inputs in"
    yield "nan", nan, labels, "expected inputs in .* got NaN; look for it in the data"
    yield "a list", images.tolist(), labels, "expected inputs to be a tensor, got list"
    yield "a list of labels", images, labels.tolist(), "expected labels to be a tensor, got list"
    yield "too few labels", images, labels[:3], "expected labels to be int64 of shape"
    yield "float labels", images, labels.float(), "expected labels to be int64 of shape"
    yield "one-hot labels", images, torch.eye(4).long(), "expected labels to be int64 of shape"
    yield "label too large", images, labels + 1, "labels from 0 to 3, .* got labels from 1 to 4"
    yield "negative label", images, labels - 1, "labels from 0 to 3, .* got labels from -1 to 2"


@attack_names
@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [case[1:] for case in bad_batches()],
    ids=[case[0] for case in bad_batches()],
)
def test_it_refuses_what_cannot_be_attacked(name, inputs, labels, message, make_batch):
    batch = make_batch(dtype=torch.float32)
    before = snapshot(batch.net)
    with pytest.raises(InputError, match=message) as caught:
        make_attack(name)(batch.net, inputs, labels)
    assert "\n" not in str(caught.value)
    assert_untouched(before, snapshot(batch.net))


@attack_names
def test_it_refuses_a_function_for_a_net(name, make_batch):
    batch = make_batch(dtype=torch.float32)
    with pytest.raises(InputError, match=r"^expected `net` to be .*Module .* got forward"):
        make_attack(name)(batch.net.forward, batch.inputs, batch.labels)


@attack_names
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda logits: logits * torch.nan, "non-finite logits"),
        (lambda logits: logits[:, 0], r"logits of shape \(N, K\), K >= 2, got \(6,\)"),
        (lambda logits: logits[:, :1], r"logits of shape \(N, K\), K >= 2, got \(6, 1\)"),
        (lambda logits: logits.argmax(dim=1), r"logits of shape \(N, K\), K >= 2, got \(6,\)"),
        (lambda logits: (logits, logits), r"logits of shape \(N, K\), K >= 2, got tuple"),
        (lambda logits: logits.mean(dim=0, keepdim=True), r"one row .* 6 inputs, got \(1, 4\)"),
    ],
)
def test_it_refuses_a_net_that_returns_no_logits(name, answer, message, make_batch):
    batch = make_batch(dtype=torch.float32)
    batch.net.register_forward_hook(lambda module, args, logits: answer(logits))
    before = snapshot(batch.net)
    with pytest.raises(InputError, match=message) as caught:
        make_attack(name)(batch.net, batch.inputs, batch.labels)
    assert "\n" not in str(caught.value)
    assert_untouched(before, snapshot(batch.net))


@pytest.mark.parametrize(
    ("name", "unit", "size"),
    [
        row(name, unit, size)
        for name in HERE
        for unit, size in (("features", 75), ("pixels", 25))
        if unit == "features" or name not in FEATURES_ONLY
    ],
)
def test_it_refuses_a_budget_above_the_size_of_a_sample(name, unit, size, make_batch):
    batch = make_batch(dtype=torch.float32)
    make_attack(name, unit=unit, budget=size)(batch.net, batch.inputs, batch.labels)
    message = f"^expected `budget` to be at most {size}, the {unit} of a sample, got {size + 1}$"
    with pytest.raises(InputError, match=message):
        make_attack(name, unit=unit, budget=size + 1)(batch.net, batch.inputs, batch.labels)
