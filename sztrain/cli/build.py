"""From configs to objects."""

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from torch import nn

from sztrain.cli.arguments import check_arguments
from sztrain.cli.messages import chain
from sztrain.cli.net_data import CUT
from sztrain.cli.targets import check_targets
from sztrain.data import ImageDataModule
from sztrain.errors import InputError, SztrainWarning
from sztrain.models import build_net as net_from_spec
from sztrain.training import RobustClassifier

# What a data config says beside the arguments of its class.
_DATA_EXTRAS = ("name", "recipe")
# ... and a method config.
_METHOD_EXTRAS = ("monitor",)


def plain(cfg: Any) -> Any:
    """A config as plain, resolved containers."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg


@contextmanager
def named(key: str) -> Iterator[None]:
    """Say of which config node it is that something cannot be made.

    Raises:
        InputError: where a constructor refuses its arguments, in whatever words.
    """
    try:
        yield
    except InstantiationException as error:
        inner = re.search(r"full_key: (\S+)", str(error))
        place = f"{key}.{inner.group(1)}" if inner else key
        raise InputError(f"{place}: {_reason(error)}") from error
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise InputError(f"{key}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What our own code says of an error, or else its first cause."""
    links = list(chain(error))
    cause = next((link for link in links if isinstance(link, InputError)), links[-1])
    return str(cause) or type(cause).__name__


def make(cfg: Any, key: str, **arguments: Any) -> Any:
    """The object that a config node describes; ``None`` where the node is empty.

    Args:
        cfg: the node.
        key: where it stands in the config, for messages.
        **arguments: further arguments of the constructor.

    Raises:
        InputError: it is no group, or names what cannot be found; an argument of another type than
            expected, or refused by the constructor.
    """
    node = plain(cfg)
    if node is None:
        return None
    if not isinstance(node, Mapping | list):
        raise InputError(f"expected `{key}` to be a group with a `_target_`, got {node!r}")
    check_targets(node, key)
    check_arguments(node, key)
    with named(key):
        return instantiate(node, _convert_="all", **arguments)


def build_data(cfg: DictConfig, option: str | None = None) -> ImageDataModule:
    """The data module of the config node ``data``, read and checked.

    ``num_classes`` that the config leaves open is filled in from the data.

    Args:
        cfg: the node.
        option: of the group ``data`` that it is; ``None``: the one of its name.

    Raises:
        InputError: data missing, damaged, or not what the config says.
    """
    arguments = {key: value for key, value in plain(cfg).items() if key not in _DATA_EXTRAS}
    data: ImageDataModule = make(arguments, "data")
    if not isinstance(data, ImageDataModule):
        raise InputError(f"data: expected an ImageDataModule, got a {type(data).__name__}")
    _check_names(data, cfg.get("name"), option or cfg.get("name"))
    data.setup()
    cfg.num_classes = data.num_classes
    return data


def _check_names(data: ImageDataModule, configured: str | None, option: str | None) -> None:
    """Refuse a data set of one's own that a checkpoint would not find again by its name."""
    found = getattr(data, "name", None)
    if found is None or not found == configured == option:
        raise InputError(
            f"data: expected `name` in the config and in {type(data).__name__} to be that of their "
            f"option, {option!r}, by which checkpoints find it again; got {configured!r} and "
            f"{found!r}"
        )


def build_net(cfg: DictConfig) -> nn.Module:
    """The net of the config node ``model``, one of those that a checkpoint may name.

    Raises:
        InputError: another net, or an argument is out of its range.
    """
    spec = plain(cfg)
    check_arguments(spec, "model")
    with named("model"):
        return net_from_spec(spec)


def build_method(
    cfg: DictConfig, net: nn.Module, data: ImageDataModule, run_id: str
) -> RobustClassifier:
    """The Lightning module of the config nodes ``method``, ``optimizer`` and ``scheduler``.

    Raises:
        InputError: an argument of one of them is out of its range.
    """
    optimizer = make(cfg.optimizer, "optimizer")
    scheduler = make(cfg.get("scheduler"), "scheduler")
    # Lightning makes them after the loggers have begun; what is wrong with them shall be said now.
    with named("optimizer"):
        tried = optimizer(net.parameters())
    with named("scheduler"):
        if scheduler is not None:
            scheduler(tried, 1000)
    # Partial: Hydra would take apart the hyper-parameters, which name targets of their own.
    arguments = {
        key: value for key, value in plain(cfg.method).items() if key not in _METHOD_EXTRAS
    }
    partial = make(arguments, "method", _partial_=True)
    with named("method"):
        method: RobustClassifier = partial(
            net=net,
            num_classes=data.num_classes,
            optimizer=optimizer,
            scheduler=scheduler,
            hyper_parameters=hyper_parameters(cfg, data, run_id),
        )
    return method


def hyper_parameters(cfg: DictConfig, data: ImageDataModule, run_id: str) -> dict[str, Any]:
    """What the checkpoint shall know of the run, as plain containers."""
    method = plain(cfg.method)
    gauge = plain(cfg.callbacks).get("gauge") or {}
    attack = method.get("attack") or gauge.get("attack") or {}
    run = {"run_id": run_id, "start_from": cfg.get("start_from")}
    # Said even where the config leaves it to the class: later commands tell the parts apart by it.
    cut = {key: getattr(data, key) for key in CUT if hasattr(data, key)}
    options = {key: value for key, value in plain(cfg.data).items() if key != "_target_"}
    return {
        "net": plain(cfg.model),
        "data": cut | options,
        "unit": attack.get("unit", "features"),
        "method": {"name": cfg.method["_target_"].rpartition(".")[2], **run, **method},
    }


def build_callbacks(cfg: DictConfig) -> dict[str, Callback]:
    """The callbacks by their name in the config; empty nodes are left out.

    Raises:
        InputError: one of them is no callback, or an argument is out of its range.
    """
    # Lightning has two packages with a class of that name; its Trainer goes by what they share.
    return _made(plain(cfg), "callbacks", "callback of Lightning", has="state_key")


def _made(nodes: Mapping[str, Any], group: str, kind: str, *, has: str) -> dict[str, Any]:
    """What the nodes of a group make; empty ones are left out.

    Raises:
        InputError: one of them makes something without the attribute ``has``.
    """
    made = {name: make(node, f"{group}.{name}") for name, node in nodes.items()}
    for name, one in made.items():
        if one is not None and not hasattr(one, has):
            needs = "" if "_target_" in nodes[name] else "; `_target_` has to name its class"
            raise InputError(
                f"expected `{group}.{name}` to be a {kind}, got a {type(one).__name__}{needs}"
            )
    return {name: one for name, one in made.items() if one is not None}


def build_trainer(cfg: DictConfig, callbacks: list[Callback], run_id: str) -> pl.Trainer:
    """The Trainer of the config nodes ``trainer`` and ``logger``.

    Raises:
        InputError: an argument is out of its range, or asks for what the machine does not have.
    """
    for group in ("callbacks", "logger"):
        if group in (cfg.trainer or {}):
            raise InputError(
                f"trainer.{group} has no effect: give them by the group {group}, as in "
                f"+{group}.mine._target_=..."
            )
    loggers: dict[str, Any] = plain(cfg.get("logger")) or {}
    wandb = loggers.get("wandb")
    if isinstance(wandb, dict) and wandb.get("id") is None:
        loggers["wandb"] = {**wandb, "id": run_id, "resume": "allow"}
    made = _made(loggers, "logger", "logger of Lightning", has="log_hyperparams")
    trainer: pl.Trainer = make(
        cfg.trainer, "trainer", callbacks=callbacks, logger=list(made.values())
    )
    return trainer


_format_warning = warnings.formatwarning


def _one_line_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Our own warnings without the place in the code that they come from."""
    if issubclass(category, SztrainWarning):
        return f"sztrain: warning: {message}\n"
    return _format_warning(message, category, filename, lineno, line)


def quieten() -> None:
    """Drop messages of the libraries that nobody who runs sztrain can act on."""
    os.environ.setdefault("WANDB_SILENT", "true")
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for pattern in (
        r".*does not have many workers.*",
        r".*smaller than the logging interval.*",
        r".*exists and is not empty.*",
        r".*Experiment logs directory.*",
        r".*The number of training batches.*",
        r".*LeafSpec.*is deprecated.*",
        r".*The dirpath has changed.*",
        r".*recommended to use `self.log.*sync_dist.*",
    ):
        warnings.filterwarnings("ignore", pattern)
    warnings.formatwarning = _one_line_warning
