"""Checks that save a person hours: what would fail in the middle of a run is refused before."""

import json
from typing import Any

import torch
from omegaconf import DictConfig

from sztrain.attacks import AttackMix
from sztrain.attacks.checks import check_search, require_judge, require_untargeted
from sztrain.attacks.peers import check_library
from sztrain.cli.build import plain
from sztrain.data import Part
from sztrain.errors import InputError, require_count, require_in
from sztrain.evaluation.identity import attack_identity
from sztrain.evaluation.wandb_account import has_wandb_key
from sztrain.norms import check_budgets
from sztrain.types import Attack

_MAX_SEED = 2**32 - 1

# Taken before any run of a sweep chooses another number, which the next would inherit.
_NUM_THREADS = torch.get_num_threads()

_MAX_THREADS = 1024  # with a hundred times as many torch crashes

_WANDB_LOCAL = ("offline", "dryrun", "disabled")
_WANDB_REMOTE = ("online", "run", "shared")


def check_seed(seed: Any) -> None:
    """Refuse what cannot seed every generator.

    Raises:
        InputError: no whole number from 0 to 2**32 - 1.

    Example:
        >>> check_seed(0)
    """
    require_count("seed", seed, 0)
    if seed > _MAX_SEED:
        raise InputError(f"expected `seed` to be at most {_MAX_SEED}, got {seed}")


def check_monitor(monitor: Any) -> None:
    """Refuse to choose a checkpoint by test samples.

    Raises:
        InputError: the monitored figure is one of the test part.

    Example:
        >>> check_monitor("val/robust_acc_worst@4")
    """
    if str(monitor).startswith("test/"):
        raise InputError(
            f"expected `monitor` to be a figure of the validation part, got {monitor}: what was "
            "chosen by test samples cannot be judged on them; use val/robust_acc_worst@k"
        )


def set_num_threads(num_threads: Any) -> None:
    """Give torch that many threads on the CPU; ``None``: as many as it takes by itself.

    Raises:
        InputError: no whole number from 1 to 1024.

    Example:
        >>> set_num_threads(None)
    """
    if num_threads is not None:
        require_count("num_threads", num_threads, 1)
        if num_threads > _MAX_THREADS:
            raise InputError(
                f"expected `num_threads` to be at most {_MAX_THREADS}, got {num_threads}"
            )
    torch.set_num_threads(_NUM_THREADS if num_threads is None else num_threads)


def check_samples(first_sample: Any, num_samples: Any, part: Part, split: str) -> range:
    """Which samples of a part are wanted.

    Args:
        first_sample: the first of them.
        num_samples: how many; ``None``: all from there on.
        part: what they are taken from.
        split: its name.

    Raises:
        InputError: no whole numbers, or samples that the part does not have.
    """
    require_count("first_sample", first_sample, 0)
    if first_sample >= len(part):
        raise InputError(
            f"expected `first_sample` to be below {len(part)}, the size of the {split} split, "
            f"got {first_sample}"
        )
    if num_samples is None:
        return range(first_sample, len(part))
    require_count("num_samples", num_samples, 1)
    if first_sample + num_samples > len(part):
        start = f" from sample {first_sample} on" if first_sample else ""
        raise InputError(
            f"expected `num_samples` to be at most {len(part) - first_sample}, the size of the "
            f"{split} split{start}, got {num_samples}"
        )
    return range(first_sample, first_sample + num_samples)


def check_attack(name: str, attack: Attack, shape: tuple[int, ...]) -> None:
    """Refuse an attack that could not be run later.

    Raises:
        InputError: its budget is larger than the number of units of a sample, it has too few steps
            to search for one, it is targeted, or its options are such that no record can hold them.
        UnavailableError: it is another library's, which is not installed.
    """
    require_untargeted(name, attack)
    try:
        json.dumps(attack_identity(attack))
    except TypeError as error:
        raise InputError(
            f"expected the options of `{name}` to be numbers, text, lists, groups or attacks, by "
            f"which its records can be told: {error}"
        ) from error
    check_budgets(f"{name}.budget", [attack.budget], shape, attack.unit)
    check_search(attack, name)
    check_library(attack)


def check_judge(name: str, attack: object) -> None:
    """Refuse an attack by whose figures no net can be judged.

    Raises:
        InputError: it is none, or made to train: lean, or one that tries one of its members alone
            on each batch.
    """
    require_judge(name, attack)
    if isinstance(attack, AttackMix):
        raise InputError(
            f"expected `{name}` to be one that judges, got AttackMix, made to train: it tries one "
            "of its members on each batch; the worst case of several is attack=sparse_autoattack"
        )


def check_wandb(loggers: DictConfig | None) -> None:
    """Refuse a W&B that is online but has no key, before anything waits for an answer.

    Raises:
        InputError: with the two ways out.
    """
    wandb_cfg = (plain(loggers) or {}).get("wandb")
    if not isinstance(wandb_cfg, dict):  # none, or refused where the loggers are made
        return
    mode = wandb_cfg.get("mode") or "online"  # W&B's own default
    require_in("logger.wandb.mode", mode, (*_WANDB_REMOTE, *_WANDB_LOCAL))
    if mode in _WANDB_REMOTE and not has_wandb_key():
        raise InputError(
            "W&B is online (WANDB_MODE or logger.wandb.mode) but has no key; "
            "run `wandb login`, set WANDB_API_KEY, or use WANDB_MODE=offline"
        )
