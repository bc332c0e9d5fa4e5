"""What the ascents within a budget share: an option, and what they remember of the samples."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from sztrain.attacks.base import Found, Logits, is_adversarial
from sztrain.attacks.fixed_budget import FixedBudgetAttack
from sztrain.attacks.gradients import finite_gradient
from sztrain.attacks.rows import Rows, first_rows, precise
from sztrain.norms import l0_norm, per_sample


@dataclass(frozen=True, kw_only=True)
class ClimbingAttack(FixedBudgetAttack):
    """A fixed-budget attack that climbs from a random start.

    Args:
        lean: see :class:`~sztrain.attacks.SparsePGD`.
    """

    lean: bool = False

    @property
    def asks_first(self) -> bool:
        """Whether samples that the net errs on from the start are looked for, and left alone."""
        return not self.lean

    @property
    def looks_at_end(self) -> bool:
        """Whether the last iterate is held against those before it."""
        return not self.lean or self.num_steps > 1

    def of_a_round(self) -> Self:
        """See the base class; a search has to know what each of its rounds has found."""
        attack = super().of_a_round()
        return attack if self.budget is not None else replace(attack, lean=False)


@dataclass(frozen=True, kw_only=True)
class Climb(Rows):
    """State of an ascent that ends at its first adversarial iterate.

    Samples are of shape ``(channels, positions)``, as :class:`FixedBudgetAttack` hands them on.
    """

    budgets: Tensor
    highest: Tensor
    """Highest loss so far."""
    reached: Tensor
    """Where the loss was highest; where the net was fooled."""

    @staticmethod
    def first(inputs: Tensor, labels: Tensor, budgets: Tensor) -> dict[str, Any]:
        """What every climb starts from, by the names of the attributes."""
        return {
            **first_rows(inputs, labels),
            "budgets": budgets,
            "highest": inputs.new_full((len(inputs),), -torch.inf, dtype=precise(inputs)),
            "reached": inputs.clone(),
        }

    def look(
        self,
        logits_of: Logits,
        moved: Tensor,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        *,
        with_gradient: bool = True,
    ) -> Tensor | None:
        """Pass iterates through the net and keep the good ones.

        Args:
            logits_of: the net.
            moved: the iterates, a tensor of their own.
            loss_of: what they climb, of logits and labels, shape ``(N,)``.
            with_gradient: whether to differentiate it.

        Returns:
            Its gradient in the iterates, if it is wanted.
        """
        moved.requires_grad_(with_gradient)
        with torch.set_grad_enabled(with_gradient):
            logits = logits_of(moved.clone())  # the first layer of the net may work in place
            loss = loss_of(logits, self.labels)
        self.num_forwards.add_(self.open)
        gradient = None
        if with_gradient:
            self.num_backwards.add_(self.open)
            gradient = finite_gradient(loss.sum(), moved)
        adversarial = is_adversarial(logits, self.labels, targeted=False)
        self.keep(moved.detach(), loss.detach(), adversarial)
        return gradient

    def keep(self, moved: Tensor, loss: Tensor, adversarial: Tensor) -> None:
        """Take iterates that are adversarial, or of a loss as high as never before."""
        better = self.open & (adversarial | (loss > self.highest))
        self.highest.copy_(torch.where(better, loss, self.highest))
        self.reached.lerp_(moved, per_sample(better.to(moved.dtype), moved))  # copies rows
        self.open.logical_and_(~adversarial)

    def end_at(self, moved: Tensor) -> None:
        """Take iterates of whoever is not broken as they are, without a pass through the net."""
        self.reached.lerp_(moved, per_sample(self.open.to(moved.dtype), moved))

    def claims(self) -> Found:
        """The adversarial iterate of every row that has one, else its iterate of highest loss."""
        l0 = l0_norm(self.reached - self.inputs, "pixels")
        return Found(
            best_inputs=self.reached,
            best_l0=l0.masked_fill(self.open, torch.inf),
            last_inputs=self.reached,
            num_forwards=self.num_forwards,
            num_backwards=self.num_backwards,
        )
