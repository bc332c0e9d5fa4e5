r"""PGD-l0: projected gradient descent onto the l0 ball within the box of images.

Croce, Hein: "Sparse and Imperceivable Adversarial Attacks",
`arXiv:1909.05040 <https://arxiv.org/abs/1909.05040>`_.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from sztrain.attacks.base import Found, Logits, is_adversarial
from sztrain.attacks.fixed_budget import FixedBudgetAttack, largest
from sztrain.attacks.gradients import finite_gradient
from sztrain.attacks.rows import Outcome, Rows, first_rows, steps_between_syncs
from sztrain.errors import require_positive
from sztrain.norms import l0_norm, per_sample


@dataclass(frozen=True, kw_only=True)
class PGDL0(FixedBudgetAttack):
    r"""The attack PGD-l0 (`arXiv:1909.05040 <https://arxiv.org/abs/1909.05040>`_).

    A fixed-budget attack; without a ``budget`` it searches for the smallest one that succeeds.

    Args:
        num_steps: T, iterates of one run; where the budget is searched for, of all its rounds
            together. The last iterate is not looked at, so a run takes T - 1 forward and backward
            pairs.
        eta: η, the step size for a gradient of l1 norm 1.
        early_stop: a sample leaves the batch at its first adversarial example. Without it the
            sparsest one of the run is kept, and success is the same.
        evaluate_last: look at the last iterate as well, by one more forward pass.
        unit: what the budget counts: single values (``"features"``) or positions (``"pixels"``),
            of which the paper's implementation keeps or drops all channels together.
        budget: largest l0 of a changed sample; ``None``: search for the smallest that succeeds.
        seed: of the random start.
        num_rounds: of the search.
        initial_budget: of the search.
        recheck: see :class:`~sztrain.attacks.SigmaZero`, as ``batch_size``.
        batch_size: how many samples are under attack at a time.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> net = torch.nn.Linear(4, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, -3.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
        >>> inputs = torch.tensor([[0.5, 0.1, 0.5, 0.5]])
        >>> PGDL0(num_steps=5, budget=1)(net, inputs, torch.tensor([0])).adv_inputs
        tensor([[0.5000, 1.0000, 0.5000, 0.5000]])
    """

    eta: float = 120_000 / 255
    early_stop: bool = False
    evaluate_last: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("eta", self.eta)

    @property
    def fewest_steps(self) -> int:
        """Steps of a run below which nothing can be found."""
        return 1 if self.evaluate_last else 2

    def run(
        self,
        logits_of: Logits,
        inputs: Tensor,
        labels: Tensor,
        budgets: Tensor,
        generator: torch.Generator,
    ) -> Found:
        """See :func:`pgd_l0`."""
        return pgd_l0(logits_of, inputs, labels, budgets, self, generator)


@dataclass(frozen=True, kw_only=True)
class Descent(Rows):
    """State of PGD-l0."""

    budgets: Tensor
    moved: Tensor
    """The iterate z."""
    gradient: Tensor
    best_inputs: Tensor
    best_l0: Tensor

    @classmethod
    def start(cls, inputs: Tensor, labels: Tensor, budgets: Tensor, moved: Tensor) -> Self:
        """Everyone at ``moved``."""
        return cls(
            **first_rows(inputs, labels),
            budgets=budgets,
            moved=moved,
            gradient=torch.zeros_like(inputs),
            best_inputs=inputs.clone(),
            best_l0=inputs.new_full((len(inputs),), torch.inf, dtype=torch.float32),
        )

    def claims(self) -> Found:
        """The sparsest adversarial iterate of every row, and the last iterate."""
        moved = self.moved
        return Found(
            best_inputs=self.best_inputs,
            best_l0=self.best_l0,
            # Where rows leave together only now and then, z has moved on since the end.
            last_inputs=torch.where(per_sample(self.open, moved), moved, self.best_inputs),
            num_forwards=self.num_forwards,
            num_backwards=self.num_backwards,
        )


def pgd_l0(
    logits_of: Logits,
    inputs: Tensor,
    labels: Tensor,
    budgets: Tensor,
    attack: PGDL0,
    generator: torch.Generator,
) -> Found:
    r"""Maximise the cross-entropy over images that differ from x in at most k positions.

    The authors' implementation adds noise of :math:`10^{-12}` to every step against ties, since it
    keeps whatever reaches the k-th largest score; here ranks decide, which know no ties.

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
    interval = steps_between_syncs(inputs.device)
    moved = torch.empty_like(inputs).uniform_(generator=generator)
    project(moved, inputs, budgets, most)
    outcome = Outcome(inputs)
    descent = Descent.start(inputs, labels, budgets, moved)
    for t in range(1, attack.num_steps):
        _look(logits_of, attack, descent)
        if attack.early_stop and t % interval == 0:
            descent = outcome.without_closed(descent)
            if len(descent.index) == 0:
                break
        gradient = descent.gradient
        length = gradient.abs().sum(dim=(1, 2), keepdim=True, dtype=torch.float32) + 1e-10
        descent.moved.add_(gradient.div_(length), alpha=attack.eta)
        project(descent.moved, descent.inputs, descent.budgets, most)
    if attack.evaluate_last and len(descent.index) > 0:
        _look(logits_of, attack, descent, with_gradient=False)
    outcome.collect(descent)
    return outcome.found


def project(moved: Tensor, inputs: Tensor, budgets: Tensor, most: int) -> None:
    r"""Move points to the nearest images that differ from x in at most k positions, in place.

    Let :math:`c = \min(\max(z, 0), 1)`. To keep a value costs :math:`(z - c)^2`, to give it up
    :math:`(z - x)^2`, so that keeping gains :math:`(c - x)(2 z - c - x)`; the k positions whose
    values gain most together are kept, at c, and all others put back to x.

    Args:
        moved: z, shape ``(N, channels, positions)``.
        inputs: x in [0, 1], of the same shape.
        budgets: k of every sample, int64 ``(N,)``.
        most: the largest of the budgets.

    Reference:
        The projection of `arXiv:1909.05040 <https://arxiv.org/abs/1909.05040>`_.

    Example:
        >>> moved = torch.tensor([[[0.4, -9.0, 1.6]]])
        >>> project(moved, torch.tensor([[[0.5, 0.01, 0.5]]]), torch.tensor([1]), most=1)
        >>> moved  # the longest step gains less: it has little room
        tensor([[[0.5000, 0.0100, 1.0000]]])
    """
    clipped = moved.clamp(0, 1)
    gain = moved.mul_(2).sub_(clipped).sub_(inputs).mul_(clipped - inputs)
    kept = largest(gain.sum(dim=1), budgets, most)
    torch.lerp(inputs, clipped, kept, out=moved)


def _look(
    logits_of: Logits, attack: PGDL0, descent: Descent, *, with_gradient: bool = True
) -> None:
    """Keep the iterate where it is a better example, and differentiate the loss there."""
    moved = descent.moved.detach().requires_grad_(with_gradient)
    with torch.set_grad_enabled(with_gradient):
        logits = logits_of(moved.clone())  # the first layer of the net may work in place
    descent.num_forwards.add_(descent.open)
    l0 = l0_norm(descent.moved - descent.inputs, "pixels")
    better = is_adversarial(logits, descent.labels, targeted=False) & (l0 <= descent.best_l0)
    better &= descent.open
    weight = per_sample(better.to(descent.moved.dtype), descent.moved)
    descent.best_inputs.lerp_(descent.moved, weight)  # copies rows
    torch.where(better, l0, descent.best_l0, out=descent.best_l0)
    if with_gradient:
        descent.num_backwards.add_(descent.open)
        loss = F.cross_entropy(logits, descent.labels, reduction="sum")
        finite_gradient(loss, moved, out=descent.gradient)
    if attack.early_stop:
        descent.open.logical_and_(~better)
