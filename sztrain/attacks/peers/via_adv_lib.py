"""Attacks of the Adversarial Library, `adv-lib <https://github.com/jeromerony/adversarial-library>`_."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Literal

from torch import Tensor, nn

from sztrain.attacks.peers.adapter import PeerAttack
from sztrain.attacks.peers.isolation import import_peer
from sztrain.errors import require_at_least, require_count, require_in
from sztrain.types import Unit

ProximalOperator = Literal["l0", "l23"]
PROXIMAL_OPERATORS: tuple[ProximalOperator, ...] = ("l0", "l23")


def load_adv_lib(*needed: str) -> ModuleType:
    """Import the attacks of adv-lib.

    Its import reaches for visdom, which draws plots that nobody asks for here and cannot be
    installed where setuptools is recent. Where it is missing, an empty module stands in for it
    while adv-lib is imported.

    Args:
        *needed: what it has to have, as other versions may not.

    Raises:
        UnavailableError: adv-lib is not installed, or in another version.
    """
    # Another's stand-in has no spec to be found, and is as good.
    known = "adv_lib.attacks" in sys.modules or "visdom" in sys.modules
    if known or importlib.util.find_spec("visdom") is not None:
        return import_peer("adv_lib.attacks", *needed)
    sys.modules["visdom"] = ModuleType("visdom")
    try:
        return import_peer("adv_lib.attacks", *needed)
    finally:
        del sys.modules["visdom"]  # others may look whether it is installed


@dataclass(frozen=True, kw_only=True)
class AdvLibAttack(PeerAttack):
    """An attack of adv-lib."""

    needs: ClassVar[tuple[str, ...]]
    """What adv-lib has to have for it."""

    @classmethod
    def load(cls) -> ModuleType:
        """Import adv-lib."""
        return load_adv_lib(*cls.needs)


@dataclass(frozen=True, kw_only=True)
class FMN(AdvLibAttack):
    """Fast Minimum-Norm attack, l0 variant (`arXiv:2102.12827 <https://arxiv.org/abs/2102.12827>`_).

    One forward and one backward pass a step; nothing is random. adv-lib's projection fails where
    all samples of a batch are broken by a single feature; it is called here with a radius of at
    least 1, which changes no result.

    Args:
        num_steps: N, steps.
        alpha_init: step size at the start.
        alpha_final: step size that a cosine ends at.
        gamma_init: share by which the radius grows or shrinks at the start.
        gamma_final: share that a cosine ends at.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> FMN(num_steps=100).alpha_final
        0.01
        >>> FMN(unit="pixels")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: FMN changes single values: expected `unit` to be features, \
got pixels
    """

    alpha_init: float = 1.0
    alpha_final: float = 0.01
    gamma_init: float = 0.05
    gamma_final: float = 0.001

    needs: ClassVar[tuple[str, ...]] = ("fmn", "fast_minimum_norm")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("alpha_init", "alpha_final", "gamma_init", "gamma_final")

    def search(self, library: ModuleType, net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Call ``fmn``."""
        with _projection_of_at_least_one(library.fast_minimum_norm):
            moved: Tensor = library.fmn(
                net,
                inputs,
                labels,
                norm=0,
                steps=self.num_steps,
                α_init=self.alpha_init,
                α_final=self.alpha_final,
                γ_init=self.gamma_init,
                γ_final=self.gamma_final,
            )
        return moved


@contextmanager
def _projection_of_at_least_one(module: ModuleType) -> Iterator[None]:
    """Repair the l0 projection for the case that no sample of the batch may keep anything.

    It keeps the largest feature where the radius is 0, unless that is so for all samples: then it
    asks for the 0 largest ones, and of these for the first.
    """
    original = module.l0_projection_

    def projection(δ: Tensor, ε: Tensor) -> Tensor:
        projected: Tensor = original(δ=δ, ε=ε.clamp(min=1))
        return projected

    module.l0_projection_ = projection  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.l0_projection_ = original  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class VFGA(AdvLibAttack):
    """Voting Folded Gaussian Attack (`arXiv:2011.12423 <https://arxiv.org/abs/2011.12423>`_).

    Each step changes one feature more of every sample that is not broken yet, so N bounds l0. A
    step costs one forward and one backward pass, and ``2 * num_draws`` forward passes. The values
    that are tried are random.

    Args:
        num_steps: N, steps and largest l0.
        num_draws: values tried for the most promising feature to brighten, and for the one to
            darken.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> VFGA().num_draws
        10
    """

    num_draws: int = 10

    needs: ClassVar[tuple[str, ...]] = ("vfga",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("num_draws", self.num_draws, 1)

    def search(self, library: ModuleType, net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Call ``vfga``."""
        moved: Tensor = library.vfga(
            net,
            inputs,
            labels,
            targeted=False,
            max_iter=self.num_steps,
            n_samples=self.num_draws,
        )
        return moved


@dataclass(frozen=True, kw_only=True)
class PDPGD(AdvLibAttack):
    """Primal-Dual Proximal Gradient Descent (`arXiv:2106.01538 <https://arxiv.org/abs/2106.01538>`_).

    One forward and one backward pass a step; nothing is random. adv-lib's l0 operator keeps or
    drops a position with all its channels, so pixels are its own unit. To change single values,
    samples are handed to it as images of one channel. (The σ-zero paper lets it group channels and
    counts single values.) Of the adversarial iterates adv-lib keeps the one with the fewest changed
    values, in pixels as well.

    Args:
        num_steps: N, steps, at least 2.
        unit: ``"features"`` or ``"pixels"``.
        proximal_operator: ``"l0"``, as the σ-zero paper has it, or ``"l23"``, that of the l2/3
            norm, which adv-lib recommends; it drops single values, whatever the unit.
        step_size: initial step size of Adam; falls to a hundredth of it.
        dual_ratio: initial weight of the norm, as a multiple of that of the classification loss.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> PDPGD(unit="pixels", budget=24).proximal_operator
        'l0'
    """

    proximal_operator: ProximalOperator = "l0"
    step_size: float = 0.1
    dual_ratio: float = 0.01

    units: ClassVar[tuple[Unit, ...]] = ("features", "pixels")
    needs: ClassVar[tuple[str, ...]] = ("pdpgd",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in("proximal_operator", self.proximal_operator, PROXIMAL_OPERATORS)
        require_at_least("num_steps", self.num_steps, 2)  # the schedule divides by N - 1
        self.require_positive("step_size", "dual_ratio")

    def search(self, library: ModuleType, net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Call ``pdpgd``."""
        moved: Tensor = library.pdpgd(
            net,
            inputs if self.unit == "pixels" else inputs.flatten(1).unsqueeze(1),
            labels,
            norm=0,
            num_steps=self.num_steps,
            proximal_operator={"l0": 0, "l23": 23}[self.proximal_operator],
            primal_lr=self.step_size,
            dual_ratio_init=self.dual_ratio,
        )
        return moved.view_as(inputs)


@dataclass(frozen=True, kw_only=True)
class AdvLibSigmaZero(AdvLibAttack):
    """adv-lib's σ-zero, to compare with (`arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_).

    One forward and one backward pass a step; nothing is random.
    :class:`~sztrain.attacks.SigmaZero` is the one to use: it stops early, counts pixels, and does
    not lose what the last step finds.

    Args:
        num_steps: N, steps.
        eta: initial step size.
        sigma: smoothness of the l0 approximation.
        tau: initial sparsity threshold.
        tau_factor: the threshold moves by this times the step size.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> AdvLibSigmaZero(num_steps=100).tau
        0.3
    """

    eta: float = 1.0
    sigma: float = 1e-3
    tau: float = 0.3
    tau_factor: float = 0.01

    needs: ClassVar[tuple[str, ...]] = ("sigma_zero",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("eta", "sigma")
        require_at_least("tau", self.tau, 0)
        require_at_least("tau_factor", self.tau_factor, 0)

    def search(self, library: ModuleType, net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Call ``sigma_zero``."""
        moved: Tensor = library.sigma_zero(
            net,
            inputs,
            labels,
            num_steps=self.num_steps,
            η_0=self.eta,
            σ=self.sigma,
            τ_0=self.tau,
            τ_factor=self.tau_factor,
        )
        return moved
