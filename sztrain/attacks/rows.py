"""The samples that an attack still works on, and what is known of all of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor

from sztrain.attacks.base import Found
from sztrain.norms import per_sample


@dataclass(frozen=True, kw_only=True)
class Rows(ABC):
    """State of the samples under attack: tensors with one row a sample, changed in place.

    An attack adds its own, and says in :meth:`claims` what it has found.
    """

    index: Tensor
    """Where in the batch the samples stand."""
    inputs: Tensor
    labels: Tensor
    open: Tensor
    """Whether the search goes on; where it does not, nothing that is reported changes any more."""
    num_forwards: Tensor
    num_backwards: Tensor

    @abstractmethod
    def claims(self) -> Found:
        """What is known of every row."""

    def where(self, mask: Tensor) -> Self:
        """The rows where ``mask`` holds."""
        chosen = mask.nonzero().squeeze(1)  # once: by the mask each field would make a GPU wait
        return type(self)(
            **{field.name: getattr(self, field.name)[chosen] for field in fields(self)}
        )


AnyRows = TypeVar("AnyRows", bound=Rows)


def first_rows(inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What :class:`Rows` starts from: everybody, with nothing spent yet.

    Example:
        >>> first_rows(torch.zeros(2, 3), torch.tensor([1, 0]))["open"]
        tensor([True, True])
    """
    count = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    return {
        "index": torch.arange(len(inputs), device=inputs.device),
        "inputs": inputs,
        "labels": labels,
        "open": torch.ones_like(count, dtype=torch.bool),
        "num_forwards": count,
        "num_backwards": count.clone(),
    }


def precise(inputs: Tensor) -> torch.dtype:
    """The dtype of thresholds, losses and the like, which cannot do with half precision.

    Example:
        >>> precise(torch.zeros(2, 3, dtype=torch.bfloat16))
        torch.float32
    """
    return torch.promote_types(inputs.dtype, torch.float32)


def steps_between_syncs(device: torch.device) -> int:
    """How often to ask who is done: an accelerator makes the host wait for the answer.

    Example:
        >>> steps_between_syncs(torch.device("cpu"))
        1
    """
    return 1 if device.type == "cpu" else 8


class Outcome:
    """Collects, in the order of the batch, what is known of its samples.

    Args:
        inputs: shape ``(N, ...)``; what is known at first is that nothing was found or spent.
    """

    def __init__(self, inputs: Tensor) -> None:
        count = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
        self.found = Found(
            best_inputs=inputs.clone(),
            best_l0=inputs.new_full((len(inputs),), torch.inf, dtype=torch.float32),
            last_inputs=inputs.clone(),
            num_forwards=count,
            num_backwards=count.clone(),
        )

    def collect(self, rows: Rows) -> None:
        """Take over what is known of every row."""
        for name, values in vars(rows.claims()).items():
            if values is not None:
                getattr(self.found, name)[rows.index] = values

    def improve(self, index: Tensor, claims: Found) -> None:
        """Take from one run more, over the samples at ``index``, what is sparser, and its cost."""
        found = self.found
        better = claims.best_l0 < found.best_l0[index]
        found.best_inputs[index] = torch.where(
            per_sample(better, claims.best_inputs), claims.best_inputs, found.best_inputs[index]
        )
        found.best_l0[index] = torch.where(better, claims.best_l0, found.best_l0[index])
        found.last_inputs[index] = claims.last_inputs
        found.num_forwards[index] += claims.num_forwards
        found.num_backwards[index] += claims.num_backwards

    def without_closed(self, rows: AnyRows, *, at_most: float = 1.0) -> AnyRows:
        """Collect the rows that are over and return the others, or ``rows`` if nothing leaves.

        Args:
            rows: the rows under attack.
            at_most: let rows leave only if at most this share of them is to stay.
        """
        num_open = int(rows.open.sum())
        if num_open == len(rows.open) or num_open > at_most * len(rows.open):
            return rows
        self.collect(rows.where(~rows.open))
        return rows.where(rows.open)
