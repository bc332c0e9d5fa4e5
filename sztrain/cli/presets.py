"""Options that the configs set for the attacks which stand there by default."""

from collections.abc import Collection
from inspect import Parameter, signature
from types import MappingProxyType

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict

# Of configs/method/base/adversarial.yaml and configs/callbacks/default.yaml.
_PRESETS = MappingProxyType(
    {
        "method.attack": ("recheck",),
        "callbacks.gauge.probe": ("attacks", "num_queries"),
        "callbacks.gauge.verdict": ("num_queries",),
    }
)


def drop_unfit_presets(cfg: DictConfig, overrides: Collection[str]) -> None:
    """Take options away that were set for one attack, where another has taken its place.

    Args:
        cfg: the composed config of a training; changed in place.
        overrides: what the command line says; an option that it sets stays, to be refused.

    Example:
        >>> rs = {"_target_": "sztrain.attacks.SparseRS", "attacks": ["sigma_zero"], "num_steps": 9}
        >>> cfg = DictConfig({"callbacks": {"gauge": {"probe": rs}}})
        >>> drop_unfit_presets(cfg, [])
        >>> list(cfg.callbacks.gauge.probe)
        ['_target_', 'num_steps']
    """
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    for place, options in _PRESETS.items():
        node = OmegaConf.select(cfg, place)
        taken = _parameters(node)
        if taken is None:
            continue
        for option in options:
            if option not in taken and f"{place}.{option}" not in given:
                with open_dict(node):
                    node.pop(option, None)


def _parameters(node: object) -> Collection[str] | None:
    """Parameters of what a node makes; ``None``: any, or what they are making it will tell."""
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return None
    try:
        parameters = signature(get_object(node["_target_"])).parameters
    except Exception:  # whatever an import may raise
        return None
    takes_any = any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())
    return None if takes_any else parameters.keys()
