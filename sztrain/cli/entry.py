"""Entry points: Hydra composes, a task runs, and what a person did wrong ends in one line."""

import errno
import functools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sztrain.cli.command_line import given_overrides
from sztrain.cli.hydra_job import is_sweep
from sztrain.cli.interrupts import interrupts_held_back
from sztrain.cli.messages import CONFIG_MODULE, one_line
from sztrain.cli.net_data import with_data_of_net
from sztrain.cli.one_checkpoint import refuse_shared_checkpoint
from sztrain.cli.resolvers import register_resolvers
from sztrain.cli.sweep_table import print_kept, what_is_kept
from sztrain.errors import InputError

USAGE_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

# What a person mends outside of the program: a full disk, a folder that is a file or not theirs.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WRITING_FAILED = (
    *_FULL,
    *(
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    ),
)

# Some of Hydra's and OmegaConf's are ValueErrors, too.
_OF_INPUT = (InputError, HydraException, OmegaConfBaseException)

_FULL_ERROR = "HYDRA_FULL_ERROR"


def train_main() -> None:
    """``python train.py``: train a net, then judge it."""
    _main(_train, "train")


def evaluate_main() -> None:
    """``python evaluate.py``: attack nets and make the paper's table."""
    _main(_evaluate, "evaluate")


def _train(cfg: DictConfig) -> float | None:
    with interrupts_held_back():  # imports torch: not before the config is known to be good
        from sztrain.cli.train import train

    return train(cfg)


def _evaluate(cfg: DictConfig) -> None:
    with interrupts_held_back():
        from sztrain.cli.evaluate import evaluate

    evaluate(cfg)


def _main(task: Callable[[DictConfig], Any], config_name: str) -> None:
    register_resolvers()
    made_before = _folder_made_before()
    asked = os.environ.get(_FULL_ERROR)

    # Hydra reports errors by itself, in many lines and with status 1, unless this variable asks for
    # the exception. The task and the processes that it starts see it as the person set it.
    @functools.wraps(task)
    def reported(cfg: DictConfig) -> Any:
        with (
            _environment(_FULL_ERROR, asked),
            _one_line_errors(config_name, asked == "1", in_sweep=is_sweep()),
            _leaving_no_empty_folder(made_before),
        ):
            _require_complete(cfg)
            return task(cfg)

    with _environment(_FULL_ERROR, "1"), _one_line_errors(config_name, asked == "1"):
        if config_name == "evaluate":
            sys.argv[1:] = with_data_of_net(sys.argv[1:])
        else:
            refuse_shared_checkpoint(sys.argv[1:])
        config_path = f"pkg://{CONFIG_MODULE}"
        try:
            hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)(
                reported
            )()
        except _SweptRunError as error:
            print_kept(error.folder)
            raise InputError(f"the first run of this sweep that failed: {error.reason}") from error


class _SweptRunError(Exception):
    """Tells Hydra of a failed run, after which it goes on with the others of the sweep."""

    def __init__(self, reason: str, folder: Path) -> None:
        super().__init__(reason, folder)  # some launchers send it from another process
        self.reason = reason
        self.folder = folder


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


def _folder_made_before() -> Path | None:
    """The folder that the command names for its run, if a person has made it."""
    given = {override.key_or_group: override for override in given_overrides(sys.argv[1:])}
    named = given.get("hydra.run.dir")
    if named is None or named.is_delete() or named.is_sweep_override():
        return None
    folder = Path(str(named.value()))
    with suppress(OSError):  # a name that cannot be
        return folder.resolve() if folder.is_dir() else None
    return None


@contextmanager
def _leaving_no_empty_folder(made_before: Path | None) -> Iterator[None]:
    """Take the folder away again that holds nothing but the configuration of what did not begin.

    Args:
        made_before: a folder that was there before, and stays.
    """
    try:
        yield
    except (*_OF_INPUT, KeyboardInterrupt):
        folder = Path(HydraConfig.get().runtime.output_dir)
        with suppress(OSError):
            if {path.name for path in folder.iterdir()} <= {".hydra"}:
                shutil.rmtree(folder / ".hydra" if folder.resolve() == made_before else folder)
        raise


@contextmanager
def _one_line_errors(config_name: str, in_full: bool, *, in_sweep: bool = False) -> Iterator[None]:
    """Leave with one line where a person can mend the error; all else is a bug and shows itself.

    Args:
        config_name: ``train`` or ``evaluate``.
        in_full: whether a person wants to see every error whole.
        in_sweep: whether other runs follow.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # leaving is what a second one asks for, too
        has_table = in_sweep and config_name == "train"
        kept = [what_is_kept(Path(HydraConfig.get().sweep.dir))] if has_table else []
        _leave("; ".join(["interrupted", *kept, *map(str, error.args)]), INTERRUPTED)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        # Hydra's answer to `group=null`; any other ValueError than our own is a bug.
        null_group = str(error).startswith("Config group override must be")
        bug = isinstance(error, ValueError) and not isinstance(error, _OF_INPUT) and not null_group
        if in_full or bug:
            raise
        line = one_line(error, config_name, sys.argv[1:])
        if not in_sweep:
            _leave(f"error: {line}", USAGE_ERROR)
        _tell(f"error: {line}")
        raise _SweptRunError(line, Path(HydraConfig.get().sweep.dir)) from error
    except BrokenPipeError:  # whoever read has seen enough, as in `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        sys.exit(BROKEN_PIPE)
    except OSError as error:  # Hydra's own files, and what other libraries write
        if in_full or not (error.errno in _WRITING_FAILED or _is_of_folder(error)):
            raise
        where = f"{error.filename}: " if error.filename else ""
        make_room = "make room or " if error.errno in _FULL else ""
        _leave(f"error: {where}{error.strerror}; {make_room}choose another folder", USAGE_ERROR)


def _is_of_folder(error: OSError) -> bool:
    """Whether a folder could not be made; any other file that is missing is a bug."""
    return traceback.extract_tb(error.__traceback__)[-1].name in ("mkdir", "makedirs")


def _tell(message: str) -> None:
    print(f"sztrain: {message}", file=sys.stderr)  # noqa: T201


def _leave(message: str, status: int) -> NoReturn:
    _tell(message)
    sys.exit(status)


def _require_complete(cfg: DictConfig) -> None:
    # As it was written: an option that another stands for may be of a group that is gone, which the
    # task has a better word for.
    for key in _missing(OmegaConf.to_container(cfg, resolve=False)):
        raise InputError(f"{key} has no default: add {key}=... to the command")


def _missing(node: Any, place: str = "") -> Iterator[str]:
    """The options without a value, by their place in the config."""
    if node == MISSING:
        yield place
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        for name, part in node.items():
            yield from _missing(part, f"{place}.{name}" if place else str(name))
