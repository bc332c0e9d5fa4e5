"""What the contract makes of a search that lies, fails or leaves things behind."""

import warnings
from dataclasses import dataclass

import pytest
import torch
from host_reads import HostReads
from torch import nn

from sztrain.attacks import (
    ASLO,
    GSE,
    PGDL0,
    AttackMix,
    BudgetedSigmaZero,
    LinSparse,
    SigmaZero,
    SparseAutoAttack,
    SparsePGD,
    SparseRS,
)
from sztrain.attacks._search import Search
from sztrain.attacks.base import Found, is_adversarial, run_attack
from sztrain.attacks.checks import require_attack, validate_attack, validate_batch, validate_logits
from sztrain.attacks.modes import eval_mode
from sztrain.errors import InputError
from sztrain.types import Attack


class Sign(nn.Module):
    """Class 1 where the sum of the input is above 1."""

    def forward(self, inputs):
        total = inputs.flatten(1).sum(dim=1)
        return torch.stack([torch.zeros_like(total), total - 1], dim=1)


INPUTS = torch.tensor([[0.1, 0.2, 0.0], [0.9, 0.8, 0.0], [0.3, 0.3, 0.3], [0.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 0, 1])  # the last one is misclassified
MOVED = torch.tensor([[0.1, 1.0, 0.5], [0.0, 0.8, 0.0], [0.3, 0.3, 0.2], [0.0, 0.0, 0.0]])
TRUE_L0 = [2.0, 1.0, torch.inf, 0.0]  # the third one is moved in vain


def searching(best_l0, best_inputs=MOVED):
    def search(logits_of, inputs, labels):
        logits_of(inputs)
        counts = torch.full((len(inputs),), 7)
        return Found(
            best_inputs=best_inputs.clone(),
            best_l0=torch.tensor(best_l0),
            last_inputs=best_inputs.clone(),
            num_forwards=counts,
            num_backwards=counts - 3,
        )

    return search


def attack(search, *, unit="features", budget=None, net=None, inputs=INPUTS, **options):
    net = Sign() if net is None else net
    return run_attack(search, net, inputs, LABELS, unit=unit, budget=budget, **options)


def test_claims_are_replaced_by_what_the_tensors_show():
    result = attack(searching([1.0, 3.0, 1.0, 2.0]))
    assert result.l0.tolist() == TRUE_L0
    assert result.success.tolist() == [True, True, False, True]
    assert torch.equal(result.adv_inputs[:2], MOVED[:2])
    assert torch.equal(result.adv_inputs[2:], INPUTS[2:])
    assert torch.equal(result.best_inputs, result.adv_inputs)
    assert torch.equal(result.last_inputs, MOVED)


def test_what_was_not_claimed_is_not_success():
    result = attack(searching([torch.inf, 1.0, torch.inf, 0.0]))
    assert result.success.tolist() == [False, True, False, True]
    assert torch.equal(result.best_inputs[0], INPUTS[0])
    assert torch.equal(result.adv_inputs[0], INPUTS[0])


@pytest.mark.parametrize(
    ("budget", "success"), [(1, [False, True, False, True]), (2, [True, True, False, True])]
)
def test_success_is_within_the_budget_and_the_best_may_lie_beyond(budget, success):
    result = attack(searching([2.0, 1.0, 1.0, 0.0]), budget=budget)
    assert result.success.tolist() == success
    assert result.l0.isfinite().tolist() == success
    assert torch.equal(result.best_inputs[:2], MOVED[:2])
    assert torch.equal(result.adv_inputs[0], MOVED[0] if success[0] else INPUTS[0])


def test_without_recheck_a_claim_is_believed_and_one_pass_is_saved():
    search = searching([2.0, 1.0, 1.0, 0.0])
    believed, checked = attack(search, recheck=False), attack(search)
    assert believed.success.tolist() == [True] * 4
    assert believed.l0.tolist() == [2.0, 1.0, 1.0, 0.0]
    assert believed.num_forwards.tolist() == [7] * 4
    assert checked.num_forwards.tolist() == [8] * 4
    assert believed.num_backwards.tolist() == checked.num_backwards.tolist() == [4] * 4


def test_pixels_are_counted_as_pixels():
    inputs = INPUTS.view(4, 3, 1, 1)
    result = attack(
        searching([2.0, 1.0, 1.0, 0.0], MOVED.view(4, 3, 1, 1)), unit="pixels", inputs=inputs
    )
    assert result.l0.tolist() == [1.0, 1.0, torch.inf, 0.0]


def test_targeted_success_is_reaching_the_label():
    result = attack(searching([2.0, 1.0, 1.0, 0.0]), targeted=True)
    assert result.success.tolist() == [False, False, True, False]


class InPlace(nn.Module):
    """A net whose first layer overwrites its input, as a normalisation may."""

    def forward(self, inputs):
        return Sign()(inputs.mul_(2) / 2)


def test_a_net_that_works_in_place_spoils_no_answer():
    def search(logits_of, inputs, labels):
        logits_of(inputs.clone())
        return searching([2.0, 1.0, 1.0, 0.0])(lambda x: x, inputs, labels)

    inputs = INPUTS.clone()
    result = attack(search, net=InPlace(), inputs=inputs)
    assert result.l0.tolist() == TRUE_L0
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(result.adv_inputs[:2], MOVED[:2])


class Answers(nn.Module):
    """Returns a fixed answer, whatever it is asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, inputs):
        return self.answer


def test_nan_is_no_prediction():
    nan = float("nan")
    logits = torch.tensor([[nan, nan], [nan, 1.0], [1.0, nan], [1.0, 0.0], [0.0, torch.inf]])
    for label in (0, 1):
        labels = torch.full((5,), label)
        predictions = torch.tensor([9, 9, 9, 0, 1])
        expected = (predictions != labels) & (predictions < 9)
        assert torch.equal(is_adversarial(logits, labels, targeted=False), expected)
        assert torch.equal(is_adversarial(logits, labels, targeted=True), predictions == labels)


def test_weights_that_autocast_cast_for_the_search_do_not_stay():
    net = nn.Linear(3, 2)

    def search(logits_of, inputs, labels):
        with torch.no_grad():
            return searching([2.0, 1.0, 1.0, 0.0])(logits_of, inputs, labels)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        attack(search, net=net, recheck=False)
        with torch.no_grad():
            net.weight.zero_()
            net.bias.fill_(3.0)
        logits = net(INPUTS)
        logits.float().sum().backward()
    assert (logits == 3).all()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_search_may_differentiate_wherever_it_is_called(mode):
    def search(logits_of, inputs, labels):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not inputs.requires_grad
        delta = torch.zeros_like(inputs, requires_grad=True)
        logits_of(inputs + delta)[:, 1].sum().backward()
        assert torch.equal(delta.grad, torch.ones_like(inputs))
        return searching([2.0, 1.0, 1.0, 0.0])(logits_of, inputs, labels)

    with mode():
        result = attack(search, inputs=INPUTS.clone().requires_grad_())
        assert result.l0.tolist() == TRUE_L0
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)


@pytest.mark.parametrize(
    ("answer", "compared"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_margins_are_never_compared_in_half_precision(answer, compared):
    def search(logits_of, inputs, labels):
        assert logits_of(inputs).dtype == compared
        return searching([torch.inf] * 4)(logits_of, inputs, labels)

    attack(search, net=Answers(torch.zeros(4, 2, dtype=answer)))


def test_eval_mode_restores_every_flag_also_after_an_error():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()))
    net[1][0].training = False
    net[1].training = False
    before = [module.training for module in net.modules()]
    assert set(before) == {True, False}
    with eval_mode(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == before
    with pytest.raises(KeyError), eval_mode(net):
        raise KeyError
    assert [module.training for module in net.modules()] == before


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        torch.rand(()),
        torch.rand(4),
        torch.zeros(0, 3),
        torch.zeros(2, 0),
        torch.zeros(2, 3, 0, 4),
        torch.ones(4, 3, dtype=torch.uint8),
        torch.ones(4, 3, dtype=torch.int64),
        torch.ones(4, 3, dtype=torch.complex64),
    ],
    ids=lambda inputs: f"{inputs.dtype}{list(inputs.shape)}",
)
def test_inputs_that_are_no_float_batch_are_refused(inputs):
    message = r"^expected inputs to be a non-empty float tensor of shape \(N, \.\.\.\), got torch"
    with pytest.raises(InputError, match=message):
        validate_batch(inputs, LABELS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.relu, INPUTS, LABELS), r"^expected `net` to be a torch\.nn\.Module .* got relu"),
        ((nn.Linear, INPUTS, LABELS), r"^expected `net` to be .* got Linear \(type\)"),
        ((nn.Identity(), INPUTS.numpy(), LABELS), "^expected inputs to be a tensor, got ndarray"),
        ((nn.Identity(), INPUTS.tolist(), LABELS), "^expected inputs to be a tensor, got list"),
        ((nn.Identity(), INPUTS, LABELS.tolist()), "^expected labels to be a tensor, got list"),
    ],
)
def test_what_is_no_net_or_no_tensor_is_refused(arguments, message):
    for attack in (SigmaZero(num_steps=1), SigmaZero(num_steps=1, autocast=True)):
        with pytest.raises(InputError, match=message):
            attack(*arguments)


@pytest.mark.parametrize(
    "labels",
    [LABELS[:3], LABELS.unsqueeze(1), LABELS.int(), LABELS.float(), torch.tensor(1)],
    ids=lambda labels: f"{labels.dtype}{list(labels.shape)}",
)
def test_labels_that_are_no_class_indices_are_refused(labels):
    with pytest.raises(
        InputError,
        match=r"^expected labels to be int64 of shape \(4,\), one for each .*, got torch",
    ):
        validate_batch(INPUTS, labels)


@pytest.mark.parametrize("value", [-1e-6, 1 + 1e-6, 255.0, float("inf")])
def test_inputs_outside_the_box_are_refused(value):
    inputs = INPUTS.clone()
    inputs[2, 1] = value
    message = r"^expected inputs in \[0, 1\], got values from .* normalise inside the net"
    with pytest.raises(InputError, match=message) as error:
        validate_batch(inputs, LABELS)
    assert f"{value:.7g}" in str(error.value)  # not rounded to a bound
    validate_batch(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))  # the bounds belong to it


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (torch.zeros(4), r"\(4,\)"),
        (torch.zeros(4, 1), r"\(4, 1\)"),
        (torch.zeros(4, 2, 2), r"\(4, 2, 2\)"),
        ((torch.zeros(4, 2),), "tuple"),
        ({"logits": torch.zeros(4, 2)}, "dict"),
        (None, "NoneType"),
    ],
)
def test_answers_that_are_no_logits_are_refused(answer, found):
    message = rf"^expected the net to return logits of shape \(N, K\), K >= 2, got {found}$"
    with pytest.raises(InputError, match=message):
        validate_logits(answer, LABELS)
    with pytest.raises(InputError, match=message):
        attack(searching([1.0] * 4), net=Answers(answer))


@pytest.mark.parametrize("num_rows", [1, 3, 8])
def test_another_number_of_rows_is_refused(num_rows):
    message = rf"^expected the net to return one row of logits for each of 4 .*\({num_rows}, 2\)$"
    with pytest.raises(InputError, match=message):
        validate_logits(torch.zeros(num_rows, 2), LABELS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_refused(value):
    logits = torch.zeros(4, 2)
    logits[3, 1] = value
    with pytest.raises(InputError, match=r"^the net returns non-finite logits \(NaN or inf\)"):
        validate_logits(logits, LABELS)


@pytest.mark.parametrize(("wrong", "found"), [(2, "0 to 2"), (-1, "-1 to 1"), (10**6, "0 to 10")])
def test_labels_outside_the_classes_are_refused(wrong, found):
    labels = LABELS.clone()
    labels[2] = wrong
    message = f"^expected labels from 0 to 1, the net's classes, got labels from {found}"
    with pytest.raises(InputError, match=message):
        validate_logits(torch.zeros(4, 2), labels)


@pytest.mark.parametrize(("unit", "size"), [("features", 12), ("pixels", 4)])
def test_a_budget_above_the_number_of_units_is_refused(unit, size):
    inputs = torch.rand(4, 3, 2, 2)
    search = searching([0.0] * 4, inputs)
    attack(search, unit=unit, inputs=inputs, budget=size)
    message = f"^expected `budget` to be at most {size}, the {unit} of a sample, got {size + 1}$"
    with pytest.raises(InputError, match=message):
        attack(search, unit=unit, inputs=inputs, budget=size + 1)


def test_hyper_parameters_that_all_attacks_share_are_checked():
    validate_attack("pixels", 1, None)
    validate_attack("features", 10, 1)
    with pytest.raises(InputError, match="expected `unit` to be one of features, pixels, got l2"):
        validate_attack("l2", 1, None)
    with pytest.raises(InputError, match="expected `num_steps` to be at least 1, got 0"):
        validate_attack("features", 0, None)
    with pytest.raises(InputError, match=r"expected `budget` to be a whole number, got 0\.5"):
        validate_attack("features", 1, 0.5)


@pytest.mark.parametrize("value", [SigmaZero, "sigma_zero", None, nn.Linear(2, 2), print, {}])
def test_what_is_no_attack_is_refused(value):
    with pytest.raises(InputError, match=r"^expected `attack` to be an attack such as"):
        require_attack("attack", value)


class Callable:
    unit, budget = "features", None

    def __call__(self, net, inputs, labels):
        return None


@dataclass(frozen=True)
class Silent:
    unit: str = "features"
    budget: int | None = None
    num_steps: int = 1


@dataclass(frozen=True)
class Other(Callable):
    unit: str = "values"
    num_steps: int = 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (SigmaZero, "got the class SigmaZero; call it to make one"),
        ("sigma_zero", "got 'sigma_zero'"),
        (Callable(), "got a Callable, which is no dataclass and has no num_steps"),
        ({"a": 1}, "got a dict; in a config `_target_` has to name its class"),
        (Silent(), "got a Silent, which cannot be called$"),
        (nn.Linear(2, 2), "got a Linear, which is no dataclass and has no unit, no budget, no num"),
        (Found, "got the class Found"),
        (Other(), "`attack.unit` to be one of features, pixels, got values"),
    ],
)
def test_what_an_attack_lacks_is_told_in_one_line(value, message):
    with pytest.raises(InputError, match=message) as caught:
        require_attack("attack", value)
    assert "\n" not in str(caught.value)


def test_an_attack_is_told_by_what_it_has_not_by_its_class():
    assert isinstance(SigmaZero(), Attack)
    assert not isinstance(nn.Linear(2, 2), Attack)


class UndefinedAtZero(nn.Module):
    """NaN where the first feature is 0, else a large margin."""

    def forward(self, inputs):
        sure = inputs[:, :1] / inputs[:, :1]
        return torch.cat([sure, 0 * sure], dim=1)


@pytest.mark.parametrize("tried", [0.0, 0.5])
def test_a_net_without_an_answer_to_what_was_tried_is_told_of(tried):
    inputs, labels = torch.full((4, 3), 0.5), torch.zeros(4, dtype=torch.int64)

    def search(logits_of, inputs, labels):
        logits_of(inputs)
        moved = inputs.clone()
        moved[2, 0] = tried
        logits_of(moved)
        never, passes = torch.full((4,), torch.inf), torch.full((4,), 2)
        return Found(
            best_inputs=inputs,
            best_l0=never,
            last_inputs=moved,
            num_forwards=passes,
            num_backwards=0 * passes,
        )

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_attack(search, UndefinedAtZero(), inputs, labels, unit="features", budget=None)
    expected = ["the net answered NaN"] if tried == 0 else []
    assert [str(each.message)[:20] for each in caught] == expected


@pytest.mark.parametrize("attack_class", [SigmaZero, SparsePGD, PGDL0])
def test_a_net_that_passes_no_gradient_back_is_refused(attack_class):
    net = Sign()
    net.register_forward_hook(lambda net, args, logits: logits.detach())
    labels = net(INPUTS).argmax(dim=1)
    with pytest.raises(InputError, match=r"passes no gradient back .* SparseRS"):
        attack_class(num_steps=3, budget=2)(net, INPUTS, labels)
    assert SparseRS(num_steps=30, budget=3)(net, INPUTS, labels).success.any()


class FrozenBelow(nn.Module):
    """A part that runs under no_grad, and a head that is trained."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, inputs):
        with torch.no_grad():
            known = Sign()(inputs)
        return self.head(known)


@pytest.mark.parametrize(
    "attack_class", [ASLO, BudgetedSigmaZero, GSE, LinSparse, PGDL0, SigmaZero, SparsePGD]
)
def test_a_net_with_a_frozen_part_below_its_head_is_refused(attack_class):
    net, inputs = FrozenBelow(), INPUTS.repeat(1, 3).view(4, 1, 3, 3)
    labels = net(inputs).argmax(dim=1)
    options = {"patch": 1} if attack_class is GSE else {}
    with pytest.raises(InputError, match=r"passes no gradient back .* SparseRS"):
        attack_class(num_steps=20, budget=2, **options)(net, inputs, labels)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_frozen_script_is_attacked():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).eval()
    frozen = torch.jit.freeze(torch.jit.trace(net, INPUTS))
    labels = net(INPUTS).argmax(dim=1)
    attack = SigmaZero(num_steps=10)
    assert torch.equal(attack(frozen, INPUTS, labels).l0, attack(net, INPUTS, labels).l0)


@pytest.mark.parametrize(
    "attack",
    [
        AttackMix(num_steps=20),
        LinSparse(num_steps=8, dense_steps=2),
        SparseAutoAttack(num_steps=10, num_queries=20),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_defaults_of_torch_change_nothing(attack):
    """Neither the default device nor the default dtype."""
    labels = Sign()(INPUTS).argmax(dim=1)
    expected = attack(Sign(), INPUTS, labels)
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    try:
        result = attack(Sign(), INPUTS, labels)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert torch.equal(result.adv_inputs, expected.adv_inputs)
    assert torch.equal(result.last_inputs, expected.last_inputs)


def test_rows_leave_with_one_question_to_the_device():
    search = Search.at_zero(INPUTS, LABELS)
    with HostReads() as mode:
        left = search.where(LABELS == 1)
    assert mode.num_reads == 1
    assert left.index.tolist() == [1, 3]
    assert torch.equal(left.inputs, INPUTS[[1, 3]])


def test_a_label_outside_the_classes_is_refused_on_the_first_pass():
    passes = []
    net = nn.Linear(3, 2)
    net.register_forward_hook(lambda net, args, logits: passes.append(len(logits)))
    labels = torch.tensor([0, 1, 0, 2])
    with pytest.raises(InputError, match=r"labels from 0 to 1, .* got labels from 0 to 2"):
        SigmaZero(num_steps=3, batch_size=1)(net, INPUTS, labels)
    assert passes == [1]


class Noisy(nn.Module):
    """Never sure of anything."""

    def forward(self, inputs):
        return self.scale * torch.randn(len(inputs), 2) + inputs[:, :2]


@pytest.mark.parametrize(
    ("scale", "num_samples", "told"), [(10.0, 64, True), (0.0, 64, False), (10.0, 4, False)]
)
def test_a_net_that_answers_at_random_is_told_of(scale, num_samples, told, recwarn):
    net = Noisy()
    net.scale = scale
    inputs = torch.rand(num_samples, 3, generator=torch.Generator().manual_seed(0))
    labels = inputs[:, :2].argmax(dim=1)
    attack = SparseAutoAttack(num_steps=5, num_queries=5, budget=2)
    for _ in range(3):
        attack(net, inputs, labels)
    texts = [str(warning.message) for warning in recwarn.list]
    assert all("no longer fool the net" in text for text in texts)
    assert len(set(texts)) == told  # one text, which Python shows once
