"""The smallest budget at which a fixed-budget attack succeeds, found for each sample."""

from collections.abc import Callable

import torch
from torch import Tensor

from sztrain.attacks.base import Found
from sztrain.attacks.rows import Outcome

WithinBudgets = Callable[[Tensor, Tensor, Tensor], Found]
"""One run of a fixed-budget attack on inputs, labels and a budget for each sample."""


def search_budgets(
    attack: WithinBudgets,
    inputs: Tensor,
    labels: Tensor,
    *,
    num_units: int,
    num_rounds: int = 10,
    initial_budget: int = 100,
    known_l0: Tensor | None = None,
) -> Found:
    """Turn a fixed-budget attack into a minimal-norm one.

    Each sample has its own budget. It doubles until the sample is broken for the first time, and
    from then on halves the gap between the largest budget that failed and the smallest that did
    not; a sample whose gap is closed is left alone. A budget never exceeds the size of a sample.

    Args:
        attack: a run of the attack.
        inputs: shape ``(N, ...)`` in [0, 1].
        labels: int64 ``(N,)``.
        num_units: how many features, or pixels, a sample has.
        num_rounds: runs of the attack.
        initial_budget: the first budget.
        known_l0: l0 of examples that are known already, inf where there are none, shape ``(N,)``:
            only sparser ones are looked for.

    Returns:
        The sparsest examples of all rounds; the last iterates are those of a sample's last round.

    Reference:
        The binary search in Appendix C of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_.
        It prints that every success halves the budget and every failure doubles it; its figures
        are those of a bisection after the first success.

    Example:
        >>> def thirty_will_do(inputs, labels, budgets):
        ...     l0 = torch.where(budgets >= 30, budgets, torch.inf)
        ...     return Found(best_inputs=inputs, best_l0=l0, last_inputs=inputs,
        ...                  num_forwards=budgets, num_backwards=budgets)
        >>> inputs, labels = torch.rand(1, 1, 28, 28), torch.tensor([3])
        >>> search_budgets(thirty_will_do, inputs, labels, num_units=784).best_l0
        tensor([30.])
    """
    outcome = Outcome(inputs)
    failed = torch.zeros_like(labels)
    never = num_units + 1
    broken = torch.full_like(labels, never)
    if known_l0 is not None:
        broken = known_l0.clamp(max=never).long()
    for _ in range(num_rounds):
        rows = ((broken == never) | (broken - failed > 1)).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        doubled = torch.where(failed == 0, initial_budget, 2 * failed).clamp(max=num_units)
        budgets = torch.where(broken == never, doubled, (failed + broken) // 2)[rows]
        found = attack(inputs[rows], labels[rows], budgets)
        outcome.improve(rows, found)
        success = found.best_l0.isfinite()
        broken[rows] = torch.where(success, budgets, broken[rows])
        failed[rows] = torch.where(success, failed[rows], budgets)
    return outcome.found
