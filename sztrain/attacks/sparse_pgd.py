r"""sparse-PGD: gradient ascent on magnitudes and, apart from them, on the positions to change.

Zhong, Huang, Liu: "Towards Efficient Training and Evaluation of Robust Models against l0 Bounded
Adversarial Perturbations", `arXiv:2405.05075 <https://arxiv.org/abs/2405.05075>`_.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from sztrain.attacks._climb import Climb, ClimbingAttack
from sztrain.attacks.base import Found, Logits
from sztrain.attacks.fixed_budget import largest
from sztrain.attacks.rows import Outcome, precise, steps_between_syncs
from sztrain.errors import require_count, require_positive


@dataclass(frozen=True, kw_only=True)
class SparsePGD(ClimbingAttack):
    r"""The attack sparse-PGD (`arXiv:2405.05075 <https://arxiv.org/abs/2405.05075>`_).

    A fixed-budget attack; without a ``budget`` it searches for the smallest one that succeeds. A
    sample leaves the batch once it is broken; ``last_inputs`` of one that is not is its iterate of
    highest loss.

    Args:
        num_steps: T, steps of one run; where the budget is searched for, of all its rounds
            together. A run takes T + 1 forward and T backward passes.
        projected: whether magnitudes move only where they show, or (``False``) at all positions.
            The two break different samples.
        alpha: α, the step size of the magnitudes.
        beta: β, the step size of the mask, for which it is multiplied by the root of its size.
        patience: a mask is drawn anew when so many steps in a row have left its positions as they
            were.
        unit: what the budget counts: single values (``"features"``) or positions (``"pixels"``,
            as the paper).
        budget: largest l0 of a changed sample; ``None``: search for the smallest that succeeds.
        seed: of the random start and of the masks drawn anew.
        num_rounds: of the search.
        initial_budget: of the search.
        recheck: see :class:`~sztrain.attacks.SigmaZero`, as ``batch_size``.
        lean: for training, leave out the passes that training makes itself: who is misclassified
            anyway is not asked first, but attacked like the others; and where a single step leads
            is not looked at, as there is but the random start beside it. No search is lean.
        batch_size: how many samples are under attack at a time.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> net = torch.nn.Linear(4, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, -3.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
        >>> inputs = torch.tensor([[0.5, 0.1, 0.5, 0.5]])
        >>> SparsePGD(num_steps=50, budget=1)(net, inputs, torch.tensor([0])).l0
        tensor([1.])
    """

    projected: bool = False
    alpha: float = 0.25
    beta: float = 0.25
    patience: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("patience", self.patience, 1)
        for name in ("alpha", "beta"):
            require_positive(name, getattr(self, name))

    def run(
        self,
        logits_of: Logits,
        inputs: Tensor,
        labels: Tensor,
        budgets: Tensor,
        generator: torch.Generator,
    ) -> Found:
        """See :func:`sparse_pgd`."""
        return sparse_pgd(logits_of, inputs, labels, budgets, self, generator)


@dataclass(frozen=True, kw_only=True)
class Ascent(Climb):
    """State of sparse-PGD."""

    values: Tensor
    """x + p: what a position shows where the mask is open, ``(N, channels, P)`` in [0, 1]."""
    mask: Tensor
    """m, ``(N, P)``."""
    kept: Tensor
    """K(m): 1 for the k largest entries of the mask, else 0, ``(N, 1, P)``."""
    values_gradient: Tensor
    mask_gradient: Tensor
    num_stale: Tensor
    """Steps since the kept positions changed."""

    @classmethod
    def start(
        cls,
        inputs: Tensor,
        labels: Tensor,
        budgets: Tensor,
        most: int,
        generator: torch.Generator,
    ) -> Self:
        """Everyone at random magnitudes in a random mask."""
        noise = torch.empty_like(inputs).uniform_(-1, 1, generator=generator)
        mask = torch.empty_like(inputs[:, 0]).normal_(generator=generator)
        return cls(
            **cls.first(inputs, labels, budgets),
            values=noise.add_(inputs).clamp_(0, 1),
            mask=mask,
            kept=largest(mask, budgets, most),
            values_gradient=torch.zeros_like(inputs),
            mask_gradient=torch.zeros_like(mask),
            num_stale=torch.zeros_like(labels),
        )


def sparse_pgd(
    logits_of: Logits,
    inputs: Tensor,
    labels: Tensor,
    budgets: Tensor,
    attack: SparsePGD,
    generator: torch.Generator,
) -> Found:
    r"""Gradient ascent in mask and magnitudes (`arXiv:2405.05075 <https://arxiv.org/abs/2405.05075>`_).

    .. math:: z = x + p \odot K(m), \qquad g = \nabla_z CE(f(z), y), \qquad s = sigmoid(m)

    A step moves the mask m by β √P times its normalised gradient
    :math:`\tilde g = (\sum_{channels} g \odot p) \odot s \odot (1 - s)`, in which the choice K of
    the k largest entries is passed straight through, and p by α times the sign of its gradient:
    of :math:`g \odot s` in the unprojected variant, :math:`g \odot K(m)` in the projected one.

    The paper's implementation resets the counters of unchanged masks for the whole batch at once;
    here every sample has its own.

    Args:
        logits_of: the net.
        inputs: x, shape ``(N, channels, positions)`` in [0, 1].
        labels: y, int64 ``(N,)``.
        budgets: k of every sample, int64 ``(N,)``.
        attack: the hyper-parameters.
        generator: on the device of the inputs.

    Returns:
        The claims, which :func:`~sztrain.attacks.base.run_attack` verifies.
    """
    most = int(budgets.max())
    interval, outcome = steps_between_syncs(inputs.device), Outcome(inputs)
    ascent = Ascent.start(inputs, labels, budgets, most, generator)
    _look(logits_of, attack, ascent)
    for t in range(1, attack.num_steps + 1):
        if t % interval == 0:
            ascent = outcome.without_closed(ascent)
        if len(ascent.index) == 0:
            break
        _move(attack, ascent, most)
        if t == attack.num_steps and not attack.looks_at_end:
            ascent.end_at(_shown(ascent))
            break
        _look(logits_of, attack, ascent, with_gradient=t < attack.num_steps)
        _draw_stale_masks(attack, ascent, most, generator)
    outcome.collect(ascent)
    return outcome.found


def _move(attack: SparsePGD, ascent: Ascent, most: int) -> None:
    """Move mask and magnitudes, and count how long the kept positions have been the same."""
    gradient = ascent.mask_gradient
    # In half precision the length of a small gradient, and what is added to it, would be 0.
    length = torch.linalg.vector_norm(gradient, dim=1, keepdim=True, dtype=precise(gradient))
    step = attack.beta * math.sqrt(gradient.shape[1]) / (length + 1e-10)
    ascent.mask.add_(gradient * step.masked_fill(length < 2e-10, 0))
    ascent.values.add_(ascent.values_gradient.sign(), alpha=attack.alpha).clamp_(0, 1)
    kept = largest(ascent.mask, ascent.budgets, most)
    unchanged = (kept == ascent.kept).flatten(1).all(dim=1)
    ascent.num_stale.add_(1).mul_(unchanged)
    ascent.kept.copy_(kept)


def _shown(ascent: Ascent) -> Tensor:
    """The iterate z."""
    return torch.lerp(ascent.inputs, ascent.values, ascent.kept)


def _look(
    logits_of: Logits, attack: SparsePGD, ascent: Ascent, *, with_gradient: bool = True
) -> None:
    """Keep the iterate where it is adversarial or of the highest loss, and differentiate there."""
    moved = _shown(ascent)
    cross_entropy = partial(F.cross_entropy, reduction="none")
    gradient = ascent.look(logits_of, moved, cross_entropy, with_gradient=with_gradient)
    if gradient is not None:
        _differentiate(attack, ascent, gradient)


def _differentiate(attack: SparsePGD, ascent: Ascent, gradient: Tensor) -> None:
    """Gradients of the magnitudes and of the mask, by hand: K has none."""
    magnitudes = ascent.values - ascent.inputs
    share = ascent.mask.sigmoid()
    torch.sum(magnitudes.mul_(gradient), dim=1, out=ascent.mask_gradient)
    ascent.mask_gradient.mul_(share).mul_(1 - share)
    shown = ascent.kept if attack.projected else share.unsqueeze(1)
    torch.mul(gradient, shown, out=ascent.values_gradient)


def _draw_stale_masks(
    attack: SparsePGD, ascent: Ascent, most: int, generator: torch.Generator
) -> None:
    """Draw masks anew that have kept the same positions for too long; magnitudes stay."""
    stale = (ascent.num_stale >= attack.patience).unsqueeze(1)
    fresh = torch.empty_like(ascent.mask).normal_(generator=generator)
    ascent.mask.copy_(torch.where(stale, fresh, ascent.mask))
    ascent.kept.copy_(largest(ascent.mask, ascent.budgets, most))
    ascent.num_stale.masked_fill_(stale.squeeze(1), 0)
