"""Functions that the configs use, without torch: configs are read before it is loaded."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf


def register_resolvers() -> None:
    """Teach OmegaConf the functions that the configs use; a second call does nothing."""
    OmegaConf.register_new_resolver("sztrain.place", place, replace=True)
    OmegaConf.register_new_resolver("sztrain.decisive", decisive, replace=True)
    OmegaConf.register_new_resolver("sztrain.last_part", last_part, replace=True)
    OmegaConf.register_new_resolver("sztrain.gauge_key", gauge_key, replace=True)


def slug(names: Any) -> str:
    """A name for a folder, of one or several nets.

    Example:
        >>> slug(["M1", "runs/a/best.ckpt"])
        'M1-best'
    """
    listed = names if isinstance(names, list | tuple | ListConfig) else [names]
    return "-".join(re.sub(r"\W+", "_", Path(str(name)).stem) for name in listed)[:80]


def digest(*values: Any) -> str:
    """Eight digits that tell parameter sets apart.

    Example:
        >>> digest({"num_steps": 10}) == digest({"num_steps": 11})
        False
    """
    plain = [
        OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for value in values
    ]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def place(suite_name: str | None, suite: Any, channels_last: bool, net: Any, *options: Any) -> str:
    """The folder of an evaluation: another one for other parameters, the same for the same.

    Example:
        >>> first = place(None, None, False, "M1", {"num_steps": 10})
        >>> first == place(None, None, False, "M1", {"num_steps": 11})
        False
        >>> place("paper_mnist", {"models": ["M1"]}, False, "digits_standard").split("-")[0]
        'paper_mnist'
        >>> place(None, {"models": ["M1"]}, False, "digits_standard").split("-")[0]  # suite=[quick]
        'suite'
    """
    if suite is None:
        return f"{slug(net)}-{digest(channels_last, net, *options)}"
    return f"{suite_name or 'suite'}-{digest(channels_last, suite)}"


NOT_DECISIVE = ("augment", "batch_size", "download", "eval_batch_size", "num_workers", "recipe")
"""How samples are fetched, read and trained on, which those of an evaluation do not depend on."""


def decisive(data: Any) -> Any:
    """What the samples of some data depend on.

    Example:
        >>> decisive({"name": "mnist", "num_workers": 4, "download": True, "recipe": {}})
        {'name': 'mnist'}
    """
    plain: Any = OmegaConf.to_container(data, resolve=True) if OmegaConf.is_config(data) else data
    return {key: value for key, value in plain.items() if key not in NOT_DECISIVE}


def last_part(dotted: str) -> str:
    """What follows the last dot.

    Example:
        >>> last_part("sztrain.training.SparseAT")
        'SparseAT'
    """
    return dotted.rpartition(".")[2]


def gauge_key(unit: str | None, probe_budget: int | None) -> str:
    """What checkpoints are chosen by, as far as it is measured.

    Args:
        unit: what the gauge counts; ``None``: there is no gauge.
        probe_budget: budget of its probe; ``None``: there is none.

    Returns:
        Key of the worst case of both attacks, else of the mean l0, else of clean accuracy.

    Example:
        >>> gauge_key("features", 24), gauge_key("pixels", None), gauge_key(None, None)
        ('val/robust_acc_worst@24', 'val/mean_l0_px', 'val/clean_acc')
    """
    if unit is None:
        return "val/clean_acc"
    # Not by sztrain.metrics.measure_key, with which torch would be imported while configs are read.
    suffix = "_px" if unit == "pixels" else ""
    if probe_budget is None:
        return f"val/mean_l0{suffix}"
    return f"val/robust_acc_worst{suffix}@{probe_budget}"
