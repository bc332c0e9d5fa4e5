"""Options that the configs set for the attacks which stand there by default."""

from collections.abc import Collection, Iterator, Mapping
from inspect import Parameter, signature
from types import MappingProxyType

from omegaconf import DictConfig, OmegaConf, open_dict

from sztrain.cli.command_line import given_overrides
from sztrain.cli.targets import find_target
from sztrain.errors import InputError

# As configs/method/base/adversarial.yaml and configs/callbacks/default.yaml have them: another
# value is a person's, wherever it was set.
PRESETS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "method.attack": {"recheck": False},
        "callbacks.gauge.probe": {"attacks": ["sigma_zero_sgd", "sparse_rs"], "num_queries": 300},
        "callbacks.gauge.verdict": {"num_queries": "${verdict.num_queries}"},
    }
)
"""Options that the configs set for an attack of their own, by the place where it stands."""


def drop_unfit_presets(cfg: DictConfig, overrides: Collection[str]) -> None:
    """Take options away that were set for one attack, where another has taken its place.

    Args:
        cfg: the composed config of a training; changed in place.
        overrides: what the command line says; an option that it sets, or that has another value
            than the configs give it, stays, to be refused.

    Example:
        >>> rs = {"_target_": "sztrain.attacks.SparseRS", "num_queries": 300, "num_steps": 9}
        >>> cfg = DictConfig({"callbacks": {"gauge": {"probe": rs}}})
        >>> drop_unfit_presets(cfg, [])
        >>> list(cfg.callbacks.gauge.probe)
        ['_target_', 'num_steps']
    """
    parsed = given_overrides(list(overrides))
    given = {key for each in parsed for key in _keys(each.key_or_group, each.value())}
    for place, options in PRESETS.items():
        node = OmegaConf.select(cfg, place)
        taken = _parameters(node)
        if taken is None:
            continue
        values = OmegaConf.to_container(node)
        assert isinstance(values, dict)
        for option, preset in options.items():
            is_preset = values.get(option) == preset and f"{place}.{option}" not in given
            if is_preset and option not in taken:
                with open_dict(node):
                    node.pop(option, None)


def _keys(key: str, value: object) -> Iterator[str]:
    """A key and those inside its value."""
    yield key
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _keys(f"{key}.{name}", part)


def _parameters(node: object) -> Collection[str] | None:
    """Parameters of what a node makes; ``None``: any, or what they are making it will tell."""
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return None
    try:
        parameters = signature(find_target(node["_target_"])).parameters
    except (InputError, TypeError, ValueError):  # the latter two of what cannot be called
        return None
    takes_any = any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())
    return None if takes_any else parameters.keys()
