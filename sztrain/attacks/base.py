"""What every attack owes its caller, in one place: checks, an untouched net, and true claims."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sztrain.attacks.checks import require_net, validate_batch, validate_labels, validate_logits
from sztrain.attacks.gradients import NO_GRADIENT
from sztrain.attacks.modes import attack_mode
from sztrain.attacks.slices import in_slices
from sztrain.errors import InputError, warn
from sztrain.losses import at_least_float32
from sztrain.norms import check_budgets, l0_norm, per_sample
from sztrain.types import AttackResult, EnsembleResult, Unit

Logits = Callable[[Tensor], Tensor]

ENOUGH_CLAIMS, MOST_DROPPED = 20, 0.05
"""Of fewer claims, or where fewer of them are not borne out, nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search claims, before :func:`run_attack` has verified it.

    Attributes:
        best_inputs: sparsest adversarial example met at any l0; anything where there was none.
        best_l0: its l0, inf where there was none, float ``(N,)``.
        last_inputs: where the search ended.
        num_forwards: int64 ``(N,)``.
        num_backwards: int64 ``(N,)``.
        broken_by: see :class:`~sztrain.types.EnsembleResult`; ``None``: there is one attack only.
    """

    best_inputs: Tensor
    best_l0: Tensor
    last_inputs: Tensor
    num_forwards: Tensor
    num_backwards: Tensor
    broken_by: Tensor | None = None


def is_adversarial(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Whether the prediction is what the attacker wants: the target, or anything but the label.

    Logits with a NaN predict nothing, so they are never adversarial.

    Example:
        >>> is_adversarial(torch.tensor([[0.0, 1.0]]), torch.tensor([1]), targeted=False)
        tensor([False])
    """
    predictions = logits.argmax(dim=1)
    wanted = predictions == labels if targeted else predictions != labels
    return wanted & ~logits.isnan().any(dim=1)


def run_attack(
    search: Callable[[Logits, Tensor, Tensor], Found],
    net: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    unit: Unit,
    budget: int | None,
    targeted: bool = False,
    recheck: bool = True,
    batch_size: int | None = None,
    confirmed: bool = True,
) -> AttackResult:
    """Run ``search`` under the contract of an attack and verify what it claims.

    The net is attacked in eval mode and given back as it was found, with the global random state;
    gradients are on, whatever the caller's grad or inference mode. With ``recheck`` the search runs
    outside autocast and its claim is checked by one forward pass more.

    Args:
        search: the algorithm, called with the net's logits function, inputs and labels.
        net: maps inputs to logits ``(N, K)``.
        inputs: shape ``(N, ...)`` in [0, 1].
        labels: true classes (target classes if ``targeted``), int64 ``(N,)``.
        unit: what l0 counts.
        budget: largest l0 that counts as success; ``None``: any.
        targeted: whether ``labels`` are the classes to reach.
        recheck: whether to work in full precision and spend the verifying forward pass.
        batch_size: samples at a time, see :func:`~sztrain.attacks.slices.in_slices`.
        confirmed: whether the search tries inputs in [0, 1] alone and has seen the net err on all
            that it claims; if so, answers of NaN, and many claims that do not hold, are warned of.

    Raises:
        InputError: a net, inputs, labels or logits that cannot be attacked.
    """
    require_net("net", net)
    validate_batch(inputs, labels)
    check_budgets("budget", [budget], inputs.shape[1:], unit)
    with attack_mode(net, inputs.device), _precision(inputs.device, full=recheck):
        # Tensors made under inference mode cannot be saved for a backward pass; copies can.
        inputs, labels = (t.clone() if t.is_inference() else t for t in (inputs, labels))
        inputs, labels = inputs.detach(), labels.detach()

        def attack_slice(some_inputs: Tensor, their_labels: Tensor) -> AttackResult:
            attacked = _WatchedNet(net, their_labels, everyone=labels)
            found = search(attacked, some_inputs, their_labels)
            if confirmed:
                attacked.warn_of_nan()
            with torch.no_grad():
                return _verified(
                    found,
                    net,
                    some_inputs,
                    their_labels,
                    unit=unit,
                    budget=budget,
                    targeted=targeted,
                    recheck=recheck,
                    confirmed=confirmed,
                )

        return in_slices(attack_slice, inputs, labels, batch_size)


class _WatchedNet:
    """The net's logits, looked at on the first pass: once is enough, and each look costs a sync.

    Args:
        net: maps inputs to logits.
        labels: of the first pass.
        everyone: the labels of all passes to come.
    """

    def __init__(self, net: nn.Module, labels: Tensor, everyone: Tensor) -> None:
        self._net = net
        self._labels = labels
        self._everyone = everyone
        self._looked = False
        self._answered_nan = labels.new_zeros((), dtype=torch.bool)

    def __call__(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self._net(inputs)
        if not self._looked:
            validate_logits(logits, self._labels)
            validate_labels(self._everyone, logits.shape[1])
            self._looked = True
        if torch.is_grad_enabled() and inputs.requires_grad and not logits.requires_grad:
            raise InputError(NO_GRADIENT)
        self._answered_nan.logical_or_(logits.detach().isnan().any())
        # Under autocast the logits are half precision; margins are not to be compared in it.
        return at_least_float32(logits)

    def warn_of_nan(self) -> None:
        """Say that figures rest on inputs to which the net has no answer."""
        if self._answered_nan:
            warn(
                "the net answered NaN to inputs in [0, 1] that the attack tried: they count as "
                "resisted, so it looks more robust than it is; look in its forward for a division "
                "by 0, a root or a logarithm"
            )


def _precision(device: torch.device, *, full: bool) -> AbstractContextManager[None]:
    """Autocast switched off where claims are to hold in full precision, else as the caller has it.

    A search in half precision would find examples that the verification then has to drop, and a
    net would look more robust than it is.
    """
    return torch.autocast(device.type, enabled=False) if full else nullcontext()


def _warn_of_doubt(claimed: Tensor, broken: Tensor) -> None:
    """Say that a net is no function of its inputs; a few examples on the edge are none's fault."""
    num_claims, num_broken = torch.stack([claimed.sum(), broken.sum()]).tolist()
    if num_claims >= ENOUGH_CLAIMS and num_claims - num_broken > MOST_DROPPED * num_claims:
        # Without the numbers: a text that changes would be shown anew for every batch.
        warn(
            "many examples no longer fool the net when it is asked again, and count as failures: "
            "it answers the same image in different ways (noise, dropout in eval mode), and looks "
            "more robust than it is, most of all under several attacks; fix its noise for the "
            "evaluation"
        )


def _verified(
    found: Found,
    net: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    unit: Unit,
    budget: int | None,
    targeted: bool,
    recheck: bool,
    confirmed: bool,
) -> AttackResult:
    """Keep of the claims what the returned tensors bear out."""
    broken = claimed = found.best_l0.isfinite()
    if recheck:
        # A copy: the first layer of the net may work in place.
        broken = claimed & is_adversarial(net(found.best_inputs.clone()), labels, targeted)
        if confirmed:
            _warn_of_doubt(claimed, broken)
    best_inputs = torch.where(per_sample(broken, inputs), found.best_inputs, inputs)
    l0 = l0_norm(best_inputs - inputs, unit)
    success = broken if budget is None else broken & (l0 <= budget)
    result = AttackResult(
        adv_inputs=torch.where(per_sample(success, inputs), best_inputs, inputs),
        success=success,
        l0=l0.masked_fill(~success, torch.inf),
        num_forwards=found.num_forwards + int(recheck),
        num_backwards=found.num_backwards,
        last_inputs=found.last_inputs,
        best_inputs=best_inputs,
    )
    if found.broken_by is None:
        return result
    return EnsembleResult(**vars(result), broken_by=found.broken_by.masked_fill(~success, -1))
