"""What GSE remembers of the samples that it attacks: over all runs, and in one of them."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sztrain.attacks._search import margin_loss
from sztrain.attacks.base import Found, Logits, is_adversarial
from sztrain.attacks.gradients import finite_gradient
from sztrain.attacks.rows import Rows, first_rows, precise
from sztrain.norms import per_sample


@dataclass(frozen=True, kw_only=True)
class GradientRows(Rows):
    """State of samples with the gradient of their margins."""

    gradient: Tensor

    def look(
        self, logits_of: Logits, delta: Tensor, *, targeted: bool, with_gradient: bool = True
    ) -> Tensor:
        """Who is adversarial at x + δ; takes the gradient there."""
        delta = delta.to(self.inputs.dtype, copy=True).requires_grad_(with_gradient)
        with torch.set_grad_enabled(with_gradient):
            logits = logits_of(self.inputs + delta)
        self.num_forwards.add_(self.open)
        if with_gradient:
            self.num_backwards.add_(self.open)
            finite_gradient(margin_loss(logits, self.labels, targeted), delta, out=self.gradient)
        return is_adversarial(logits, self.labels, targeted)


@dataclass(frozen=True, kw_only=True)
class GSESearch(GradientRows):
    """The search over the trade-off; the gradient is that at x, where each run starts."""

    trade_off: Tensor
    """λ⁰ of the next run, ``(N,)``."""
    lower: Tensor
    """Largest λ⁰ that succeeded, ``(N,)``."""
    upper: Tensor
    """Latest λ⁰ that failed, ``(N,)``."""
    best_inputs: Tensor
    best_l0: Tensor
    fewest_windows: Tensor
    """Of the best example, ``(N,)``."""
    last_inputs: Tensor
    """Where the latest run ended."""

    @classmethod
    def start(cls, inputs: Tensor, labels: Tensor) -> Self:
        """Everyone before the clean image has been looked at."""

        def everyone(value: float) -> Tensor:
            return inputs.new_full((len(inputs),), value, dtype=precise(inputs))

        return cls(
            **first_rows(inputs, labels),
            gradient=torch.zeros_like(inputs),
            trade_off=everyone(0),
            lower=everyone(0),
            upper=everyone(torch.inf),
            best_inputs=inputs.clone(),
            best_l0=inputs.new_full((len(inputs),), torch.inf, dtype=torch.float32),
            fewest_windows=everyone(torch.inf),
            last_inputs=inputs.clone(),
        )

    def claims(self) -> Found:
        """The best example of every row, and the end of its latest run."""
        return Found(
            best_inputs=self.best_inputs,
            best_l0=self.best_l0,
            last_inputs=self.last_inputs,
            num_forwards=self.num_forwards,
            num_backwards=self.num_backwards,
        )


@dataclass(frozen=True, kw_only=True)
class GSERun(GradientRows):
    """One run, of the samples that it has not broken yet; the gradient is that at w."""

    sigma: Tensor
    base: Tensor
    """λ⁰, ``(N, 1, 1, 1)`` as σ."""
    trade_off: Tensor
    """λ, ``(N, 1, H, W)``."""
    free: Tensor
    """M, the pixels that may move in the second phase, shaped as λ."""
    w: Tensor
    previous: Tensor
    """The point before mixing, of the step before."""
    l0: Tensor
    """Of the w that was adversarial, inf before."""

    @classmethod
    def start(cls, search: GSESearch, sigma: Tensor) -> Self:
        """Everyone at w = 0, with the trade-off of ``search``."""
        w = torch.zeros_like(search.inputs, dtype=precise(search.inputs))
        base = per_sample(search.trade_off, w)
        return cls(
            **first_rows(search.inputs, search.labels),
            gradient=search.gradient.clone(),
            sigma=per_sample(sigma, w),
            base=base,
            trade_off=base.expand_as(w[:, :1]).clone(),
            free=torch.ones_like(w[:, :1]),
            w=w,
            previous=w.clone(),
            l0=torch.full_like(sigma, torch.inf, dtype=torch.float32),
        )

    def claims(self) -> Found:
        """Where every row is: with an adversarial w its run has ended."""
        moved = self.inputs + self.w.to(self.inputs.dtype)
        return Found(
            best_inputs=moved,
            best_l0=self.l0,
            last_inputs=moved,
            num_forwards=self.num_forwards,
            num_backwards=self.num_backwards,
        )
