"""What σ-zero remembers of the samples that it still attacks, and of those it is done with."""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from sztrain.attacks.base import Found
from sztrain.norms import per_sample


@dataclass(frozen=True, kw_only=True)
class Search:
    """State of the samples under attack: tensors with one row a sample, changed in place."""

    index: Tensor
    inputs: Tensor
    labels: Tensor
    delta: Tensor
    gradient: Tensor
    mean: Tensor
    mean_square: Tensor
    tau: Tensor
    best_delta: Tensor
    best_l0: Tensor
    open: Tensor
    """Whether the search goes on; where it does not, nothing that is reported changes any more."""
    num_stale: Tensor
    """Steps since the best."""
    num_forwards: Tensor
    num_backwards: Tensor

    @classmethod
    def start(cls, inputs: Tensor, labels: Tensor, tau: float) -> Self:
        """Everyone at δ = 0."""
        # Neither thresholds nor counts can do with half precision.
        precise = torch.promote_types(inputs.dtype, torch.float32)
        count = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
        return cls(
            index=torch.arange(len(inputs), device=inputs.device),
            inputs=inputs,
            labels=labels,
            delta=torch.zeros_like(inputs),
            gradient=torch.zeros_like(inputs),
            mean=torch.zeros_like(inputs),
            mean_square=torch.zeros_like(inputs),
            tau=inputs.new_full((len(inputs),), tau, dtype=precise),
            best_delta=torch.zeros_like(inputs),
            best_l0=inputs.new_full((len(inputs),), torch.inf, dtype=torch.float32),
            open=torch.ones_like(count, dtype=torch.bool),
            num_stale=count.clone(),
            num_forwards=count.clone(),
            num_backwards=count.clone(),
        )

    def keep_best(self, better: Tensor, l0: Tensor) -> None:
        """Take δ for the best where it is ``better``."""
        # With weights 0 and 1 this copies rows, faster than `where` does on a CPU.
        self.best_delta.lerp_(self.delta, per_sample(better.to(self.delta.dtype), self.delta))
        torch.where(better, l0, self.best_l0, out=self.best_l0)

    def where(self, mask: Tensor) -> Self:
        """The rows where ``mask`` holds."""
        return type(self)(**{field.name: getattr(self, field.name)[mask] for field in fields(self)})


class Outcome:
    """Collects, in the order of the batch, the samples whose search is over."""

    def __init__(self, inputs: Tensor) -> None:
        count = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
        self.found = Found(
            best_inputs=inputs.clone(),
            best_l0=inputs.new_full((len(inputs),), torch.inf, dtype=torch.float32),
            last_inputs=inputs.clone(),
            num_forwards=count,
            num_backwards=count.clone(),
        )

    def collect(self, search: Search) -> None:
        """Take over what is known of every row of ``search``."""
        found, index = self.found, search.index
        best_inputs = search.inputs + search.best_delta
        last_inputs = search.inputs + search.delta
        found.best_inputs[index] = best_inputs
        found.best_l0[index] = search.best_l0
        # Where rows leave together only now and then, δ has moved on since the search was over.
        found.last_inputs[index] = torch.where(
            per_sample(search.open, last_inputs), last_inputs, best_inputs
        )
        found.num_forwards[index] = search.num_forwards
        found.num_backwards[index] = search.num_backwards

    def without_closed(self, search: Search, *, at_most: float = 1.0) -> Search:
        """Collect the rows that are over and return the others, or ``search`` if nothing leaves.

        Args:
            search: the rows under attack.
            at_most: let rows leave only if at most this share of them is to stay.
        """
        num_open = int(search.open.sum())
        if num_open == len(search.open) or num_open > at_most * len(search.open):
            return search
        self.collect(search.where(~search.open))
        return search.where(search.open)
