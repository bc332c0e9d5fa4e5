"""Options of the config groups, wherever Hydra finds them: those of a user's folder are as good."""

import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from sztrain.cli.build import make
from sztrain.cli.checks import check_judge
from sztrain.cli.messages import CONFIG_MODULE, one_line
from sztrain.errors import InputError
from sztrain.types import Attack


def config_option(group: str, name: str) -> DictConfig:
    """What an evaluation has under ``group`` with the option ``name`` of it.

    Raises:
        InputError: there is none of that name, or it cannot be composed.

    Example:
        >>> config_option("attack", "sigma_zero").num_steps
        1000
    """
    place = GlobalHydra.instance()
    if place.is_initialized():
        return _composed(place.hydra, group, name)
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        return _composed(None, group, name)


def require_options(key: str, group: str, names: Iterable[str]) -> None:
    """Refuse names that are no options of a config group.

    Args:
        key: where the names stand in the config, for the message.
        group: the group.
        names: the names.

    Raises:
        InputError: there is no option of one of the names.

    Example:
        >>> require_options("suite.explained_attacks", "attack", ["gse"])
    """
    for name in names:
        try:
            config_option(group, name)
        except InputError as error:
            raise InputError(f"{key}: {error}") from error


@cache  # composing takes a while, and a suite asks for an attack again and again
def _composed(_hydra: Any, group: str, name: str) -> DictConfig:
    given = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
    search_path = [word for word in given if word.lstrip("+").startswith("hydra.searchpath=")]
    try:
        node = compose("evaluate", [*search_path, f"{group}={name}"])[group]
    except HydraException as error:
        raise InputError(one_line(error, args=sys.argv[1:])) from error
    assert isinstance(node, DictConfig)
    return node


def build_attack(name: str, options: Mapping[str, Any]) -> Attack:
    """An option of the config group ``attack``, some of its own options replaced.

    Raises:
        InputError: there is no such option, or none of its own; or no net can be judged by it.
    """
    node = config_option("attack", name)
    for key in options:
        if key not in node:
            known = ", ".join(str(option) for option in node if option != "_target_")
            raise InputError(f"attack={name} has no option {key}; it has {known}")
    attack: Attack = make(OmegaConf.merge(node, dict(options)), f"attack={name}")
    check_judge(f"attack={name}", attack)
    return attack
