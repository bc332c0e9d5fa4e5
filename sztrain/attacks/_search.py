"""What a descent over δ remembers of the samples that it attacks, and steps it can take."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from sztrain.attacks.base import Found, Logits, is_adversarial
from sztrain.attacks.gradients import input_gradient
from sztrain.attacks.rows import Rows, first_rows, precise
from sztrain.losses import difference_of_logits
from sztrain.norms import l0_norm, per_sample
from sztrain.types import Unit

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam, arXiv:1412.6980, Algorithm 1


class Seen(NamedTuple):
    """What a forward pass showed."""

    logits: Tensor
    delta: Tensor
    """Where it was taken, a leaf that the logits can be differentiated in."""
    adversarial: Tensor
    improved: Tensor
    """Where δ became the best."""


@dataclass(frozen=True, kw_only=True)
class Search(Rows):
    """State of a descent over δ."""

    delta: Tensor
    best_delta: Tensor
    best_l0: Tensor

    @classmethod
    def at_zero(cls, inputs: Tensor, labels: Tensor, **own: Tensor) -> Self:
        """Everyone at δ = 0; ``own`` is what a kind of search has beyond this."""
        return cls(
            **first_rows(inputs, labels),
            delta=torch.zeros_like(inputs),
            best_delta=torch.zeros_like(inputs),
            best_l0=inputs.new_full((len(inputs),), torch.inf, dtype=torch.float32),
            **own,
        )

    def look(
        self,
        logits_of: Logits,
        unit: Unit,
        *,
        targeted: bool = False,
        with_gradient: bool = True,
        confirm: Callable[[Tensor], Tensor] | None = None,
    ) -> Seen:
        """Pass x + δ through the net; take δ for the best where it is adversarial and sparser.

        With ``confirm`` only where that says so as well, of a mask of the rows in question.
        """
        # Rounding is monotone, so x + (clip(x + δ) - x) stays in [0, 1] without another clip.
        delta = self.delta.detach().requires_grad_(with_gradient)
        with torch.set_grad_enabled(with_gradient):
            logits = logits_of(self.inputs + delta)
        self.num_forwards.add_(self.open)
        if with_gradient:
            self.num_backwards.add_(self.open)
        adversarial = is_adversarial(logits, self.labels, targeted)
        l0 = l0_norm(self.delta, unit)
        improved = adversarial & self.open & (l0 < self.best_l0)
        if confirm is not None:
            improved = confirm(improved)
        self.keep_best(improved, l0)
        return Seen(logits, delta, adversarial, improved)

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


@dataclass(frozen=True, kw_only=True)
class AdamSearch(Search):
    """A search that steps with Adam along the normalised gradient and cuts off small changes."""

    gradient: Tensor
    mean: Tensor
    mean_square: Tensor
    tau: Tensor

    @classmethod
    def start(
        cls, inputs: Tensor, labels: Tensor, tau: float, *, moments: bool = True, **own: Tensor
    ) -> Self:
        """Everyone at δ = 0, with the threshold τ; without ``moments`` for the plain step."""
        none = inputs.new_empty(len(inputs), 0)
        return cls.at_zero(
            inputs,
            labels,
            gradient=torch.zeros_like(inputs),
            mean=torch.zeros_like(inputs) if moments else none,
            mean_square=torch.zeros_like(inputs) if moments else none,
            tau=inputs.new_full((len(inputs),), tau, dtype=precise(inputs)),
            **own,
        )

    def normalise_gradient(self) -> Tensor:
        """Divide the gradient by its largest entry; returns it."""
        gradient = self.gradient
        # An entry that overflowed says nothing: it moves nothing, and the others still do.
        torch.nan_to_num(gradient, 0, 0, 0, out=gradient)
        largest = gradient.abs().amax(dim=tuple(range(1, gradient.ndim)), keepdim=True)
        info = torch.finfo(gradient.dtype)
        smallest = max(1e-12, info.smallest_normal * info.eps)  # half precision has no 1e-12
        return gradient.div_(largest.clamp_(min=smallest))

    def adam_direction(self, epsilon: Tensor | float) -> Tensor:
        """Let Adam's moments take in the gradient; returns what to step along, in its memory."""
        gradient = self.gradient
        self.mean.lerp_(gradient, 1 - BETA1)
        self.mean_square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        scale = torch.sqrt(self.mean_square, out=gradient).add_(epsilon)
        return torch.div(self.mean, scale, out=gradient)

    def cut_off(self, sizes: Tensor) -> None:
        """Zero δ where ``sizes`` are below the threshold."""
        # 1 where it is not below, else 0. By arithmetic: a CPU takes several times as long over a
        # mask.
        room = sizes - per_sample(self.tau, sizes)
        self.delta.mul_(room.sign_().add_(1).clamp_(max=1))


def margin_loss(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    r"""Sum of what is left of the margins, of :math:`\max(f_y - \max_{k \ne y} f_k, 0)`.

    Targeted, of :math:`\max(\max_{k \ne t} f_k - f_t, 0)`.
    """
    margin = difference_of_logits(logits, labels)
    return (-margin if targeted else margin).clamp(min=0).sum()


def margin_gradient(logits: Tensor, labels: Tensor, delta: Tensor, targeted: bool) -> Tensor:
    """Gradient of :func:`margin_loss` in δ."""
    return input_gradient(margin_loss(logits, labels, targeted), delta)


def corrected(eta: float, step: int, dtype: torch.dtype) -> tuple[float, float]:
    """Step size and Adam's ε at ``step``, 1, 2, ..., with the corrections of Adam's bias in them.

    "The order of computation" at the end of Section 2 of arXiv:1412.6980.
    """
    root = math.sqrt(1 - BETA2**step)
    smallest = max(EPSILON, torch.finfo(dtype).tiny)  # half precision has no 1e-8
    return eta * root / (1 - BETA1**step), smallest * root
