"""The loss of each method against its formula, written out in float64."""

import math
from dataclasses import dataclass

import pytest
import torch
from toy_training import toy_data, toy_net

from sztrain.attacks import AttackMix
from sztrain.errors import InputError
from sztrain.training import MART, TRADES, SparseAT, StandardTraining, TrainingExamples


@dataclass(frozen=True)
class Unbounded:
    """An attack that cannot be told a budget."""

    num_steps: int = 1
    unit = "features"
    budget = None

    def __call__(self, net, inputs, labels):
        raise NotImplementedError


INPUTS, LABELS = toy_data(7).tensors
INPUTS = INPUTS.double()
ADV_INPUTS = 1 - INPUTS
EXAMPLES = TrainingExamples(inputs=ADV_INPUTS, broken=torch.zeros(7, dtype=torch.bool))


def log_softmax(logits):
    return logits - logits.exp().sum(dim=1, keepdim=True).log()


def cross_entropy(logits, smoothing=0.0):
    log_p = log_softmax(logits)
    true = log_p[range(7), LABELS]
    return -((1 - smoothing) * true + smoothing * log_p.mean(dim=1)).mean()


def by_hand(method, net, smoothing=0.0, clean_share=None, beta=None):
    clean, adv = net(INPUTS), net(ADV_INPUTS)
    clean_loss = cross_entropy(clean, smoothing)
    if method is StandardTraining:
        return clean_loss
    if method is SparseAT:
        return (1 - clean_share) * cross_entropy(adv, smoothing) + clean_share * clean_loss
    log_p, log_q = log_softmax(clean), log_softmax(adv)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    if method is TRADES:
        return clean_loss + beta * divergence.mean()
    wrong = torch.stack([q[torch.arange(3) != y].max() for q, y in zip(log_q, LABELS, strict=True)])
    doubt = 1 - log_p.exp()[range(7), LABELS]
    boosted = cross_entropy(adv, smoothing) - (1 - wrong.exp()).log().mean()
    return boosted + beta * (divergence * doubt).mean()


def gradients(loss, net):
    return torch.autograd.grad(loss, list(net.parameters()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("method_class", "options"),
    [
        (StandardTraining, {}),
        (SparseAT, {"clean_share": 0}),
        (SparseAT, {"clean_share": 0.5}),
        (SparseAT, {"clean_share": 1}),
        (TRADES, {"beta": 0}),
        (TRADES, {"beta": 6.0}),
        (MART, {"beta": 0}),
        (MART, {"beta": 5.0}),
    ],
)
def test_batch_loss_and_its_gradient_are_those_of_the_formula(method_class, options, smoothing):
    net = toy_net().double()
    method = method_class(net, num_classes=3, label_smoothing=smoothing, **options)
    method.craft = lambda inputs, labels: EXAMPLES
    loss, clean_logits = method.batch_loss(INPUTS, LABELS)
    assert torch.equal(clean_logits, net(INPUTS))
    expected = by_hand(method_class, net, smoothing, **options)
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(gradients(loss, net), gradients(expected, net), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("clean_share", "examples", "with_gradient"),
    [(0.5, EXAMPLES, [True, True]), (0, EXAMPLES, [False, True]), (0, None, [True])],
)
def test_clean_images_that_do_not_count_cost_no_backward_pass(clean_share, examples, with_gradient):
    net, seen = toy_net().double(), []
    net.register_forward_hook(lambda net, inputs, logits: seen.append(logits.requires_grad))
    method = SparseAT(net, num_classes=3, clean_share=clean_share)
    method.craft = lambda inputs, labels: examples
    method.batch_loss(INPUTS, LABELS)
    assert seen == with_gradient


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method_class", [SparseAT, TRADES, MART])
def test_half_precision_logits_lose_nothing_more_in_the_loss(method_class, dtype):
    # A net that is nearly sure: small losses, doubts and divergences.
    clean = (8 * torch.eye(3)[LABELS] + INPUTS.float().flatten(1)[:, :3]).to(dtype)
    adv = (clean.float() + 0.05 * INPUTS.float().flatten(1)[:, 3:6]).to(dtype)
    method = method_class(toy_net(), num_classes=3)
    found = method.sample_losses(clean, adv, LABELS, LABELS)
    expected = method.sample_losses(clean.float(), adv.float(), LABELS, LABELS)
    assert torch.equal(found, expected)
    assert (found > 0).all()


def test_defaults_are_those_of_the_documentation():
    method = SparseAT(toy_net(), num_classes=3)
    assert method.clean_share == 0.5
    assert method.attack == AttackMix(num_steps=20, recheck=False)
    assert method.training_budget.full is None
    assert method.unbroken == "last"
    assert TRADES(toy_net(), num_classes=3).beta == 6
    assert MART(toy_net(), num_classes=3).beta == 5


def test_smoothing_is_of_the_training_alone():
    method = StandardTraining(toy_net().double(), num_classes=3, label_smoothing=0.3)
    logits = method(INPUTS)
    torch.testing.assert_close(
        method.cross_entropies(logits, LABELS).mean(), cross_entropy(logits, 0.3)
    )
    method.eval()
    torch.testing.assert_close(method.cross_entropies(logits, LABELS).mean(), cross_entropy(logits))


@pytest.mark.parametrize(
    ("method_class", "options", "message"),
    [
        (StandardTraining, {"num_classes": 1}, "`num_classes` to be at least 2, got 1"),
        (StandardTraining, {"label_smoothing": 1.0}, r"`label_smoothing` to be in \[0, 1\)"),
        (StandardTraining, {"label_smoothing": math.nan}, "`label_smoothing` to be in"),
        (SparseAT, {"clean_share": 1.1}, r"`clean_share` to be in \[0, 1\], got 1.1"),
        (SparseAT, {"clean_share": -0.1}, "`clean_share` to be in"),
        (SparseAT, {"budget": 0}, "`budget` to be at least 1, got 0"),
        (SparseAT, {"budget": 1.5}, "`budget` to be a whole number, got 1.5"),
        (SparseAT, {"unbroken": "worst"}, "`unbroken` to be one of best, last, got worst"),
        (SparseAT, {"warmup_epochs": -1}, "`warmup_epochs` to be at least 0, got -1"),
        (SparseAT, {"ramp_epochs": -1}, "`ramp_epochs` to be at least 0, got -1"),
        (SparseAT, {"budget_multiplier": 0.5, "budget": 1}, "`budget_multiplier` to be at least 1"),
        (SparseAT, {"budget_multiplier": 2}, "`budget` to be a whole number, by which budget_mul"),
        (SparseAT, {"budget_schedule": "gauge"}, "`budget` to be a whole number, by which budget"),
        (SparseAT, {"budget_schedule": "x"}, "`budget_schedule` to be one of ramp, fixed, gauge"),
        (SparseAT, {"noise": -1}, "`noise` to be at least 0, got -1"),
        (SparseAT, {"noise": 2}, "`budget` to be a number, by which `noise` goes, got None"),
        (SparseAT, {"soft_labels_from": 1.5}, r"`soft_labels_from` to be in \[0, 1\], got 1.5"),
        (
            SparseAT,
            {"soft_labels_from": 0.5, "soft_labels_momentum": -1},
            r"`soft_labels_momentum` to be in \[0, 1\], got -1",
        ),
        (SparseAT, {"attack": "sigma_zero"}, "`attack` to be an attack"),
        (SparseAT, {"attack": Unbounded()}, "take a `budget`, .* got Unbounded, whose budget"),
        (TRADES, {"beta": -1}, "`beta` to be at least 0, got -1"),
        (MART, {"beta": -1}, "`beta` to be at least 0, got -1"),
        (TRADES, {"beta": math.nan}, "`beta` to be at least 0, got nan"),
    ],
)
def test_arguments_out_of_range_are_refused(method_class, options, message):
    with pytest.raises(InputError, match=message):
        method_class(toy_net(), **{"num_classes": 3} | options)


def test_budget_larger_than_a_sample_is_refused():
    method = SparseAT(toy_net(), num_classes=3, budget=33)
    method.check_budget((3, 4, 4))
    with pytest.raises(InputError, match="`budget` to be at most 32, the features of a sample"):
        method.check_budget((2, 4, 4))
    SparseAT(toy_net(), num_classes=3).check_budget((1, 1, 1))
