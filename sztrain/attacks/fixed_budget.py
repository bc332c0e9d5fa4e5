"""What the fixed-budget attacks share: the runs they are made of, and choices under a budget."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from sztrain.attacks.base import Found, Logits, is_adversarial, run_attack
from sztrain.attacks.budget_search import search_budgets
from sztrain.attacks.checks import require_tensors, validate_attack
from sztrain.attacks.rows import Outcome
from sztrain.errors import InputError, require_at_least, require_count, require_seed
from sztrain.types import AttackResult, Unit


@dataclass(frozen=True, kw_only=True)
class FixedBudgetAttack(ABC):
    """An attack that changes at most so many features, or pixels, of a sample.

    Without a ``budget`` it becomes a minimal-norm attack, by
    :func:`~sztrain.attacks.budget_search.search_budgets`. Either way a sample that the net errs on
    from the start is not attacked.

    Args:
        num_steps: of one run; where the budget is searched for, of all its rounds together.
        unit: what the budget counts: single values (``"features"``) or positions (``"pixels"``).
        budget: largest l0 of a changed sample; ``None``: search for the smallest that succeeds.
        seed: of the attack's own random generator.
        num_rounds: of the search.
        initial_budget: of the search.
        recheck: see :class:`~sztrain.attacks.SigmaZero`, as ``batch_size``.
        batch_size: how many samples are under attack at a time.

    Raises:
        InputError: a value out of its range.
    """

    num_steps: int = 1000
    unit: Unit = "features"
    budget: int | None = None
    seed: int = 0
    num_rounds: int = 10
    initial_budget: int = 100
    recheck: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        validate_attack(self.unit, self.num_steps, self.budget, self.batch_size)
        require_at_least("num_steps", self.num_steps, self.fewest_steps)
        require_seed("seed", self.seed)
        for name in ("num_rounds", "initial_budget"):
            require_count(name, getattr(self, name), 1)

    @property
    def fewest_steps(self) -> int:
        """Steps of a run below which nothing can be found."""
        return 1

    @property
    def asks_first(self) -> bool:
        """Whether samples that the net errs on from the start are looked for, and left alone."""
        return True

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> AttackResult:
        """Attack ``inputs``, shape ``(N, ...)`` in [0, 1], with int64 ``labels``, shape ``(N,)``.

        Raises:
            InputError: inputs outside [0, 1], labels outside the classes, non-finite logits, a
                budget above the number of units, too few steps for a search, or pixels asked of
                something without channels.
        """
        require_tensors(inputs, labels)
        attack = self.of_a_round()
        generator = torch.Generator(inputs.device).manual_seed(self.seed)
        search = partial(attack_correct, attack=attack) if attack.asks_first else attack.find
        return run_attack(
            partial(search, generator=generator),
            net,
            inputs,
            labels,
            unit=self.unit,
            budget=self.budget,
            recheck=self.recheck,
            batch_size=self.batch_size,
        )

    def check_search(self) -> None:
        """Refuse fewer steps than the search for a budget needs, if there is none.

        Raises:
            InputError: there are too few for all of its rounds.
        """
        fewest = self.num_rounds * self.fewest_steps
        if self.budget is None and self.num_steps < fewest:
            raise InputError(
                f"expected `num_steps` to be at least {fewest} without a budget, which is then "
                f"searched for in {self.num_rounds} rounds, got {self.num_steps}"
            )

    def of_a_round(self) -> Self:
        """The attack with the steps of one run.

        Raises:
            InputError: there are too few for all rounds of a search.
        """
        self.check_search()
        if self.budget is not None:
            return self
        return replace(self, num_steps=self.num_steps // self.num_rounds)

    def find(
        self,
        logits_of: Logits,
        inputs: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        known_l0: Tensor | None = None,
    ) -> Found:
        """Run within the budget, or search for it, on samples that the net is right about.

        Args:
            logits_of: the net.
            inputs: shape ``(N, ...)`` in [0, 1].
            labels: int64 ``(N,)``.
            generator: on the device of the inputs.
            known_l0: see :func:`~sztrain.attacks.budget_search.search_budgets`.
        """
        inputs, shape = inputs.contiguous(), inputs.shape[1:]
        # From here on a sample is (channels, positions): a feature is a position of one channel.
        rows = inputs.flatten(2) if self.unit == "pixels" else inputs.flatten(1).unsqueeze(1)

        def run(rows: Tensor, labels: Tensor, budgets: Tensor) -> Found:
            return self.run(
                lambda moved: logits_of(moved.view(-1, *shape)), rows, labels, budgets, generator
            )

        if self.budget is None:
            found = search_budgets(
                run,
                rows,
                labels,
                num_units=rows.shape[2],
                num_rounds=self.num_rounds,
                initial_budget=self.initial_budget,
                known_l0=known_l0,
            )
        else:
            found = run(rows, labels, torch.full_like(labels, self.budget))
        return replace(
            found,
            best_inputs=found.best_inputs.view_as(inputs),
            last_inputs=found.last_inputs.view_as(inputs),
        )

    @abstractmethod
    def run(
        self,
        logits_of: Logits,
        inputs: Tensor,
        labels: Tensor,
        budgets: Tensor,
        generator: torch.Generator,
    ) -> Found:
        """One run of the algorithm.

        Args:
            logits_of: the net, of samples of the shape of ``inputs``.
            inputs: contiguous, shape ``(N, channels, positions)`` in [0, 1].
            labels: int64 ``(N,)``.
            budgets: how many positions may change, int64 ``(N,)``.
            generator: on the device of the inputs.
        """


def attack_correct(
    logits_of: Logits,
    inputs: Tensor,
    labels: Tensor,
    attack: FixedBudgetAttack,
    generator: torch.Generator,
) -> Found:
    """Attack the samples that the net is right about; the minimum of the others is δ = 0."""
    outcome = Outcome(inputs)
    with torch.no_grad():
        logits = logits_of(inputs.clone())  # the first layer of the net may work in place
    outcome.found.num_forwards.add_(1)
    wrong = is_adversarial(logits, labels, targeted=False)
    outcome.found.best_l0[wrong] = 0
    rows = (~wrong).nonzero().squeeze(1)
    if len(rows) > 0:
        outcome.improve(rows, attack.find(logits_of, inputs[rows], labels[rows], generator))
    return outcome.found


def largest(scores: Tensor, budgets: Tensor, most: int) -> Tensor:
    """Mark in every row as many of the largest scores as its budget allows, and never more.

    Args:
        scores: shape ``(N, P)``.
        budgets: int64 ``(N,)``.
        most: the largest budget, which a device need not be asked for then.

    Returns:
        1 where a score is among the largest, else 0: shape ``(N, 1, P)``, dtype of ``scores``.

    Example:
        >>> scores = torch.tensor([[0.1, 0.3, 0.3], [3.0, 2.0, 1.0]])
        >>> largest(scores, torch.tensor([2, 1]), most=2).tolist()
        [[[0.0, 1.0, 1.0]], [[1.0, 0.0, 0.0]]]
    """
    places = scores.topk(most, dim=1).indices
    marks = (torch.arange(most, device=scores.device) < budgets.unsqueeze(1)).to(scores.dtype)
    return torch.zeros_like(scores).scatter_(1, places, marks).unsqueeze(1)
