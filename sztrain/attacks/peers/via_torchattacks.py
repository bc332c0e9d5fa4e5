"""Attacks of `torchattacks <https://github.com/Harry24k/adversarial-attacks-pytorch>`_."""

import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

from torch import Tensor, nn

from sztrain.attacks.peers.adapter import PeerAttack
from sztrain.attacks.peers.isolation import import_peer
from sztrain.errors import require_at_least, require_count


@dataclass(frozen=True, kw_only=True)
class SparseFool(PeerAttack):
    """SparseFool (`arXiv:1811.02248 <https://arxiv.org/abs/1811.02248>`_).

    A round walks to the decision boundary by DeepFool and then moves single features towards it.
    It is run until the sample is broken and ends by itself, so it has no N: the rows of the σ-zero
    paper for N=1000 and N=100 are one and the same run with 20 rounds. Nothing is random, and
    every sample is attacked by itself, whatever the batch.

    Args:
        num_steps: N of the table that it stands in. Rounds are this many, but never more than
            ``max_rounds``.
        max_rounds: most rounds (20 in the σ-zero paper).
        lam: λ, how far beyond DeepFool's boundary to aim.
        overshoot: share of the perturbation that is added to it.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> SparseFool(num_steps=1000).num_rounds, SparseFool(num_steps=5).num_rounds
        (20, 5)
    """

    num_steps: int = 20
    max_rounds: int = 20
    lam: float = 3.0
    overshoot: float = 0.02

    one_by_one: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("max_rounds", self.max_rounds, 1)
        self.require_positive("lam")
        require_at_least("overshoot", self.overshoot, 0)

    @property
    def num_rounds(self) -> int:
        """Most rounds of a run."""
        return min(self.num_steps, self.max_rounds)

    @staticmethod
    def load() -> ModuleType:
        """Import torchattacks."""
        return import_peer("torchattacks", "SparseFool")

    def search(self, library: ModuleType, net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Call ``SparseFool``."""
        attack = library.SparseFool(
            net, steps=self.num_rounds, lam=self.lam, overshoot=self.overshoot
        )
        with warnings.catch_warnings():
            # It hands tensors to numpy, thousands of times; numpy 2 warns of a keyword.
            warnings.filterwarnings("ignore", message=".*__array__ implementation doesn't accept")
            moved: Tensor = attack(inputs, labels)
        return moved
