import pytest
import torch

from sztrain.data.splits import first_of_seeded_order, require_fraction, stratified_split
from sztrain.errors import InputError


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("counts", [(100, 100, 100), (5, 70, 300), (1, 1, 40)])
def test_parts_are_disjoint_complete_and_stratified(counts, fraction):
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    stays, cut = stratified_split(labels, fraction, seed=0)
    assert sorted(stays.tolist() + cut.tolist()) == list(range(len(labels)))
    assert len(cut) == max(1, round(fraction * len(labels)))
    for label, count in enumerate(counts):
        share = len(cut) / len(labels) * count
        assert abs(int((labels[cut] == label).sum()) - share) <= 1


def test_only_the_seed_chooses_the_part():
    labels = torch.arange(200) % 4
    first, again, other = (stratified_split(labels, 0.2, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_sample_can_be_cut_off():
    labels = torch.arange(20) % 2
    cut = torch.cat([stratified_split(labels, 0.2, seed)[1] for seed in range(100)])
    assert cut.unique().tolist() == list(range(20))


def test_refuses_to_cut_everything():
    with pytest.raises(InputError, match=r"cannot cut a fraction of 0\.9 from 1 samples"):
        stratified_split(torch.tensor([0]), 0.9, seed=0)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan")])
def test_refuses_fractions_out_of_range(value):
    with pytest.raises(InputError, match="expected `val_fraction` to be above 0 and below 1"):
        require_fraction("val_fraction", value)


def test_limit_beyond_the_samples_is_refused():
    assert first_of_seeded_order(5, 5, seed=0).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="limit_train=6 asks for more than the 5"):
        first_of_seeded_order(5, 6, seed=0)
