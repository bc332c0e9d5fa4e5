r"""σ-zero within a budget: an adversary whose examples make nets that hold against other attacks.

The margin, the step along the normalised gradient and the step size are those of Cinà, Villani,
Pintor, Schönherr, Biggio, Pelillo: "σ-zero: Gradient-based Optimization of l0-norm Adversarial
Examples", `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_, Algorithm 1; the random start and
the choice of positions are this project's.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sztrain.attacks._climb import Climb, ClimbingAttack
from sztrain.attacks.base import Found, Logits
from sztrain.attacks.fixed_budget import largest
from sztrain.attacks.rows import Outcome, precise, steps_between_syncs
from sztrain.attacks.sigma_zero import cosine_annealing
from sztrain.errors import require_at_least, require_positive
from sztrain.losses import difference_of_logits
from sztrain.norms import clamp_to_box_


@dataclass(frozen=True, kw_only=True)
class BudgetedSigmaZero(ClimbingAttack):
    r"""σ-zero that spends a budget instead of looking for the fewest changes.

    A fixed-budget attack; without a ``budget`` it searches for the smallest one that succeeds. A
    sample leaves the batch once it is broken; ``last_inputs`` of one that is not is its iterate of
    smallest margin. Made for training: nets that learn from the smallest changes of
    :class:`~sztrain.attacks.SigmaZero` resist that attack and little else (``docs/training.md``
    has the figures). Of σ-zero it has the margin, the normalised gradient, the plain step of
    Algorithm 1 and the annealing. It has neither the smooth l0 nor the threshold τ, in whose place
    stands the choice of k positions, nor Adam, whose first step makes all entries of one size, so
    that hardly anything tells the positions apart; and it starts at random.

    Args:
        num_steps: N, steps of one run; where the budget is searched for, of all its rounds
            together. A run takes N + 1 forward and N backward passes.
        eta: :math:`\eta_0`, the initial step size; annealed by a cosine to a tenth of it.
        jitter: how far chance decides which positions are kept: standard deviation of the
            logarithm of the random factors of their scores; 0: not at all.
        unit: what the budget counts: single values (``"features"``) or positions (``"pixels"``).
        budget: largest l0 of a changed sample; ``None``: search for the smallest that succeeds.
        seed: of the random start and of the jitter.
        num_rounds: of the search.
        initial_budget: of the search.
        recheck: see :class:`~sztrain.attacks.SigmaZero`, as ``batch_size``.
        lean: see :class:`~sztrain.attacks.SparsePGD`.
        batch_size: how many samples are under attack at a time.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> net = torch.nn.Linear(4, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, -3.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
        >>> inputs = torch.tensor([[0.5, 0.1, 0.5, 0.5]])
        >>> BudgetedSigmaZero(num_steps=50, budget=1)(net, inputs, torch.tensor([0])).l0
        tensor([1.])
    """

    eta: float = 1.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("eta", self.eta)
        require_at_least("jitter", self.jitter, 0)

    def run(
        self,
        logits_of: Logits,
        inputs: Tensor,
        labels: Tensor,
        budgets: Tensor,
        generator: torch.Generator,
    ) -> Found:
        """See :func:`budgeted_sigma_zero`."""
        return budgeted_sigma_zero(logits_of, inputs, labels, budgets, self, generator)


@dataclass(frozen=True, kw_only=True)
class Descent(Climb):
    """State of the budgeted σ-zero."""

    delta: Tensor
    gradient: Tensor
    """Of the margin in δ."""

    @classmethod
    def start(
        cls,
        inputs: Tensor,
        labels: Tensor,
        budgets: Tensor,
        most: int,
        generator: torch.Generator,
    ) -> Self:
        """Everyone at random corners of the colour cube, in as many random positions as allowed."""
        # Not in half precision, where many would tie, and the first of them be taken.
        keys = torch.empty_like(inputs[:, 0], dtype=precise(inputs)).uniform_(generator=generator)
        corners = torch.empty_like(inputs).bernoulli_(generator=generator)
        return cls(
            **cls.first(inputs, labels, budgets),
            delta=corners.sub_(inputs).mul_(largest(keys, budgets, most)),
            gradient=torch.zeros_like(inputs),
        )


def budgeted_sigma_zero(
    logits_of: Logits,
    inputs: Tensor,
    labels: Tensor,
    budgets: Tensor,
    attack: BudgetedSigmaZero,
    generator: torch.Generator,
) -> Found:
    r"""Descend the margin :math:`f_y - \max_{k \ne y} f_k` in δ, at most k positions of it at once.

    .. math::
        \delta \leftarrow \Pi\bigl(clip(x + \delta - \eta_i \, g / \|g\|_\infty) - x\bigr), \qquad
        s_j = e^{r_j} \sum_{channels} |\delta_j \, g_j|, \quad r_j \sim N(0, jitter^2)

    from a start in k random positions at random corners of the colour cube. Π keeps the k positions
    of the largest scores s and zeroes all others: to first order, :math:`|\delta_j \, g_j|` is what
    position j does to the margin. As a plain step is as large as its gradient, what is new comes in
    by the size of its gradient, and what is old stays by its effect. The random factors keep a net
    from learning which positions the attack passes over.

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
    descent = Descent.start(inputs, labels, budgets, most, generator)
    _look(logits_of, descent)
    for i in range(1, attack.num_steps + 1):
        if i == 1 or i % interval == 0:
            descent = outcome.without_closed(descent)
        if len(descent.index) == 0:
            break
        eta = cosine_annealing(attack.eta, i - 1, attack.num_steps)
        _move(descent, eta, attack.jitter, most, generator)
        if i == attack.num_steps and not attack.looks_at_end:
            descent.end_at(descent.inputs + descent.delta)
            break
        _look(logits_of, descent, with_gradient=i < attack.num_steps)
    outcome.collect(descent)
    return outcome.found


def _look(logits_of: Logits, descent: Descent, *, with_gradient: bool = True) -> None:
    """Keep the iterate where it is adversarial or of the smallest margin; differentiate there."""
    # Rounding is monotone, so x + (clip(x + δ) - x) stays in [0, 1] without another clip.
    moved = descent.inputs + descent.delta
    ascent = descent.look(logits_of, moved, _lost_margin, with_gradient=with_gradient)
    if ascent is not None:
        torch.neg(ascent, out=descent.gradient)


def _lost_margin(logits: Tensor, labels: Tensor) -> Tensor:
    return -difference_of_logits(logits, labels)


def _move(
    descent: Descent, eta: float, jitter: float, most: int, generator: torch.Generator
) -> None:
    """One step along the normalised gradient, and the choice of the positions that stay moved."""
    gradient, delta = descent.gradient, descent.delta
    steepest = gradient.abs().amax(dim=(1, 2), keepdim=True)
    gradient.div_(steepest.clamp(min=torch.finfo(gradient.dtype).tiny))
    clamp_to_box_(delta.sub_(gradient, alpha=eta), descent.inputs)
    scores = (delta * gradient).abs_().sum(dim=1)
    if jitter > 0:
        factors = torch.empty_like(scores).normal_(std=jitter, generator=generator).exp_()
        scores.mul_(factors)
    # Without a gradient there are no scores to choose by: everything stays where it is.
    delta.mul_(largest(scores, descent.budgets, most).masked_fill_(steepest == 0, 1))
