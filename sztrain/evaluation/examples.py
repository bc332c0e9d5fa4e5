"""A few attacked samples to look at."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sztrain.evaluation.runner import AttackedBatch, predict

NUM_KEPT, NUM_SHOWN = 24, 8
"""Examples of a job, and most of them in one picture: those of which there is most to see."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """A few attacked samples to look at, on the CPU.

    Attributes:
        inputs: shape ``(M, C, H, W)``.
        adv_inputs: of the same shape; the clean input where the attack failed.
        labels: int64 ``(M,)``.
        clean_predictions: int64 ``(M,)``.
        adv_predictions: int64 ``(M,)``.
        l0: float ``(M,)``.
    """

    inputs: Tensor
    adv_inputs: Tensor
    labels: Tensor
    clean_predictions: Tensor
    adv_predictions: Tensor
    l0: Tensor

    @classmethod
    def joined(cls, parts: Iterable["Examples"]) -> "Examples | None":
        """All of several parts; ``None`` where there is none."""
        columns = [vars(part) for part in parts]
        if not columns:
            return None
        return cls(**{name: torch.cat([part[name] for part in columns]) for name in columns[0]})

    def at(self, rows: Tensor) -> "Examples":
        """Some of them, by their places or by a mask."""
        return Examples(**{name: values[rows] for name, values in vars(self).items()})

    @property
    def broken(self) -> Tensor:
        """Which a change broke, bool ``(M,)``: not those that are wrong from the start."""
        return self.l0.isfinite() & (self.l0 > 0)

    def broken_first(self, count: int) -> "Examples":
        """At most ``count`` of them, as :func:`examples_of` chooses."""
        correct = self.clean_predictions == self.labels
        return self.at(_order(correct, self.broken)[:count])


def examples_of(
    net: nn.Module, batch: AttackedBatch, wanted: int, *, broken_first: bool = True
) -> Examples:
    """A few samples of a batch: correctly classified ones first.

    Args:
        net: the net that was attacked.
        batch: what became of it.
        wanted: how many.
        broken_first: whether of these such come first as were broken, which show the attack at
            work. If not, the choice is the same for all attacks, to lay them side by side.
    """
    correct = batch.clean_predictions == batch.labels
    broken = correct & batch.result.success
    order = _order(correct, broken if broken_first else torch.zeros_like(broken))[:wanted]
    adv_inputs = batch.result.adv_inputs[order]
    return Examples(
        inputs=batch.inputs[order].cpu(),
        adv_inputs=adv_inputs.cpu(),
        labels=batch.labels[order].cpu(),
        clean_predictions=batch.clean_predictions[order].cpu(),
        adv_predictions=predict(net, adv_inputs).cpu(),
        l0=batch.result.l0[order].cpu(),
    )


def _order(correct: Tensor, broken: Tensor) -> Tensor:
    """Places of the broken ones, then of others that are correct, then of the rest."""
    return (correct.int() + broken.int()).argsort(descending=True, stable=True)


def side_by_side(examples: Mapping[str, Examples], count: int) -> dict[str, Examples]:
    """At most ``count`` of the samples that all attacks on a net have in common.

    Those come first that most of the attacks broke.

    Args:
        examples: of each attack, by its name; at least one.
        count: how many.

    Returns:
        The same samples in the same order for each attack; empty where none is common to all.

    Example:
        >>> def of(inputs, l0):
        ...     label, images = torch.zeros(len(l0)).long(), torch.tensor(inputs).view(-1, 1, 1, 1)
        ...     return Examples(
        ...         inputs=images, adv_inputs=images, labels=label, clean_predictions=label,
        ...         adv_predictions=label, l0=torch.tensor(l0),
        ...     )
        >>> inf = torch.inf
        >>> shared = side_by_side({"a": of([0.1, 0.2], [inf, 3.0]), "b": of([0.2], [4.0])}, 8)
        >>> {name: one.l0.tolist() for name, one in shared.items()}
        {'a': [3.0], 'b': [4.0]}
    """
    places = [
        {image.numpy().tobytes(): row for row, image in enumerate(one.inputs)}
        for one in examples.values()
    ]
    common = [image for image in places[0] if all(image in other for other in places)]
    if not common:
        return {}
    shared = {
        name: one.at(torch.tensor([rows[image] for image in common]))
        for (name, one), rows in zip(examples.items(), places, strict=True)
    }
    times_broken = torch.stack([one.broken for one in shared.values()]).sum(dim=0)
    order = times_broken.argsort(descending=True, stable=True)[:count]
    return {name: one.at(order) for name, one in shared.items()}
