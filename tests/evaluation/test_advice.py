"""What is said of a net, or of an attack, that makes robustness look larger than it is."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toy_training import NUM_CLASSES, SHAPE, ScriptedAttack, answer, toy_data, toy_net

from sztrain.attacks import SigmaZero, SparseRS
from sztrain.errors import SztrainWarning
from sztrain.evaluation import measure_robustness
from sztrain.evaluation.advice import LOOKED_AT, Advice, passes_gradient
from sztrain.evaluation.recording import record_attack
from sztrain.evaluation.records import Records
from sztrain.evaluation.runner import AttackedBatch

INF = torch.inf


def heard(look):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look()
    return [str(warning.message) for warning in caught]


def attacked(inputs, *, wrong, l0):
    """A batch of class 0, with what an attack by gradients is to have found."""
    labels = torch.zeros(len(inputs), dtype=torch.int64)
    return AttackedBatch(
        inputs=inputs,
        labels=labels,
        clean_predictions=torch.as_tensor(wrong).long(),
        result=answer(inputs, torch.as_tensor(l0, dtype=torch.float32)),
        seconds=0.0,
    )


class Answers(nn.Module):
    """Always the same ones."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)
        self.num_passes = 0

    def forward(self, inputs):
        self.num_passes += 1
        return self.logits


@pytest.mark.parametrize(
    ("logits", "is_told"),
    [
        ([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], True),
        ([[0.2, 0.3, 0.5], [0.9, 0.3, 0.5]], False),  # one of them adds up to 1 by chance
        ([[2.0, -1.5, 0.5], [-3.0, 0.0, 4.0]], False),  # all do, but no probability is below 0
    ],
)
def test_probabilities_are_in_0_to_1_and_all_add_up_to_1(logits, is_told):
    net, advice = Answers(logits), Advice()
    inputs, labels = torch.zeros(2, 1), torch.tensor([0, 1])
    told = heard(lambda: [advice.on_outputs(net, inputs, labels) for _ in range(2)])
    assert len(told) == is_told
    assert net.num_passes == 1  # once is enough


class Masks(nn.Module):
    """Passes no gradient back where the first feature is 0."""

    def forward(self, inputs):
        logits = inputs[:, 1:]
        return torch.where(inputs[:, :1] == 0, logits.detach(), logits)


@pytest.mark.parametrize(
    ("num_masked", "num_wrong", "num_broken", "share"),
    [
        (6, 0, 0, "60%"),
        (5, 0, 0, None),  # half of them
        (6, 0, 4, "60%"),
        (6, 0, 5, None),  # the attack breaks half of them
        (4, 4, 0, "67%"),  # of those that the net gets right
        (6, 10, 0, None),
    ],
)
def test_gradients_are_masked_where_most_of_the_right_samples_have_none(
    num_masked, num_wrong, num_broken, share
):
    # Masked and broken are the first samples, wrong from the start the last ones.
    order = torch.arange(10)
    wrong = order >= 10 - num_wrong
    inputs = torch.full((10, 3), 0.5)
    inputs[:, 0] = (order >= num_masked).float()
    l0 = torch.where(wrong, 0.0, torch.where(order < num_broken, 1.0, INF))
    batch = attacked(inputs, wrong=wrong, l0=l0)
    found = heard(lambda: Advice().on_attacked(Masks(), SigmaZero(), batch))
    assert len(found) == (share is not None)
    assert all(f"exactly zero for {share} of the samples" in text for text in found)


def test_few_samples_are_looked_at_and_none_once_it_has_been_said():
    """A batch may be larger than what the net can be passed at once."""
    sizes = []

    class Watched(Masks):
        def forward(self, inputs):
            sizes.append(len(inputs))
            return super().forward(inputs)

    batch = attacked(torch.zeros(400, 3), wrong=[False] * 400, l0=[INF] * 400)
    advice = Advice()
    with pytest.warns(SztrainWarning, match="100% of the samples"):
        advice.on_attacked(Watched(), SigmaZero(), batch)
    advice.on_attacked(Watched(), SigmaZero(), batch)
    assert sizes == [LOOKED_AT]


class Detached(nn.Module):
    def forward(self, inputs):
        return inputs.detach().flatten(1)


def test_an_attack_by_gradients_of_a_stand_in_hears_nothing():
    """The net has none that could be masked."""
    batch = attacked(torch.rand(4, 3), wrong=[False] * 4, l0=[INF] * 4)
    assert heard(lambda: Advice().on_attacked(Detached(), SigmaZero(), batch)) == []


@pytest.mark.parametrize(
    ("l0", "is_told"),
    [
        ([0.0], False),
        ([1.0], True),
        ([INF], True),
        ([0.0, 0.0, 1.0, 1.0], False),  # half of them may be on the edge
        ([0.0, 1.0, 1.0, 1.0], True),
    ],
)
def test_an_attack_that_changes_what_the_net_gets_wrong_anyway(l0, is_told):
    """What such a sample counts is 0: with another l0, clean accuracy would be too high."""
    inputs = torch.full((len(l0) + 5, 3), 0.5)  # five that it gets right, and that are changed
    batch = attacked(inputs, wrong=[True] * len(l0) + [False] * 5, l0=[*l0, 1, 1, 1, 1, 1])
    attack, advice = SparseRS(), Advice("judge")
    told = heard(lambda: [advice.on_attacked(nn.Identity(), attack, batch) for _ in range(2)])
    assert len(told) == is_told
    assert all(text.startswith("judge: SparseRS changes samples that the net") for text in told)


@pytest.mark.parametrize(("net", "passes"), [(toy_net(), True), (Detached(), False)])
@pytest.mark.parametrize("inference", [False, True])
def test_whether_a_net_passes_a_gradient(net, passes, inference):
    with torch.inference_mode(inference):  # as the tensors of a validation are made
        images, labels = (tensor.clone() for tensor in toy_data(6).tensors)
    assert passes_gradient(net, images, labels) is passes


def all_wrong():
    inputs, _ = toy_data(10).tensors
    return TensorDataset(inputs, (toy_net()(inputs).argmax(dim=1) + 1) % NUM_CLASSES)


def sure():
    """A net that is right, and so sure of it that its probabilities have no gradient."""

    class Sure(nn.Module):
        def forward(self, inputs):
            return (1e4 * torch.eye(NUM_CLASSES)[0] + inputs.flatten(1)[:, :NUM_CLASSES]).softmax(1)

    return Sure()


def of_one_class():
    return TensorDataset(torch.rand(10, *SHAPE), torch.zeros(10, dtype=torch.int64))


@pytest.mark.parametrize("judge", ["measure", "record"])
@pytest.mark.parametrize(
    ("net", "attack", "data", "fragments"),
    [
        (toy_net, ScriptedAttack(), all_wrong, ["ScriptedAttack changes samples that the net"]),
        (sure, SigmaZero(num_steps=2), of_one_class, ["returns probabilities", "exactly zero"]),
        (toy_net, SigmaZero(num_steps=2), all_wrong, []),
    ],
)
def test_whoever_judges_a_net_is_told_once(tmp_path, judge, net, attack, data, fragments):
    net, data = net(), data()

    def look():
        if judge == "measure":
            measure_robustness(net, attack, DataLoader(data, batch_size=5), budgets=())
        else:
            spans = [range(5), range(5, 10)]
            list(record_attack(net, attack, data, Records(tmp_path / "records", {}), spans))

    told = heard(look)
    assert len(told) == len(fragments)
    for text, fragment in zip(told, fragments, strict=True):
        assert fragment in text
        assert text.startswith("measure_robustness: ") is (judge == "measure")
