"""A data set under attack, with every pass counted at the net."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from toy_training import toy_data, toy_net

from sztrain.attacks import SigmaZero, SparseAutoAttack
from sztrain.evaluation import recording
from sztrain.evaluation.examples import side_by_side
from sztrain.evaluation.recording import counted_passes, record_attack
from sztrain.evaluation.records import Records, batch_spans

SPANS = batch_spans(10, 4)


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "records", {})


def test_every_batch_is_recorded_with_what_the_attack_found(records):
    net, data, attack = toy_net(), toy_data(10), SigmaZero(num_steps=12)
    assert list(record_attack(net, attack, data, records, SPANS)) == SPANS
    inputs, labels = data.tensors
    for span in SPANS:
        x, y = inputs[span.start : span.stop], labels[span.start : span.stop]
        expected, rows, cost = attack(net, x, y), records.read(span), records.cost(span)
        assert [row.index for row in rows] == list(span)
        assert [row.label for row in rows] == y.tolist()
        assert [row.clean_prediction for row in rows] == net(x).argmax(dim=1).tolist()
        assert [row.l0 for row in rows] == expected.l0.tolist()
        assert [row.success for row in rows] == expected.success.tolist()
        # The attack's own counts are those of the net.
        assert cost.num_forwards == sum(row.num_forwards for row in rows)
        assert cost.num_backwards == sum(row.num_backwards for row in rows)
        assert cost.num_samples == len(span)
        assert cost.seconds > 0
    examples = records.read_examples()
    assert torch.isin(examples.labels, labels[:4]).all()


def test_attacks_that_break_different_samples_keep_examples_of_the_same(tmp_path):
    """One finds next to nothing, the other breaks most: they are laid side by side all the same."""
    data, examples = toy_data(40), {}
    for num_steps in (1, 40):
        attack, records = SigmaZero(num_steps=num_steps), Records(tmp_path / str(num_steps), {})
        list(record_attack(toy_net(), attack, data, records, [range(40)]))
        examples[f"N={num_steps}"] = records.read_examples()
    weak, strong = examples.values()
    assert len(weak.labels) == 24
    assert torch.equal(weak.inputs, strong.inputs)
    assert strong.broken.sum() > weak.broken.sum()
    assert not strong.broken.all()
    shared = side_by_side(examples, 5)
    assert torch.equal(*(one.inputs for one in shared.values()))
    assert shared["N=40"].broken.all()
    found = {image.numpy().tobytes() for image in weak.inputs}
    assert {image.numpy().tobytes() for image in shared["N=1"].inputs} < found


@pytest.mark.parametrize("batch_size", [1, 9, 30])
def test_as_many_examples_are_kept_whatever_the_batches(tmp_path, batch_size):
    data, records = toy_data(40), Records(tmp_path, {})
    spans = batch_spans(40, batch_size)
    list(record_attack(toy_net(), SigmaZero(num_steps=3), data, records, spans[1::2]))
    list(record_attack(toy_net(), SigmaZero(num_steps=3), data, records, spans[0::2]))
    assert all(map(records.has, spans))
    found = records.read_examples()
    assert len(found.labels) == 24
    assert len({image.numpy().tobytes() for image in found.inputs}) == 24
    if batch_size == 1:
        assert torch.equal(found.inputs, data.tensors[0][:24])


def test_only_samples_that_all_attacks_have_are_laid_side_by_side(tmp_path):
    data, records = toy_data(10), Records(tmp_path, {})
    list(record_attack(toy_net(), SigmaZero(num_steps=9), data, records, [range(10)]))
    every = records.read_examples()
    some = every.at(torch.tensor([7, 2, 4]))
    shared = side_by_side({"every": every, "some": some}, 8)
    assert torch.equal(shared["every"].inputs, shared["some"].inputs)
    assert torch.equal(shared["every"].l0, shared["some"].l0)
    assert sorted(shared["some"].l0.tolist()) == sorted(some.l0.tolist())
    assert side_by_side({"a": every.at(torch.tensor([0])), "b": some}, 8) == {}


def test_records_of_an_ensemble_say_who_broke_a_sample(records):
    net, data = toy_net(), toy_data(10)
    attack = SparseAutoAttack(num_steps=10, num_queries=10)
    list(record_attack(net, attack, data, records, [range(10)]))
    rows, expected = records.read(range(10)), attack(net, *data.tensors)
    names = list(attack.members)
    for row, index in zip(rows, expected.broken_by.tolist(), strict=True):
        assert row.broken_by == (names[index] if index >= 0 else "")
    assert {row.broken_by for row in rows} & set(names)

    # An attack on its own has no such column.
    list(record_attack(net, SigmaZero(num_steps=5), data, Records(records.folder / "b", {}), SPANS))
    assert (records.folder / "b" / "000000.csv").read_text().startswith("index,label,")
    assert "broken_by" not in (records.folder / "b" / "000000.csv").read_text()


def test_a_batch_is_on_disk_before_the_next_one_begins(records):
    running = record_attack(toy_net(), SigmaZero(num_steps=2), toy_data(10), records, SPANS)
    next(running)
    assert [records.has(span) for span in SPANS] == [True, False, False]
    running.close()
    list(record_attack(toy_net(), SigmaZero(num_steps=2), toy_data(10), records, SPANS[1:]))
    assert all(records.has(span) for span in SPANS)


def test_an_attack_that_miscounts_is_not_believed(records):
    class Miscounting(SigmaZero):
        def __call__(self, net, inputs, labels):
            result = super().__call__(net, inputs, labels)
            result.num_forwards.zero_()
            return result

    list(record_attack(toy_net(), Miscounting(num_steps=3), toy_data(4), records, [range(4)]))
    assert records.cost(range(4)).num_forwards > 0


def test_an_attack_whose_replays_no_hook_sees_counts_for_itself(records):
    @dataclass(frozen=True, kw_only=True)
    class Replaying(SigmaZero):
        """Takes 100 passes that the net knows nothing of."""

        def __call__(self, net, inputs, labels):
            result = replace(self, cuda_graph=False).search(net, inputs, labels)
            counts = (result.num_forwards, result.num_backwards)
            forwards, backwards = (count + 100 for count in counts)
            return replace(result, num_forwards=forwards, num_backwards=backwards)

        def search(self, net, inputs, labels):
            return super().__call__(net, inputs, labels)

    attack = Replaying(num_steps=3, cuda_graph=True)
    list(record_attack(toy_net(), attack, toy_data(4), records, [range(4)]))
    rows, cost = records.read(range(4)), records.cost(range(4))
    assert cost.num_forwards == sum(row.num_forwards for row in rows) > 400
    assert cost.num_backwards == sum(row.num_backwards for row in rows) > 400


@pytest.mark.parametrize(("peaks", "expected"), [([5, 9], 9), ([9, 9], 0)])
def test_memory_that_the_process_had_needed_before_is_not_the_attacks(
    records, monkeypatch, peaks, expected
):
    monkeypatch.setattr(recording, "peak_memory", lambda device: peaks.pop(0))
    list(record_attack(toy_net(), SigmaZero(num_steps=2), toy_data(4), records, [range(4)]))
    assert records.cost(range(4)).peak_memory == expected


def test_a_gpu_of_which_no_peak_is_known_is_not_given_that_of_the_process():
    assert recording.peak_memory(torch.device("mps")) == 0
    assert recording.peak_memory(torch.device("cpu")) > 0


def test_passes_are_counted_whoever_sends_them_and_the_net_is_left_as_it_was():
    net = nn.Linear(3, 2)
    inputs = torch.rand(5, 3, requires_grad=True)
    with counted_passes(net) as counter:
        torch.autograd.grad(net(inputs).sum(), inputs)
        with torch.no_grad():
            net(inputs[:2])
        net(inputs)  # nobody asks for its gradient
    net(inputs).sum().backward()
    assert (counter.num_forwards, counter.num_backwards) == (12, 5)
    assert not net._forward_hooks
