"""One run of GSE, with a trade-off between success and sparsity that is given."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sztrain.attacks._gse_rows import GSERun, GSESearch
from sztrain.attacks._half_norm import adjusted_trade_off, half_prox
from sztrain.attacks.base import Found, Logits
from sztrain.attacks.rows import Outcome, steps_between_syncs
from sztrain.norms import clamp_to_box_, l0_norm, per_sample

if TYPE_CHECKING:
    from sztrain.attacks.gse import GSE


def run_once(
    logits_of: Logits, attack: "GSE", search: GSESearch, sigma: Tensor, num_steps: int
) -> Found:
    """One run from w = 0 to its first adversarial iterate.

    Args:
        logits_of: the net.
        attack: the hyper-parameters.
        search: the samples to attack, left as they are.
        sigma: the step size of each, ``(N,)``.
        num_steps: K.

    Returns:
        Where each sample ended, as its best example if it is adversarial there.
    """
    run, outcome = GSERun.start(search, sigma), Outcome(search.inputs)
    interval, alpha = steps_between_syncs(sigma.device), 1.0
    switch = round(attack.switch * num_steps)
    for k in range(num_steps):
        alpha_next = (1 + math.sqrt(1 + 4 * alpha**2)) / 2
        if attack.momentum == "average":
            weight = alpha / alpha_next
        else:
            weight = 1 + (alpha - 1) / alpha_next
        alpha = alpha_next
        if k == switch:
            # What is over stays where it is, until it leaves.
            run.free.copy_((run.trade_off <= run.base) | per_sample(~run.open, run.free))
            run.previous.copy_(run.w.mul_(run.free))
        _step(attack, run, weight, first_phase=k < switch)
        adversarial = run.look(
            logits_of, run.w, targeted=attack.targeted, with_gradient=k + 1 < num_steps
        )
        over = adversarial & run.open
        run.l0.copy_(torch.where(over, l0_norm(run.w, attack.unit), run.l0))
        run.open.logical_and_(~over)
        if (k + 1) % interval == 0:
            run = outcome.without_closed(run)
        if len(run.index) == 0:
            break
    outcome.collect(run)
    return outcome.found


def _step(attack: "GSE", run: GSERun, weight: float, *, first_phase: bool) -> None:
    """From w along the gradient, back towards sparsity, on with momentum, and into the box."""
    u = run.w - run.sigma * (run.gradient + 2 * attack.mu * run.w)
    u = half_prox(u, run.sigma * run.trade_off) if first_phase else run.free * u
    mixed = torch.lerp(run.previous, u, weight)
    run.previous.copy_(u)
    if first_phase:
        run.trade_off.copy_(adjusted_trade_off(run.trade_off, mixed, attack.q))
    moved = clamp_to_box_(mixed.to(run.inputs.dtype), run.inputs)
    run.w.copy_(torch.where(per_sample(run.open, moved), moved.to(mixed.dtype), run.w))
