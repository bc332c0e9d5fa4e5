"""What went wrong, in one line that a person can act on."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sztrain.cli.command_line import given_overrides, hydra_flags, quoted
from sztrain.errors import InputError, did_you_mean

CONFIG_MODULE = "sztrain.configs"

# Options that hold keys of a person's own.
_OPEN = (
    "suite.grid.",
    "suite.steps_per_n.",
    "suite.fixed_budget_steps_per_n.",
    "suite.variants.",
)


_BASES = ("data", "method", "suite")  # groups with something to begin with


def one_line(error: BaseException, config_name: str = "", args: Sequence[str] = ()) -> str:
    r"""What a person has to know of an error, in one line.

    An :class:`~sztrain.errors.InputError` anywhere in the chain of causes says it best.

    Args:
        error: what was raised.
        config_name: ``train`` or ``evaluate``; a misspelt key is looked for in it.
        args: command-line arguments.

    Example:
        >>> one_line(HydraException("Could not find 'x'\n\nAvailable:\n\tsmall_cnn"))
        "Could not find 'x'; Available: small_cnn"
        >>> one_line(OverrideParseException("net", "mismatched input"))
        'cannot read net: mismatched input; expected key=value'
    """
    links = list(chain(error))
    given = next((link for link in links if isinstance(link, InputError)), None)
    if given is not None:
        return _joined(str(given))
    if isinstance(error, OverrideParseException):
        reason = error.message.partition("\n")[0]
        key, _, value = str(error.override).partition("=")
        in_quotes = f"; a value with signs of its own goes in quotes: '{key}=\"{value}\"'"
        expected = in_quotes if re.search("[=, ]", value) else ""
        return f"cannot read {error.override}: {reason}; expected key=value{expected}"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/sweeper":
            needed = "pip install -c constraints.txt -e '.[sweep]'"
            return f"the sweeper {choice} is not installed: {needed} brings optuna"
        listed = f"expected one of {', '.join(error.options)}"
        own = "" if _own_folders(args) else "; one of your own needs --config-dir"
        return f"there is no {group}={choice}; {listed}{did_you_mean(choice, error.options) or own}"
    lost = re.search(r"Interpolation key '([\w.]+)' not found", str(error))
    if lost is not None:
        wanted = getattr(error, "full_key", None) or "another option"
        group = lost.group(1).partition(".")[0]
        own = f"one of your own begins with a base of configs/{group}/base; "
        return (
            f"there is no {lost.group(1)}, by which {wanted} goes; {own if group in _BASES else ''}"
            f"+{lost.group(1)}=... adds it"
        )
    single = re.search(
        r"node `([\w.]+)` is not a container and thus cannot contain `(\w+)`", str(error)
    )
    if single is not None:
        node, name = single.groups()
        return f"expected `{node}` to be a group of options, {name} among them, got a single value"
    misspelt = re.search(r"Could not override '([\w.@/]+)'", str(error))
    if misspelt is not None:
        key = misspelt.group(1)
        # Of a mapping, such as a={b: 1}, it is a key inside that does not exist.
        inner = [str(getattr(link, "full_key", "") or "") for link in links]
        within = next((name for name in inner if name.startswith(f"{key}.")), None)
        if within is not None:
            known = _meant_key(within, config_name, args)
            return f"there is no option {within}{known}; +{within}=... adds one"
        adds = f"; +{key}=... adds one" if key.startswith(_OPEN) else ""
        return f"there is no option {key}{_meant_key(key, config_name, args)}{adds}"
    if type(error) is ValueError:  # Hydra's, of what stands for the option of a group
        if "NoneType" in str(error):
            return "a group cannot be null; take it out with ~group, such as ~scheduler"
        ours = (one for one in given_overrides(list(args)) if _is_group(one.key_or_group))
        kind = str(error).rpartition(" ")[2]
        wrong = next((one.input_line for one in ours if type(one.value()).__name__ == kind), kind)
        return f"cannot read {wrong}: a group has options by name, as in method=trades"
    # Hydra says what could not be done, OmegaConf below it why.
    reasons = [str(link) for link in links if isinstance(link, OmegaConfBaseException)]
    return _joined("\n\n".join(dict.fromkeys([str(error), *reasons[-1:]])))


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, outermost first.

    Example:
        >>> [str(link) for link in chain(ValueError("x"))]
        ['x']
    """
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _joined(text: str) -> str:
    without_internals = re.sub(r"\n\s*(full_key|object_type|reference_type).*", "", text)
    blocks = re.split(r"\n\s*\n", without_internals.strip())
    # A full stop goes; the dots of `start_from=...` stay.
    return "; ".join(re.sub(r"(?<!\.)\.$", "", " ".join(block.split())) for block in blocks)


def _meant_key(key: str, config_name: str, args: Sequence[str]) -> str:
    """The keys that one which does not exist may have meant, or those that there are."""
    groups = [arg for arg in args if re.fullmatch(r"[\w/@]+=\w+", arg)]
    own = ",".join(map(quoted, _own_folders(args)))
    places = [f"hydra.searchpath=[{own}]"] if own else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            others = [arg for arg in groups if not arg.startswith(f"{key}=")]
            cfg = compose(config_name, [*places, *others])
    except (HydraException, OmegaConfBaseException):
        return ""
    keys = list(_keys(OmegaConf.to_container(cfg)))
    prefix, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, prefix) if prefix else cfg
    siblings = [str(known) for known in parent] if isinstance(parent, DictConfig) else []
    if key in keys:  # as callbacks.gauge.seed does beside callbacks.gauge=null
        return "; another part of the command takes it out"
    matches = [known for known in keys if known.endswith(f".{key}")]
    if not matches and siblings:
        close = get_close_matches(name, siblings, n=1)
        matches = [f"{prefix}.{known}".lstrip(".") for known in close]
    elif not matches:
        matches = get_close_matches(key, keys, n=1, cutoff=0.7)
    if matches:
        return f"; did you mean {' or '.join(matches)}?"
    return f"; known here: {', '.join(siblings or map(str, cfg))}"


def _is_group(key: str) -> bool:
    return files(CONFIG_MODULE).joinpath(key.partition("@")[0]).is_dir()


def _own_folders(args: Sequence[str]) -> list[str]:
    """Where a command has configs of a person's own, as Hydra's search path names them."""
    flag: str | None = hydra_flags(list(args)).config_dir
    named = [] if flag is None else [f"file://{Path(flag).resolve()}"]
    for override in given_overrides(list(args)):
        value = override.value() if override.key_or_group == "hydra.searchpath" else None
        named += map(str, value) if isinstance(value, list) else []
    return named


def _keys(node: object, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield f"{prefix}{name}"
            yield from _keys(value, f"{prefix}{name}.")
