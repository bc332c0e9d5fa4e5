"""Answers of attacks that do not go through ``run_attack``: what they claim, they have to show."""

import re
from dataclasses import replace

import pytest
import torch
from toy_training import toy_data, toy_net

from sztrain.attacks import AttackMix, SigmaZero, SparseAutoAttack
from sztrain.attacks.answers import check_answer
from sztrain.errors import InputError

INPUTS, LABELS = toy_data(6).tensors
ATTACK = SigmaZero(num_steps=30)
RESULT = ATTACK(toy_net(), INPUTS, LABELS)

MOST = int(RESULT.l0.argmax())


def changed(**parts):
    return replace(RESULT, **parts)


def edited(tensor, index, value):
    copy = tensor.clone()
    copy[index] = value
    return copy


@pytest.mark.parametrize("unit", ["features", "pixels"])
@pytest.mark.parametrize("budget", [None, 3])
@pytest.mark.parametrize("kind", [SigmaZero, SparseAutoAttack, AttackMix])
def test_true_answers_pass(kind, budget, unit):
    attack = kind(num_steps=12, budget=budget, unit=unit)
    check_answer(attack, attack(toy_net(), INPUTS, LABELS), INPUTS)


def test_half_precision_passes():
    inputs = INPUTS.bfloat16()
    check_answer(ATTACK, ATTACK(toy_net().bfloat16(), inputs, LABELS), inputs)


@pytest.mark.parametrize(
    ("answer", "fragment"),
    [
        (None, "a NoneType, which is no AttackResult"),
        (INPUTS, "a Tensor, which is no AttackResult"),
        (changed(success=RESULT.success.float()), "`success` of torch.float32 instead of"),
        (changed(success=RESULT.success[:5]), r"`success` of shape \(5,\) instead of \(6,\)"),
        (changed(l0=RESULT.l0[:, None]), r"`l0` of shape \(6, 1\)"),
        (changed(num_forwards=30), "`num_forwards` of shape int"),
        (changed(last_inputs=INPUTS[:, :1]), r"`last_inputs` of shape \(6, 1, 4, 4\)"),
        (changed(adv_inputs=edited(RESULT.adv_inputs, 0, 1.5)), r"outside \[0, 1\]"),
        (changed(last_inputs=edited(RESULT.last_inputs, 5, -0.1)), r"outside \[0, 1\]"),
        (changed(best_inputs=edited(RESULT.best_inputs, 5, torch.nan)), r"outside \[0, 1\]"),
        (changed(l0=edited(RESULT.l0, 1, RESULT.l0[1] + 1)), "how many features"),
        (changed(l0=edited(RESULT.l0, 1, torch.nan)), "how many features"),
        (changed(success=edited(RESULT.success, 1, False)), "how many features"),
        (
            changed(
                success=edited(RESULT.success, MOST, False), l0=edited(RESULT.l0, MOST, torch.inf)
            ),
            "not the clean input where it failed",
        ),
        (changed(last_inputs=RESULT.last_inputs.to("meta")), "`last_inputs` on meta instead of"),
    ],
)
def test_what_is_no_answer_or_claims_too_much_is_refused(answer, fragment):
    assert RESULT.success.all()
    with pytest.raises(InputError, match=f"SigmaZero answered .*{fragment}.*run_attack"):
        check_answer(ATTACK, answer, INPUTS)


def test_success_beyond_the_budget_is_refused():
    most = int(RESULT.l0.max())
    check_answer(replace(ATTACK, budget=most), RESULT, INPUTS)
    with pytest.raises(InputError, match=f"success beyond its budget, {most - 1};"):
        check_answer(replace(ATTACK, budget=most - 1), RESULT, INPUTS)


@pytest.mark.parametrize(
    ("value", "told"),
    [(1 + 1e-6, "values from .* to 1.000001;"), (-0.5, "values from -0.5 to"), (torch.nan, "NaN;")],
)
def test_inputs_outside_their_range_are_no_fault_of_the_attack(value, told):
    inputs = edited(INPUTS, (0, 0, 0, 0), value)
    answer = changed(adv_inputs=inputs, last_inputs=inputs, best_inputs=inputs, l0=0 * RESULT.l0)
    with pytest.raises(InputError, match=rf"^expected inputs in \[0, 1\], got {told}") as caught:
        check_answer(ATTACK, answer, inputs)
    assert re.search("look for (it|them) in the data", str(caught.value))


def test_the_unit_is_the_attacks():
    assert (RESULT.l0 > 1).any()
    with pytest.raises(InputError, match="how many pixels"):
        check_answer(replace(ATTACK, unit="pixels"), everywhere(), INPUTS)


def everywhere():
    """All channels of one pixel, counted as features."""
    adv = edited(INPUTS, (slice(None), slice(None), 0, 0), 0.0)
    counts = (adv != INPUTS).flatten(1).sum(dim=1).float()
    return changed(adv_inputs=adv, success=counts > 0, l0=counts)
