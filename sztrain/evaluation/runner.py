"""Runs an attack over batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from sztrain.attacks.answers import check_answer
from sztrain.attacks.modes import eval_mode
from sztrain.attacks.slices import map_slices
from sztrain.types import Attack, AttackResult


@dataclass(frozen=True, kw_only=True)
class AttackedBatch:
    """One batch and what the attack made of it; all tensors on the net's device.

    Attributes:
        inputs: clean images, shape ``(N, C, H, W)``.
        labels: int64 ``(N,)``.
        clean_predictions: classes predicted for the clean images, int64 ``(N,)``.
        result: the attack's answer.
        seconds: wall time of the attack, the device's work included.
    """

    inputs: Tensor
    labels: Tensor
    clean_predictions: Tensor
    result: AttackResult
    seconds: float


def attack_batches(
    net: nn.Module,
    attack: Attack,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device | str = "cpu",
) -> Iterator[AttackedBatch]:
    """Attack batch after batch, lazily.

    Args:
        net: maps images to logits, on ``device``.
        attack: the attack.
        batches: pairs of inputs ``(N, ...)`` and labels ``(N,)``.
        device: where the batches go.

    Raises:
        InputError: what the attack refuses, or an answer that is none.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> batches = [(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))]
        >>> [len(b.result.l0) for b in attack_batches(net, SigmaZero(num_steps=3), batches)]
        [2]
    """
    for inputs, labels in batches:
        inputs, labels = inputs.to(device), labels.to(device)
        clean_predictions = predict(net, inputs)
        start = wall_time(inputs.device)
        result = attack(net, inputs, labels)
        seconds = wall_time(inputs.device) - start
        check_answer(attack, result, inputs)
        yield AttackedBatch(
            inputs=inputs,
            labels=labels,
            clean_predictions=clean_predictions,
            result=result,
            seconds=seconds,
        )


def predict(net: nn.Module, inputs: Tensor) -> Tensor:
    """Predicted classes, int64 ``(N,)``, in eval mode and without gradients.

    Where the memory does not suffice for all of a batch, in halves, as attacks do.

    Example:
        >>> predict(nn.Linear(2, 3), torch.zeros(4, 2)).shape
        torch.Size([4])
    """

    def predictions(some_inputs: Tensor) -> Tensor:
        logits: Tensor = net(some_inputs.clone())  # the first layer of the net may work in place
        return logits.argmax(dim=1)

    with torch.no_grad(), eval_mode(net):
        return torch.cat(map_slices(predictions, [inputs]))


def wall_time(device: torch.device) -> float:
    """Seconds on a clock, read once the device has done what was asked of it.

    Example:
        >>> start = wall_time(torch.device("cpu"))
        >>> wall_time(torch.device("cpu")) >= start
        True
    """
    if torch.accelerator.is_available():  # without one, torch 2.6 would not answer what it is
        accelerator = torch.accelerator.current_accelerator()
        if accelerator is not None and accelerator.type == device.type:
            torch.accelerator.synchronize(device)
    return perf_counter()
