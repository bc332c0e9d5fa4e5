"""The contract of an attack, kept on behalf of libraries that know nothing of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn

from sztrain.attacks.base import Found, Logits, is_adversarial, run_attack
from sztrain.attacks.checks import require_net, validate_attack
from sztrain.attacks.peers.isolation import CountedNet, frozen, seeded, shares
from sztrain.errors import InputError, require_positive, require_seed
from sztrain.norms import l0_norm, per_sample
from sztrain.types import Attack, AttackResult, Ensemble, Unit

MAX_SEED = 2**32 - 1  # of numpy


@dataclass(frozen=True, kw_only=True)
class PeerAttack(ABC):
    """An attack of another library that keeps the promises of our own.

    The library gets the samples that the net classifies correctly, as a batch of their own, and a
    module that stands for the net. What it returns is a proposal: a row that is not finite or not
    in [0, 1] is a failure, and so is one that a clean forward pass does not find adversarial. Its
    random numbers come from torch's and numpy's global generators, which are seeded for it and
    given back as they were.

    Passes are counted at the net. Which row of a pass belongs to which sample only the library
    knows, so the samples that it gets together share its passes evenly: their sum is exact.

    Args:
        num_steps: N, the library's number of iterations.
        unit: what l0 and ``budget`` count; most algorithms know single values only.
        budget: largest l0 that counts as success; ``None``: any. The library does not know of it:
            no sample stops early.
        seed: of the random numbers, the same for every batch; without effect where nothing is
            random.
        batch_size: samples at a time; ``None``: what is fast on a CPU, everything elsewhere.
            Halved where the memory does not suffice.
        recheck: work in full precision, whatever the caller's autocast. Claims are verified by one
            forward pass in any case.

    Raises:
        InputError: a value out of its range, or a unit that the attack cannot count.
    """

    num_steps: int = 1000
    unit: Unit = "features"
    budget: int | None = None
    seed: int = 0
    batch_size: int | None = None
    recheck: bool = True

    units: ClassVar[tuple[Unit, ...]] = ("features",)
    """What the algorithm can count."""

    one_by_one: ClassVar[bool] = False
    """Whether the library loops over samples anyway: then each gets its own passes counted."""

    def __post_init__(self) -> None:
        validate_attack(self.unit, self.num_steps, self.budget, self.batch_size)
        if self.unit not in self.units:
            raise InputError(
                f"{type(self).__name__} changes single values: expected `unit` to be features, "
                f"got {self.unit}"
            )
        require_seed("seed", self.seed)
        if self.seed > MAX_SEED:
            raise InputError(f"expected `seed` to be at most {MAX_SEED}, got {self.seed}")

    def require_positive(self, *names: str) -> None:
        """Refuse hyper-parameters that are 0 or less.

        Raises:
            InputError: names the first one.
        """
        for name in names:
            require_positive(name, getattr(self, name))

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> AttackResult:
        """Attack ``inputs``, shape ``(N, ...)`` in [0, 1], with int64 ``labels``, shape ``(N,)``.

        Raises:
            UnavailableError: the library is not installed.
            InputError: inputs outside [0, 1], labels outside the classes, non-finite logits, a
                budget above the number of units, or pixels asked of something without channels.
        """
        require_net("net", net)
        library = self.load()
        with frozen(net):
            return run_attack(
                partial(self._found, library),
                net,
                inputs,
                labels,
                unit=self.unit,
                budget=self.budget,
                recheck=self.recheck,
                batch_size=self.batch_size,
                confirmed=False,
            )

    @staticmethod
    @abstractmethod
    def load() -> ModuleType:
        """Import the library.

        Raises:
            UnavailableError: it is not installed.
        """

    def prepare(self) -> None:
        """Load the library, and do what else takes its time once a process.

        Raises:
            UnavailableError: it is not installed.
        """
        self.load()

    @abstractmethod
    def search(self, library: ModuleType, net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Call the library's attack.

        Args:
            library: what :meth:`load` returned.
            net: stands for the net; takes samples of any shape with as many features.
            inputs: correctly classified samples, contiguous float32 ``(N, ...)`` in [0, 1].
            labels: int64 ``(N,)``.

        Returns:
            Where the library ended, in the shape of ``inputs``.
        """

    def _found(
        self, library: ModuleType, logits_of: Logits, inputs: Tensor, labels: Tensor
    ) -> Found:
        with torch.no_grad():
            broken = is_adversarial(logits_of(inputs.clone()), labels, targeted=False)
        moved, sent = inputs.clone(), (~broken).nonzero().squeeze(1)
        num_forwards = torch.ones_like(labels)
        num_backwards = torch.zeros_like(labels)
        with seeded(self.seed, inputs.device):
            for rows in self._parts(sent):
                net = CountedNet(logits_of, inputs)
                moved[rows] = self._moved(library, net, inputs[rows], labels[rows])
                num_forwards[rows] += shares(net.num_forwards, rows)
                num_backwards[rows] += shares(net.num_backwards, rows)
        broken |= (moved != inputs).flatten(1).any(dim=1)
        if not self.recheck and len(sent) > 0:  # else the contract does it
            with torch.no_grad():
                logits = logits_of(moved[sent])
            broken[sent] &= is_adversarial(logits, labels[sent], targeted=False)
            num_forwards[sent] += 1
        return Found(
            best_inputs=moved,
            best_l0=l0_norm(moved - inputs, self.unit).masked_fill(~broken, torch.inf),
            last_inputs=moved,
            num_forwards=num_forwards,
            num_backwards=num_backwards,
        )

    def _parts(self, rows: Tensor) -> list[Tensor]:
        """Which rows the library gets together."""
        return list(rows.unsqueeze(1)) if self.one_by_one or len(rows) == 0 else [rows]

    def _moved(self, library: ModuleType, net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """What the library makes of some samples, as far as it can be used."""
        # Contiguous: the libraries work in place on flattened views, which else would be copies.
        clean = inputs.to(torch.float32, memory_format=torch.contiguous_format)
        moved = self.search(library, net, clean.clone(), labels).detach()
        usable = ((moved >= 0) & (moved <= 1)).flatten(1).all(dim=1)  # a NaN is neither
        # Where nothing changed, double precision gets back the very value that it had.
        changed = per_sample(usable, moved) & (moved != clean)
        return torch.where(changed, moved.to(inputs.dtype), inputs)


def check_library(attack: Attack) -> None:
    """Make sure that the library of an attack is at hand, and of those inside it.

    Raises:
        UnavailableError: it is another library's, which is not installed.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> check_library(SigmaZero())  # needs none
    """
    if isinstance(attack, PeerAttack):
        attack.load()
    for member in attack.members.values() if isinstance(attack, Ensemble) else ():
        check_library(member)
