"""The subset that a gauge attacks: fixed by its seed, uniform, and invisible to all others."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sztrain.callbacks.sample_store import SampleStore


def stream(num_samples):
    """Sample i has the value i in both of its features and the label -i."""
    values = torch.arange(num_samples)
    return values[:, None].float().expand(-1, 2), -values


def kept(num_kept, sizes, seed=0):
    store = SampleStore(num_kept, seed)
    inputs, labels = stream(sum(sizes))
    for part in zip(inputs.split(sizes), labels.split(sizes), strict=True):
        store.add(*part)
    return store


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    num_kept=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_subset_depends_on_order_and_seed_alone(sizes, num_kept, seed):
    total = sum(sizes)
    store = kept(num_kept, sizes, seed)
    indices = store.labels.neg().tolist()
    assert len(indices) == min(num_kept, total)
    assert indices == sorted(set(indices))  # none twice, in the order they came
    assert torch.equal(store.inputs, store.labels.neg()[:, None].float().expand(-1, 2))
    assert torch.equal(store.labels, kept(num_kept, [total], seed).labels)


def test_every_subset_is_equally_likely():
    seeds = 1000
    found = Counter(tuple(kept(2, [3, 2], seed).labels.neg().tolist()) for seed in range(seeds))
    assert set(found) == set(combinations(range(5), 2))
    # Expected 100 each, standard deviation 9.5.
    assert all(abs(count - seeds / 10) < 40 for count in found.values())


def test_late_samples_are_as_likely_as_early_ones():
    found = Counter(i for seed in range(500) for i in kept(5, [10] * 5, seed).labels.neg().tolist())
    by_batch = [sum(found[i] for i in range(start, start + 10)) for start in range(0, 50, 10)]
    assert sum(by_batch) == 2500
    assert all(abs(count - 500) < 80 for count in by_batch)  # standard deviation 19


def test_without_a_seed_the_first_samples_stay():
    assert kept(5, [3, 3, 3], seed=None).labels.tolist() == [0, -1, -2, -3, -4]
    assert kept(9, [3, 3], seed=None).labels.tolist() == [0, -1, -2, -3, -4, -5]


@pytest.mark.parametrize("seed", [0, None])
def test_none_keeps_all(seed):
    assert kept(None, [3, 4], seed).labels.tolist() == [0, -1, -2, -3, -4, -5, -6]


@pytest.mark.parametrize("seed", [0, None])
def test_global_random_state_is_not_touched(seed):
    before = torch.get_rng_state()
    kept(2, [3, 3, 3], seed)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_default_device_of_torch_changes_nothing():
    expected, store = SampleStore(num_samples=3, seed=1), SampleStore(num_samples=3, seed=1)
    first = SampleStore(num_samples=3, seed=None)
    inputs, labels = torch.rand(8, 2), torch.arange(8)
    expected.add(inputs, labels)
    with torch.device("meta"):
        store.add(inputs, labels)
        first.add(inputs, labels)
        kept = [each.batches(2, by_priority=True)[0][1] for each in (store, first)]
    assert torch.equal(store.inputs, expected.inputs)
    assert torch.equal(kept[0], expected.batches(2, by_priority=True)[0][1])
    assert kept[1].tolist() == [0, 1]


def test_samples_are_copies():
    inputs, labels = torch.zeros(2, 3, requires_grad=True), torch.tensor([4, 5])
    store = SampleStore(2)
    store.add(inputs, labels)
    with torch.no_grad():
        inputs += 1
        labels += 1
    assert store.inputs.tolist() == [[0, 0, 0]] * 2
    assert store.labels.tolist() == [4, 5]
    assert not store.inputs.requires_grad


def test_samples_seen_in_inference_mode_can_be_attacked_outside():
    store = SampleStore(3)
    for _ in range(3):  # enough that some are dropped again
        with torch.inference_mode():
            store.add(torch.ones(2, 3), torch.zeros(2, dtype=torch.int64))
    assert not store.inputs.is_inference()
    (store.inputs.clone().requires_grad_() * 2).sum().backward()


def test_batches_hold_all_samples_in_order():
    store = kept(5, [3, 3, 3], seed=None)
    batches = store.batches(2)
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), store.inputs)
    assert torch.equal(torch.cat([labels for _, labels in batches]), store.labels)


def test_before_the_first_batch_it_is_empty():
    store = SampleStore(3)
    assert store.labels.shape == (0,)
    assert store.labels.dtype == torch.int64
    assert store.batches(2) == []
