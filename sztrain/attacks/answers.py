"""What an attack has answered, checked where it may not have gone through ``run_attack``."""

import torch
from torch import Tensor

from sztrain.attacks.checks import require_images
from sztrain.errors import InputError
from sztrain.norms import l0_norm
from sztrain.types import Attack, AttackResult

_EXAMPLES = ("adv_inputs", "last_inputs", "best_inputs")
_NUMBERS = ("success", "l0", "num_forwards", "num_backwards")


def check_answer(attack: Attack, result: object, inputs: Tensor) -> None:
    """Refuse an answer that is none, or that claims what it does not show.

    Whether the net errs on the examples is left to :func:`~sztrain.attacks.base.run_attack`; an
    attack that goes through it never gives what is refused here.

    Args:
        attack: what was asked.
        result: its answer.
        inputs: what it was to attack, shape ``(N, ...)``.

    Raises:
        InputError: no result, parts of another shape, examples outside [0, 1], an l0 that is not
            that of the examples, or success beyond the budget; or inputs for which no attack could
            have answered rightly.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> net, inputs, labels = torch.nn.Linear(4, 3), torch.rand(2, 4), torch.tensor([0, 1])
        >>> attack = SigmaZero(num_steps=2)
        >>> check_answer(attack, attack(net, inputs, labels), inputs)
    """
    if not isinstance(result, AttackResult):
        wrong = f"a {type(result).__name__}, which is no AttackResult"
    elif not (wrong := _wrong_form(result, inputs)):
        wrong = _wrong_claim(attack, result, inputs)
        if wrong:  # by whom: an attack may have left alone what was outside [0, 1]
            require_images(inputs)
    if wrong:
        raise InputError(
            f"{type(attack).__name__} answered {wrong}; let its call go through "
            "sztrain.attacks.base.run_attack, which verifies what an attack claims"
        )


def _wrong_form(result: AttackResult, inputs: Tensor) -> str:
    for name in (*_EXAMPLES, *_NUMBERS):
        expected = tuple(inputs.shape) if name in _EXAMPLES else (len(inputs),)
        part = getattr(result, name)
        found = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
        if found != expected:
            return f"`{name}` of shape {found} instead of {expected}"
        if part.device != inputs.device:
            return f"`{name}` on {part.device} instead of {inputs.device}"
    if result.success.dtype != torch.bool:
        return f"`success` of {result.success.dtype} instead of torch.bool"
    return ""


def _wrong_claim(attack: Attack, result: AttackResult, inputs: Tensor) -> str:
    examples = (getattr(result, name) for name in _EXAMPLES)
    in_range = torch.stack([((found >= 0) & (found <= 1)).all() for found in examples]).all()
    l0 = l0_norm(result.adv_inputs - inputs, attack.unit)
    counted = (result.l0 == l0.masked_fill(~result.success, torch.inf)).all()
    most = torch.inf if attack.budget is None else attack.budget
    within = (~result.success | (l0 <= most)).all()
    given_up = (result.success | (l0 == 0)).all()
    held = {
        "examples outside [0, 1]": in_range,
        f"an `l0` that is not how many {attack.unit} `adv_inputs` changes, or inf": counted,
        f"success beyond its budget, {attack.budget}": within,
        "`adv_inputs` that are not the clean input where it failed": given_up,
    }
    holds = torch.stack(list(held.values())).tolist()  # at once: each look costs a sync
    return next((wrong for wrong, true in zip(held, holds, strict=True) if not true), "")
