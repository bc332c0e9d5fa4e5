"""What an attack is called in tables, legends and file names."""

from collections.abc import Collection
from dataclasses import MISSING, fields
from textwrap import shorten
from typing import Any

import sztrain.attacks
from sztrain.types import Attack, Ensemble

_ROOM = 60  # characters above a picture

PAPER_NAMES = {"SigmaZero": "sigma-zero", "PGDL0": "PGD-l0", "SparseRS": "Sparse-RS"}
"""Attacks as the paper's tables call them; others go by the name of their class."""


def paper_name(attack: Attack) -> str:
    """An attack as the paper's tables call it; one of another's making by its own name.

    Of the same name as one of sztrain's, it says its module as well: it is not the paper's.

    Example:
        >>> from sztrain.attacks import GSE, SigmaZero
        >>> paper_name(SigmaZero()), paper_name(GSE())
        ('sigma-zero', 'GSE')
        >>> class GSE(GSE): ...
        >>> paper_name(GSE())
        'sztrain.evaluation.attack_names.GSE'
    """
    name = type(attack).__name__
    if getattr(sztrain.attacks, name, type(attack)) is not type(attack):
        return f"{type(attack).__module__}.{name}"
    return PAPER_NAMES.get(name, name)


def describe_options(attack: Attack, named: Collection[str] = ()) -> str:
    """The options in which an attack differs from its defaults; steps and unit stand elsewhere.

    Args:
        attack: the attack.
        named: options to name in any case.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> describe_options(SigmaZero(num_steps=10, sigma=0.1, tau=0.5))
        'sigma=0.1 tau=0.5'
    """
    changed = changed_options(attack)
    shown = {
        field.name: getattr(attack, field.name)
        for field in fields(attack)
        if field.name in named
        or (field.name in changed and field.name not in ("num_steps", "unit"))
    }
    return " ".join(f"{k}={_shortened(v)}" for k, v in shown.items())


def _shortened(value: Any) -> Any:
    """96/255, say, without its last digits, and names without brackets and quotes."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return "+".join(map(str, value)) if isinstance(value, tuple) else value


def attack_label(attack: Attack, named: Collection[str] = ()) -> str:
    """An attack in legends and file names: as in tables, and the options it is called with.

    Args:
        attack: the attack.
        named: options to name in any case.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> attack_label(SigmaZero(num_steps=10, patience=5))
        'sigma-zero patience=5'
    """
    return f"{paper_name(attack)} {describe_options(attack, named)}".rstrip()


def short_judge(attack: Attack) -> str:
    """The attack that a picture rests on, and with how many steps: no more than has room there.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> short_judge(SigmaZero(num_steps=100))
        'sigma-zero, N=100'
    """
    return f"{shorten(attack_label(attack), _ROOM, placeholder=' ...')}, N={attack.num_steps}"


def judged_by(attack: Attack, steps: int | None = None) -> str:
    """The attack that a figure rests on, with its members and its unit.

    Args:
        attack: the attack.
        steps: N of the table that the figure belongs to; ``None``: the attack's own steps.

    Example:
        >>> from sztrain.attacks import SigmaZero, SparseAutoAttack
        >>> judged_by(SigmaZero(num_steps=100))
        'sigma-zero only, N=100, features'
        >>> judged_by(SigmaZero(num_steps=100), 50)
        'sigma-zero only, N=50 (num_steps=100), features'
        >>> judged_by(SparseAutoAttack()).split(",")[0]
        'SparseAutoAttack (sigma_zero'
    """
    members = ", ".join(attack.members) if isinstance(attack, Ensemble) else ""
    who = f"{attack_label(attack)} ({members})" if members else f"{attack_label(attack)} only"
    own = attack.num_steps
    counted = f"N={own}" if steps in (None, own) else f"N={steps} (num_steps={own})"
    return f"{who}, {counted}, {attack.unit}"


def changed_options(attack: Attack) -> dict[str, Any]:
    """The options in which an attack differs from its defaults.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> changed_options(SigmaZero(num_steps=10))
        {'num_steps': 10}
    """
    values = {field.name: getattr(attack, field.name) for field in fields(attack)}
    defaults = {field.name: field.default for field in fields(attack)}
    return {k: v for k, v in values.items() if defaults[k] is MISSING or defaults[k] != v}
