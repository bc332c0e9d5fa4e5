"""Checks that save a person hours: what would fail in the middle of a run is refused before."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from sztrain.attacks import AttackMix
from sztrain.attacks.base import check_search, eval_mode, validate_batch, validate_logits
from sztrain.attacks.peers import PeerAttack
from sztrain.cli.build import plain
from sztrain.cli.net_data import CUT, data_of_net
from sztrain.data import ImageDataModule, Part, Split
from sztrain.errors import InputError, SztrainWarning, require_count, require_in
from sztrain.evaluation.wandb_account import has_wandb_key
from sztrain.models import net_from_checkpoint, read_checkpoint
from sztrain.models.state_dicts import check_finite, load_strictly
from sztrain.norms import check_budgets
from sztrain.types import Attack

_MAX_SEED = 2**32 - 1

# Taken before any run of a sweep chooses another number, which the next would inherit.
_NUM_THREADS = torch.get_num_threads()

# What a run may do in another way without becoming another one; data.recipe is but where options
# come from.
_FREE = (
    *(
        "method.run_id",
        "method.start_from",
        "method.compile",
        "method.channels_last",
        "method.monitor",
    ),
    *("data.recipe", "data.root", "data.download", "data.eval_batch_size", "data.num_workers"),
)

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
        InputError: no whole number from 1.

    Example:
        >>> set_num_threads(None)
    """
    if num_threads is not None:
        require_count("num_threads", num_threads, 1)
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
        InputError: its budget is larger than the number of units of a sample, or it has too few
            steps to search for one.
        UnavailableError: it is another library's, which is not installed.
    """
    check_budgets(f"{name}.budget", [attack.budget], shape, attack.unit)
    check_search(attack, name)
    check_library(attack)


def check_library(attack: Attack) -> None:
    """Make sure that the library of an attack is at hand.

    Raises:
        UnavailableError: it is another library's, which is not installed.
    """
    if isinstance(attack, PeerAttack):
        attack.load()


def check_judge(name: str, attack_class: type) -> None:
    """Refuse an attack by whose figures no net can be judged.

    Raises:
        InputError: it tries one of its members alone on each batch.
    """
    if issubclass(attack_class, AttackMix):
        raise InputError(
            f"expected `{name}` to be one that judges, got AttackMix, made to train: it tries one "
            "of its members on each batch; the worst case of several is attack=sparse_autoattack"
        )


def check_net(net: nn.Module, data: ImageDataModule, source: str) -> None:
    """Look at one small batch: finite weights, finite logits, one for each class.

    Raises:
        InputError: the net and the data do not go together.
    """
    check_finite(net, source)
    inputs, labels = next(iter(data.val_dataloader()))
    validate_batch(inputs, labels)
    inputs, labels = inputs[:2], labels[:2]
    try:
        with torch.no_grad(), eval_mode(net):
            logits = net(inputs)
    except RuntimeError as error:  # torch's word for shapes that do not fit
        raise InputError(
            f"{source} cannot take images of shape {tuple(inputs.shape[1:])}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    try:
        validate_logits(logits, torch.zeros_like(labels))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    if logits.shape[1] != data.num_classes:
        raise InputError(
            f"{source} tells {logits.shape[1]} classes apart, the data has {data.num_classes}; "
            "choose a net and data that go together (model.num_classes, data.num_classes)"
        )


def check_known_net(net: nn.Module, data: ImageDataModule, name: str) -> None:
    """As :func:`check_net`, of a net with a name or a file, which say on which data it works.

    Raises:
        InputError: the net and the data do not go together.
    """
    try:
        check_net(net, data, name)
    except InputError as error:
        made_for, _ = data_of_net(name)
        if made_for == data.name:
            raise
        raise InputError(f"{error}; {name} is made for data={made_for}") from error


def check_parts(name: str, data: ImageDataModule, split: Split) -> None:
    """Refuse to judge, or choose, a net by samples that it may have been trained on.

    Args:
        name: of the net, as :func:`sztrain.models.load_net` takes it.
        data: the data to judge it on.
        split: the part of it.

    Raises:
        InputError: the net was trained on a part of the same data, cut in another way.
    """
    dataset, options = data_of_net(name)
    if dataset != data.name or (split == "test" and not data.cuts_test):
        return
    decisive = [key for key in CUT if not (split == "test" and key == "val_fraction")]
    now = {key: getattr(data, key) for key in decisive if hasattr(data, key)}
    other = {key: options[key] for key in now if key in options and options[key] != now[key]}
    if other:
        was = " ".join(f"data.{key}={value}" for key, value in other.items())
        here = ", ".join(str(now[key]) for key in other)
        raise InputError(
            f"{name} was trained with {was} (here {here}), so that samples of this {split} part "
            f"may be among those that it has learnt; give {was}, and evaluate nets that were "
            "trained on other parts apart"
        )


def check_checkpoint(path: str, net: nn.Module) -> dict[str, Any]:
    """Read a checkpoint from which a training of this net can go on.

    Raises:
        InputError: missing, damaged, of another architecture, or with non-finite weights.
    """
    load_strictly(net, net_from_checkpoint(path).state_dict(), path)
    return read_checkpoint(path)


def check_optimizer(checkpoint: Mapping[str, Any], optimizer: Optimizer, path: str) -> None:
    """Make sure that a checkpoint holds the state of such an optimizer.

    Raises:
        InputError: there is none, or it is another's.
    """
    states = checkpoint.get("optimizer_states")
    if not states:
        raise InputError(f"{path} holds no state of an optimizer: no training can go on from it")
    try:
        optimizer.load_state_dict(states[0])
        fits = optimizer.defaults.keys() <= optimizer.param_groups[0].keys()
    except (KeyError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"{path} was written by a training with another optimizer than "
            f"{type(optimizer).__name__}; go on with the options in its run's config.yaml"
        )


def check_continuation(described: Mapping[str, Any], chosen: Mapping[str, Any], path: str) -> None:
    """Make sure that a training goes on as it began, or that its person knows in what it does not.

    Args:
        described: what the checkpoint says of its ``method`` and ``data``.
        chosen: the same of the run that goes on from it.
        path: of the checkpoint.

    Raises:
        InputError: it was written by another method.
    """
    before, now = (dict(kind.get("method") or {}) for kind in (described, chosen))
    if before.get("name") not in (None, now.get("name")):
        raise InputError(
            f"{path} was written by {before['name']}, not {now.get('name')}: go on with the "
            "command that began it, or the options in its run's config.yaml"
        )
    changed = [*_changes(described.get("method"), now, "method")]
    changed += _changes(described.get("data"), chosen.get("data"), "data")
    if changed:
        warnings.warn(
            f"{path} was written with other options, which this run does not share: "
            f"{', '.join(changed)}",
            SztrainWarning,
            stacklevel=2,
        )


def _changes(before: Any, now: Any, key: str) -> Iterator[str]:
    """Options that both have, with other values."""
    if key in _FREE:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in before:
            if name in now:
                yield from _changes(before[name], now[name], f"{key}.{name}")
    elif before != now and not (before is None and isinstance(now, Mapping)):
        yield f"{key}={before} (now {now})"


def check_wandb(loggers: DictConfig | None) -> None:
    """Refuse a W&B that is online but has no key, before anything waits for an answer.

    Raises:
        InputError: with the two ways out.
    """
    wandb_cfg = (plain(loggers) or {}).get("wandb")
    if not wandb_cfg:
        return
    mode = wandb_cfg.get("mode") or "online"  # W&B's own default
    require_in("logger.wandb.mode", mode, (*_WANDB_REMOTE, *_WANDB_LOCAL))
    if mode in _WANDB_REMOTE and not has_wandb_key():
        raise InputError(
            "W&B is online (WANDB_MODE or logger.wandb.mode) but has no key; "
            "run `wandb login`, set WANDB_API_KEY, or use WANDB_MODE=offline"
        )
