"""How many samples an attack works on at a time: few on a CPU, elsewhere what the memory holds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import TypeVar

import torch
from torch import Tensor

from sztrain.types import AttackResult

T = TypeVar("T")

CPU_ROWS, CPU_VALUES = 64, 51_200
"""On a CPU a slice has as many rows as these values allow, but at least so many. The activations of
larger slices are so large that the C library gives their memory back to the system after each pass,
and the system has to clear it again for the next: with glibc, M1 takes twice as long for a sample
in a batch of 512 as in one of 32."""

HEAP_BLOCK = 32 * 2**20 - 2**16
"""Bytes, just below the largest block that glibc can be brought to keep on its heap."""


def in_slices(
    attack: Callable[[Tensor, Tensor], AttackResult],
    inputs: Tensor,
    labels: Tensor,
    batch_size: int | None,
) -> AttackResult:
    """Attack a batch a slice at a time, and put the answers together.

    Args:
        attack: called with inputs and labels of a slice.
        inputs: shape ``(N, ...)``.
        labels: shape ``(N,)``.
        batch_size: largest slice; ``None``: what is fast on a CPU, the whole batch elsewhere.

    Raises:
        torch.OutOfMemoryError: there is no room for a single sample.
    """
    on_cpu = inputs.device.type == "cpu"
    if on_cpu:
        keep_heap()
    if batch_size is None:
        batch_size = max(CPU_ROWS, CPU_VALUES // inputs[0].numel()) if on_cpu else len(inputs)
    results = map_slices(attack, (inputs, labels), batch_size)
    return results[0] if len(results) == 1 else _joined(results)


def map_slices(
    function: Callable[..., T], batch: Sequence[Tensor], batch_size: int | None = None
) -> list[T]:
    """Call a function on one slice of a batch after the other.

    A slice that the memory does not suffice for is passed again in halves; the answers before it
    stand.

    Args:
        function: called with the rows of a slice, one argument for each part of the batch.
        batch: tensors with a row for each sample.
        batch_size: largest slice; ``None``: the whole batch.

    Raises:
        torch.OutOfMemoryError: there is no room for a single sample.

    Example:
        >>> map_slices(len, [torch.zeros(5, 2)], batch_size=3)
        [3, 2]
    """
    size = len(batch[0])
    answers: list[T] = []
    waiting = [slice(0, size)] if batch_size is None else [*_even_slices(0, size, batch_size)]
    while waiting:
        rows = waiting.pop(0)
        try:
            answers.append(function(*(part[rows] for part in batch)))
            continue
        except RuntimeError as error:
            if rows.stop - rows.start == 1 or not _is_out_of_memory(error):
                raise
        # The error holds the tensors of the frames it came through: only here are they free.
        if batch[0].device.type == "cuda":
            torch.cuda.empty_cache()
        waiting = list(_even_slices(rows.start, size, (rows.stop - rows.start) // 2))
    return answers


def keep_heap() -> None:
    """Have the C library keep some 64 MB of freed memory for the next pass.

    glibc learns from what is freed: after one large block it takes blocks of up to that size from
    its heap, and leaves twice as much at its end. Elsewhere this costs some microseconds.

    Reference:
        ``M_MMAP_THRESHOLD`` in `mallopt(3) <https://man7.org/linux/man-pages/man3/mallopt.3.html>`_.

    Example:
        >>> keep_heap()
    """
    torch.empty(HEAP_BLOCK, dtype=torch.uint8)


def _even_slices(start: int, stop: int, batch_size: int) -> Iterator[slice]:
    """As few slices of at most ``batch_size`` as will do, of sizes that differ by at most one."""
    num_slices = -(-(stop - start) // batch_size)
    size, larger = divmod(stop - start, num_slices)
    for i in range(num_slices):
        end = start + size + (i < larger)
        yield slice(start, end)
        start = end


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The allocator of the CPU has no exception of its own.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _joined(results: list[AttackResult]) -> AttackResult:
    columns = {
        field.name: torch.cat([getattr(result, field.name) for result in results])
        for field in fields(results[0])
    }
    return type(results[0])(**columns)
