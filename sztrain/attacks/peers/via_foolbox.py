"""Attacks of `foolbox <https://github.com/bethgelab/foolbox>`_."""

import os
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sztrain.attacks.base import is_adversarial
from sztrain.attacks.peers.adapter import PeerAttack
from sztrain.attacks.peers.isolation import import_peer
from sztrain.errors import InputError, require_at_least, require_count, require_in
from sztrain.norms import per_sample

DecisionRule = Literal["EN", "L1"]
DECISION_RULES: tuple[DecisionRule, ...] = ("EN", "L1")


def load_foolbox() -> ModuleType:
    """Import foolbox.

    Its import reaches for GitPython, which fails where there is no ``git`` unless told not to mind.

    Raises:
        UnavailableError: foolbox is not installed.
    """
    told = "GIT_PYTHON_REFRESH" in os.environ
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        return import_peer("foolbox", "PyTorchModel", "Misclassification", "attacks")
    finally:
        if not told:
            del os.environ["GIT_PYTHON_REFRESH"]


@dataclass(frozen=True, kw_only=True)
class FoolboxAttack(PeerAttack):
    """An attack of foolbox."""

    @staticmethod
    def load() -> ModuleType:
        """Import foolbox."""
        return load_foolbox()


def wrapped(library: ModuleType, net: nn.Module, inputs: Tensor) -> Any:
    """The net as foolbox takes it, on its own device: untold, foolbox moves it to the first GPU."""
    return library.PyTorchModel(net, bounds=(0, 1), device=inputs.device)


@dataclass(frozen=True, kw_only=True)
class EAD(FoolboxAttack):
    """Elastic-net Attack to DNNs (`arXiv:1709.04114 <https://arxiv.org/abs/1709.04114>`_).

    Minimises l1 and l2 norms, so l0 is what comes of it. A step costs two forward passes and one
    backward pass. Nothing is random. Whether a search goes on depends on the loss of the whole
    batch, so a sample's result depends (slightly) on what else is in its batch.

    Args:
        num_steps: N, steps of each search.
        num_searches: values tried for the weight of the loss, a binary search.
        initial_const: first weight of the loss.
        step_size: initial step size; falls by a square root.
        l1_weight: weight of the l1 norm.
        decision_rule: the best example has the smallest elastic net norm (``"EN"``) or l1 norm
            (``"L1"``).
        abort_early: end a search that makes no progress over a tenth of its steps.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> EAD(num_steps=100).num_searches
        9
    """

    num_searches: int = 9
    initial_const: float = 1e-3
    step_size: float = 1e-2
    l1_weight: float = 1e-2
    decision_rule: DecisionRule = "EN"
    abort_early: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("num_searches", self.num_searches, 1)
        require_in("decision_rule", self.decision_rule, DECISION_RULES)
        self.require_positive("initial_const", "step_size", "l1_weight")

    def search(self, library: ModuleType, net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Call ``EADAttack``."""
        attack = library.attacks.EADAttack(
            binary_search_steps=self.num_searches,
            steps=self.num_steps,
            initial_stepsize=self.step_size,
            initial_const=self.initial_const,
            regularization=self.l1_weight,
            decision_rule=self.decision_rule,
            abort_early=self.abort_early,
        )
        moved: Tensor = attack.run(
            wrapped(library, net, inputs), inputs, library.Misclassification(labels)
        )
        # A sample that was never broken comes back as a black image.
        black = (moved == 0).flatten(1).all(dim=1)
        return torch.where(per_sample(black, moved), inputs, moved)


@dataclass(frozen=True, kw_only=True)
class BoundaryAttack(FoolboxAttack):
    """What both Brendel & Bethge attacks share: all but the start."""

    radius: float = 1e-3
    radius_batch_size: int | None = 32
    momentum: float = 0.8
    overshoot: float = 1.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius_batch_size is not None:
            require_count("radius_batch_size", self.radius_batch_size, 1)
        self.require_positive("radius", "overshoot")
        require_at_least("momentum", self.momentum, 0)

    @staticmethod
    def load() -> ModuleType:
        """Import foolbox, and numba, which it leaves to its users."""
        import_peer("numba")
        return load_foolbox()

    def prepare(self) -> None:
        """Load the libraries, and compile the solver."""
        super().prepare()
        compile_solver()

    @abstractmethod
    def starts(self, library: ModuleType, model: Any, inputs: Tensor, labels: Tensor) -> Tensor:
        """Where each sample's walk begins; adversarial, or the sample is given up."""

    def search(self, library: ModuleType, net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Call ``L0BrendelBethgeAttack`` from starts of our own: a failed one fails the batch."""
        model = wrapped(library, net, inputs)
        starts = self.starts(library, model, inputs, labels).clamp(0, 1)
        rows = adversarial_rows(net, starts, labels)
        moved = inputs.clone()
        if len(rows) > 0:
            attack = library.attacks.L0BrendelBethgeAttack(
                steps=self.num_steps,
                lr=self._scaled_radius(len(rows)),
                momentum=self.momentum,
                overshoot=self.overshoot,
            )
            with warnings.catch_warnings():
                # It hands arrays to torch that may only be read, and torch may only read them.
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                try:
                    moved[rows] = attack.run(
                        model,
                        inputs[rows],
                        library.Misclassification(labels[rows]),
                        starting_points=starts[rows],
                    )
                except AssertionError as error:  # that the net errs on the starts, as it just did
                    raise InputError(
                        "the net answers the same image in different ways (noise, dropout in eval "
                        "mode), with which this attack cannot begin; fix its noise"
                    ) from error
        return moved

    def _scaled_radius(self, num_samples: int) -> float:
        """What to tell foolbox, which multiplies it by the number of values in the batch."""
        if self.radius_batch_size is None:
            return self.radius
        return self.radius * self.radius_batch_size / num_samples


@cache
def compile_solver() -> None:
    """Let numba compile the solver, once a process: no net's time is to have it in."""
    library = load_foolbox()
    with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = torch.tensor([[0.9, 0.1]], dtype=torch.float32, device="cpu")
        library.attacks.L0BrendelBethgeAttack(steps=1).run(
            wrapped(library, nn.Identity().eval(), clean),
            clean,
            library.Misclassification(torch.tensor([0])),
            starting_points=clean.flip(1),
        )


@torch.no_grad()
def adversarial_rows(net: nn.Module, starts: Tensor, labels: Tensor) -> Tensor:
    """Rows that are adversarial, and stay so in a batch of them alone: rounding may differ.

    Example:
        >>> adversarial_rows(nn.Identity(), torch.eye(3), torch.tensor([0, 0, 1])).tolist()
        [1, 2]
    """
    rows = torch.arange(len(starts), device=starts.device)
    while len(rows) > 0:
        adversarial = is_adversarial(net(starts[rows]), labels[rows], targeted=False)
        if bool(adversarial.all()):
            break
        rows = rows[adversarial]
    return rows


def noise_starts(library: ModuleType, model: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    """Samples blended with uniform noise until they are misclassified, where that comes to pass."""
    attack = library.attacks.LinearSearchBlendedUniformNoiseAttack()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* failed to draw sufficient random inputs")
        starts: Tensor = attack.run(model, inputs, library.Misclassification(labels))
    return starts


@dataclass(frozen=True, kw_only=True)
class BB(BoundaryAttack):
    """Brendel & Bethge attack, l0 variant (`arXiv:1907.01003 <https://arxiv.org/abs/1907.01003>`_).

    Starts from noise and walks along the decision boundary. The start takes up to some 2,000
    forward passes, a step one forward and one backward pass, and each step solves a small problem
    for one sample after the other on the CPU. The first call of a process compiles the solver, half
    a minute, unless :meth:`prepare` has done so. A sample for which no noise is misclassified is a
    failure of its own; in the library it ends the run for its whole batch. Only the start is
    random.

    Args:
        num_steps: N, steps.
        radius: initial radius of the trust region; halved 20 times.
        radius_batch_size: the batch that ``radius`` is meant for. The library multiplies the
            radius by the size of the batch; it is scaled so that every batch gets that of the
            σ-zero paper's batches of 32. ``None``: as the library has it, and smaller batches walk
            less far.
        momentum: of the boundary's direction.
        overshoot: how far beyond the boundary to aim, 1 is onto it.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> BB(num_steps=100).radius
        0.001
    """

    def starts(self, library: ModuleType, model: Any, inputs: Tensor, labels: Tensor) -> Tensor:
        """Noise."""
        return noise_starts(library, model, inputs, labels)


@dataclass(frozen=True, kw_only=True)
class BBadv(BoundaryAttack):
    """Brendel & Bethge attack, started from other samples of the batch.

    A sample starts from another one with another label, drawn from the correctly classified ones
    of its batch. Where there is none it starts from noise, as in :class:`BB`; the library would
    fail on the whole batch.

    Args:
        num_steps: N, steps.
        radius: initial radius of the trust region; halved 20 times.
        radius_batch_size: the batch that ``radius`` is meant for, see :class:`BB`.
        momentum: of the boundary's direction.
        overshoot: how far beyond the boundary to aim, 1 is onto it.

    Raises:
        InputError: a value out of its range.

    Reference:
        `arXiv:1907.01003 <https://arxiv.org/abs/1907.01003>`_; the start as in section III-A of
        `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_.

    Example:
        >>> BBadv(num_steps=100, budget=24).momentum
        0.8
    """

    def starts(self, library: ModuleType, model: Any, inputs: Tensor, labels: Tensor) -> Tensor:
        """Other samples of the batch, or noise."""
        eligible = labels.unsqueeze(1) != labels
        keys = torch.rand(eligible.shape, device=inputs.device).masked_fill(~eligible, -1)
        starts = inputs[keys.argmax(dim=1)]
        alone = ~eligible.any(dim=1)
        if alone.any():
            starts[alone] = noise_starts(library, model, inputs[alone], labels[alone])
        return starts
