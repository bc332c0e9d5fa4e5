"""What an attack found, class by class and place by place."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from sztrain.evaluation.runner import AttackedBatch
from sztrain.metrics.functional import l0_histogram, median_l0


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """How the samples of one class fared.

    Attributes:
        label: the class.
        num_samples: how many samples of it were attacked.
        median_l0: median l0 over them; inf if at least half resist.
        asr_inf: share of them that is misclassified within any budget.
    """

    label: int
    num_samples: int
    median_l0: float
    asr_inf: float


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """The attacked samples of all processes one by one, and where they were changed; on the CPU.

    Attributes:
        labels: int64 ``(N,)``.
        l0: float ``(N,)``; 0 for a sample misclassified from the start, inf for one never broken.
        places: share of the changed samples that were changed at each position, float ``(H, W)``;
            ``None`` where samples are no images.
    """

    labels: Tensor
    l0: Tensor
    places: Tensor | None

    def by_class(self) -> list[ClassFigures]:
        """The figures of every class that has samples, in the order of the classes.

        Example:
            >>> labels, l0 = torch.tensor([1, 0, 1]), torch.tensor([2.0, 0.0, torch.inf])
            >>> [c.median_l0 for c in Breakdown(labels=labels, l0=l0, places=None).by_class()]
            [0.0, inf]
        """
        return [self._of_class(int(label)) for label in torch.unique(self.labels)]

    def _of_class(self, label: int) -> ClassFigures:
        l0 = self.l0[self.labels == label]
        finite = l0[l0.isfinite()]
        largest = int(finite.max()) if len(finite) else 1
        return ClassFigures(
            label=label,
            num_samples=len(l0),
            median_l0=float(median_l0(l0_histogram(l0, max(largest, 1)))),
            asr_inf=len(finite) / len(l0),
        )


class BreakdownMetric(Metric):
    """Collects labels, l0 and attacked places over batches and processes.

    Args:
        image_size: height and width of the samples; ``None``: they are no images.
        kwargs: options of :class:`torchmetrics.Metric`.
    """

    full_state_update: bool = False
    labels: list[Tensor]
    l0: list[Tensor]
    num_changed: Tensor
    places: Tensor

    def __init__(self, image_size: tuple[int, int] | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size
        self.add_state("labels", [], dist_reduce_fx="cat")
        self.add_state("l0", [], dist_reduce_fx="cat")
        self.add_state("num_changed", torch.tensor(0), dist_reduce_fx="sum")
        size = image_size or (0, 0)
        self.add_state("places", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, batch: AttackedBatch) -> None:
        """Count one attacked batch."""
        self.labels.append(batch.labels)
        self.l0.append(batch.result.l0)
        changed = batch.result.adv_inputs != batch.inputs
        self.num_changed = self.num_changed + changed.flatten(1).any(dim=1).sum()
        if self.image_size is not None:
            self.places = self.places + changed.any(dim=1).sum(dim=0)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Labels ``(N,)``, l0 ``(N,)`` and share of the changed samples by place ``(H, W)``."""
        shares = self.places / self.num_changed.clamp(min=1)
        return dim_zero_cat(self.labels), dim_zero_cat(self.l0), shares

    def breakdown(self) -> Breakdown:
        """What was collected by all processes; every one of them has to call it."""
        labels, l0, places = (part.cpu() for part in self.compute())
        return Breakdown(labels=labels, l0=l0, places=None if self.image_size is None else places)
