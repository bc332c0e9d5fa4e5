"""Tallies of attacked batches against numpy, over all samples by hand."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from toy_training import INF, SHAPE, ScriptedAttack, toy_data, toy_net

from sztrain.attacks import SigmaZero, SparsePGD
from sztrain.errors import InputError
from sztrain.evaluation.examples import examples_of
from sztrain.evaluation.measurement import Tally, measure_robustness
from sztrain.evaluation.runner import AttackedBatch, attack_batches
from sztrain.types import AttackResult

IMAGES, LABELS = toy_data(11).tensors
BATCHES = list(zip(IMAGES.split(4), LABELS.split(4), strict=True))
SCRIPT = ((0.0, 3.0, INF, 5.0), (5.0, INF, 16.0, 1.0), (2.0, 2.0, 0.0))
l0_values = np.array([value for row in SCRIPT for value in row])


def tally(unit="features", budgets=(2, 5), num_examples=0, net=None, attack=None):
    attack = attack or ScriptedAttack(script=SCRIPT, unit=unit)
    net = net or toy_net()
    found = Tally(SHAPE, unit, budgets, num_examples=num_examples)
    for batch in attack_batches(net, attack, BATCHES):
        found.add(net, batch)
    return found


@pytest.mark.parametrize(("unit", "suffix", "d"), [("features", "", 32), ("pixels", "_px", 16)])
def test_figures_are_those_of_numpy(unit, suffix, d):
    measurement = tally(unit).measurement()
    broken = l0_values[np.isfinite(l0_values)]
    expected = {
        f"median_l0{suffix}": np.median(l0_values),
        f"mean_l0{suffix}": broken.mean(),
        "asr_inf": len(broken) / 11,
    }
    for k in (2, 5):
        expected[f"asr{suffix}@{k}"] = (l0_values <= k).mean()
        expected[f"robust_acc{suffix}@{k}"] = (l0_values > k).mean()
    assert measurement.values == pytest.approx(expected)
    assert all(type(value) is float for value in measurement.values.values())
    curve = [(l0_values > k).mean() for k in range(d + 1)]
    torch.testing.assert_close(measurement.curve, torch.tensor(curve, dtype=torch.float32))
    assert measurement.unit == unit
    assert measurement.num_samples == 11
    assert measurement.examples is None


def test_a_net_of_ones_own_is_measured_in_one_call():
    attack = ScriptedAttack(script=SCRIPT)
    loader = DataLoader(TensorDataset(IMAGES, LABELS, torch.arange(11)), batch_size=4)
    measured = measure_robustness(toy_net(), attack, loader, budgets=(2, 5), num_examples=6)
    expected = tally(num_examples=6).measurement()
    assert measured.values == expected.values
    assert torch.equal(measured.curve, expected.curve)
    assert torch.equal(measured.examples.inputs, expected.examples.inputs)


def test_batches_of_another_make_are_those_of_the_gauge():
    named = [{"image": images, "label": labels.int()} for images, labels in BATCHES]
    others = [(labels, images) for images, labels in BATCHES]
    for batches, hook in ((named, None), (others, lambda batch: (batch[1], batch[0]))):
        attack = ScriptedAttack(script=SCRIPT)
        measured = measure_robustness(
            toy_net(), attack, batches, budgets=(2, 5), batch_to_inputs=hook
        )
        assert measured.values == tally().measurement().values


@pytest.mark.parametrize(
    ("attack", "batches", "budgets", "message"),
    [
        (SigmaZero(), [], (2,), "`batches` to hold samples, got none"),
        (SigmaZero(), BATCHES, (2, 33), "`budgets` to be at most 32, the features of a sample"),
        (SigmaZero(budget=4), BATCHES, (2, 5), "`budgets` to be at most 4, beyond which"),
        (SigmaZero(targeted=True), BATCHES, (), "`attack` to be untargeted"),
        (SparsePGD(lean=True), BATCHES, (), "`attack` to judge, got lean=True"),
        (toy_net, BATCHES, (), "`attack` to be an attack such as"),
        (SigmaZero(), BATCHES, 10, r"`budgets` to be several, such as \(10, 50\), got 10"),
        (SigmaZero(), [IMAGES], (), "pairs of inputs and labels, .* got Tensor; give batch_to_inp"),
        (
            SigmaZero(),
            [{"image": IMAGES.numpy(), "label": LABELS}],
            (),
            r"name them .*, each a tensor, got dict of image \(ndarray\), label; give batch_to",
        ),
        (SigmaZero(), BATCHES, ["2"], "`budgets` to be a whole number, got '2'"),
        (SigmaZero(budget=4), BATCHES, ["2"], "`budgets` to be a whole number, got '2'"),
        (SigmaZero(), BATCHES, [None], "`budgets` to be a whole number, got None"),
        (SigmaZero(), [((255 * IMAGES).byte(), LABELS)], (), "inputs to be .* float .* torch.uint"),
        (SigmaZero(), [(255 * IMAGES, LABELS)], (), r"inputs in \[0, 1\], got values from"),
        (SigmaZero(), [(IMAGES, LABELS.float())], (), "labels to be int64 .* got torch.float32"),
        (SigmaZero(), [(IMAGES[:0], LABELS[:0])], (), "inputs to be a non-empty float tensor"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_pass(attack, batches, budgets, message):
    def never(net, inputs):
        raise AssertionError("the net was asked")

    net = toy_net()
    net.register_forward_pre_hook(never)
    with pytest.raises(InputError, match=message):
        measure_robustness(net, attack, batches, budgets=budgets)


def test_what_is_no_net_is_refused():
    with pytest.raises(InputError, match=r"`net` to be a torch.nn.Module .* got toy_net \(func"):
        measure_robustness(toy_net, SigmaZero(), BATCHES)


@pytest.mark.parametrize("budgets", [[2, 5], (2, 5), {2: "a", 5: "b"}, np.array([2, 5])])
@pytest.mark.parametrize("once", [False, True])
def test_budgets_may_come_in_any_form_even_one_that_is_read_once(budgets, once):
    budgets = (k for k in budgets) if once else budgets
    attack = ScriptedAttack(script=((0.0, 3.0, INF, 5.0),))
    measured = measure_robustness(toy_net(), attack, BATCHES[:1], budgets=budgets)
    assert measured.values["robust_acc@2"] == 0.75
    assert measured.values["asr@5"] == 0.75


@pytest.mark.parametrize(
    ("budgets", "told"), [((2, 5), "2"), ((4, 2, 5), "2, 4"), ((5,), None), ((), None)]
)
def test_a_budget_below_the_attacks_own_is_none_that_it_tried(budgets, told):
    attack = ScriptedAttack(script=((0.0, 3.0, INF, 5.0),), budget=5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measured = measure_robustness(toy_net(), attack, BATCHES[:1], budgets=budgets)
    of_budgets = [one for one in caught if "budget" in str(one.message)]
    assert len(of_budgets) == (told is not None)
    for one in of_budgets:
        assert f"spend all of it on any sample, so at {told} the net" in str(one.message)
        assert one.filename == __file__
    assert {f"robust_acc@{k}" for k in budgets} < set(measured.values)


class Answering(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.net, self.answer = toy_net(), answer

    def forward(self, inputs):
        return self.answer(self.net(inputs))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda logits: (logits, None), "tuple"),
        (lambda logits: {"logits": logits}, "dict"),
        (lambda logits: logits[:, 0], r"\(4,\)"),
        (lambda logits: logits[:, :1], r"\(4, 1\)"),
    ],
)
def test_a_net_that_returns_no_logits_is_refused(answer, found):
    message = rf"^expected the net to return logits of shape \(N, K\), K >= 2, got {found}$"
    with pytest.raises(InputError, match=message):
        measure_robustness(Answering(answer), SigmaZero(num_steps=2), BATCHES, budgets=())


def test_samples_of_several_sizes_are_refused():
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), toy_net())
    batches = [*BATCHES[:2], (torch.rand(4, 2, 6, 6), LABELS[:4])]
    message = r"^expected samples of one shape, .* got \(2, 4, 4\) and later \(2, 6, 6\)$"
    with pytest.raises(InputError, match=message):
        measure_robustness(net, SigmaZero(num_steps=2), batches, budgets=())


def test_seconds_add_up():
    found = Tally(SHAPE, "features", ())
    net = toy_net()
    batches = list(attack_batches(net, ScriptedAttack(), BATCHES))
    for batch in batches:
        found.add(net, batch)
    total = sum(batch.seconds for batch in batches)
    assert found.seconds == found.measurement().attack_seconds == total > 0


def test_running_median_is_of_the_samples_so_far():
    found, medians = Tally(SHAPE, "features", ()), []
    net = toy_net()
    for batch in attack_batches(net, ScriptedAttack(script=SCRIPT), BATCHES):
        found.add(net, batch)
        medians.append(found.running_median)
    assert medians == [np.median(l0_values[:4]), np.median(l0_values[:8]), np.median(l0_values)]
    assert medians == [4, 5, 3]


def test_examples_are_correctly_classified_samples_first():
    net = toy_net()
    attack = SigmaZero(num_steps=30)
    found = tally(num_examples=6, net=net, attack=attack)
    shown = found.measurement().examples
    # Four of the first batch, then two of the second, each the correct ones first.
    correct = net(IMAGES).argmax(dim=1) == LABELS
    order = [i for start in (0, 4) for flag in (True, False) for i in range(start, start + 4)
             if bool(correct[i]) is flag]  # fmt: skip
    chosen = order[:6]
    assert 0 < correct[:8].sum() < 8
    results = [attack(net, inputs, labels) for inputs, labels in BATCHES]
    adv_inputs = torch.cat([result.adv_inputs for result in results])[chosen]
    assert torch.equal(shown.inputs, IMAGES[chosen])
    assert torch.equal(shown.labels, LABELS[chosen])
    assert torch.equal(shown.adv_inputs, adv_inputs)
    assert torch.equal(shown.l0, torch.cat([result.l0 for result in results])[chosen])
    assert torch.equal(shown.clean_predictions, net(IMAGES[chosen]).argmax(dim=1))
    assert torch.equal(shown.adv_predictions, net(adv_inputs).argmax(dim=1))
    assert (shown.adv_predictions != shown.labels).all()


def test_examples_that_were_broken_come_before_those_that_withstood():
    result = AttackResult(
        adv_inputs=IMAGES[:4],
        success=torch.tensor([False, True, False, True]),
        l0=torch.tensor([torch.inf, 0.0, torch.inf, 3.0]),
        num_forwards=torch.ones(4),
        num_backwards=torch.ones(4),
        last_inputs=IMAGES[:4],
        best_inputs=IMAGES[:4],
    )
    labels = torch.tensor([0, 1, 2, 0])
    batch = AttackedBatch(
        inputs=IMAGES[:4],
        labels=labels,
        clean_predictions=torch.tensor([0, 2, 2, 0]),  # the second is wrong
        result=result,
        seconds=0.0,
    )
    kept = examples_of(toy_net(), batch, 4, broken_first=False)
    assert torch.equal(kept.inputs, IMAGES[[0, 2, 3, 1]])  # whatever the attack did
    for shown in (examples_of(toy_net(), batch, 4), kept.broken_first(4)):
        assert torch.equal(shown.inputs, IMAGES[[3, 0, 2, 1]])
        assert torch.equal(shown.labels, labels[[3, 0, 2, 1]])
    assert torch.equal(kept.broken_first(1).inputs, IMAGES[[3]])


def test_more_examples_than_samples_are_all_samples():
    shown = tally(num_examples=100).measurement().examples
    assert len(shown.labels) == 11


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_misuse_is_refused():
    with pytest.raises(InputError, match="`budget` to be at least 0, got -1"):
        Tally(SHAPE, "features", (-1,))
    with pytest.raises(InputError, match=r"unit=pixels needs images of shape \(N, C, H, W\)"):
        Tally((32,), "pixels", ())
    with pytest.raises(InputError, match="at least 1 sample"):
        Tally(SHAPE, "features", ()).measurement()
