"""One answer on every path of σ-zero: in slices, compacted, patient, recorded, compiled, halved."""

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from host_reads import HostReads
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sztrain.attacks import SigmaZero, sigma_zero
from sztrain.attacks.cuda_graph import Recorded
from sztrain.errors import InputError

FIELDS = ("adv_inputs", "success", "l0", "best_inputs", "last_inputs")
QUERIES = ("num_forwards", "num_backwards")

OPTIONS = [{}, {"budget": 5}, {"patience": 6}, {"unit": "pixels", "budget": 3}, {"targeted": True}]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(o))


def assert_same(found, expected, names=(*FIELDS, *QUERIES)):
    for name in names:
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=0, atol=1e-9, msg=name
        )


# ---- slices and compaction ----------------------------------------------------------------------


@every_option
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_slices_change_no_sample(make_batch, spy_on, options, batch_size):
    batch = make_batch(num_samples=9, num_wrong=2, seed=1)
    attack = SigmaZero(num_steps=30, **options)
    expected = attack(batch.net, batch.inputs, batch.labels)
    spy = spy_on(batch.net)
    found = replace(attack, batch_size=batch_size)(batch.net, batch.inputs, batch.labels)
    assert_same(found, expected)
    assert max(spy.forward_rows) == batch_size


@every_option
def test_when_samples_leave_the_batch_changes_no_answer(make_batch, spy_on, options, monkeypatch):
    """An accelerator is asked only now and then who is done; what it does meanwhile is in vain."""
    batch = make_batch(num_samples=9, num_wrong=2, seed=1)
    attack = SigmaZero(num_steps=30, **options)
    expected = attack(batch.net, batch.inputs, batch.labels)
    monkeypatch.setattr(sigma_zero, "steps_between_syncs", lambda device: 8)
    spy = spy_on(batch.net)
    found = attack(batch.net, batch.inputs, batch.labels)
    assert_same(found, expected)
    if attack.stops_early:
        assert sum(spy.forward_rows) > found.num_forwards.sum()
        assert spy.forward_rows[1:8] == [7] * 7


# ---- patience -----------------------------------------------------------------------------------


def test_patience_ends_a_search_so_many_steps_after_its_best(make_batch, spy_on):
    batch, patience, num_steps = make_batch(num_wrong=0, num_samples=8), 5, 60
    full = SigmaZero(num_steps=num_steps, recheck=False)
    spy = spy_on(batch.net)
    unlimited = full(batch.net, batch.inputs, batch.labels)
    l0 = torch.stack([(x != batch.inputs).flatten(1).sum(dim=1) for x in spy.inputs]).tolist()
    fooled = (torch.stack(spy.logits).argmax(dim=2) != batch.labels).tolist()
    found = replace(full, patience=patience)(batch.net, batch.inputs, batch.labels)
    for i in range(8):
        best, since, step = torch.inf, 0, 0
        for step in range(1, num_steps + 1):
            since += 1
            if fooled[step][i] and l0[step][i] < best:
                best, since = l0[step][i], 0
            if best < torch.inf and since == patience:
                break
        assert found.l0[i] == best
        assert found.num_forwards[i] == step + 1
        assert found.num_backwards[i] == min(step + 1, num_steps)
    assert found.num_forwards.unique().numel() > 3  # they left at various steps
    left = found.num_forwards < num_steps + 1
    assert left.any()
    assert torch.equal(found.last_inputs[left], found.best_inputs[left])
    assert (found.l0 > unlimited.l0).any()  # it has its price


def test_patience_that_is_never_exhausted_changes_nothing(make_batch):
    batch = make_batch(num_samples=8)
    attack = SigmaZero(num_steps=30)
    expected = attack(batch.net, batch.inputs, batch.labels)
    patient = replace(attack, patience=30)
    assert_same(patient(batch.net, batch.inputs, batch.labels), expected)


def test_patience_does_not_give_up_on_a_sample_that_is_not_broken_yet(make_batch):
    batch = make_batch(num_wrong=0)
    batch.net.head.weight.data.zero_()
    batch.net.head.bias.data = torch.tensor([0.0, 1.0, 0.0, 0.0]).double()
    labels = torch.ones_like(batch.labels)
    result = SigmaZero(num_steps=20, patience=3)(batch.net, batch.inputs, labels)
    assert not result.success.any()
    assert result.num_forwards.tolist() == [20 + 1 + 1] * 6


# ---- no look at a value, nothing that grows -----------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"unit": "pixels"}, {"step_rule": "sgd"}])
def test_a_step_reads_nothing_back(make_batch, options):
    batch = make_batch(num_wrong=1, num_samples=6)
    reads = []
    for num_steps in (3, 30):
        with HostReads() as mode:
            attack = SigmaZero(num_steps=num_steps, **options)
            attack(batch.net, batch.inputs, batch.labels)
        reads.append(mode.num_reads)
    assert reads[0] == reads[1] > 0


GROWTH = """
import resource, torch
from torch import nn
from sztrain.attacks import SigmaZero

net = nn.Sequential(nn.AvgPool2d(64), nn.Flatten(), nn.Linear(16, 2))
inputs = torch.rand(4, 1, 256, 256)  # δ takes 1 MB
labels = net(inputs).argmax(dim=1)
for num_steps in (10, 10, 210):
    SigmaZero(num_steps=num_steps)(net, inputs, labels)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted in kilobytes on Linux")
def test_memory_does_not_grow_with_the_number_of_steps():
    done = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, timeout=120
    )
    _, few, many = map(int, done.stdout.split())
    assert many - few < 20_000  # one δ a step would be 200 MB


# ---- recorded steps -----------------------------------------------------------------------------


class TapeGraph:
    """A CUDA graph made of Python: the operations that ran, to be run again on the same tensors.

    A real recording runs nothing; this one has run once, in place of its first replay.
    """

    def __init__(self):
        self.tape = []
        self.num_replays = 0

    def replay(self):
        self.num_replays += 1
        if self.num_replays == 1:
            return
        with torch._C._AutoDispatchBelowAutograd():
            for function, args, kwargs, outputs in self.tape:
                again = function(*args, **kwargs)
                sources = tensors([*args, *kwargs.values()])
                for old, new in zip(tensors(outputs), tensors(again), strict=True):
                    if not shares_memory(old, sources):
                        old.copy_(new)


def tensors(values):
    values = values if isinstance(values, (tuple, list)) else [values]
    return [value for value in values if isinstance(value, torch.Tensor)]


def shares_memory(tensor, sources):
    """Whether an output is a view of an argument, or was written in place."""
    storage = tensor.untyped_storage().data_ptr()
    return any(storage == source.untyped_storage().data_ptr() for source in sources)


class Tape(TorchDispatchMode):
    def __init__(self, graph, stream, capture_error_mode):
        super().__init__()
        self.graph = graph
        assert stream is stream.last_used[0]  # libraries have set themselves up on it
        assert capture_error_mode == "thread_local"  # a loader pins memory in another thread

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **kwargs or {})
        self.graph.tape.append((func, args, kwargs or {}, outputs))
        return outputs


@pytest.fixture
def graphs(monkeypatch):
    """CUDA graphs on a CPU: the list of all that are made."""
    made = []

    class Graph(TapeGraph):
        def __init__(self):
            super().__init__()
            made.append(self)

    last_used = [None]

    def stream(device=None):
        return SimpleNamespace(wait_stream=lambda other: None, last_used=last_used)

    def use(stream):
        last_used[0] = stream
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Tape)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    monkeypatch.setattr(torch.cuda, "stream", use)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(sigma_zero, "require_cuda", lambda device: None)
    monkeypatch.setattr(sigma_zero, "steps_between_syncs", lambda device: 8)
    return made


@every_option
@pytest.mark.parametrize("step_rule", ["adam", "sgd"])
def test_a_recorded_step_gives_what_an_eager_one_gives(
    make_batch, spy_on, options, step_rule, graphs
):
    batch = make_batch(num_samples=9, num_wrong=2, seed=1)
    attack = SigmaZero(num_steps=40, step_rule=step_rule, **options)
    expected = attack(batch.net, batch.inputs, batch.labels)
    spy = spy_on(batch.net)
    found = replace(attack, cuda_graph=True)(batch.net, batch.inputs, batch.labels)
    assert_same(found, expected)
    replayed = [graph.num_replays for graph in graphs if graph.num_replays]
    # Python saw: the look at x, three eager calls and one recording a graph, the last, the check.
    recorded = spy.forward_rows[1:-1]
    assert replayed
    assert len(recorded) <= 4 * len(graphs) + 1
    assert sum(replayed) + len(recorded) >= 40 or attack.stops_early
    sizes = list(dict.fromkeys(recorded))
    assert all(2 * small <= large for large, small in pairwise(sizes))


class Unrecordable(nn.Module):
    """Fails in the pass that is recorded, once."""

    def __init__(self, net, error):
        super().__init__()
        self.net, self.error, self.num_passes = net, error, 0

    def forward(self, inputs):
        self.num_passes += 1
        if self.num_passes == 2 + Recorded.NUM_EAGER:  # the first pass is no step
            raise self.error
        return self.net(inputs)


def test_a_net_that_cannot_be_recorded_is_refused(make_batch, graphs):
    batch = make_batch()
    net = Unrecordable(batch.net, RuntimeError("operation not permitted\nwhen capturing"))
    message = (
        r"^cannot record the net as a CUDA graph \(operation not permitted\): "
        "use cuda_graph=false$"
    )
    with pytest.raises(InputError, match=message):
        SigmaZero(num_steps=20, cuda_graph=True)(net, batch.inputs, batch.labels)


def test_a_recording_that_finds_no_memory_is_tried_with_fewer_samples(make_batch, graphs):
    batch, attack = make_batch(), SigmaZero(num_steps=20, cuda_graph=True)
    net = Unrecordable(batch.net, torch.OutOfMemoryError("no room"))
    found = attack(net, batch.inputs, batch.labels)
    assert_same(found, attack(batch.net, batch.inputs, batch.labels))


def test_a_graph_elsewhere_than_on_a_cuda_device_is_refused(make_batch):
    batch = make_batch()
    message = "expected inputs on a CUDA device with cuda_graph=true, got them on cpu"
    with pytest.raises(InputError, match=message):
        SigmaZero(num_steps=2, cuda_graph=True)(batch.net, batch.inputs, batch.labels)


def test_a_graph_and_autocast_exclude_each_other():
    with pytest.raises(InputError, match="expected one of `autocast` and `cuda_graph`, got both"):
        SigmaZero(autocast=True, cuda_graph=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_net_gives_what_the_net_gives(make_batch):
    batch = make_batch(num_samples=6)
    attack = SigmaZero(num_steps=20, budget=6)
    expected = attack(batch.net, batch.inputs, batch.labels)
    compiled = torch.compile(batch.net, backend="aot_eager")
    assert_same(attack(compiled, batch.inputs, batch.labels), expected)
    assert isinstance(compiled, nn.Module)
    torch.compiler.reset()


# ---- half precision -----------------------------------------------------------------------------


def test_under_autocast_every_claim_was_confirmed_in_full_precision(make_batch, spy_on, in_eval):
    for seed in range(3):
        batch = make_batch(num_samples=8, seed=seed, dtype=torch.float32)
        attack = SigmaZero(num_steps=40, autocast=True)
        spy = spy_on(batch.net)
        result = attack(batch.net, batch.inputs, batch.labels)
        assert (in_eval(batch.net, result.adv_inputs).argmax(dim=1) != batch.labels)[
            result.success
        ].all()
        assert result.success[1:].any()
        assert sum(spy.forward_rows[:-1]) == result.num_forwards.sum()
        assert {logits.dtype for logits in spy.logits} == {torch.bfloat16, torch.float32}


class Close(nn.Module):
    """Its two logits are one in half precision."""

    def forward(self, inputs):
        answers = inputs.flatten(1)[:, :1] * torch.tensor([[0.0, 0.0]]) + torch.tensor([1.0, 1.001])
        return (
            answers.to(torch.get_autocast_dtype("cpu"))
            if torch.is_autocast_enabled("cpu")
            else answers
        )


@pytest.mark.parametrize("budget", [None, 2])
def test_what_is_misclassified_in_full_precision_has_an_l0_of_0_under_autocast_too(budget):
    inputs, labels = torch.rand(2, 4), torch.tensor([0, 1])
    result = SigmaZero(num_steps=5, budget=budget, autocast=True)(Close(), inputs, labels)
    assert result.l0.tolist() == [0, torch.inf]


class Coarse(nn.Module):
    """A net that sees in half precision what is not there: its margins drown in a large offset."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 2)
        self.linear.weight.data[0] = 1.0
        self.linear.weight.data[1] = 0.98
        self.linear.bias.data = torch.tensor([0.0, 0.1])

    def forward(self, inputs):
        return self.linear(inputs)


def test_what_only_half_precision_takes_for_adversarial_is_not_counted_and_not_lost():
    net = Coarse()
    inputs = 0.5 + 0.5 * torch.rand(32, 16, generator=torch.Generator().manual_seed(0))
    labels = net(inputs).argmax(dim=1)
    full = SigmaZero(num_steps=60)(net, inputs, labels)
    half = SigmaZero(num_steps=60, autocast=True)(net, inputs, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        blind = SigmaZero(num_steps=60, recheck=False)(net, inputs, labels)
    refuted = net(blind.adv_inputs).argmax(dim=1) == labels
    assert (refuted & blind.success).any()  # the trap is set
    assert torch.equal(net(half.adv_inputs).argmax(dim=1) != labels, half.success)
    assert half.success.sum() >= full.success.sum()
