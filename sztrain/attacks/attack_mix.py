"""A random one of several attacks for each batch: an adversary that no net can learn by heart."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from sztrain.attacks.budgeted_sigma_zero import BudgetedSigmaZero
from sztrain.attacks.checks import (
    check_search,
    require_attack,
    require_untargeted,
    validate_attack,
)
from sztrain.attacks.sigma_zero import SigmaZero
from sztrain.attacks.sparse_pgd import SparsePGD
from sztrain.errors import InputError, require_at_least, require_seed
from sztrain.types import Attack, AttackResult, Unit


def _members() -> dict[str, Attack]:
    return {
        "sigma_zero": SigmaZero(step_rule="sgd"),
        "budgeted_sigma_zero": BudgetedSigmaZero(),
        "sparse_pgd": SparsePGD(),
        "sparse_pgd_projected": SparsePGD(projected=True),
    }


def _weights() -> dict[str, float]:
    return {
        "sigma_zero": 0.25,
        "budgeted_sigma_zero": 0.0,
        "sparse_pgd": 0.375,
        "sparse_pgd_projected": 0.375,
    }


@dataclass(frozen=True, kw_only=True)
class AttackMix:
    r"""Attacks each batch with one of several attacks, drawn at random.

    Made for the loop of a training: what is trained against one attack learns to fool that attack.
    Which member a batch meets depends on ``seed`` alone, which a training draws anew for each. It
    is no judge: that is :class:`~sztrain.attacks.SparseAutoAttack`, the worst case of several.

    Args:
        members: the attacks by name. Unit, budget, seed, recheck and lean of the mix take the
            place of theirs.
        weights: how likely each member is to be drawn, at least 0; what counts is the ratio.
        num_steps: the most steps that a member may take; one with fewer of its own takes those.
        unit: what l0 counts: single values (``"features"``) or positions (``"pixels"``).
        budget: largest l0 that counts as success; ``None``: any.
        seed: of the draw and of the member that is drawn.
        recheck: see :class:`~sztrain.attacks.SigmaZero`, as ``lean``.

    Raises:
        InputError: a value out of its range, no member, a member without a weight or a weight
            without a member.

    Example:
        >>> mix = AttackMix(num_steps=20, budget=1)
        >>> drawn = dict(mix.drawn(seed) for seed in range(20))
        >>> {name: member.num_steps for name, member in sorted(drawn.items())}
        {'sigma_zero': 20, 'sparse_pgd': 20, 'sparse_pgd_projected': 20}
    """

    members: Mapping[str, Attack] = field(default_factory=_members)
    weights: Mapping[str, float] = field(default_factory=_weights)
    num_steps: int = 1000
    unit: Unit = "features"
    budget: int | None = None
    seed: int = 0
    recheck: bool = True
    lean: bool = False

    def __post_init__(self) -> None:
        validate_attack(self.unit, self.num_steps, self.budget)
        require_seed("seed", self.seed)
        for name, member in self.members.items():
            require_attack(f"members.{name}", member)
            require_untargeted(f"members.{name}", member)
        if self.members.keys() != self.weights.keys():
            raise InputError(
                "expected `weights` to name each of `members` once, "
                f"got weights of {sorted(self.weights)} for members {sorted(self.members)}"
            )
        for name, weight in self.weights.items():
            require_at_least(f"weights.{name}", weight, 0)
        if not sum(self.weights.values()) > 0:
            raise InputError("expected `weights` to be above 0 for at least one member")
        for name in self.members:
            self._as_mixed(name, self.seed)  # a member that cannot count so says it now

    def drawn(self, seed: int) -> tuple[str, Attack]:
        """The name of the member that a seed chooses, and what it attacks as."""
        generator = torch.Generator("cpu").manual_seed(seed)
        names = list(self.members)
        shares = [self.weights[name] for name in names]
        weights = torch.tensor(shares, dtype=torch.float64, device="cpu")
        name = names[int(torch.multinomial(weights, 1, generator=generator))]
        return name, self._as_mixed(name, seed)

    def check_search(self) -> None:
        """Refuse members with fewer steps than their search for a budget needs, if there is none.

        Raises:
            InputError: there are too few.
        """
        for name in self.members:
            if self.weights[name] > 0:
                check_search(self._as_mixed(name, self.seed))

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> AttackResult:
        """Attack ``inputs``, shape ``(N, ...)`` in [0, 1], with int64 ``labels``, shape ``(N,)``.

        Raises:
            InputError: what the member that is drawn refuses; too few steps for one that might be.
        """
        self.check_search()
        return self.drawn(self.seed)[1](net, inputs, labels)

    def _as_mixed(self, name: str, seed: int) -> Attack:
        member = self.members[name]
        wanted: dict[str, Any] = {
            "num_steps": min(member.num_steps, self.num_steps),
            "unit": self.unit,
            "budget": self.budget,
            "seed": seed,
            "recheck": self.recheck,
            "lean": self.lean,
        }
        known = {field.name for field in fields(member)}
        return replace(member, **{key: value for key, value in wanted.items() if key in known})
