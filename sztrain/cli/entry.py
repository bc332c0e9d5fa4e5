"""Entry points: Hydra composes, a task runs, and what a person did wrong ends in one line."""

import errno
import functools
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sztrain.cli.messages import CONFIG_MODULE, one_line
from sztrain.errors import InputError

USAGE_ERROR = 2
INTERRUPTED = 130

# What a person mends outside of the program: a full disk, a folder that is a file or not theirs.
_WRITING_FAILED = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
)

_FULL_ERROR = "HYDRA_FULL_ERROR"

# Options of its data that a checkpoint brings along: which samples there are, and in which form.
CARRIED = (
    "root",
    "image_size",
    "num_classes",
    "in_channels",
    "split_seed",
    "val_fraction",
    "test_fraction",
)


def train_main() -> None:
    """``python train.py``: train a net, then judge it."""
    _main(_train, "train")


def evaluate_main() -> None:
    """``python evaluate.py``: attack nets and make the paper's table."""
    _main(_evaluate, "evaluate")


def _train(cfg: DictConfig) -> float | None:
    from sztrain.cli.train import train  # imports torch: not before the config is known to be good

    return train(cfg)


def _evaluate(cfg: DictConfig) -> None:
    from sztrain.cli.evaluate import evaluate

    evaluate(cfg)


def _main(task: Callable[[DictConfig], Any], config_name: str) -> None:
    register_resolvers()
    asked = os.environ.get(_FULL_ERROR)

    # Hydra reports errors by itself, in many lines and with status 1, unless this variable asks for
    # the exception. The task and the processes that it starts see it as the person set it.
    @functools.wraps(task)
    def reported(cfg: DictConfig) -> Any:
        with _environment(_FULL_ERROR, asked), _one_line_errors(config_name, asked == "1"):
            _require_complete(cfg)
            return task(cfg)

    with _environment(_FULL_ERROR, "1"), _one_line_errors(config_name, asked == "1"):
        if config_name == "evaluate":
            sys.argv[1:] = with_data_of_net(sys.argv[1:])
        config_path = f"pkg://{CONFIG_MODULE}"
        hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)(reported)()


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable inside, remove it if ``value`` is ``None``."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@contextmanager
def _one_line_errors(config_name: str, in_full: bool) -> Iterator[None]:
    """Leave with one line where a person can mend the error; all else is a bug and shows itself."""
    try:
        yield
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # leaving is what a second one asks for, too
        _leave("; ".join(["interrupted", *map(str, error.args)]), INTERRUPTED)
    except (InputError, HydraException, OmegaConfBaseException, ValueError) as error:
        # Hydra's answer to `group=null`; any other ValueError is a bug.
        null_group = str(error).startswith("Config group override must be")
        if in_full or (type(error) is ValueError and not null_group):
            raise
        _leave(f"error: {one_line(error, config_name, sys.argv[1:])}", USAGE_ERROR)
    except OSError as error:  # Hydra's own files, and what other libraries write
        if in_full or error.errno not in _WRITING_FAILED:
            raise
        where = f"{error.filename}: " if error.filename else ""
        advice = "make room or choose another folder"
        _leave(f"error: {where}{error.strerror}; {advice}", USAGE_ERROR)


def _leave(message: str, status: int) -> NoReturn:
    print(f"sztrain: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)


def _require_complete(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise InputError(f"{missing[0]} has no default: add {missing[0]}=... to the command")


def with_data_of_net(args: list[str]) -> list[str]:
    """Add ``data=`` of the net's own data set where the command names a net but no data.

    A checkpoint also brings the data options it was trained with; the command's own win.

    Args:
        args: command-line arguments.

    Raises:
        InputError: no such net, or nets of several data sets.

    Example:
        >>> with_data_of_net(["net=M1", "attack.num_steps=10"])
        ['net=M1', 'attack.num_steps=10', 'data=mnist']
    """
    try:
        given = OverridesParser.create().parse_overrides([a for a in args if not a.startswith("-")])
    except HydraException:
        return args  # Hydra itself says what is wrong with it
    chosen = [override for override in given if override.key_or_group == "net"]
    if not chosen or any(override.key_or_group == "data" for override in given):
        return args
    if chosen[-1].is_sweep_override():
        raise InputError("a sweep over nets needs data=...; or evaluate them together: net=[a,b]")
    nets = chosen[-1].value()
    names = nets if isinstance(nets, list) else [nets]
    if names in ([], [None]):
        return args  # evaluate says what is wrong with it
    from sztrain.models import describe_net

    found = {str(name): dict(_mapping(describe_net(str(name))["data"])) for name in names}
    options = list(found.values())
    if len({option["name"] for option in options}) > 1:
        listed = ", ".join(f"{name} ({option['name']})" for name, option in found.items())
        raise InputError(f"these nets are of several data sets: {listed}; evaluate them apart")
    taken = {override.key_or_group for override in given}
    same = {
        key: options[0][key]
        for key in CARRIED
        if all(key in option and option[key] == options[0][key] for option in options)
    }
    extra = [
        f"++data.{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in same.items()
        if value is not None and f"data.{key}" not in taken
    ]
    return [*args, f"data={options[0]['name']}", *extra]


def _mapping(value: Any) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


def register_resolvers() -> None:
    """Teach OmegaConf the functions that the configs use; a second call does nothing."""
    OmegaConf.register_new_resolver("sztrain.place", place, replace=True)
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


def place(suite_name: str | None, suite: Any, net: Any, *options: Any) -> str:
    """The folder of an evaluation: another one for other parameters, the same for the same.

    Example:
        >>> place(None, None, "M1", {"num_steps": 10}) == place(None, None, "M1", {"num_steps": 11})
        False
        >>> place("paper_mnist", {"models": ["M1"]}, "digits_standard").split("-")[0]
        'paper_mnist'
    """
    if suite is None:
        return f"{slug(net)}-{digest(net, *options)}"
    return f"{suite_name}-{digest(suite)}"


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
