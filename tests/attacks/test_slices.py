"""A batch in slices: every sample once, in order, and none lost where the memory is short."""

import ctypes
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sztrain.attacks.slices import CPU_ROWS, CPU_VALUES, _even_slices, in_slices
from sztrain.types import AttackResult


def answer(inputs, labels):
    """An answer in which every sample can be recognised."""
    return AttackResult(
        adv_inputs=inputs + 1,
        success=labels % 2 == 0,
        l0=labels.float(),
        num_forwards=labels + 10,
        num_backwards=labels + 20,
        last_inputs=inputs + 2,
        best_inputs=inputs + 3,
    )


class Memory:
    """An attack on a machine with room for a few samples, which notes what it was asked for."""

    def __init__(self, room, error):
        self.room = room
        self.error = error
        self.asked = []
        self.answered = []

    def __call__(self, inputs, labels):
        self.asked.append(len(inputs))
        if len(inputs) > self.room:
            self.error()
        self.answered += labels.tolist()
        return answer(inputs, labels)


def no_room_on_the_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def no_room_on_the_cpu():
    torch.empty(2**60)


def batch(num_samples, num_features=3):
    return torch.rand(num_samples, num_features), torch.arange(num_samples)


def assert_whole(result, inputs, labels):
    for name, value in vars(answer(inputs, labels)).items():
        assert torch.equal(getattr(result, name), value), name


@given(st.integers(0, 50), st.integers(1, 300), st.integers(1, 60))
def test_slices_cover_the_batch_evenly_and_are_as_few_as_possible(start, size, batch_size):
    slices = list(_even_slices(start, start + size, batch_size))
    assert [i for rows in slices for i in range(rows.start, rows.stop)] == [
        *range(start, start + size)
    ]
    sizes = [rows.stop - rows.start for rows in slices]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert (len(slices) - 1) * batch_size < size


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "asked"), [(10, 4, [4, 3, 3]), (8, 8, [8]), (3, 100, [3])]
)
def test_a_batch_is_attacked_in_slices_of_the_size_that_was_asked_for(
    num_samples, batch_size, asked
):
    inputs, labels = batch(num_samples)
    attack = Memory(1000, None)
    assert_whole(in_slices(attack, inputs, labels, batch_size), inputs, labels)
    assert attack.asked == asked


@pytest.mark.parametrize("num_features", [1, 100, 3072])
def test_by_default_a_slice_on_a_cpu_is_small(num_features):
    inputs, labels = batch(2000, num_features)
    attack = Memory(2000, None)
    assert_whole(in_slices(attack, inputs, labels, None), inputs, labels)
    assert max(attack.asked) <= max(CPU_ROWS, CPU_VALUES / num_features)
    assert min(attack.asked) > CPU_ROWS / 2


def test_by_default_another_device_takes_everything_at_once():
    inputs, labels = torch.empty(2000, 3072, device="meta"), torch.empty(2000, device="meta")
    asked = []
    in_slices(lambda x, y: asked.append(len(x)) or answer(x, y), inputs, labels, None)
    assert asked == [2000]


@pytest.mark.parametrize("error", [no_room_on_the_gpu, no_room_on_the_cpu])
@pytest.mark.parametrize("room", [1, 2, 5, 16])
def test_what_the_memory_does_not_hold_is_halved_and_nothing_is_lost_or_done_twice(error, room):
    inputs, labels = batch(37)
    attack = Memory(room, error)
    assert_whole(in_slices(attack, inputs, labels, 37), inputs, labels)
    assert attack.answered == list(range(37))
    failed = [size for size in attack.asked if size > room]
    assert all(2 * second <= first for first, second in pairwise(failed))


def test_memory_that_runs_short_on_the_way_costs_only_the_slice_at_hand():
    inputs, labels = batch(12)
    attack = Memory(6, no_room_on_the_gpu)

    def shrinking(inputs, labels):
        if labels[0] == 6:
            attack.room = 3
        return attack(inputs, labels)

    assert_whole(in_slices(shrinking, inputs, labels, 6), inputs, labels)
    assert attack.asked == [6, 6, 3, 3]
    assert attack.answered == list(range(12))


def test_a_sample_that_does_not_fit_alone_is_an_error():
    inputs, labels = batch(4)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        in_slices(Memory(0, no_room_on_the_gpu), inputs, labels, None)


def test_any_other_error_comes_through_at_once():
    def fail():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    attack = Memory(0, fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        in_slices(attack, *batch(4), None)
    assert attack.asked == [4]


FAULTS = """
import resource, torch
from sztrain.attacks.slices import keep_heap
from sztrain.models import small_cnn

torch.set_num_threads(1)
net, images = small_cnn(), torch.rand(64, 1, 28, 28)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        inputs = images.clone().requires_grad_()
        torch.autograd.grad(net(inputs).sum(), inputs)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_heap()
faults()
print(before, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not (sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")), reason="no glibc"
)
def test_a_pass_finds_the_memory_of_the_last_one():
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120
        )
        before, after = map(int, done.stdout.split())
        if before > 5000:  # now and then the imports leave a heap that is kept, or partly kept
            break
    assert after < before / 4
