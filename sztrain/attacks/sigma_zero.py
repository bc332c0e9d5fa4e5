r"""σ-zero: minimum l0-norm adversarial examples by gradient descent.

Cinà, Villani, Pintor, Schönherr, Biggio, Pelillo: "σ-zero: Gradient-based Optimization of l0-norm
Adversarial Examples", `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_, Algorithm 1.
"""

import math
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal, Self

import torch
from torch import Tensor, nn

from sztrain.attacks.base import Found, Logits, is_adversarial, run_attack, validate_attack
from sztrain.errors import InputError, require_at_least, require_in
from sztrain.losses import difference_of_logits, smooth_l0
from sztrain.norms import clamp_to_box, l0_norm, magnitudes, num_units, per_sample
from sztrain.types import AttackResult, Unit

StepRule = Literal["adam", "sgd"]
STEP_RULES: tuple[StepRule, ...] = ("adam", "sgd")


@dataclass(frozen=True, kw_only=True)
class SigmaZero:
    r"""The σ-zero attack (`arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_).

    A minimal-norm attack: ``AttackResult.l0`` is the smallest l0 found. With a ``budget`` it is a
    fixed-budget attack: a sample leaves the batch as soon as it is broken within the budget.

    Args:
        num_steps: N, forward and backward pairs.
        eta: :math:`\eta_0`, the initial step size; annealed by a cosine to a tenth of it.
        sigma: σ, smoothness of the l0 approximation (Eq. 7).
        tau: :math:`\tau_0`, the initial sparsity threshold.
        tau_factor: the threshold moves by this times the step size (0.01 in the paper).
        step_rule: ``"adam"``, which the released implementation uses and which gives the paper's
            tables, or ``"sgd"``, the plain step that Algorithm 1 prints.
        targeted: whether labels are the classes to reach (the paper attacks untargeted).
        unit: count single values (``"features"``, as the paper) or positions (``"pixels"``); with
            pixels, the channels of a position move, vanish and count together.
        budget: largest l0 that counts as success, and the early stop; ``None``: none.
        recheck: work in full precision, whatever the caller's autocast, and verify the claims with
            one forward pass; training does without.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> net = nn.Linear(4, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0]]))
        >>> result = SigmaZero(num_steps=50)(net, torch.full((1, 4), 0.5), torch.tensor([0]))
        >>> result.success.item(), result.l0.item()  # ties go to class 0: all 4 have to go
        (False, inf)
        >>> net.bias = nn.Parameter(torch.tensor([0.0, 0.2]))
        >>> SigmaZero(num_steps=50)(net, torch.full((1, 4), 0.5), torch.tensor([0])).l0.item()
        1.0
    """

    num_steps: int = 1000
    eta: float = 1.0
    sigma: float = 1e-3
    tau: float = 0.3
    tau_factor: float = 0.01
    step_rule: StepRule = "adam"
    targeted: bool = False
    unit: Unit = "features"
    budget: int | None = None
    recheck: bool = True

    def __post_init__(self) -> None:
        validate_attack(self.unit, self.num_steps, self.budget)
        require_in("step_rule", self.step_rule, STEP_RULES)
        require_at_least("tau_factor", self.tau_factor, 0)
        for name in ("eta", "sigma"):
            if not getattr(self, name) > 0:
                raise InputError(f"expected `{name}` to be positive, got {getattr(self, name)}")
        if not 0 <= self.tau <= 1:
            raise InputError(f"expected `tau` to be in [0, 1], got {self.tau}")

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> AttackResult:
        """Attack ``inputs``, shape ``(N, ...)`` in [0, 1], with int64 ``labels``, shape ``(N,)``.

        Raises:
            InputError: inputs outside [0, 1], labels outside the classes, non-finite logits, a
                budget above the number of units, or pixels asked of something without channels.
        """
        return run_attack(
            partial(sigma_zero, attack=self),
            net,
            inputs,
            labels,
            unit=self.unit,
            budget=self.budget,
            targeted=self.targeted,
            recheck=self.recheck,
        )


def sigma_zero(logits_of: Logits, inputs: Tensor, labels: Tensor, attack: SigmaZero) -> Found:
    r"""Algorithm 1 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_, line by line.

    The forward pass that lines 8-10 need at the new δ is also the one of line 3 in the next
    iteration, so an iteration costs one forward and one backward; the last iterate costs one
    forward more. Every sum runs over the batch, never a mean: samples do not see each other.
    A sample whose best l0 is within the budget leaves the batch, and so does one that is
    misclassified from the start, whose minimum is 0.

    Args:
        logits_of: the net.
        inputs: x, shape ``(N, ...)`` in [0, 1].
        labels: y, int64 ``(N,)``.
        attack: the hyper-parameters.

    Returns:
        The claims, which :func:`~sztrain.attacks.base.run_attack` verifies.
    """
    unit, budget, num_steps = attack.unit, attack.budget, attack.num_steps
    search, done, eta = _Rows.start(inputs, labels, attack.tau), _Outcome(inputs), attack.eta  # 1
    gradient, adversarial = _objective_gradient(logits_of, search, attack)
    search = search.with_best(adversarial, unit)
    for i in range(1, num_steps + 1):  # line 2; line 3 was computed with the forward of line 8
        if i == 1 or budget is not None:
            stop = search.best_l0 <= (budget or 0)
            search, gradient = done.collect(search, gradient, stop, forwards=i, backwards=i)
            if len(search.delta) == 0:
                return done.found()
        largest = gradient.abs().flatten(1).amax(dim=1).clamp(min=1e-12)
        # A gradient that overflowed says nothing: it moves nothing.
        gradient = (gradient / per_sample(largest, gradient)).nan_to_num(0, 0, 0)  # line 4
        step = search.adam(gradient, i) if attack.step_rule == "adam" else gradient
        delta = clamp_to_box(search.delta - eta * step, search.inputs)  # line 5
        small = magnitudes(delta, unit) < per_sample(search.tau, delta)
        search = replace(search, delta=delta.masked_fill(small, 0))  # line 6
        eta = cosine_annealing(attack.eta, i, num_steps)  # line 7
        gradient, adversarial = _objective_gradient(
            logits_of, search, attack, with_gradient=i < num_steps
        )
        move = attack.tau_factor * eta
        tau = torch.where(adversarial, search.tau + move, search.tau - move).clamp(0, 1)
        search = replace(search, tau=tau)  # line 8
        search = search.with_best(adversarial, unit)  # lines 9, 10
    everyone = torch.ones_like(search.best_l0, dtype=torch.bool)
    done.collect(search, gradient, everyone, forwards=num_steps + 1, backwards=num_steps)
    return done.found()  # lines 11, 12


def cosine_annealing(eta: float, step: int, num_steps: int) -> float:
    r"""Step size after ``step`` of ``num_steps`` steps: from :math:`\eta_0` to :math:`\eta_0/10`.

    Example:
        >>> cosine_annealing(1.0, 0, 10), round(cosine_annealing(1.0, 10, 10), 9)
        (1.0, 0.1)
    """
    return eta * (0.1 + 0.9 * (1 + math.cos(math.pi * step / num_steps)) / 2)


def _objective_gradient(
    logits_of: Logits, search: "_Rows", attack: SigmaZero, *, with_gradient: bool = True
) -> tuple[Tensor, Tensor]:
    r"""Gradient of the objective in δ, and whether x + δ is adversarial.

    .. math:: \nabla_\delta [\mathcal{L}(x+\delta, y) + \hat\ell_0(\delta, \sigma) / d]

    (Eqs. 4 and 6; the indicator in :math:`\mathcal{L}` has no gradient.)
    """
    with torch.set_grad_enabled(with_gradient):
        delta = search.delta.detach().requires_grad_(with_gradient)
        # Rounding is monotone, so x + (clip(x + δ) - x) stays in [0, 1] without another clip.
        logits = logits_of(search.inputs + delta)
        adversarial = is_adversarial(logits, search.labels, attack.targeted)
        if not with_gradient:
            return torch.zeros_like(delta), adversarial
        margin = difference_of_logits(logits, search.labels)
        loss = (-margin if attack.targeted else margin).clamp(min=0)
        penalty = smooth_l0(delta, attack.sigma, attack.unit) / num_units(
            delta.shape[1:], attack.unit
        )
        (gradient,) = torch.autograd.grad(loss.sum() + penalty.sum(), delta)
    return gradient, adversarial


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """State of the samples still under attack; every field is a tensor with one row a sample."""

    index: Tensor
    inputs: Tensor
    labels: Tensor
    delta: Tensor
    tau: Tensor
    best_delta: Tensor
    best_l0: Tensor
    mean: Tensor
    mean_square: Tensor

    @classmethod
    def start(cls, inputs: Tensor, labels: Tensor, tau: float) -> Self:
        # Neither thresholds nor counts can do with half precision.
        precise = torch.promote_types(inputs.dtype, torch.float32)
        return cls(
            index=torch.arange(len(inputs), device=inputs.device),
            inputs=inputs,
            labels=labels,
            delta=torch.zeros_like(inputs),
            tau=inputs.new_full((len(inputs),), tau, dtype=precise),
            best_delta=torch.zeros_like(inputs),
            best_l0=inputs.new_full((len(inputs),), torch.inf, dtype=torch.float32),
            mean=torch.zeros_like(inputs),
            mean_square=torch.zeros_like(inputs),
        )

    def adam(self, gradient: Tensor, step: int, beta1: float = 0.9, beta2: float = 0.999) -> Tensor:
        """The direction of Adam (arXiv:1412.6980, Algorithm 1), moments updated in place."""
        self.mean.lerp_(gradient, 1 - beta1)
        self.mean_square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        epsilon = max(1e-8, torch.finfo(gradient.dtype).tiny)  # in half precision 1e-8 is zero
        scale = (self.mean_square / (1 - beta2**step)).sqrt_().add_(epsilon)
        return self.mean / (1 - beta1**step) / scale

    def with_best(self, adversarial: Tensor, unit: Unit) -> Self:
        """Keep δ where it is adversarial with fewer changes than the best so far."""
        l0 = l0_norm(self.delta, unit)
        better = adversarial & (l0 < self.best_l0)
        best_delta = torch.where(per_sample(better, self.delta), self.delta, self.best_delta)
        best_l0 = torch.where(better, l0, self.best_l0)
        return replace(self, best_delta=best_delta, best_l0=best_l0)

    def where(self, mask: Tensor) -> Self:
        """The rows where ``mask`` holds."""
        return replace(self, **{f.name: getattr(self, f.name)[mask] for f in fields(self)})


class _Outcome:
    """Collects, in the order of the batch, the samples whose search is over."""

    def __init__(self, inputs: Tensor) -> None:
        self.best_inputs = inputs.clone()
        self.last_inputs = inputs.clone()
        self.best_l0 = inputs.new_full((len(inputs),), torch.inf, dtype=torch.float32)
        self.num_forwards = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
        self.num_backwards = torch.zeros_like(self.num_forwards)

    def collect(
        self, search: _Rows, gradient: Tensor, stop: Tensor, *, forwards: int, backwards: int
    ) -> tuple[_Rows, Tensor]:
        """Take over the rows that ``stop``; return the others."""
        if not bool(stop.any()):
            return search, gradient
        over = search.where(stop)
        self.best_inputs[over.index] = over.inputs + over.best_delta
        self.best_l0[over.index] = over.best_l0
        self.last_inputs[over.index] = over.inputs + over.delta
        self.num_forwards[over.index] = forwards
        self.num_backwards[over.index] = backwards
        return search.where(~stop), gradient[~stop]

    def found(self) -> Found:
        return Found(
            best_inputs=self.best_inputs,
            best_l0=self.best_l0,
            last_inputs=self.last_inputs,
            num_forwards=self.num_forwards,
            num_backwards=self.num_backwards,
        )
