"""Attacks a data set and keeps records of it, going on where an earlier run was stopped."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sztrain.attacks.peers import PeerAttack
from sztrain.evaluation.advice import LOOKED_AT, Advice
from sztrain.evaluation.changes import count_changes
from sztrain.evaluation.examples import NUM_KEPT, examples_of
from sztrain.evaluation.record import Cost, Record
from sztrain.evaluation.records import Records
from sztrain.evaluation.runner import AttackedBatch, attack_batches
from sztrain.types import Attack, Ensemble, EnsembleResult


class PassCounter:
    """Samples that passed a net."""

    def __init__(self) -> None:
        self.num_forwards = 0
        self.num_backwards = 0


@contextmanager
def counted_passes(net: nn.Module) -> Iterator[PassCounter]:
    """Count what passes ``net`` forwards and backwards, whoever sends it.

    Example:
        >>> net, inputs = nn.Linear(2, 2), torch.rand(3, 2, requires_grad=True)
        >>> with counted_passes(net) as counter:
        ...     _ = net(inputs)
        ...     net(inputs).sum().backward()
        >>> counter.num_forwards, counter.num_backwards
        (6, 3)
    """
    counter = PassCounter()

    def backward(gradient: Tensor) -> None:
        counter.num_backwards += len(gradient)

    def forward(_net: nn.Module, _inputs: Any, logits: Tensor) -> None:
        counter.num_forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(backward)  # type: ignore[no-untyped-call]

    hook = net.register_forward_hook(forward)
    try:
        yield counter
    finally:
        hook.remove()


def record_attack(
    net: nn.Module,
    attack: Attack,
    samples: "Dataset[tuple[Tensor, Tensor]]",
    records: Records,
    spans: Sequence[range],
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> Iterator[range]:
    """Attack batches of a data set and keep the records of each before the next begins.

    Args:
        net: maps images to logits, on ``device``.
        attack: the attack.
        samples: pairs of an image and its label.
        records: where the records go, and of the first samples some examples.
        spans: the samples of each batch.
        device: where the batches go.
        num_workers: processes that load samples.

    Yields:
        The samples of every batch, once its records are written.

    Raises:
        InputError: what the attack refuses, or a disk that has no room.
    """
    device = torch.device(device)
    loader: DataLoader[Any] = DataLoader(
        samples, batch_sampler=[list(span) for span in spans], num_workers=num_workers
    )
    if spans and isinstance(attack, PeerAttack):
        attack.prepare()  # no net's seconds are to have it in
    batches = attack_batches(net, attack, loader, device)
    advice = Advice()
    for span in spans:
        needed_before = _reset_peak(device)
        with counted_passes(net) as counter:
            batch = next(batches)
        num_forwards, num_backwards = _passes(attack, batch, counter)
        peak = peak_memory(device)
        advice.on_outputs(net, batch.inputs[:LOOKED_AT], batch.labels[:LOOKED_AT])
        advice.on_attacked(net, attack, batch)
        cost = Cost(
            num_samples=len(span),
            seconds=batch.seconds,
            num_forwards=num_forwards,
            num_backwards=num_backwards,
            peak_memory=peak if peak > needed_before else 0,
            device=device_name(device),
            torch=torch.__version__,
            sztrain=version("sztrain"),
        )
        if span.start < NUM_KEPT:
            wanted = NUM_KEPT - span.start
            records.write_examples(span, examples_of(net, batch, wanted, broken_first=False))
        if records.keeps_adv_inputs:
            records.write_adv_inputs(span, batch.result.adv_inputs)
        records.write(span, list(_rows(attack, batch, span)), cost)
        yield span


def device_name(device: torch.device) -> str:
    """What stands in the tables: ``cpu``, or a GPU's name.

    Example:
        >>> device_name(torch.device("cpu"))
        'cpu'
    """
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a CUDA GPU, or resident in this process on a CPU.

    0 elsewhere, as on Apple's GPUs, of which torch keeps no peak.

    Example:
        >>> peak_memory(torch.device("cpu")) > 10_000_000 or sys.platform == "win32"
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or sys.platform == "win32":
        return 0
    import resource  # which Windows does not have

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _reset_peak(device: torch.device) -> int:
    """Bytes that were needed before and cannot be forgotten: a process keeps its peak."""
    if device.type != "cuda":
        return peak_memory(device)
    torch.cuda.reset_peak_memory_stats(device)
    return 0


def _passes(attack: Attack, batch: AttackedBatch, counter: PassCounter) -> tuple[int, int]:
    """Samples that the attack sent through the net, forwards and backwards."""
    if getattr(attack, "cuda_graph", False):
        # A replay calls no hook: the net has seen the recording alone, the attack knows of all.
        result = batch.result
        return int(result.num_forwards.sum()), int(result.num_backwards.sum())
    # Without the clean prediction.
    return counter.num_forwards - len(batch.labels), counter.num_backwards


def _rows(attack: Attack, batch: AttackedBatch, span: range) -> Iterator[Record]:
    result = batch.result
    columns: dict[str, Sequence[Any]] = {
        "index": span,
        "label": batch.labels.tolist(),
        "clean_prediction": batch.clean_predictions.tolist(),
        "l0": result.l0.tolist(),
        "success": result.success.tolist(),
        "num_forwards": result.num_forwards.tolist(),
        "num_backwards": result.num_backwards.tolist(),
        **count_changes(result.adv_inputs - batch.inputs),
    }
    if isinstance(result, EnsembleResult) and isinstance(attack, Ensemble):
        names = [*attack.members, ""]  # -1: nobody
        columns["broken_by"] = [names[i] for i in result.broken_by.tolist()]
    for values in zip(*columns.values(), strict=True):
        yield Record(**dict(zip(columns, values, strict=True)))
