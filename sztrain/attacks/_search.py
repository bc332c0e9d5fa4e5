"""What σ-zero remembers of the samples that it attacks."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sztrain.attacks.base import Found
from sztrain.attacks.rows import Rows, first_rows
from sztrain.norms import per_sample


@dataclass(frozen=True, kw_only=True)
class Search(Rows):
    """State of σ-zero."""

    delta: Tensor
    gradient: Tensor
    mean: Tensor
    mean_square: Tensor
    tau: Tensor
    best_delta: Tensor
    best_l0: Tensor
    num_stale: Tensor
    """Steps since the best."""

    @classmethod
    def start(cls, inputs: Tensor, labels: Tensor, tau: float) -> Self:
        """Everyone at δ = 0."""
        # Neither thresholds nor counts can do with half precision.
        precise = torch.promote_types(inputs.dtype, torch.float32)
        return cls(
            **first_rows(inputs, labels),
            delta=torch.zeros_like(inputs),
            gradient=torch.zeros_like(inputs),
            mean=torch.zeros_like(inputs),
            mean_square=torch.zeros_like(inputs),
            tau=inputs.new_full((len(inputs),), tau, dtype=precise),
            best_delta=torch.zeros_like(inputs),
            best_l0=inputs.new_full((len(inputs),), torch.inf, dtype=torch.float32),
            num_stale=torch.zeros_like(labels),
        )

    def keep_best(self, better: Tensor, l0: Tensor) -> None:
        """Take δ for the best where it is ``better``."""
        # With weights 0 and 1 this copies rows, faster than `where` does on a CPU.
        self.best_delta.lerp_(self.delta, per_sample(better.to(self.delta.dtype), self.delta))
        torch.where(better, l0, self.best_l0, out=self.best_l0)

    def claims(self) -> Found:
        """The sparsest adversarial example of every row, and its last iterate."""
        best_inputs = self.inputs + self.best_delta
        last_inputs = self.inputs + self.delta
        return Found(
            best_inputs=best_inputs,
            best_l0=self.best_l0,
            # Where rows leave together only now and then, δ has moved on since the search was over.
            last_inputs=torch.where(per_sample(self.open, last_inputs), last_inputs, best_inputs),
            num_forwards=self.num_forwards,
            num_backwards=self.num_backwards,
        )
