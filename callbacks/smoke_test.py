"""What a smoke test (``fast_dev_run``) does otherwise."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl

from sztrain.attacks import AttackMix, SparseAutoAttack
from sztrain.attacks.fixed_budget import FixedBudgetAttack
from sztrain.types import Attack


def is_smoke_test(trainer: pl.Trainer) -> bool:
    """Whether a Trainer only looks whether everything runs.

    Example:
        >>> is_smoke_test(pl.Trainer(fast_dev_run=True, accelerator="cpu", logger=False))
        True
    """
    return bool(getattr(trainer, "fast_dev_run", False))


def shortened(attack: Attack) -> Attack:
    """The attack as a smoke test runs it: as few steps as it takes, and no search for a budget.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> shortened(SigmaZero(num_steps=1000)).num_steps
        1
    """
    changes: dict[str, Any] = {}
    if isinstance(attack, SparseAutoAttack):
        changes["num_queries"] = 1
    if isinstance(attack, AttackMix | FixedBudgetAttack | SparseAutoAttack):
        changes["budget"] = attack.budget or 1
    # Some refuse a single step, in words of their own maybe, and a mix what a member refuses.
    for num_steps in range(1, attack.num_steps):
        with suppress(ValueError):  # which an InputError is
            return replace(attack, num_steps=num_steps, **changes)
    return replace(attack, **changes)
