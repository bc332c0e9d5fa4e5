"""The vocabulary every part shares: what an attack is, and what it answers."""

from collections.abc import Mapping
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

Unit = Literal["features", "pixels"]
"""What an l0 norm counts: single input values (C·H·W), or positions with all channels (H·W)."""

UNITS: tuple[Unit, ...] = ("features", "pixels")


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack found, sample by sample.

    Attributes:
        adv_inputs: adversarial inputs; the clean input where the attack failed.
        success: whether ``adv_inputs`` fools the net (within the budget, if any), bool ``(N,)``.
        l0: changes in ``adv_inputs``, float ``(N,)``, in the attack's unit: 0 for a sample that is
            misclassified from the start, inf for one that was never broken.
        num_forwards: forward passes spent on each sample, int64 ``(N,)``.
        num_backwards: backward passes spent on each sample, int64 ``(N,)``.
        last_inputs: where the search ended, adversarial or not.
        best_inputs: the sparsest adversarial example among those that the attack looks at, at any
            l0, whatever the budget; the clean input where there was none. (Some look at the end of
            a run only.) Equal to ``adv_inputs`` where ``success``.
    """

    adv_inputs: Tensor
    success: Tensor
    l0: Tensor
    num_forwards: Tensor
    num_backwards: Tensor
    last_inputs: Tensor
    best_inputs: Tensor


@dataclass(frozen=True, kw_only=True)
class EnsembleResult(AttackResult):
    """What several attacks found together.

    Attributes:
        broken_by: whose example ``adv_inputs`` is, int64 ``(N,)``: an index into
            ``list(attack.members)``; -1 where none was needed, and where none succeeded.
    """

    broken_by: Tensor


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass of hyper-parameters that can be called on a net and a batch."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def unit(self) -> Unit:
        """What ``AttackResult.l0`` and ``budget`` count."""
        ...

    @property
    def budget(self) -> int | None:
        """Largest l0 that counts as success; ``None``: any."""
        ...

    @property
    def num_steps(self) -> int:
        """The N that stands beside its figures; what a step costs, each attack says itself."""
        ...

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> AttackResult:
        """Attack ``inputs`` of shape ``(N, ...)`` in [0, 1] with ``labels`` of shape ``(N,)``."""
        ...


@runtime_checkable
class Ensemble(Attack, Protocol):
    """An attack that is several; it answers with an :class:`EnsembleResult`."""

    @property
    def members(self) -> Mapping[str, Attack]:
        """The attacks by name, in the order that ``EnsembleResult.broken_by`` counts."""
        ...
