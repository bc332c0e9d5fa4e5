"""The judge: several attacks of different kinds, each on what the ones before it left standing.

The idea is that of Sparse-AutoAttack in Zhong, Huang, Liu: "Towards Efficient Training and
Evaluation of Robust Models against l0 Bounded Adversarial Perturbations",
`arXiv:2405.05075 <https://arxiv.org/abs/2405.05075>`_, with σ-zero before the others: with both
of its step rules, since which of the two is the stronger depends on the net.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sztrain.attacks.base import Found, Logits, run_attack
from sztrain.attacks.checks import require_tensors, validate_attack
from sztrain.attacks.fixed_budget import FixedBudgetAttack, attack_correct
from sztrain.attacks.rows import Outcome
from sztrain.attacks.sigma_zero import SigmaZero, sigma_zero
from sztrain.attacks.sparse_pgd import SparsePGD
from sztrain.attacks.sparse_rs import SparseRS
from sztrain.errors import InputError, require_count, require_in, require_seed
from sztrain.types import EnsembleResult, Unit

Member = Literal["sigma_zero", "sigma_zero_sgd", "sparse_pgd", "sparse_pgd_projected", "sparse_rs"]
MEMBERS: tuple[Member, ...] = get_args(Member)

Preset = Literal["fast", "full"]
PRESETS: dict[Preset, dict[str, int]] = {
    "fast": {"num_steps": 100, "num_queries": 400},
    "full": {"num_steps": 10_000, "num_queries": 10_000},
}


@dataclass(frozen=True, kw_only=True)
class SparseAutoAttack:
    r"""σ-zero with both step rules, sparse-PGD in both variants, Sparse-RS: the worst case.

    At a ``budget``, a member attacks only the samples that all members before it have left
    standing. Without one the answer is the sparsest example of all members, of which each looks
    only for what is sparser than the sparsest so far. ``EnsembleResult.broken_by`` says
    whose example it is. What one member claims, none after it tries: of a net that answers the same
    image in different ways this is no worst case, and ``recheck`` warns of it.

    Args:
        num_steps: N of σ-zero and of sparse-PGD.
        num_queries: Q of Sparse-RS, which moves by the cross-entropy here, as in the paper.
        preset: sets both numbers, and is ``None`` once it has: ``"fast"`` to the defaults, for use
            in training runs; ``"full"`` to 10,000, as in the paper.
        attacks: the members by name, for a worst case of fewer than all; they are run in the order
            of the default, whatever the order here.
        unit: what l0 counts: single values (``"features"``) or positions (``"pixels"``).
        budget: largest l0 that counts as success; ``None``: the smallest l0 is searched for.
        seed: of each member's random generator; where they have as many samples before them, both
            variants of sparse-PGD thus start alike.
        recheck: see :class:`~sztrain.attacks.SigmaZero`, as ``batch_size``.
        batch_size: how many samples are under attack at a time.

    Raises:
        InputError: a value out of its range, or a number that contradicts the preset.

    Example:
        >>> net = nn.Linear(4, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, -3.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
        >>> attack = SparseAutoAttack(num_steps=20, num_queries=20, budget=1)
        >>> result = attack(net, torch.tensor([[0.5, 0.1, 0.5, 0.5]]), torch.tensor([0]))
        >>> result.success.item(), list(attack.members)[result.broken_by.item()]
        (True, 'sigma_zero')
    """

    num_steps: int = PRESETS["fast"]["num_steps"]
    num_queries: int = PRESETS["fast"]["num_queries"]
    preset: Preset | None = None
    attacks: tuple[Member, ...] = MEMBERS
    unit: Unit = "features"
    budget: int | None = None
    seed: int = 0
    recheck: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.preset is not None:
            self._apply(self.preset)
        self._sort_attacks()
        validate_attack(self.unit, self.num_steps, self.budget, self.batch_size)
        require_count("num_queries", self.num_queries, 1)
        require_seed("seed", self.seed)

    def _apply(self, preset: Preset) -> None:
        require_in("preset", preset, tuple(PRESETS))
        for name, value in PRESETS[preset].items():
            given, default = getattr(self, name), getattr(type(self), name)
            if given not in (value, default):
                raise InputError(
                    f"expected `{name}` or `preset`, got {name}={given} beside preset={preset}, "
                    f"which sets it to {value}"
                )
            object.__setattr__(self, name, value)
        # What it has set may be replaced like any other value.
        object.__setattr__(self, "preset", None)

    def _sort_attacks(self) -> None:
        if not self.attacks or set(self.attacks) - set(MEMBERS):
            raise InputError(
                f"expected `attacks` to name some of {', '.join(MEMBERS)}, got {self.attacks!r}"
            )
        in_order = tuple(name for name in MEMBERS if name in self.attacks)
        object.__setattr__(self, "attacks", in_order)

    @property
    def members(self) -> dict[str, SigmaZero | FixedBudgetAttack]:
        """The attacks by name, in the order in which they are run."""
        adam = SigmaZero(num_steps=self.num_steps, unit=self.unit, budget=self.budget)
        unprojected = SparsePGD(
            num_steps=self.num_steps, unit=self.unit, budget=self.budget, seed=self.seed
        )
        members: dict[Member, SigmaZero | FixedBudgetAttack] = {
            "sigma_zero": adam,
            "sigma_zero_sgd": replace(adam, step_rule="sgd"),
            "sparse_pgd": unprojected,
            "sparse_pgd_projected": replace(unprojected, projected=True),
            "sparse_rs": SparseRS(
                num_steps=self.num_queries,
                loss="ce",
                unit=self.unit,
                budget=self.budget,
                seed=self.seed,
            ),
        }
        return {name: members[name] for name in self.attacks}

    def check_search(self) -> None:
        """Refuse fewer steps or queries than the search for a budget needs, if there is none.

        Raises:
            InputError: there are too few for all of its rounds.
        """
        if self.budget is not None:
            return
        for member, attack in self.members.items():
            if isinstance(attack, SigmaZero):
                continue
            name = "num_queries" if member == "sparse_rs" else "num_steps"
            fewest = attack.num_rounds * attack.fewest_steps
            if attack.num_steps < fewest:
                raise InputError(
                    f"expected `{name}` to be at least {fewest} without a budget, which is then "
                    f"searched for in {attack.num_rounds} rounds, got {attack.num_steps}"
                )

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> EnsembleResult:
        """Attack ``inputs``, shape ``(N, ...)`` in [0, 1], with int64 ``labels``, shape ``(N,)``.

        Raises:
            InputError: inputs outside [0, 1], labels outside the classes, non-finite logits, a
                budget above the number of units, fewer than 10 steps or queries without a budget,
                or pixels asked of something without channels.
        """
        require_tensors(inputs, labels)
        self.check_search()
        members = [
            member if isinstance(member, SigmaZero) else member.of_a_round()
            for member in self.members.values()
        ]
        generators = [torch.Generator(inputs.device).manual_seed(self.seed) for _ in members]
        result = run_attack(
            partial(sparse_autoattack, members=members, generators=generators),
            net,
            inputs,
            labels,
            unit=self.unit,
            budget=self.budget,
            recheck=self.recheck,
            batch_size=self.batch_size,
        )
        assert isinstance(result, EnsembleResult)
        return result


def sparse_autoattack(
    logits_of: Logits,
    inputs: Tensor,
    labels: Tensor,
    members: Sequence[SigmaZero | FixedBudgetAttack],
    generators: Sequence[torch.Generator],
) -> Found:
    """Run the attacks one after the other, each on the samples that are worth it.

    The first attacks all samples that the net is right about, the others those beyond the budget;
    without one, those that were not broken by a single change. Then the fixed-budget attacks look
    only for less than is known; σ-zero cannot.

    Args:
        logits_of: the net.
        inputs: shape ``(N, ...)`` in [0, 1].
        labels: int64 ``(N,)``.
        members: the attacks.
        generators: one for each, on the device of the inputs.

    Returns:
        The sparsest examples of all attacks, and whose they are.
    """
    first, *others = members
    if isinstance(first, SigmaZero):
        found = sigma_zero(logits_of, inputs, labels, first)
    else:
        found = attack_correct(logits_of, inputs, labels, first, generators[0])
    outcome = Outcome(inputs)
    outcome.improve(torch.arange(len(inputs), device=inputs.device), found)
    best_l0 = outcome.found.best_l0
    attacked = best_l0.isfinite() & (best_l0 > 0)
    broken_by = torch.where(attacked, 0, -1)
    for i, (attack, generator) in enumerate(zip(others, generators[1:], strict=True), start=1):
        rows = (best_l0 > (attack.budget or 1)).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        known_l0 = best_l0[rows]
        if isinstance(attack, SigmaZero):
            found = sigma_zero(logits_of, inputs[rows], labels[rows], attack)
        else:
            found = attack.find(logits_of, inputs[rows], labels[rows], generator, known_l0)
        broken_by[rows] = torch.where(found.best_l0 < known_l0, i, broken_by[rows])
        outcome.improve(rows, found)
    return replace(outcome.found, broken_by=broken_by)
