"""Classes and places of attacked samples against numpy, by hand."""

import math

import numpy as np
import pytest
import torch
from toy_training import INF, SHAPE, ScriptedAttack, toy_data, toy_net

from sztrain.evaluation.breakdown import Breakdown
from sztrain.evaluation.measurement import Tally
from sztrain.evaluation.runner import attack_batches

IMAGES, LABELS = toy_data(11).tensors
SCRIPT = ((0.0, 3.0, INF, 5.0), (5.0, INF, 20.0, 1.0), (2.0, 2.0, 0.0))
L0 = np.array([value for row in SCRIPT for value in row])


def breakdown(**options):
    tally, net = Tally(SHAPE, "features", (), **options), toy_net()
    batches = zip(IMAGES.split(4), LABELS.split(4), strict=True)
    for batch in attack_batches(net, ScriptedAttack(script=SCRIPT), batches):
        tally.add(net, batch)
    return tally.measurement().breakdown


def test_every_sample_is_there_with_its_label():
    found = breakdown()
    assert found.l0.tolist() == L0.tolist()
    assert torch.equal(found.labels, LABELS)


def test_medians_by_class_are_those_of_numpy():
    classes = breakdown().by_class()
    assert [one.label for one in classes] == [0, 1, 2]
    for one in classes:
        l0 = L0[LABELS.numpy() == one.label]
        assert one.median_l0 == np.median(l0)
        assert one.num_samples == len(l0)
        assert one.asr_inf == np.isfinite(l0).mean()


@pytest.mark.parametrize(
    ("l0", "median", "asr"), [([INF, INF], INF, 0), ([0.0], 0, 1), ([4.0, 1.0], 2.5, 1)]
)
def test_a_class_may_resist_or_be_wrong_from_the_start(l0, median, asr):
    labels = torch.full((len(l0),), 7)
    (one,) = Breakdown(labels=labels, l0=torch.tensor(l0), places=None).by_class()
    assert (one.label, one.median_l0, one.asr_inf) == (7, median, asr)


def test_places_are_shares_of_the_changed_samples():
    # The script changes the first l0 of 32 features, two channels of 4x4 positions: the sample with
    # 20 has changes at some positions in both.
    changed = [int(value) for value in L0 if 0 < value < math.inf]
    expected = np.zeros(16)
    for count in changed:
        expected[:count] += 1 / len(changed)
    np.testing.assert_allclose(breakdown().places.flatten(), expected, rtol=1e-6)


def test_a_tally_that_counts_numbers_has_no_breakdown():
    tally = Tally(SHAPE, "features", ())
    tally.count(torch.tensor([1.0, INF]), 0.1)
    assert tally.measurement().breakdown is None
