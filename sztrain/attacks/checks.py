"""What an attack is asked with, checked before hours are spent on it."""

import math
from collections.abc import Mapping
from dataclasses import is_dataclass

import torch
from torch import Tensor

from sztrain.errors import InputError, require_count, require_in
from sztrain.types import UNITS, Attack, Unit


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
        InputError: ``value`` is no dataclass with ``unit``, ``budget``, ``num_steps`` and a call,
            or counts in a unit that there is not.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> require_attack("attack", SigmaZero())
        >>> require_attack("attack", SigmaZero)
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected `attack` to be an attack such as \
sztrain.attacks.SigmaZero(), got the class SigmaZero; call it to make one
    """
    if isinstance(value, Attack) and not isinstance(value, type):
        require_in(f"{name}.unit", value.unit, UNITS)
        return
    raise InputError(
        f"expected `{name}` to be an attack such as sztrain.attacks.SigmaZero(), got "
        f"{_what_it_lacks(value)}"
    )


def _what_it_lacks(value: object) -> str:
    kind = type(value)
    if isinstance(value, type):
        return f"the class {value.__name__}; call it to make one"
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return f"a {kind.__name__}; in a config `_target_` has to name its class"
    lacking = [option for option in ("unit", "budget", "num_steps") if not hasattr(value, option)]
    wrong = [f"has no {', no '.join(lacking)}"] if lacking else []
    if not is_dataclass(value):
        wrong.insert(0, "is no dataclass")
    if not callable(value):
        wrong.append("cannot be called")
    return f"a {kind.__name__}, which {' and '.join(wrong)}"


def require_untargeted(name: str, attack: Attack) -> None:
    """Refuse an attack that takes the true labels, which are all it is given, for its targets.

    Raises:
        InputError: it is targeted.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> require_untargeted("attack", SigmaZero())
    """
    if getattr(attack, "targeted", False):
        raise InputError(
            f"expected `{name}` to be untargeted, got targeted=True: what it is given are the true "
            "labels, and it would take them for the classes to reach"
        )


def require_judge(name: str, value: object) -> None:
    """Refuse what is no attack, and one that does not look at all that it tries.

    Raises:
        InputError: see :func:`require_attack`; or it is lean, as for training.

    Example:
        >>> from sztrain.attacks import SparsePGD
        >>> require_judge("attack", SparsePGD(budget=1))
    """
    require_attack(name, value)
    if getattr(value, "lean", False):
        raise InputError(
            f"expected `{name}` to judge, got lean=True, made to train: what its last step "
            "breaks, and who is misclassified anyway, it does not know"
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


def require_net(name: str, net: object) -> None:
    """Refuse what is no module.

    Raises:
        InputError: a function, say, or a class.

    Example:
        >>> require_net("net", torch.nn.Linear(2, 2))
    """
    if not isinstance(net, torch.nn.Module):
        found = getattr(net, "__name__", repr(net))
        raise InputError(
            f"expected `{name}` to be a torch.nn.Module that maps images to logits, "
            f"got {found} ({type(net).__name__})"
        )


def require_tensors(inputs: object, labels: object) -> None:
    """Refuse a batch that is none, before anyone asks where it is.

    Raises:
        InputError: an array or a list, say.

    Example:
        >>> require_tensors(torch.rand(2, 1, 8, 8), torch.tensor([3, 1]))
    """
    for name, part in (("inputs", inputs), ("labels", labels)):
        if not isinstance(part, Tensor):
            raise InputError(f"expected {name} to be a tensor, got {type(part).__name__}")


def validate_batch(inputs: Tensor, labels: Tensor) -> None:
    """Check that a batch can be attacked: values in [0, 1], one class index a sample.

    Raises:
        InputError: with what was found and what would be right.

    Example:
        >>> validate_batch(torch.rand(2, 1, 8, 8), torch.tensor([3, 1]))
    """
    require_tensors(inputs, labels)
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
    require_images(inputs)


def require_images(inputs: Tensor) -> None:
    """Refuse values outside [0, 1].

    Raises:
        InputError: with the smallest and the largest, or NaN.

    Example:
        >>> require_images(torch.tensor([[0.0, 1.0]]))
    """
    low, high = (float(bound) for bound in inputs.detach().aminmax())
    if math.isnan(low):
        raise InputError("expected inputs in [0, 1], got NaN; look for it in the data")
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"expected inputs in [0, 1], got values from {low:.8g} to {high:.8g}; look for them in "
            "the data, or normalise inside the net, with sztrain.models.Normalize"
        )


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
            "the net returns non-finite logits (NaN or inf): its weights are damaged, its training "
            "has diverged, or it masks classes; use a finite checkpoint, a lower learning rate, or "
            "a large negative number for what is masked"
        )
    validate_labels(labels, num_classes=logits.shape[1])


def validate_labels(labels: Tensor, num_classes: int) -> None:
    """Check that labels are among the classes of a net.

    Raises:
        InputError: with what was found and what would be right.

    Example:
        >>> validate_labels(torch.tensor([3, 9]), num_classes=10)
    """
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"expected labels from 0 to {num_classes - 1}, the net's classes, "
            f"got labels from {low} to {high}"
        )
