r"""Sparse-RS: random search for l0-bounded adversarial examples, which needs no gradient.

Croce, Andriushchenko, Singh, Flammarion, Hein: "Sparse-RS: a versatile framework for
query-efficient sparse black-box adversarial attacks",
`arXiv:2006.12834 <https://arxiv.org/abs/2006.12834>`_.
"""

from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from sztrain.attacks._moves import Move, move_sizes
from sztrain.attacks.base import Found, Logits, is_adversarial
from sztrain.attacks.fixed_budget import FixedBudgetAttack, largest
from sztrain.attacks.rows import Outcome, Rows, first_rows, precise, steps_between_syncs
from sztrain.errors import InputError, require_in
from sztrain.losses import difference_of_logits
from sztrain.norms import l0_norm

Loss = Literal["margin", "ce"]
LOSSES: tuple[Loss, ...] = ("margin", "ce")

STAGES = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000, 10_000)
"""The last ten-thousandth of the queries of each stage of a run."""

DIVISORS = (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)
"""Of α in each stage."""

MAX_CHANNELS = 62
"""Colours of more channels have no numbers in 64 bits."""


@dataclass(frozen=True, kw_only=True)
class SparseRS(FixedBudgetAttack):
    r"""The attack Sparse-RS (`arXiv:2006.12834 <https://arxiv.org/abs/2006.12834>`_), untargeted.

    A fixed-budget attack that sees nothing but logits; without a ``budget`` it searches for the
    smallest one that succeeds. A sample leaves the batch once it is broken.

    Args:
        num_steps: Q, queries (forward passes) of one run; where the budget is searched for, of all
            its rounds together. The σ-zero paper grants Sparse-RS 4 N there, 2 N at a fixed budget.
        alpha: α, the share of the changed positions that a move exchanges at first; the paper's
            implementation has 0.8, the paper recommends 0.3.
        loss: what a move has to lower: the ``"margin"`` of the true class, or minus its
            cross-entropy (``"ce"``).
        unit: what the budget counts: single values (``"features"``) or positions (``"pixels"``).
        budget: largest l0 of a changed sample; ``None``: search for the smallest that succeeds.
        seed: of the random search.
        num_rounds: of the search for a budget.
        initial_budget: of the search for a budget.
        recheck: see :class:`~sztrain.attacks.SigmaZero`, as ``batch_size``.
        batch_size: how many samples are under attack at a time.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> net = torch.nn.Linear(4, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, -3.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
        >>> inputs = torch.tensor([[0.5, 0.1, 0.5, 0.5]])
        >>> SparseRS(num_steps=50, budget=1)(net, inputs, torch.tensor([0])).adv_inputs
        tensor([[0.5000, 1.0000, 0.5000, 0.5000]])
    """

    num_steps: int = 4000
    alpha: float = 0.8
    loss: Loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in("loss", self.loss, LOSSES)
        if not 0 < self.alpha <= 1:
            raise InputError(f"expected `alpha` to be above 0 and at most 1, got {self.alpha}")

    def run(
        self,
        logits_of: Logits,
        inputs: Tensor,
        labels: Tensor,
        budgets: Tensor,
        generator: torch.Generator,
    ) -> Found:
        """See :func:`sparse_rs`."""
        return sparse_rs(logits_of, inputs, labels, budgets, self, generator)


@dataclass(frozen=True, kw_only=True)
class Walk(Rows):
    """State of Sparse-RS: the best image of every sample, which is x outside its members."""

    members: Tensor
    """1 for the positions in M, else 0: float32 ``(N, 1, P)``."""
    sizes: Tensor
    """How many members a move exchanges in each of the stages, int64 ``(N, stages)``."""
    best_inputs: Tensor
    best_loss: Tensor

    @classmethod
    def start(
        cls,
        inputs: Tensor,
        labels: Tensor,
        budgets: Tensor,
        alpha: float,
        generator: torch.Generator,
    ) -> Self:
        """Everyone at random members with random colours."""
        num_samples, _, num_positions = inputs.shape
        keys = torch.rand(
            num_samples,
            num_positions,
            generator=generator,
            device=inputs.device,
            dtype=torch.float32,
        )
        members = largest(keys, budgets, int(budgets.max()))
        colours = torch.empty_like(inputs).bernoulli_(generator=generator)
        return cls(
            **first_rows(inputs, labels),
            members=members,
            sizes=move_sizes(budgets, num_positions, [alpha / divisor for divisor in DIVISORS]),
            best_inputs=torch.lerp(inputs, colours, members.to(inputs.dtype)),
            best_loss=inputs.new_full((num_samples,), torch.inf, dtype=precise(inputs)),
        )

    def claims(self) -> Found:
        """The best image of every row: with an adversarial one its search has ended."""
        l0 = l0_norm(self.best_inputs - self.inputs, "pixels")
        return Found(
            best_inputs=self.best_inputs,
            best_l0=l0.masked_fill(self.open, torch.inf),
            last_inputs=self.best_inputs,
            num_forwards=self.num_forwards,
            num_backwards=self.num_backwards,
        )


@torch.no_grad()
def sparse_rs(
    logits_of: Logits,
    inputs: Tensor,
    labels: Tensor,
    budgets: Tensor,
    attack: SparseRS,
    generator: torch.Generator,
) -> Found:
    r"""Random search over k positions, as in `arXiv:2006.12834 <https://arxiv.org/abs/2006.12834>`_.

    Args:
        logits_of: the net.
        inputs: x, shape ``(N, channels, positions)`` in [0, 1].
        labels: y, int64 ``(N,)``.
        budgets: k of every sample, int64 ``(N,)``.
        attack: the hyper-parameters.
        generator: on the device of the inputs.

    Returns:
        The claims, which :func:`~sztrain.attacks.base.run_attack` verifies.

    Raises:
        InputError: pixels have too many channels.
    """
    if inputs.shape[1] > MAX_CHANNELS:
        raise InputError(
            f"expected at most {MAX_CHANNELS} channels with unit=pixels, got {inputs.shape[1]}; "
            "use unit=features"
        )
    interval, outcome = steps_between_syncs(inputs.device), Outcome(inputs)
    walk = Walk.start(inputs, labels, budgets, attack.alpha, generator)
    most = walk.sizes.amax(dim=0).tolist()
    _ask(logits_of, attack, walk, walk.best_inputs.clone())
    for query in range(1, attack.num_steps):
        if query % interval == 0:
            walk = outcome.without_closed(walk)
        if len(walk.index) == 0:
            break
        stage = stage_of(query, attack.num_steps)
        move = Move.draw(
            walk.best_inputs, walk.members, walk.sizes[:, stage], most[stage], generator
        )
        candidates = walk.best_inputs.clone()
        move.apply(candidates, walk.inputs)
        accepted = move.of(_ask(logits_of, attack, walk, candidates))
        accepted.apply(walk.best_inputs, walk.inputs)
        accepted.exchange(walk.members)
    outcome.collect(walk)
    return outcome.found


def stage_of(query: int, num_queries: int) -> int:
    """Which of :data:`STAGES` a query belongs to.

    Example:
        >>> [DIVISORS[stage_of(query, 400)] for query in (1, 2, 3, 200, 399)]
        [2, 2, 4, 12, 20]
    """
    progress = 10_000 * query // num_queries
    return next(i for i, last in enumerate(STAGES) if progress <= last)


def _ask(logits_of: Logits, attack: SparseRS, walk: Walk, candidates: Tensor) -> Tensor:
    """Query the net, and say of which samples the candidate is the best image so far."""
    logits = logits_of(candidates)
    walk.num_forwards.add_(walk.open)
    if attack.loss == "margin":
        loss = difference_of_logits(logits, walk.labels)
    else:
        loss = -F.cross_entropy(logits, walk.labels, reduction="none")
    adversarial = is_adversarial(logits, walk.labels, targeted=False)
    better = walk.open & (adversarial | (loss < walk.best_loss))
    walk.best_loss.copy_(torch.where(better, loss, walk.best_loss))
    walk.open.logical_and_(~adversarial)
    return better
