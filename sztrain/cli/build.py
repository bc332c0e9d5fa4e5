"""From configs to objects, and the checks that save a person hours."""

import logging
import netrc
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from sztrain.attacks.base import eval_mode, validate_batch, validate_logits
from sztrain.data import ImageDataModule
from sztrain.errors import InputError
from sztrain.models import NET_FACTORIES, net_from_checkpoint
from sztrain.models.state_dicts import check_finite, load_strictly

# What a data config says beside the arguments of its class.
_DATA_EXTRAS = ("name", "recipe")


def plain(cfg: Any) -> Any:
    """A config as plain, resolved containers."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg


def build_data(cfg: DictConfig) -> ImageDataModule:
    """The data module of the config node ``data``, read and checked.

    ``num_classes`` that the config leaves open is filled in from the data.

    Raises:
        InputError: data missing, damaged, or not what the config says.
    """
    arguments = {key: value for key, value in plain(cfg).items() if key not in _DATA_EXTRAS}
    data: ImageDataModule = instantiate(arguments)
    data.setup()
    cfg.num_classes = data.num_classes
    return data


def build_net(cfg: DictConfig) -> nn.Module:
    """The net of the config node ``model``.

    Raises:
        InputError: an argument is out of its range.
    """
    net: nn.Module = instantiate(plain(cfg))
    return net


def check_net(net: nn.Module, data: ImageDataModule, source: str) -> None:
    """Look at one small batch: finite weights, finite logits, one for each class.

    Raises:
        InputError: the net and the data do not go together.
    """
    check_finite(net.state_dict(), source)
    inputs, labels = next(iter(data.val_dataloader()))
    inputs, labels = inputs[:2], labels[:2]
    validate_batch(inputs, labels)
    try:
        with torch.no_grad(), eval_mode(net):
            logits = net(inputs)
    except RuntimeError as error:  # torch's word for shapes that do not fit
        raise InputError(
            f"{source} cannot take images of shape {tuple(inputs.shape[1:])}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    validate_logits(logits, labels)
    if logits.shape[1] != data.num_classes:
        raise InputError(
            f"{source} tells {logits.shape[1]} classes apart, the data has {data.num_classes}; "
            "choose a net and data that go together (model.num_classes, data.num_classes)"
        )


def check_checkpoint(path: str, net: nn.Module) -> None:
    """Make sure that a checkpoint can be read and fits the net.

    Raises:
        InputError: missing, damaged, of another architecture, or with non-finite weights.
    """
    load_strictly(net, net_from_checkpoint(path).state_dict(), path)


def hyper_parameters(cfg: DictConfig, run_id: str) -> dict[str, Any]:
    """What the checkpoint shall know of the run, as plain containers.

    Raises:
        InputError: the net is not one that a checkpoint may name.
    """
    method = plain(cfg.method)
    target = cfg.model["_target_"].rpartition(".")[2]
    if target not in NET_FACTORIES:
        raise InputError(
            f"expected model._target_ to be one of {', '.join(NET_FACTORIES)}, "
            f"got {cfg.model['_target_']}"
        )
    attack = method.get("attack") or plain(cfg.callbacks.gauge.attack)
    return {
        "net": plain(cfg.model),
        "data": {key: value for key, value in plain(cfg.data).items() if key != "_target_"},
        "unit": attack["unit"],
        "method": {"name": cfg.method["_target_"].rpartition(".")[2], "run_id": run_id, **method},
    }


def check_wandb(loggers: DictConfig | None) -> None:
    """Refuse a W&B that is online but has no key, before anything waits for an answer.

    Raises:
        InputError: with the two ways out.
    """
    wandb_cfg: Mapping[str, Any] = (plain(loggers) or {}).get("wandb") or {}
    if not wandb_cfg or wandb_cfg.get("mode") != "online" or _has_wandb_key():
        return
    raise InputError(
        "W&B is online (WANDB_MODE or logger.wandb.mode) but has no key; "
        "run `wandb login`, set WANDB_API_KEY, or use WANDB_MODE=offline"
    )


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def quieten() -> None:
    """Drop messages of the libraries that nobody who runs sztrain can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for pattern in (
        r".*does not have many workers.*",
        r".*smaller than the logging interval.*",
        r".*exists and is not empty.*",
        r".*Experiment logs directory.*",
        r".*The number of training batches.*",
        r".*LeafSpec.*is deprecated.*",
    ):
        warnings.filterwarnings("ignore", pattern)
