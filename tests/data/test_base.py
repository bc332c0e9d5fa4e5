from types import SimpleNamespace

import pytest
import torch

from sztrain.data.loading import EpochSampler, ShardSampler, even_batch_size
from sztrain.data.samples import Part, TensorSamples
from sztrain.errors import InputError


def collect(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    inputs, labels = zip(*loader, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def values(part):
    return set(part.samples.images[:, 0, 0, 0].tolist())


def test_batches_are_float_images_with_int64_labels(toy):
    batches = list(toy().train_dataloader())
    assert [len(inputs) for inputs, _ in batches] == [8, 8, 8, 8, 4]  # the last one is kept
    for inputs, labels in batches:
        assert inputs.dtype == torch.float32
        assert inputs.shape[1:] == (1, 6, 6)
        assert labels.dtype == torch.int64
        assert labels.shape == inputs.shape[:1]
        # The toy's value names the sample, hence its label.
        assert torch.equal((inputs[:, 0, 0, 0] * 64).round().long() % 4, (labels + 1) % 4)


def test_validation_is_cut_from_train_and_test_is_untouched(toy):
    data = toy(val_fraction=0.2)
    train, val, test = data.part("train"), data.part("val"), data.part("test")
    assert len(val) == 8
    assert not values(train) & values(val)
    assert values(train) | values(val) == {(i + 1) / 64 for i in range(40)}
    assert torch.equal(test.samples.images, data.load()[1].images)


def test_training_seed_moves_no_sample_between_parts(toy, fingerprint):
    first, other, recut = toy(seed=0), toy(seed=1), toy(split_seed=1)
    for split in ("train", "val", "test"):
        assert fingerprint(first, split) == fingerprint(other, split)
    assert fingerprint(first, "val") != fingerprint(recut, "val")
    assert fingerprint(first, "test") == fingerprint(recut, "test")


def test_training_seed_leaves_a_limited_part_as_it_is(toy, fingerprint):
    first, other, recut = (
        fingerprint(toy(limit_train=10, **seeds), "train")
        for seeds in ({}, {"seed": 1}, {"split_seed": 1})
    )
    assert first == other
    assert first != recut


def test_limit_train_takes_nested_parts_and_leaves_validation_alone(toy, fingerprint):
    whole, large, small = toy(), toy(limit_train=20), toy(limit_train=10)
    assert [len(data.part("train")) for data in (whole, large, small)] == [36, 20, 10]
    assert values(small.part("train")) < values(large.part("train")) < values(whole.part("train"))
    assert fingerprint(small, "val") == fingerprint(whole, "val")


@pytest.mark.parametrize("augment", [False, True])
def test_training_is_a_function_of_seed_and_epoch(toy, augment):
    def run(seed, epoch, **options):
        return collect(toy(seed=seed, augment=augment, **options).train_dataloader(), epoch)

    inputs, labels = run(0, 0)
    for again in (run(0, 0), run(0, 0, batch_size=10), run(0, 0, split_seed=0)):
        assert torch.equal(inputs, again[0])
        assert torch.equal(labels, again[1])
    for other in (run(0, 1), run(1, 0)):
        assert not torch.equal(inputs, other[0])
    assert not torch.equal(run(0, 1)[0], run(1, 0)[0])


def test_each_epoch_holds_every_sample_once(toy):
    data = toy()
    for epoch in range(3):
        inputs, _ = collect(data.train_dataloader(), epoch)
        found = inputs[:, 0, 0, 0].tolist()
        assert len(found) == 36
        assert set(found) == values(data.train_set)


@pytest.mark.parametrize("batch_size", [5, 7, 35])
@pytest.mark.parametrize("indexed", [False, True])
def test_no_training_batch_is_of_one_sample_which_batch_norm_does_not_take(
    toy, batch_size, indexed
):
    data = toy(batch_size=batch_size)  # of 36
    data.indexed = indexed
    loader = data.train_dataloader()
    left_out = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        inputs = [batch[0] for batch in loader]
        assert {len(part) for part in inputs} == {batch_size}
        found = set(torch.cat(inputs)[:, 0, 0, 0].tolist())
        left_out.append(values(data.train_set) - found)
    assert [len(samples) for samples in left_out] == [1, 1, 1]
    assert len(set().union(*left_out)) > 1


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, {1}), (8, {8, 4}), (36, {36}), (40, {36})])
def test_all_other_batches_are_whole(toy, batch_size, sizes):
    inputs = [inputs for inputs, _ in toy(batch_size=batch_size).train_dataloader()]
    assert ({len(part) for part in inputs}, sum(map(len, inputs))) == (sizes, 36)


def test_a_single_sample_is_a_batch(toy):
    (batch,) = toy(num_samples=2, labels=torch.tensor([0, 1]), val_fraction=0.5).train_dataloader()
    assert len(batch[0]) == 1


def test_augmented_sample_does_not_depend_on_its_place_in_the_order(toy):
    data = toy(augment=True)
    part = data.part("train")
    images = torch.stack([part[3, index][0] for index in range(len(part))])
    batch = torch.stack([image for image, _ in part.__getitems__([(3, 9), (3, 2)])])
    assert torch.equal(batch, images[[9, 2]])
    assert torch.equal(part[9][0], part.samples.images[9])  # a plain index: a plain image
    with pytest.raises(ValueError, match="of one epoch"):
        part.__getitems__([(3, 9), (4, 2)])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_change_nothing(toy, rng_untouched):
    alone, helped = toy(augment=True), toy(augment=True, num_workers=2)
    loaders = alone.train_dataloader(), helped.train_dataloader()
    for epoch in (0, 1):
        for one, two in zip(*(collect(loader, epoch) for loader in loaders), strict=True):
            assert torch.equal(one, two)


def test_no_loader_touches_the_global_random_state(toy, rng_untouched):
    data = toy(augment=True)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        list(loader)


def test_global_random_state_does_not_touch_the_loaders(toy):
    results = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            results.append(collect(toy(augment=True).train_dataloader())[0])
    assert torch.equal(*results)


def test_evaluation_loaders_are_plain_ordered_and_complete(toy):
    data = toy(augment=True, eval_batch_size=5)
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        inputs, labels = zip(*loader, strict=True)
        assert max(map(len, inputs)) == min(5, len(data.part(split)))
        assert torch.equal(torch.cat(inputs), data.part(split).samples.images)
        assert torch.equal(torch.cat(labels), data.part(split).samples.labels)


def test_processes_share_the_order_and_pad_it_to_equal_shares():
    def order(rank, num_replicas):
        sampler = EpochSampler(range(10), num_replicas=num_replicas, rank=rank, seed=4)
        sampler.set_epoch(6)
        return list(sampler)

    whole = order(0, 1)
    shares = [order(rank, 4) for rank in range(4)]
    dealt = [share[step] for step in range(3) for share in shares]
    assert dealt == whole + whole[:2]
    assert {epoch for epoch, _ in whole} == {6}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("num_samples", [4, 5, 8, 9, 13, 24, 25, 121])
@pytest.mark.parametrize("num_replicas", [2, 3, 4])
def test_evaluation_shards_repeat_nothing_and_have_equally_many_batches(
    num_samples, num_replicas, batch_size
):
    shards = [
        list(ShardSampler(range(num_samples), num_replicas=num_replicas, rank=rank))
        for rank in range(num_replicas)
    ]
    assert sorted(index for shard in shards for index in shard) == list(range(num_samples))
    size = even_batch_size(num_samples, num_replicas, batch_size)
    assert len({-(-len(shard) // size) for shard in shards}) == 1


def test_loaders_of_two_processes_cover_the_test_part_once(toy):
    found, num_batches = [], []
    for rank in (0, 1):
        data = toy(eval_batch_size=3)
        data.setup()
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, strategy=strategy)
        batches = list(data.test_dataloader())
        found.append(torch.cat([inputs for inputs, _ in batches])[:, 0, 0, 0])
        num_batches.append(len(batches))
        assert len(collect(data.train_dataloader())[0]) == 18
    assert num_batches[0] == num_batches[1]  # or the one process waits for the other for ever
    everything = data.test_set.samples.images[:, 0, 0, 0]
    assert torch.equal(torch.cat(found).sort().values, everything.sort().values)


def test_more_processes_than_samples_are_refused():
    with pytest.raises(InputError, match="2 samples cannot be shared out among 3 processes"):
        even_batch_size(2, 3, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "expected `batch_size` to be at least 1, got 0"),
        ({"eval_batch_size": 0}, "expected `eval_batch_size` to be at least 1, got 0"),
        ({"num_workers": -1}, "expected `num_workers` to be at least 0, got -1"),
        ({"val_fraction": 1.0}, "expected `val_fraction` to be above 0 and below 1, got 1.0"),
        ({"limit_train": 0}, "expected `limit_train` to be at least 1, got 0"),
        ({"num_classes": 1}, "expected `num_classes` to be at least 2, got 1"),
    ],
)
def test_values_out_of_range_are_refused_at_once(toy, options, message):
    with pytest.raises(InputError, match=message):
        toy(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 3}, "the data set has label 3 but num_classes=3; labels must lie in 0..2"),
        ({"labels": torch.arange(40) % 4 - 1}, "the data set has label -1 but num_classes=4"),
        ({"in_channels": 3}, "the images of Toy have 1 channels but in_channels=3"),
        ({"limit_train": 37}, "limit_train=37 asks for more than the 36 training samples"),
    ],
)
def test_data_that_does_not_fit_is_refused_by_setup(toy, options, message):
    with pytest.raises(InputError, match=message) as caught:
        toy(**options).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_images_outside_the_box_are_refused(value):
    images = torch.full((2, 1, 2, 2), 0.5)
    images[1, 0, 0, 1] = value
    with pytest.raises(InputError, match=r"images must lie in \[0, 1\], got values from"):
        TensorSamples(images=images, labels=torch.tensor([0, 1]), scale=1)


def test_other_shapes_and_empty_data_are_refused(toy):
    with pytest.raises(InputError, match="expected images of shape"):
        TensorSamples(images=torch.zeros(2, 4), labels=torch.tensor([0, 1]), scale=1)
    with pytest.raises(InputError, match="has no samples"):
        toy(num_samples=0).setup()


def test_unknown_part_is_refused_and_classes_are_counted(toy):
    data = toy(num_classes=None)
    assert data.num_classes == 4
    assert data.image_shape == (1, 6, 6)
    with pytest.raises(InputError, match="expected `split` to be one of train, val, test, got dev"):
        data.part("dev")


def test_part_works_in_a_plain_loader(toy):
    part = Part(toy().load()[0])
    inputs, labels = next(iter(torch.utils.data.DataLoader(part, batch_size=3)))
    assert torch.equal(inputs[:, 0, 0, 0] * 64, torch.tensor([1.0, 2.0, 3.0]))
    assert labels.tolist() == [0, 1, 2]
