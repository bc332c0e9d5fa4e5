r"""σ-zero: minimum l0-norm adversarial examples by gradient descent.

Cinà, Villani, Pintor, Schönherr, Biggio, Pelillo: "σ-zero: Gradient-based Optimization of l0-norm
Adversarial Examples", `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_, Algorithm 1.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from sztrain.attacks._search import AdamSearch, Seen, corrected, margin_gradient
from sztrain.attacks.base import Found, Logits, is_adversarial, run_attack
from sztrain.attacks.checks import require_tensors, validate_attack
from sztrain.attacks.cuda_graph import Recorded, require_cuda
from sztrain.attacks.rows import Outcome, steps_between_syncs
from sztrain.errors import InputError, require_at_least, require_count, require_in, require_positive
from sztrain.losses import smooth_l0_gradient
from sztrain.norms import clamp_to_box_, magnitudes, num_units
from sztrain.precision import warn_of_slow_bfloat16
from sztrain.types import AttackResult, Unit

StepRule = Literal["adam", "sgd"]
STEP_RULES: tuple[StepRule, ...] = ("adam", "sgd")


@dataclass(frozen=True, kw_only=True)
class SigmaZero:
    r"""The σ-zero attack (`arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_).

    A minimal-norm attack: ``AttackResult.l0`` is the smallest l0 found. With a ``budget`` it is a
    fixed-budget attack: a sample leaves the batch as soon as it is broken within the budget. What
    left early has ended at its best: ``last_inputs`` is ``best_inputs`` there.

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
        patience: a sample that is broken leaves the batch after this many steps without a sparser
            example; ``None``: never, as in the paper.
        recheck: work in full precision, whatever the caller's autocast, and verify the claims with
            one forward pass; training does without.
        lean: for training, leave out the pass that training makes itself: the last iterate is not
            looked at, only returned as ``last_inputs``, and what the last step breaks is not known.
        autocast: pass the net in bfloat16; with ``recheck`` an example counts once full precision
            confirms it, at the cost of one more forward pass for a sample at each step that
            improves on it.
        batch_size: how many samples are under attack at a time; ``None``: what is fastest on a
            CPU, everything at once elsewhere. Halved where the memory does not suffice.
        cuda_graph: record a step and replay it; for small nets and many steps on a CUDA device.

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
    patience: int | None = None
    recheck: bool = True
    lean: bool = False
    autocast: bool = False
    batch_size: int | None = None
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        validate_attack(self.unit, self.num_steps, self.budget, self.batch_size)
        require_in("step_rule", self.step_rule, STEP_RULES)
        require_at_least("tau_factor", self.tau_factor, 0)
        if self.patience is not None:
            require_count("patience", self.patience, 1)
        for name in ("eta", "sigma"):
            require_positive(name, getattr(self, name))
        if not 0 <= self.tau <= 1:
            raise InputError(f"expected `tau` to be in [0, 1], got {self.tau}")
        if self.autocast and self.cuda_graph:
            raise InputError(
                "expected one of `autocast` and `cuda_graph`, got both: a graph has a fixed size, "
                "and how many samples full precision has to confirm changes from step to step"
            )

    @property
    def stops_early(self) -> bool:
        """Whether samples may leave the batch before the last step."""
        return self.budget is not None or self.patience is not None

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> AttackResult:
        """Attack ``inputs``, shape ``(N, ...)`` in [0, 1], with int64 ``labels``, shape ``(N,)``.

        Raises:
            InputError: inputs outside [0, 1], labels outside the classes, non-finite logits, a
                budget above the number of units, or pixels asked of something without channels.
        """
        require_tensors(inputs, labels)
        if self.autocast:
            warn_of_slow_bfloat16(inputs.device)
        return run_attack(
            partial(sigma_zero, attack=self),
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
    num_stale: Tensor
    """Steps since the best."""


def sigma_zero(logits_of: Logits, inputs: Tensor, labels: Tensor, attack: SigmaZero) -> Found:
    r"""Algorithm 1 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_, line by line.

    The forward pass that lines 8-10 need at the new δ is also the one of line 3 in the next
    iteration, so an iteration costs one forward and one backward; the last iterate costs one
    forward more. Every sum runs over the batch, never a mean: samples do not see each other.

    Args:
        logits_of: the net.
        inputs: x, shape ``(N, ...)`` in [0, 1].
        labels: y, int64 ``(N,)``.
        attack: the hyper-parameters.

    Returns:
        The claims, which :func:`~sztrain.attacks.base.run_attack` verifies.

    Raises:
        InputError: a CUDA graph was asked for on another device.
    """
    iterate = partial(_iterate, logits_of, attack)
    if attack.cuda_graph:
        require_cuda(inputs.device)
    advance = Recorded(iterate) if attack.cuda_graph else iterate
    interval = steps_between_syncs(inputs.device)
    stale = torch.zeros_like(labels)
    moments = attack.step_rule == "adam"
    search = _Search.start(inputs, labels, attack.tau, moments=moments, num_stale=stale)  # line 1
    outcome = Outcome(inputs)
    schedule = _schedule(attack, search)
    # Half precision may take a misclassified sample for a correct one, which then has no l0 of 0.
    in_half = attack.autocast and not attack.recheck
    _look(logits_of, attack, search, schedule.new_zeros(()), in_half=in_half)  # line 3
    _close(attack, search)  # whoever is misclassified from the start: the minimum is δ = 0
    for i, now in enumerate(schedule, start=1):  # line 2
        if i == 1 or (attack.stops_early and i % interval == 0):
            # Another number of rows is another graph, which has to pay for its recording.
            search = outcome.without_closed(
                search, at_most=0.5 if attack.cuda_graph and i > 1 else 1
            )
        if len(search.index) == 0:
            break
        if i < attack.num_steps:
            advance(search, now)
        elif attack.lean:
            _move(attack, search, *now[:2])
        else:
            iterate(search, now, with_gradient=False)
    outcome.collect(search)
    return outcome.found  # lines 11, 12


def cosine_annealing(eta: float, step: int, num_steps: int) -> float:
    r"""Step size after ``step`` of ``num_steps`` steps: from :math:`\eta_0` to :math:`\eta_0/10`.

    Example:
        >>> cosine_annealing(1.0, 0, 10), round(cosine_annealing(1.0, 10, 10), 9)
        (1.0, 0.1)
    """
    return eta * (0.1 + 0.9 * (1 + math.cos(math.pi * step / num_steps)) / 2)


def _schedule(attack: SigmaZero, search: _Search) -> Tensor:
    """Step size, Adam's ε and step of the threshold for every iteration, shape ``(num_steps, 3)``.

    A tensor, since a recorded step reads it from the device.
    """
    rows = []
    for i in range(1, attack.num_steps + 1):
        eta = cosine_annealing(attack.eta, i - 1, attack.num_steps)
        tau_step = attack.tau_factor * cosine_annealing(attack.eta, i, attack.num_steps)  # line 7
        adam = attack.step_rule == "adam"
        step_size, epsilon = corrected(eta, i, search.mean.dtype) if adam else (eta, 0.0)
        rows.append((step_size, epsilon, tau_step))
    return torch.tensor(rows, dtype=search.tau.dtype, device=search.tau.device)


def _iterate(
    logits_of: Logits,
    attack: SigmaZero,
    search: _Search,
    now: Tensor,
    *,
    with_gradient: bool = True,
) -> None:
    """One iteration in place, on tensors that stay where they are: it can be recorded."""
    step_size, epsilon, tau_step = now.unbind()
    _move(attack, search, step_size, epsilon)
    _look(
        logits_of,
        attack,
        search,
        tau_step,
        in_half=attack.autocast,
        with_gradient=with_gradient,
    )
    if attack.stops_early:
        _close(attack, search)


def _move(attack: SigmaZero, search: _Search, step_size: Tensor, epsilon: Tensor) -> None:
    """Lines 4 to 6."""
    direction = search.normalise_gradient()  # line 4
    if attack.step_rule == "adam":
        direction = search.adam_direction(epsilon)
    search.delta.sub_(direction.mul_(step_size))
    clamp_to_box_(search.delta, search.inputs)  # line 5
    search.cut_off(magnitudes(search.delta, attack.unit))  # line 6


def _look(
    logits_of: Logits,
    attack: SigmaZero,
    search: _Search,
    tau_step: Tensor,
    *,
    in_half: bool,
    with_gradient: bool = True,
) -> None:
    """Lines 8 to 10 at the present δ, and line 3 of the next iteration by the same forward pass."""
    seen = search.look(  # lines 9, 10
        partial(_half, logits_of) if in_half else logits_of,
        attack.unit,
        targeted=attack.targeted,
        with_gradient=with_gradient,
        confirm=(
            partial(_confirmed, logits_of, attack, search) if in_half and attack.recheck else None
        ),
    )
    tau_steps = torch.where(seen.adversarial, tau_step, -tau_step)
    search.tau.add_(tau_steps).clamp_(0, 1)  # line 8
    if attack.patience is not None:
        search.num_stale.add_(1).masked_fill_(seen.improved, 0)
    if with_gradient:
        _differentiate(attack, search, seen)


def _close(attack: SigmaZero, search: _Search) -> None:
    """End the search of the samples that are broken well enough, or for long enough."""
    over = search.best_l0 <= (attack.budget or 0)
    if attack.patience is not None:
        over |= search.best_l0.isfinite() & (search.num_stale >= attack.patience)
    search.open.logical_and_(~over)


def _differentiate(attack: SigmaZero, search: _Search, seen: Seen) -> None:
    r"""Gradient of the objective in δ.

    .. math:: \nabla_\delta [\mathcal{L}(x+\delta, y) + \hat\ell_0(\delta, \sigma) / d]

    (Eqs. 4 and 6; the indicator in :math:`\mathcal{L}` has no gradient.)
    """
    gradient = margin_gradient(seen.logits, search.labels, seen.delta, attack.targeted)
    penalty = smooth_l0_gradient(search.delta, attack.sigma, attack.unit)
    share = 1 / num_units(search.delta.shape[1:], attack.unit)
    torch.add(gradient, penalty, alpha=share, out=search.gradient)


def _half(logits_of: Logits, inputs: Tensor) -> Tensor:
    """The logits by a pass in bfloat16."""
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
        return logits_of(inputs)


@torch.no_grad()
def _confirmed(logits_of: Logits, attack: SigmaZero, search: _Search, better: Tensor) -> Tensor:
    """Those of the ``better`` that full precision finds adversarial as well."""
    rows = better.nonzero().squeeze(1)
    if len(rows) == 0:
        return better
    logits = logits_of(search.inputs[rows] + search.delta[rows])
    search.num_forwards[rows] += 1
    adversarial = is_adversarial(logits, search.labels[rows], attack.targeted)
    return torch.zeros_like(better).index_put_((rows,), adversarial)
