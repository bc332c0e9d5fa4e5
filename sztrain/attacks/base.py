"""What every attack owes its caller, in one place: checks, an untouched net, and true claims."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sztrain.attacks.slices import in_slices
from sztrain.errors import InputError, require_count, require_in
from sztrain.losses import at_least_float32
from sztrain.norms import check_budgets, l0_norm, per_sample
from sztrain.types import UNITS, Attack, AttackResult, EnsembleResult, Unit

Logits = Callable[[Tensor], Tensor]


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


def validate_attack(
    unit: Unit, num_steps: int, budget: int | None, batch_size: int | None = None
) -> None:
    """Check the hyper-parameters that attacks share.

    Raises:
        InputError: an unknown unit, fewer than one step, a budget or a batch size below 1, or no
            whole number.

    Example:
        >>> validate_attack("features", num_steps=10, budget=None)
    """
    require_in("unit", unit, UNITS)
    require_count("num_steps", num_steps, 1)
    for name, count in (("budget", budget), ("batch_size", batch_size)):
        if count is not None:
            require_count(name, count, 1)


def require_attack(name: str, value: object) -> None:
    """Refuse what is not an attack.

    Raises:
        InputError: ``value`` is no dataclass with ``unit``, ``budget``, ``num_steps`` and a call.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> require_attack("attack", SigmaZero())
    """
    if not isinstance(value, Attack) or isinstance(value, type):
        raise InputError(
            f"expected `{name}` to be an attack such as sztrain.attacks.SigmaZero(), got {value!r}"
        )


def check_search(attack: Attack, name: str | None = None) -> None:
    """Refuse an attack with too few steps to search for a budget, if it searches for one.

    Args:
        attack: the attack.
        name: what its person calls it, for the message; ``None``: there is one only.

    Raises:
        InputError: there are too few for all rounds of the search.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> check_search(SigmaZero(num_steps=1))  # needs no search
    """
    check = getattr(attack, "check_search", None)
    if check is None:
        return
    try:
        check()
    except InputError as error:
        raise InputError(f"{name}: {error}" if name else str(error)) from None


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

    Raises:
        InputError: inputs, labels or logits that cannot be attacked.
    """
    validate_batch(inputs, labels)
    check_budgets("budget", [budget], inputs.shape[1:], unit)
    with attack_mode(net, inputs.device), _precision(inputs.device, full=recheck):
        # Tensors made under inference mode cannot be saved for a backward pass; copies can.
        inputs, labels = (t.clone() if t.is_inference() else t for t in (inputs, labels))
        inputs, labels = inputs.detach(), labels.detach()

        def attack(inputs: Tensor, labels: Tensor) -> AttackResult:
            found = search(_checked(net, labels), inputs, labels)
            with torch.no_grad():
                return _verified(found, net, inputs, labels, unit, budget, targeted, recheck)

        return in_slices(attack, inputs, labels, batch_size)


def validate_batch(inputs: Tensor, labels: Tensor) -> None:
    """Check that a batch can be attacked: values in [0, 1], one class index a sample.

    Raises:
        InputError: with what was found and what would be right.

    Example:
        >>> validate_batch(torch.rand(2, 1, 8, 8), torch.tensor([3, 1]))
    """
    if inputs.ndim < 2 or not inputs.is_floating_point() or inputs.numel() == 0:
        raise InputError(
            "expected inputs to be a non-empty float tensor of shape (N, ...), "
            f"got {inputs.dtype} of shape {tuple(inputs.shape)}"
        )
    if labels.shape != (len(inputs),) or labels.dtype != torch.int64:
        raise InputError(
            f"expected labels to be int64 of shape ({len(inputs)},), one for each of the inputs of "
            f"shape {tuple(inputs.shape)}, got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    low, high = (float(bound) for bound in inputs.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"expected inputs in [0, 1], got values from {low:.4g} to {high:.4g}; "
            "normalise inside the net, with sztrain.models.Normalize"
        )


def _checked(net: nn.Module, labels: Tensor) -> Logits:
    """The net's logits, looked at on the first pass: once is enough, and each look costs a sync."""
    looked = False

    def logits_of(inputs: Tensor) -> Tensor:
        nonlocal looked
        logits: Tensor = net(inputs)
        if not looked:
            validate_logits(logits, labels)
            looked = True
        # Under autocast the logits are half precision; margins are not to be compared in it.
        return at_least_float32(logits)

    return logits_of


def validate_logits(logits: Tensor, labels: Tensor) -> None:
    """Check that a net answered with finite logits ``(N, K)`` and that the labels are among K.

    Raises:
        InputError: with what was found and what would be right.

    Example:
        >>> validate_logits(torch.randn(2, 10), torch.tensor([3, 9]))
    """
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(f"expected the net to return logits of shape (N, K), K >= 2, got {shape}")
    if len(logits) != len(labels):
        raise InputError(
            f"expected the net to return one row of logits for each of {len(labels)} inputs, "
            f"got {shape}"
        )
    if not bool(logits.isfinite().all()):
        raise InputError(
            "the net returns non-finite logits (NaN or inf); its weights are damaged "
            "or its training has diverged: use a finite checkpoint or a lower learning rate"
        )
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= logits.shape[1]:
        raise InputError(
            f"expected labels from 0 to {logits.shape[1] - 1}, the net's classes, "
            f"got labels from {low} to {high}"
        )


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside, every flag as it was outside.

    Example:
        >>> net = nn.Sequential(nn.Dropout())
        >>> with eval_mode(net):
        ...     net[0].training
        False
        >>> net[0].training
        True
    """
    # Flags are set one by one: a module's own train() may refuse (a frozen BatchNorm, say).
    flags = {module: module.training for module in net.modules()}
    try:
        for module in flags:
            module.training = False
        yield
    finally:
        for module, training in flags.items():
            module.training = training


@contextmanager
def attack_mode(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode and gradients inside; the net's flags and the random state as before outside.

    Args:
        net: what is attacked.
        device: where it is, whose random state is kept as well.

    Example:
        >>> net = nn.Sequential(nn.Dropout())
        >>> with torch.inference_mode(), attack_mode(net, torch.device("cpu")):
        ...     net[0].training, torch.is_grad_enabled()
        (False, True)
    """
    accelerated = device.type != "cpu"
    with ExitStack() as stack:
        stack.enter_context(
            torch.random.fork_rng(
                devices=[device] if accelerated else [],
                device_type=device.type if accelerated else "cuda",
            )
        )
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(eval_mode(net))
        # Weights that autocast cast without gradients must not serve a later training pass.
        stack.callback(torch.clear_autocast_cache)
        yield


def _precision(device: torch.device, *, full: bool) -> AbstractContextManager[None]:
    """Autocast switched off where claims are to hold in full precision, else as the caller has it.

    A search in half precision would find examples that the verification then has to drop, and a
    net would look more robust than it is.
    """
    return torch.autocast(device.type, enabled=False) if full else nullcontext()


def _verified(
    found: Found,
    net: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    unit: Unit,
    budget: int | None,
    targeted: bool,
    recheck: bool,
) -> AttackResult:
    """Keep of the claims what the returned tensors bear out."""
    broken = found.best_l0.isfinite()
    if recheck:
        # A copy: the first layer of the net may work in place.
        broken = broken & is_adversarial(net(found.best_inputs.clone()), labels, targeted)
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
