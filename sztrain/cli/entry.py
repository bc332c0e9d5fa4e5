"""Entry points: Hydra composes, a task runs, and what a person did wrong ends in one line."""

import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sztrain.errors import InputError

USAGE_ERROR = 2
INTERRUPTED = 130

CONFIG_MODULE = "sztrain.configs"


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

    @functools.wraps(task)
    def reported(cfg: DictConfig) -> Any:
        with _one_line_errors(config_name):
            return task(cfg)

    with _one_line_errors(config_name):
        if config_name == "evaluate":
            sys.argv[1:] = with_data_of_net(sys.argv[1:])
        config_path = f"pkg://{CONFIG_MODULE}"
        hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)(reported)()


@contextmanager
def _one_line_errors(config_name: str) -> Iterator[None]:
    """Leave with one line where a person can mend the error; all else is a bug and shows itself.

    Hydra reports errors by itself, in many lines and with status 1, unless HYDRA_FULL_ERROR asks
    for the exception; and it announces an exception that leaves the task, but not an exit.
    """
    shown_in_full = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except KeyboardInterrupt:
        _leave("interrupted", INTERRUPTED)
    except (InputError, HydraException, OmegaConfBaseException) as error:
        if shown_in_full == "1":
            raise
        _leave(f"error: {one_line(error)}{_suggestion(error, config_name)}", USAGE_ERROR)
    finally:
        if shown_in_full is None:
            del os.environ["HYDRA_FULL_ERROR"]


def _leave(message: str, status: int) -> NoReturn:
    print(f"sztrain: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)


def one_line(error: BaseException) -> str:
    r"""What a person has to know of an error, in one line.

    An :class:`~sztrain.errors.InputError` anywhere in the chain of causes says it best.

    Example:
        >>> one_line(HydraException("Could not find 'model/x'\\n\\nAvailable:\\n\\tsmall_cnn"))
        "Could not find 'model/x'; Available: small_cnn"
    """
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    for link in chain:
        if isinstance(link, InputError):
            return _joined(str(link))
    # Hydra says what could not be done, OmegaConf below it why.
    reasons = [str(link) for link in chain if isinstance(link, OmegaConfBaseException)]
    return _joined("\n\n".join(dict.fromkeys([str(error), *reasons[-1:]])))


def _joined(text: str) -> str:
    without_internals = re.sub(r"\n\s*(full_key|object_type|reference_type).*", "", text)
    blocks = re.split(r"\n\s*\n", without_internals.strip())
    return "; ".join(" ".join(block.split()).rstrip(".") for block in blocks)


def _suggestion(error: BaseException, config_name: str) -> str:
    """The key that a misspelt one may have meant."""
    found = re.search(r"Could not override '([\w.@/]+)'", str(error))
    if found is None:
        return ""
    *parents, key = found.group(1).split(".")
    chosen = [arg for arg in sys.argv[1:] if re.fullmatch(r"[\w/@.]+=\w+", arg) and "." not in arg]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            cfg = compose(config_name, overrides=chosen)
        parent = OmegaConf.select(cfg, ".".join(parents)) if parents else cfg
    except (HydraException, OmegaConfBaseException):
        return ""
    known = [str(name) for name in parent] if isinstance(parent, DictConfig) else []
    matches = get_close_matches(key, known, n=1)
    named = f"; did you mean {'.'.join([*parents, matches[0]])}?" if matches else ""
    return named or (f"; known here: {', '.join(known)}" if known else "")


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
    nets = [o.value() for o in given if o.key_or_group == "net" and o.value() is not None]
    if not nets or any(o.key_or_group in ("data", "suite") for o in given):
        return args
    if given[[o.key_or_group for o in given].index("net")].is_sweep_override():
        raise InputError("a sweep over nets needs data=...; or evaluate them together: net=[a,b]")
    from sztrain.models import describe_net

    names = nets[-1] if isinstance(nets[-1], list) else [nets[-1]]
    found = {str(name): dict(_mapping(describe_net(str(name))["data"])) for name in names}
    options = list(found.values())
    if len({option["name"] for option in options}) > 1:
        listed = ", ".join(f"{name} ({option['name']})" for name, option in found.items())
        raise InputError(f"these nets are of several data sets: {listed}; evaluate them apart")
    taken = {override.key_or_group for override in given}
    carried = ("root", "image_size", "num_classes", "in_channels", "split_seed", "test_fraction")
    same = {
        key: options[0][key]
        for key in carried
        if all(key in option and option[key] == options[0][key] for option in options)
    }
    extra = [
        f"++data.{key}={json.dumps(value) if isinstance(value, str) else value}"
        for key, value in same.items()
        if value is not None and f"data.{key}" not in taken
    ]
    return [*args, f"data={options[0]['name']}", *extra]


def _mapping(value: Any) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


def register_resolvers() -> None:
    """Teach OmegaConf the functions that the configs use; a second call does nothing."""
    OmegaConf.register_new_resolver("sztrain.slug", slug, replace=True)
    OmegaConf.register_new_resolver("sztrain.digest", digest, replace=True)
    OmegaConf.register_new_resolver("sztrain.last_part", last_part, replace=True)


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


def last_part(dotted: str) -> str:
    """What follows the last dot.

    Example:
        >>> last_part("sztrain.training.SparseAT")
        'SparseAT'
    """
    return dotted.rpartition(".")[2]
