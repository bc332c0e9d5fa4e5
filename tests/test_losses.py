"""Losses against the formulas of their papers, written out for one sample at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from sztrain.errors import InputError
from sztrain.losses import (
    difference_of_logits,
    smooth_l0,
    smooth_l0_gradient,
    trades_kl,
    wrong_class_margin,
)

HALVES = [torch.bfloat16, torch.float16]
SEEDS = st.integers(0, 2**31)


def normal(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def margin_by_hand(row, label):
    return row[label] - max(value for index, value in enumerate(row) if index != label)


@given(SEEDS, st.integers(1, 5), st.integers(2, 6))
@settings(deadline=None, max_examples=50)
def test_difference_of_logits_is_the_margin_of_the_label(seed, num_samples, num_classes):
    logits = 3 * normal(seed, num_samples, num_classes)
    labels = torch.arange(seed, seed + num_samples) % num_classes
    margins = difference_of_logits(logits, labels)
    by_hand = [margin_by_hand(*pair) for pair in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert margins.tolist() == by_hand
    predictions = logits.argmax(dim=1)
    assert torch.equal(margins < 0, predictions != labels)


def test_difference_of_logits_at_a_tie_and_below_zero():
    logits = torch.tensor([[2.0, 2.0, 1.0], [-5.0, -7.0, -6.0], [1.0, 4.0, 3.0]])
    assert difference_of_logits(logits, torch.tensor([0, 0, 0])).tolist() == [0.0, 1.0, -3.0]


def test_difference_of_logits_leaves_its_arguments_alone():
    logits, labels = normal(0, 4, 3), torch.tensor([0, 1, 2, 0])
    kept = logits.clone(), labels.clone()
    difference_of_logits(logits, labels)
    assert torch.equal(logits, kept[0])
    assert torch.equal(labels, kept[1])


def test_gradient_of_the_margin_is_one_for_the_label_and_minus_one_for_its_rival():
    logits = torch.tensor([[1.0, 4.0, 3.0]], requires_grad=True)
    difference_of_logits(logits, torch.tensor([1])).sum().backward()
    assert logits.grad.tolist() == [[0.0, 1.0, -1.0]]
    assert gradcheck(
        lambda x: difference_of_logits(x, torch.tensor([0, 2])),
        normal(1, 2, 3).requires_grad_(),
    )


def smooth_l0_by_hand(delta, sigma, unit):
    """Eq. 7 of arXiv:2402.01879, one sum a sample."""
    square = delta**2
    if unit == "pixels":
        square = square.sum(dim=1)
    return (square / (square + sigma)).flatten(1).sum(dim=1)


@pytest.mark.parametrize("unit", ["features", "pixels"])
def test_smooth_l0_is_that_of_equation_7_and_tends_to_the_l0_norm(unit):
    delta = normal(3, 5, 3, 2, 4) * (normal(4, 5, 3, 2, 4) > 0.5)
    kept = delta.clone()
    torch.testing.assert_close(smooth_l0(delta, 0.1, unit), smooth_l0_by_hand(delta, 0.1, unit))
    changed = delta != 0 if unit == "features" else (delta != 0).any(dim=1)
    counts = changed.flatten(1).sum(dim=1).double()
    torch.testing.assert_close(smooth_l0(delta, 1e-12, unit), counts)
    assert torch.equal(delta, kept)


@pytest.mark.parametrize("unit", ["features", "pixels"])
@pytest.mark.parametrize("sigma", [1e-3, 1e-1, 4.0])
def test_smooth_l0_gradient_is_that_of_equation_7(unit, sigma):
    scales = torch.tensor([0, 1e-3, 0.03, 0.3, 1.0]).view(5, 1, 1, 1)
    delta = (scales * normal(2, 5, 3, 2, 4)).requires_grad_()
    (expected,) = torch.autograd.grad(smooth_l0_by_hand(delta, sigma, unit).sum(), delta)
    found = smooth_l0_gradient(delta.detach(), sigma, unit)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    assert not found[0].any()  # nothing pulls at what is zero


def test_smooth_l0_gradient_at_known_values():
    delta = torch.tensor([[[[3.0]], [[0.0]], [[4.0]]]])  # one pixel
    assert smooth_l0_gradient(delta, 1.0, "features").flatten().tolist() == pytest.approx(
        [6 / 10**2, 0, 8 / 17**2]
    )
    assert smooth_l0_gradient(delta, 1.0, "pixels").flatten().tolist() == pytest.approx(
        [6 / 26**2, 0, 8 / 26**2]
    )


@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 4), (2, 3, 2, 2), (2, 1, 2, 2, 2)])
def test_smooth_l0_gradient_takes_any_rank_counts_features_and_changes_nothing(shape):
    delta = normal(4, *shape)
    kept = delta.clone()
    found = smooth_l0_gradient(delta, 1e-2)
    assert torch.equal(found.flatten(1), smooth_l0_gradient(delta.flatten(1), 1e-2, "features"))
    assert torch.equal(delta, kept)


def softmax_by_hand(row):
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def kl_by_hand(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_trades_kl_is_the_divergence_from_the_clean_to_the_adversarial_prediction():
    clean, adv = 2 * normal(6, 5, 4), 2 * normal(7, 5, 4)
    pairs = list(zip(clean.tolist(), adv.tolist(), strict=True))
    by_hand = [kl_by_hand(softmax_by_hand(p), softmax_by_hand(q)) for p, q in pairs]
    turned = [kl_by_hand(softmax_by_hand(q), softmax_by_hand(p)) for p, q in pairs]
    assert trades_kl(clean, adv).tolist() == pytest.approx(by_hand, rel=1e-10)
    assert by_hand != pytest.approx(turned, rel=1e-3)  # else the order would not be tested


def test_trades_kl_of_two_known_distributions():
    clean = torch.tensor([[0.0, math.log(3.0)]])  # 1/4, 3/4
    adv = torch.tensor([[0.0, 0.0]])  # 1/2, 1/2
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert trades_kl(clean, adv).item() == pytest.approx(expected, rel=1e-6)


@given(SEEDS)
@settings(deadline=None, max_examples=30)
def test_trades_kl_is_positive_zero_for_equals_and_blind_to_shifts(seed):
    clean, adv = 4 * normal(seed, 3, 5), 4 * normal(seed + 1, 3, 5)
    assert (trades_kl(clean, adv) > 0).all()
    assert (trades_kl(clean, clean + 7).abs() < 1e-12).all()
    assert torch.allclose(trades_kl(clean + 3, adv - 5), trades_kl(clean, adv), rtol=1e-9)


def test_trades_kl_stays_finite_where_a_prediction_is_certain():
    clean, adv = torch.tensor([[200.0, 0.0]]), torch.tensor([[0.0, 200.0]])
    assert trades_kl(clean, adv).item() == pytest.approx(200.0, rel=1e-6)


def test_trades_kl_has_the_gradient_of_its_value_in_both_arguments():
    arguments = normal(8, 2, 3).requires_grad_(), normal(9, 2, 3).requires_grad_()
    assert gradcheck(trades_kl, arguments)


@given(SEEDS, st.integers(1, 5), st.integers(2, 6))
@settings(deadline=None, max_examples=50)
def test_wrong_class_margin_is_that_of_the_formula(seed, num_samples, num_classes):
    logits = 3 * normal(seed, num_samples, num_classes)
    labels = torch.arange(seed, seed + num_samples) % num_classes
    found = wrong_class_margin(logits, labels)
    for row, label, margin in zip(logits.tolist(), labels.tolist(), found.tolist(), strict=True):
        total = sum(math.exp(value) for value in row)
        wrong = max(math.exp(value) / total for k, value in enumerate(row) if k != label)
        assert margin == pytest.approx(-math.log(1 - wrong), rel=1e-9)


def test_wrong_class_margin_is_finite_where_the_net_is_sure_and_wrong():
    logits = torch.tensor([[0.0, 500.0, 1.0]], requires_grad=True)
    margin = wrong_class_margin(logits, torch.tensor([0]))
    assert margin.item() == pytest.approx(500 - math.log(1 + math.e))
    margin.backward()
    assert logits.grad.isfinite().all()
    assert gradcheck(
        lambda x: wrong_class_margin(x, torch.tensor([2, 0])), normal(3, 2, 4).requires_grad_()
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_wrong_class_margin_of_half_precision_is_that_of_the_rounded_logits(dtype):
    logits = torch.tensor([[4.5, 0.0, -1.0], [9.0, 0.0, 1.0], [1.0, 8.0, 0.0]]).to(dtype)
    labels = torch.tensor([0, 0, 1])
    found = wrong_class_margin(logits, labels)
    assert torch.equal(found, wrong_class_margin(logits.float(), labels))
    # Each near p of the best rival, and no zero where two sums of exponentials are nearly equal.
    assert found.tolist() == pytest.approx([0.0110, 3.35e-4, 9.11e-4], rel=0.01)


@pytest.mark.parametrize("dtype", HALVES)
def test_trades_kl_of_half_precision_is_that_of_the_rounded_logits(dtype):
    clean = (3 * normal(10, 50, 10)).to(dtype)
    adv = (clean.float() + 0.05 * normal(11, 50, 10).float()).to(dtype)
    found = trades_kl(clean, adv)
    assert torch.equal(found, trades_kl(clean.float(), adv.float()))
    assert (found > 0).all()
    assert found.max() < 0.01


@pytest.mark.parametrize("penalty", [smooth_l0, smooth_l0_gradient])
def test_an_unknown_unit_is_refused(penalty):
    with pytest.raises(InputError, match=r"^expected `unit` to be one of .*, got pixel$"):
        penalty(torch.ones(1, 3, 2, 2), 0.1, "pixel")
