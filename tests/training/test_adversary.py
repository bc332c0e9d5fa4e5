"""Which example a sample trains on, case by case and as properties of real attacks."""

from dataclasses import dataclass

import pytest
import torch
from toy_training import NUM_CLASSES, SHAPE, toy_data, toy_net

from sztrain.attacks import SigmaZero
from sztrain.errors import InputError
from sztrain.norms import l0_norm
from sztrain.training import craft_examples
from sztrain.types import AttackResult

INPUTS = torch.full((4, 3, 1, 4), 0.5)
LABELS = torch.zeros(4, dtype=torch.int64)


def moved(*changes):
    """One image of three channels and four pixels, `(channel, pixel, value)` set."""
    image = torch.full((3, 1, 4), 0.5)
    for channel, pixel, value in changes:
        image[channel, 0, pixel] = value
    return image


CLEAN = moved()
BROKEN = moved((0, 1, 0.0))
# Three features in three pixels, the last the largest, then the first.
BEST = moved((0, 0, 0.8), (1, 1, 0.6), (2, 2, 0.0))
LAST = moved((0, 3, 0.9), (1, 3, 0.9), (2, 0, 1.0))
UNUSED = moved((0, 0, 1.0), (0, 1, 1.0), (0, 2, 1.0), (0, 3, 1.0))


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Samples: broken, misclassified from the start, best beyond the budget, never adversarial."""

    unit: str = "features"
    budget: int | None = None
    num_steps: int = 1

    def __call__(self, net, inputs, labels):
        success = torch.tensor([True, True, False, False])
        return AttackResult(
            adv_inputs=torch.stack([BROKEN, CLEAN, CLEAN, CLEAN]),
            success=success,
            l0=torch.tensor([1.0, 0.0, torch.inf, torch.inf]),
            num_forwards=LABELS,
            num_backwards=LABELS,
            last_inputs=torch.stack([UNUSED, UNUSED, LAST, LAST]),
            best_inputs=torch.stack([BROKEN, CLEAN, BEST, CLEAN]),
        )


def test_what_an_adversary_does_not_show_is_refused():
    attack = Answering(budget=1)
    object.__setattr__(attack, "unit", "pixels")
    craft_examples(attack, None, INPUTS, LABELS)
    object.__setattr__(attack, "budget", 0)
    with pytest.raises(InputError, match="Answering answered success beyond its budget, 0"):
        craft_examples(attack, None, INPUTS, LABELS)


def crafted(unbroken, **attack):
    examples = craft_examples(Answering(**attack), None, INPUTS, LABELS, unbroken=unbroken)
    assert examples.broken.tolist() == [True, True, False, False]
    # Broken samples train on what the attack found, misclassified ones on the clean image.
    assert torch.equal(examples.inputs[0], BROKEN)
    assert torch.equal(examples.inputs[1], CLEAN)
    return examples.inputs[2:]


def test_unbroken_trains_on_the_best_cut_to_the_budget():
    with_best, without = crafted("best", budget=2)
    torch.testing.assert_close(with_best, moved((0, 0, 0.8), (2, 2, 0.0)))
    torch.testing.assert_close(without, moved((0, 3, 0.9), (2, 0, 1.0)))


def test_unbroken_trains_on_the_last_iterate_where_asked():
    for found in crafted("last", budget=2):
        torch.testing.assert_close(found, moved((0, 3, 0.9), (2, 0, 1.0)))


def test_budget_in_pixels_keeps_whole_pixels():
    with_best, without = crafted("best", budget=1, unit="pixels")
    torch.testing.assert_close(with_best, moved((2, 2, 0.0)))
    # 0.4 in two channels is further away than 0.5 in one.
    torch.testing.assert_close(without, moved((0, 3, 0.9), (1, 3, 0.9)))
    _, without = crafted("best", budget=2, unit="pixels")
    torch.testing.assert_close(without, LAST)


@pytest.mark.parametrize(("unbroken", "expected"), [("best", BEST), ("last", LAST)])
def test_without_a_budget_nothing_is_cut(unbroken, expected):
    found, without = crafted(unbroken)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(without, LAST)


def test_default_is_the_last_iterate():
    examples = craft_examples(Answering(budget=2), None, INPUTS, LABELS)
    assert torch.equal(examples.inputs[2:], crafted("last", budget=2))


@pytest.mark.parametrize("unit", ["features", "pixels"])
@pytest.mark.parametrize("unbroken", ["best", "last"])
@pytest.mark.parametrize("num_steps", [1, 4, 30])
@pytest.mark.parametrize("budget", [1, 3, None])
def test_examples_of_a_real_attack(unit, unbroken, num_steps, budget):
    inputs, labels = toy_data(30).tensors
    inputs[:5] = inputs[:5].round()  # the box is touched
    net = toy_net()
    labels[5:10] = (net(inputs[5:10]).argmax(dim=1) + 1) % NUM_CLASSES  # misclassified
    attack = SigmaZero(num_steps=num_steps, budget=budget, unit=unit)
    examples = craft_examples(attack, net, inputs, labels, unbroken=unbroken)
    assert examples.inputs.shape == (30, *SHAPE)
    assert not examples.inputs.requires_grad
    assert examples.inputs.min() >= 0
    assert examples.inputs.max() <= 1
    changed = l0_norm(examples.inputs - inputs, unit)
    if budget is not None:
        assert (changed <= budget).all()
    wrong = net(examples.inputs).argmax(dim=1) != labels
    assert wrong[examples.broken].all()
    assert torch.equal(examples.inputs[5:10], inputs[5:10])
    assert examples.broken[5:10].all()
    if num_steps > 1:
        assert (changed[~examples.broken] > 0).all()
