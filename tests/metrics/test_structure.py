"""Measures of how changes lie, against loops over pixels."""

import math

import pytest
import torch
from clusters import clusters_by_walking

from sztrain.errors import InputError
from sztrain.metrics.structure import (
    average_changed_pixels,
    average_changed_windows,
    average_num_clusters,
    num_clusters,
)


def sparse(density, shape=(6, 3, 9, 11), seed=0):
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(shape, generator=generator)
    return delta * (torch.rand(shape, generator=generator) < density)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.25, 1.0])
def test_clusters_are_those_that_walking_finds(density):
    delta = sparse(density)
    assert num_clusters(delta).tolist() == [clusters_by_walking(one.any(dim=0)) for one in delta]


def test_clusters_of_figures_that_can_be_counted_by_hand():
    delta = torch.zeros(5, 2, 4, 4)
    delta[0, 0, 0, 0] = delta[0, 1, 1, 1] = 1  # a diagonal is no connection
    delta[1, 0, 0, 0] = delta[1, 1, 1, 0] = delta[1, 0, 1, 1] = -1  # an L over two channels
    delta[2, 0, 3, 3] = 1  # the last pixel of one image and the first of the next
    delta[3, 0, 0, 0] = 1
    assert num_clusters(delta).tolist() == [2, 1, 1, 1, 0]
    assert num_clusters(delta[4:]).tolist() == [0]


def test_averages_go_over_the_broken_samples_alone():
    delta = sparse(0.1)
    broken = torch.tensor([True, False, True, True, False, False])
    pixels = [(one != 0).any(dim=0).sum().item() for one in delta]
    clusters = [clusters_by_walking(one.any(dim=0)) for one in delta]
    windows = [
        sum((one[:, i : i + 3, j : j + 3] != 0).any().item() for i in range(7) for j in range(9))
        for one in delta
    ]
    for average, values in (
        (average_changed_pixels(delta, broken), pixels),
        (average_num_clusters(delta, broken), clusters),
        (average_changed_windows(delta, broken, size=3), windows),
    ):
        assert average.item() == pytest.approx((values[0] + values[2] + values[3]) / 3)
    assert math.isnan(average_changed_pixels(delta, torch.zeros(6, dtype=torch.bool)).item())


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"^expected `delta` to be differences of images"):
        num_clusters(torch.zeros(4, 9))
    message = r"^expected `broken` to be bool of shape \(2,\), got torch.int64 of shape \(2,\)$"
    with pytest.raises(InputError, match=message):
        average_num_clusters(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]))
