r"""GSE: group-wise sparse and explainable adversarial attacks.

Sadiku, Wagner, Pokutta: "GSE: Group-wise Sparse and Explainable Adversarial Attacks",
`arXiv:2311.17434 <https://arxiv.org/abs/2311.17434>`_, after the authors' code.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from sztrain.attacks._gse_rows import GSESearch
from sztrain.attacks._gse_run import run_once
from sztrain.attacks._half_norm import largest_trade_off
from sztrain.attacks.base import Found, Logits, run_attack
from sztrain.attacks.checks import validate_attack
from sztrain.attacks.rows import Outcome
from sztrain.errors import InputError, require_at_least, require_count, require_in, require_positive
from sztrain.norms import num_changed_windows, per_sample
from sztrain.types import AttackResult, Unit

Momentum = Literal["average", "nesterov"]
MOMENTA: tuple[Momentum, ...] = ("average", "nesterov")

START = 0.01  # of the largest trade-off, in the authors' code
SMALLEST_SIDE = 3  # pixels, for the image to be reflected at its border


@dataclass(frozen=True, kw_only=True)
class GSE:
    r"""The GSE attack (`arXiv:2311.17434 <https://arxiv.org/abs/2311.17434>`_).

    It looks for changed pixels that lie in few groups: the answer is the example with the fewest
    changed windows, :math:`d_{2,0}`, not that with the smallest l0. For images only.

    A search of several runs over the trade-off between success and sparsity, each from the clean
    image to the first adversarial iterate: at first proximal gradient steps on

    .. math:: \max(Z_y - \max_{j \ne y} Z_j, 0) + \mu \|w\|_2^2
        + \sum_p \lambda_p \sum_c |w_{cp}|^{1/2},

    where after each step λ falls around the pixels that moved and rises elsewhere, then projected
    steps without the last term on the pixels that got cheaper.

    *What is the authors'* (their code; lengths of a run and box as theirs, σ and μ rescaled from
    images in [-1, 1] to [0, 1]): all rules, and the defaults, which are those for CIFAR-10,
    untargeted. For ImageNet they take ``mu=0.4, sigma=0.0125, switch=0.25, q=0.9``, for an
    adversarially trained net there ``mu=0.002, sigma=0.1875, switch=0.75, q=0.9``, targeted on
    CIFAR-10 ``switch=0.25``. *What is inferred here*: the runs share ``num_steps``; for MNIST,
    where robust nets stand the defaults, ``mu=0.0005, sigma=0.75, switch=0.75, q=0.9`` (should
    images still fail, raise σ and lower μ, by four each); ``momentum="nesterov"``; with a budget,
    the first example within it.

    Args:
        num_steps: forward and backward pairs of all runs together, at most; a run's share is K.
        num_runs: S, how many trade-offs to try; no more than there are steps.
        sigma: σ, the step size; ten times that in the last two runs, unless that is the first, for
            samples that no run broke.
        mu: μ, weight of the squared 2-norm.
        switch: :math:`\hat k / K`, share of a run's steps after which the pixels are fixed.
        q: what λ is divided by, at each step, away from the pixels that moved; in (0, 1].
        momentum: ``"average"``, with the point before, as the authors' code has it; or
            ``"nesterov"``, the extrapolation that the paper names.
        patch: pixels a side of the windows that are counted.
        targeted: whether labels are the classes to reach.
        unit: what ``budget`` and l0 count, single values (``"features"``) or positions
            (``"pixels"``, as the paper).
        budget: largest l0 that counts as success, and the early stop; ``None``: none.
        recheck: work in full precision, whatever the caller's autocast, and verify the claims with
            one forward pass.
        batch_size: how many samples are under attack at a time; ``None``: what is fastest on a
            CPU, everything at once elsewhere. Halved where the memory does not suffice.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> from sztrain.norms import num_changed_windows
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(81, 2))
        >>> _ = net[1].weight.data.copy_(torch.stack([torch.ones(81), torch.zeros(81)]))
        >>> _ = net[1].bias.data.copy_(torch.tensor([-40.0, 0.0]))
        >>> attack, inputs = GSE(num_steps=100, sigma=0.01), torch.full((1, 1, 9, 9), 0.5)
        >>> result = attack(net, inputs, torch.tensor([0]))
        >>> result.success.item(), num_changed_windows(result.adv_inputs - inputs).item() <= 4
        (True, True)
    """

    num_steps: int = 2000
    num_runs: int = 10
    sigma: float = 0.00125
    mu: float = 4.0
    switch: float = 0.15
    q: float = 0.25
    momentum: Momentum = "average"
    patch: int = 8
    targeted: bool = False
    unit: Unit = "features"
    budget: int | None = None
    recheck: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        validate_attack(self.unit, self.num_steps, self.budget, self.batch_size)
        require_count("num_runs", self.num_runs, 1)
        require_count("patch", self.patch, 1)
        require_in("momentum", self.momentum, MOMENTA)
        require_positive("sigma", self.sigma)
        require_at_least("mu", self.mu, 0)
        if not 0 <= self.switch <= 1:
            raise InputError(f"expected `switch` to be in [0, 1], got {self.switch}")
        if not 0 < self.q <= 1:
            raise InputError(f"expected `q` to be in (0, 1], got {self.q}")

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> AttackResult:
        """Attack ``inputs``, shape ``(N, C, H, W)`` in [0, 1], with int64 ``labels``, ``(N,)``.

        Raises:
            InputError: inputs that are no images or smaller than the windows, or outside [0, 1],
                labels outside the classes, non-finite logits, a budget above the number of units.
        """
        return run_attack(
            partial(gse, attack=self),
            net,
            inputs,
            labels,
            unit=self.unit,
            budget=self.budget,
            targeted=self.targeted,
            recheck=self.recheck,
            batch_size=self.batch_size,
        )


def gse(logits_of: Logits, inputs: Tensor, labels: Tensor, attack: GSE) -> Found:
    """The outer search.

    The clean image costs one forward and one backward pass for all runs together, and each later
    step of a run as much; a run of K steps saves its last backward pass.

    Args:
        logits_of: the net.
        inputs: x, shape ``(N, C, H, W)`` in [0, 1].
        labels: y, int64 ``(N,)``.
        attack: the hyper-parameters.

    Returns:
        The claims, which :func:`~sztrain.attacks.base.run_attack` verifies.

    Raises:
        InputError: inputs that are no images, or smaller than the windows.
    """
    _require_images(inputs, attack.patch)
    search, outcome = GSESearch.start(inputs, labels), Outcome(inputs)
    _look_at_clean(logits_of, attack, search)
    num_runs = min(attack.num_runs, attack.num_steps)
    for run in range(num_runs):
        # Whoever is misclassified from the start is done: the minimum is w = 0.
        search.open.logical_and_(search.best_l0 > (attack.budget or 0))
        search = outcome.without_closed(search)
        if len(search.index) == 0:
            break
        sigma = torch.full_like(search.trade_off, attack.sigma)
        if run >= max(num_runs - 2, 1):
            sigma[search.best_l0.isinf()] *= 10
        ended = run_once(logits_of, attack, search, sigma, attack.num_steps // num_runs)
        _take(attack, search, ended)
        _choose_trade_off(search, ended.best_l0.isfinite())
    outcome.collect(search)
    return outcome.found


def _require_images(inputs: Tensor, patch: int) -> None:
    side = max(patch, SMALLEST_SIDE)
    if inputs.ndim != 4 or min(inputs.shape[2:]) < side:
        raise InputError(
            f"GSE needs images of shape (N, C, H, W) of at least {side} pixels a side, "
            f"got inputs of shape {tuple(inputs.shape)}; lower `patch` or use another attack"
        )


def _look_at_clean(logits_of: Logits, attack: GSE, search: GSESearch) -> None:
    """The verdict on the clean images, the gradient there, and the λ⁰ of the first run."""
    wrong = search.look(logits_of, torch.zeros_like(search.inputs), targeted=attack.targeted)
    search.best_l0.masked_fill_(wrong, 0)
    gradient = search.gradient.to(search.trade_off)
    search.trade_off.copy_(START * largest_trade_off(gradient, attack.sigma))


def _take(attack: GSE, search: GSESearch, ended: Found) -> None:
    """Take over from a run its cost, its end, and its examples of fewer changed windows."""
    search.num_forwards.add_(ended.num_forwards)
    search.num_backwards.add_(ended.num_backwards)
    search.last_inputs.copy_(ended.last_inputs)
    windows = num_changed_windows(ended.best_inputs - search.inputs, attack.patch)
    better = windows < search.fewest_windows
    if attack.budget is not None:
        better |= ended.best_l0 <= attack.budget
    better &= ended.best_l0.isfinite()
    search.fewest_windows.copy_(torch.where(better, windows, search.fewest_windows))
    search.best_l0.copy_(torch.where(better, ended.best_l0, search.best_l0))
    search.best_inputs.copy_(
        torch.where(per_sample(better, ended.best_inputs), ended.best_inputs, search.best_inputs)
    )


def _choose_trade_off(search: GSESearch, success: Tensor) -> None:
    """Sparser after a success, less so after a failure."""
    now, lower, upper = search.trade_off.clone(), search.lower, search.upper
    sparser = torch.where(upper.isinf(), 2 * now, (upper + now) / 2)
    denser = 0.9 * lower + 0.1 * now
    search.trade_off.copy_(torch.where(success, sparser, denser))
    lower.copy_(torch.where(success, now, lower))
    upper.copy_(torch.where(success, upper, now))
