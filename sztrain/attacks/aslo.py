r"""ASLO: adaptive sparse and lightweight optimisation.

Liu, Li, Chen: "Evaluating Model Robustness Using Adaptive Sparse L0 Regularization",
`arXiv:2408.15702 <https://arxiv.org/abs/2408.15702>`_. Its authors published no code.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sztrain.attacks._pruning import prune
from sztrain.attacks._search import AdamSearch, corrected, margin_gradient
from sztrain.attacks.base import Found, Logits, run_attack
from sztrain.attacks.checks import validate_attack
from sztrain.attacks.rows import Outcome, precise, steps_between_syncs
from sztrain.attacks.sigma_zero import cosine_annealing
from sztrain.errors import InputError, require_at_least, require_count, require_positive
from sztrain.losses import smooth_l0_gradient
from sztrain.norms import clamp_to_box_, num_units, per_sample
from sztrain.types import AttackResult, Unit

SMALLEST_SCALE, LARGEST_SCALE = 0.25, 2.0  # of the step size


@dataclass(frozen=True, kw_only=True)
class ASLO:
    r"""The ASLO attack (`arXiv:2408.15702 <https://arxiv.org/abs/2408.15702>`_).

    A minimal-norm attack for inputs of any rank of at least 2: images, tables, time series.

    *What the paper's sources say.* The l0 norm is replaced by a differentiable one,

    .. math:: \hat\ell_0(\delta, \sigma) = \sum_i \frac{\delta_i^2}{\delta_i^2 + \sigma^2},

    and parameters of the perturbation are adjusted while the attack runs, from the answers of the
    net, to balance sparsity and success. Mind the square: σ-zero has σ in its place, so its 0.001
    is 0.0316 here.

    *What is inferred here*, since the sources name neither the parameters nor the rule: the rest.
    The skeleton is σ-zero's, and each of its three parameters follows, sample by sample, whether
    the present iterate is adversarial; that needs no further pass. The step size grows for samples
    that are seldom adversarial (its sign and worth depend on the net: ``kappa``), the smoothing
    sharpens while the sample is adversarial and softens while it is not, and the threshold moves
    as in σ-zero, by a multiple of the sample's own step size. With ``kappa=0`` and
    ``sigma_factor=1`` this is σ-zero in adv-lib's variant: the threshold moves for the first time
    at δ = 0, and by the step size of the step that was taken. In pixels, a position's size is the
    root of its channels' mean square here and their largest there. No default is the paper's.

    Args:
        num_steps: T, forward and backward pairs.
        eta: :math:`\eta_0`, the initial step size; annealed by a cosine to a tenth of it.
        sigma: :math:`\sigma_0`, the initial smoothing.
        sigma_min: smallest smoothing.
        sigma_max: largest smoothing.
        sigma_factor: a, by which the smoothing is multiplied at a step where the sample is
            adversarial, and divided where it is not; 1 leaves it as it is.
        tau: :math:`\tau_0`, the initial sparsity threshold.
        tau_factor: ρ, the threshold moves by this times the step size.
        kappa: κ, how fast the step size follows the success: it is multiplied by
            :math:`e^{\kappa(1 - 2p)}` at each step, p being the running success rate; below 0 the
            step grows on success.
        beta: β, memory of the success rate.
        prune_steps: after the search, try so many changes of each example, the smallest first, and
            drop those it can do without; a forward pass each.
        targeted: whether labels are the classes to reach.
        unit: count single values (``"features"``) or positions (``"pixels"``); with pixels, the
            channels of a position vanish together where their root mean square is below τ.
        budget: largest l0 that counts as success, and the early stop; ``None``: none.
        recheck: work in full precision, whatever the caller's autocast, and verify the claims with
            one forward pass.
        batch_size: how many samples are under attack at a time; ``None``: what is fastest on a
            CPU, everything at once elsewhere. Halved where the memory does not suffice.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0]]))
        >>> _ = net.bias.data.copy_(torch.tensor([0.0, 0.2]))
        >>> ASLO(num_steps=50)(net, torch.full((1, 4), 0.5), torch.tensor([0])).l0.item()
        1.0
    """

    num_steps: int = 1000
    eta: float = 1.0
    sigma: float = 0.0316
    sigma_min: float = 0.01
    sigma_max: float = 0.1
    sigma_factor: float = 0.97
    tau: float = 0.3
    tau_factor: float = 0.01
    kappa: float = 0.05
    beta: float = 0.9
    prune_steps: int = 0
    targeted: bool = False
    unit: Unit = "features"
    budget: int | None = None
    recheck: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        validate_attack(self.unit, self.num_steps, self.budget, self.batch_size)
        require_count("prune_steps", self.prune_steps, 0)
        for name in ("eta", "sigma_min"):
            require_positive(name, getattr(self, name))
        require_at_least("tau_factor", self.tau_factor, 0)
        if not self.sigma_min <= self.sigma <= self.sigma_max:
            raise InputError(
                "expected `sigma_min` <= `sigma` <= `sigma_max`, "
                f"got {self.sigma_min}, {self.sigma}, {self.sigma_max}"
            )
        for name in ("tau", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected `{name}` to be in [0, 1], got {getattr(self, name)}")
        if not 0 < self.sigma_factor <= 1:
            raise InputError(f"expected `sigma_factor` to be in (0, 1], got {self.sigma_factor}")
        if not math.isfinite(self.kappa):
            raise InputError(f"expected `kappa` to be finite, got {self.kappa}")

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> AttackResult:
        """Attack ``inputs``, shape ``(N, ...)`` in [0, 1], with int64 ``labels``, shape ``(N,)``.

        Raises:
            InputError: inputs outside [0, 1], labels outside the classes, non-finite logits, a
                budget above the number of units, or pixels asked of something without channels.
        """
        return run_attack(
            partial(aslo, attack=self),
            net,
            inputs,
            labels,
            unit=self.unit,
            budget=self.budget,
            targeted=self.targeted,
            recheck=self.recheck,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True, kw_only=True)
class _Search(AdamSearch):
    """All parameters are those of a sample, shape ``(N,)``."""

    eta: Tensor
    scale: Tensor
    """s, what the feedback makes of the annealed step size."""
    sigma: Tensor
    success_rate: Tensor
    """p, an exponential mean."""
    adversarial: Tensor
    """Whether the present δ is."""


def aslo(logits_of: Logits, inputs: Tensor, labels: Tensor, attack: ASLO) -> Found:
    """The search: a forward and a backward pass a step, and one forward for the last iterate.

    Args:
        logits_of: the net.
        inputs: x, shape ``(N, ...)`` in [0, 1].
        labels: y, int64 ``(N,)``.
        attack: the hyper-parameters.

    Returns:
        The claims, which :func:`~sztrain.attacks.base.run_attack` verifies.
    """
    search, outcome = _start(inputs, labels, attack), Outcome(inputs)
    interval = steps_between_syncs(inputs.device)
    for step in range(attack.num_steps + 1):
        last = step == attack.num_steps
        _look(logits_of, attack, search, with_gradient=not last)
        # Whoever is misclassified from the start is done: the minimum is δ = 0.
        search.open.logical_and_(search.best_l0 > (attack.budget or 0))
        if step == 0 or (attack.budget is not None and step % interval == 0):
            search = outcome.without_closed(search)
        if last or len(search.index) == 0:
            break
        _move(search, step)
        _adapt(attack, search, step)
    outcome.collect(search)
    prune(
        logits_of,
        outcome.found,
        inputs,
        labels,
        num_steps=attack.prune_steps,
        unit=attack.unit,
        budget=attack.budget,
        targeted=attack.targeted,
    )
    return outcome.found


def _start(inputs: Tensor, labels: Tensor, attack: ASLO) -> _Search:
    def everyone(value: float) -> Tensor:
        return inputs.new_full((len(inputs),), value, dtype=precise(inputs))

    return _Search.start(
        inputs,
        labels,
        attack.tau,
        eta=everyone(attack.eta),
        scale=everyone(1),
        sigma=everyone(attack.sigma),
        success_rate=everyone(0.5),
        adversarial=torch.zeros_like(labels, dtype=torch.bool),
    )


def _look(logits_of: Logits, attack: ASLO, search: _Search, *, with_gradient: bool) -> None:
    r"""The verdict on the present δ, and the gradient there.

    .. math::
        \nabla_\delta \sum_b \left[ \max(Z_y - \max_{j \ne y} Z_j, 0)
        + \hat\ell_0(\delta, \sigma) / d \right]_b
    """
    seen = search.look(
        logits_of, attack.unit, targeted=attack.targeted, with_gradient=with_gradient
    )
    search.adversarial.copy_(seen.adversarial)
    if with_gradient:
        gradient = margin_gradient(seen.logits, search.labels, seen.delta, attack.targeted)
        penalty = smooth_l0_gradient(
            search.delta, per_sample(search.sigma.square(), search.delta), attack.unit
        )
        share = 1 / num_units(search.delta.shape[1:], attack.unit)
        torch.add(gradient, penalty, alpha=share, out=search.gradient)


def _move(search: _Search, step: int) -> None:
    """A step of Adam, and back into the box."""
    search.normalise_gradient()
    correction, epsilon = corrected(1.0, step + 1, search.mean.dtype)
    direction = search.adam_direction(epsilon)
    search.delta.sub_(direction.mul_(per_sample(correction * search.eta, direction)))
    clamp_to_box_(search.delta, search.inputs)


def _adapt(attack: ASLO, search: _Search, step: int) -> None:
    """Let step size, smoothing and threshold follow the verdict, and apply the threshold."""
    safe = search.adversarial.to(search.tau.dtype)
    search.success_rate.lerp_(safe, 1 - attack.beta)
    growth = torch.exp(attack.kappa * (1 - 2 * search.success_rate))
    search.scale.mul_(growth).clamp_(SMALLEST_SCALE, LARGEST_SCALE)
    annealed = cosine_annealing(attack.eta, step, attack.num_steps)
    torch.mul(search.scale, annealed, out=search.eta)

    sign = 2 * safe - 1
    sharpening = torch.pow(attack.sigma_factor, sign)
    search.sigma.mul_(sharpening).clamp_(attack.sigma_min, attack.sigma_max)

    search.tau.add_(attack.tau_factor * search.eta * sign).clamp_(0, 1)
    search.cut_off(_sizes(search.delta, attack.unit))


def _sizes(delta: Tensor, unit: Unit) -> Tensor:
    """What is compared with the threshold: the root mean square over the channels of a pixel."""
    return delta.abs() if unit == "features" else delta.square().mean(dim=1, keepdim=True).sqrt_()
