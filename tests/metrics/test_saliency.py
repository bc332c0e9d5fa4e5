"""Measures against maps: by hand, by loops over samples, and where the answer is known."""

import math

import numpy as np
import pytest
import torch

from sztrain.errors import InputError
from sztrain.metrics.saliency import (
    NoiseLabels,
    adversarial_saliency_map,
    interpretability_score,
    noise_labels,
    region_shares,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_saliency_map_is_its_formula_and_gated_as_usual():
    target, label = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    plain = adversarial_saliency_map(target, label)
    gated = adversarial_saliency_map(target, label, gated=True)
    for t, y, found, kept in zip(
        *(x.flatten().tolist() for x in (target, label, plain, gated)), strict=True
    ):
        assert found == t * abs(y)
        assert kept == (0 if t < 0 or y > 0 else t * abs(y))
    assert (gated == 0).any()
    assert (gated > 0).any()


def score_by_hand(delta, saliency, percentile):
    """One image, with the rank counted from one."""
    values = sorted(value for value in saliency.flatten().tolist() if value != 0)
    bound = values[max(math.ceil(percentile * len(values) / 100), 1) - 1] if values else math.inf
    inside = delta[(saliency > bound).expand_as(delta)]
    return (inside.norm() / delta.norm()).item()


@pytest.mark.parametrize("percentile", [0, 1, 50, 60, 75, 90, 99, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_score_is_that_of_every_image_by_itself(percentile, channels):
    delta, saliency = normal(5, 3, 6, 6), normal(5, channels, 6, 6, seed=1)
    saliency[:, :, ::2] = 0  # zeros are no part of the percentile
    saliency[4] = 0
    expected = [score_by_hand(*pair, percentile) for pair in zip(delta, saliency, strict=True)]
    np.testing.assert_allclose(interpretability_score(delta, saliency, percentile), expected)
    assert interpretability_score(delta, saliency, percentile)[4] == 0


def test_score_is_one_inside_zero_outside_and_nan_without_a_change():
    saliency = torch.arange(1.0, 17.0).view(1, 1, 4, 4).expand(3, 1, 4, 4)
    delta = torch.zeros(3, 2, 4, 4)
    delta[0, :, 2:] = normal(2, 2, 4).float()  # ranks 9 to 16
    delta[1, :, :2] = 1
    scores = interpretability_score(delta, saliency, 50)
    assert scores[:2].tolist() == [1, 0]
    assert scores[2].isnan()


def test_score_of_changes_that_know_nothing_of_the_map():
    delta = torch.full((20, 1, 50, 50), 0.3)
    for percentile in (50, 80):
        score = interpretability_score(delta, normal(20, 1, 50, 50), percentile).mean().item()
        assert score == pytest.approx(math.sqrt(1 - percentile / 100), abs=0.02)


def test_shares_of_a_region_by_count_and_by_change():
    delta, maps = normal(4, 3, 5, 5), normal(4, 1, 5, 5, seed=2).sigmoid()
    delta[:, :, 1:4] = 0
    delta[3] = 0
    found = region_shares(delta, maps, threshold=0.4)
    for i in range(3):
        region = maps[i, 0] >= 0.4
        changed = (delta[i] != 0).any(dim=0)
        assert found.pixels[i] == pytest.approx((changed & region).sum() / changed.sum())
        sizes = delta[i].abs().sum(dim=0)
        assert found.change[i] == pytest.approx(sizes[region].sum() / sizes.sum())
        assert 0 < found.pixels[i] < 1
    assert found.pixels[3].isnan()
    assert found.change[3].isnan()
    exact = torch.full((4, 1, 5, 5), 0.5)
    assert (region_shares(delta, exact).pixels[:3] == 1).all()  # the bound belongs to the region


def test_kinds_share_out_the_changed_pixels():
    delta = normal(4, 3, 5, 5)
    delta[:, :, 1:3] = 0
    delta[0] = 0
    obscuring, leading = normal(4, 5, 5, seed=1), normal(4, 5, 5, seed=2)
    leading[1, 0] = obscuring[1, 0].abs()
    kinds = noise_labels(delta, obscuring, leading)
    for mask in kinds:
        assert mask.dtype == torch.bool
    changed = (delta != 0).any(dim=1)
    assert torch.equal(sum(mask.int() for mask in kinds), changed.int())
    for index in changed.nonzero().tolist():
        i, row, column = index
        o, leads = obscuring[i, row, column], leading[i, row, column]
        expected = "neutral" if max(o, leads) <= 0 else "obscuring" if o >= leads else "leading"
        assert getattr(kinds, expected)[i, row, column]
    assert all(mask.any() for mask in kinds)
    shares = kinds.shares()
    assert shares[0].isnan().all()
    torch.testing.assert_close(shares[1:].sum(dim=1), torch.ones(3))
    assert shares[2, 1].item() == pytest.approx(
        kinds.leading[2].sum().item() / changed[2].sum().item()
    )


def test_scores_that_are_all_zero_are_neutral():
    zero = torch.zeros(1, 2, 2)
    kinds = noise_labels(torch.ones(1, 1, 2, 2), zero, zero)
    assert kinds.neutral.all()
    assert isinstance(kinds, NoiseLabels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: adversarial_saliency_map(x, x[:1]),
            r"expected `target_gradient` to have the shape of label_gradient, \(1, 3, 4, 4\), .*",
        ),
        (lambda x: interpretability_score(x, x[:, :2], 50), r"expected `saliency` to have .*"),
        (lambda x: interpretability_score(x, x, 101), "expected `percentile` to be at most 100.*"),
        (lambda x: interpretability_score(x, x, 0.5), "expected `percentile` to be a whole num.*"),
        (lambda x: region_shares(x, x), r"expected `maps` to have the shape of one channel.*"),
        (lambda x: noise_labels(x, x[:, 0], x), r"expected `leading` to have the shape of a.*"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=f"^{message}$") as caught:
        call(torch.zeros(2, 3, 4, 4))
    assert "\n" not in str(caught.value)
