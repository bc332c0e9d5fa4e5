"""Confidence intervals of the median: against scipy's binomial, by hand, and on resamplings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from sztrain.errors import InputError
from sztrain.metrics.functional import l0_histogram, median_l0
from sztrain.metrics.intervals import median_interval, median_ranks

INF = float("inf")


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("num_samples", [*range(1, 40), 100, 359, 512, 1000, 1001, 10_000])
def test_ranks_are_the_narrowest_that_are_sure_enough(num_samples, confidence):
    ranks = median_ranks(num_samples, confidence)
    low = 0 if ranks is None else ranks[0]

    def risk(rank):
        """Of a median below the sample of this rank: fewer samples than that lie below it."""
        return binom.cdf(rank - 1, num_samples, 0.5)

    assert risk(low) <= (1 - confidence) / 2 < risk(low + 1)
    if ranks is not None:
        low, high = ranks
        assert high - 1 == num_samples - low  # as many samples above as below
        covered = binom.cdf(high - 1, num_samples, 0.5) - binom.cdf(low - 1, num_samples, 0.5)
        assert covered >= confidence


def test_published_ranks():
    # Tables of the sign test's interval: 95 % for 10, 20 and 50 samples.
    assert [median_ranks(n) for n in (10, 20, 50)] == [(2, 9), (6, 15), (18, 33)]


@given(
    l0=st.lists(st.sampled_from([0.0, 1.0, 2.0, 7.0, INF]), min_size=6, max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_ends_are_samples_of_these_ranks(l0):
    low, high = median_interval(l0_histogram(torch.tensor(l0), num_units=8))
    ranks = median_ranks(len(l0))
    assert (low, high) == (sorted(l0)[ranks[0] - 1], sorted(l0)[ranks[1] - 1])
    assert low <= median_l0(l0_histogram(torch.tensor(l0), num_units=8)) <= high


def test_too_few_samples_say_nothing():
    assert median_interval(l0_histogram(torch.ones(5), num_units=8)) == (0, INF)
    assert median_interval(l0_histogram(torch.ones(6), num_units=8)) == (1, 1)


@pytest.mark.parametrize(
    "draw",
    [
        lambda n, g: torch.empty(n).geometric_(0.05, generator=g).clamp(max=784),
        lambda n, g: torch.empty(n).geometric_(0.6, generator=g),  # ties
        lambda n, g: torch.where(torch.rand(n, generator=g) < 0.5, 0.0, 90.0),  # two heaps
        lambda n, g: torch.where(torch.rand(n, generator=g) < 0.6, 30.0, INF),
    ],
)
def test_interval_of_512_samples_holds_the_median_of_all_2000(draw):
    generator = torch.Generator().manual_seed(0)
    everyone = draw(2000, generator)
    median = float(median_l0(l0_histogram(everyone, 784)))
    held = 0
    for _ in range(100):
        some = everyone[torch.randperm(2000, generator=generator)[:512]]
        low, high = median_interval(l0_histogram(some, 784))
        held += low <= median <= high
    assert held >= 95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "`num_samples` to be at least 1, got 0"),
        ((10, 1.0), "`confidence` to be between 0 and 1, got 1.0"),
        ((10, 0.0), "`confidence` to be between 0 and 1, got 0.0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        median_ranks(*arguments)
