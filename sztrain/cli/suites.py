"""A suite: every net of a list under every attack of a list, with every number of steps."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Subset

from sztrain.attacks.base import require_attack
from sztrain.cli.build import build_data, make, plain
from sztrain.cli.checks import check_net
from sztrain.cli.messages import CONFIG_MODULE
from sztrain.errors import InputError, require_count
from sztrain.models import describe_net, load_net
from sztrain.types import Attack


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What the config node ``suite`` says.

    Attributes:
        models: names of nets, as :func:`sztrain.models.load_net` takes them.
        attacks: options of the config group ``attack``.
        num_steps: numbers of steps N.
        num_samples: the first samples of each test split; ``None``: all.
        batch_size: samples attacked at once.
        fixed_budgets: budgets of the table of fixed budgets.
        download: whether data that is missing may be fetched.

    Raises:
        InputError: an empty list, or a number that is none.
    """

    models: list[str]
    attacks: list[str]
    num_steps: list[int]
    num_samples: int | None
    batch_size: int
    fixed_budgets: list[int]
    download: bool

    def __post_init__(self) -> None:
        for name in ("models", "attacks", "num_steps"):
            if not getattr(self, name):
                raise InputError(f"expected `suite.{name}` to have at least one entry, got none")
        for name in ("num_steps", "fixed_budgets"):
            for value in getattr(self, name):
                require_count(f"suite.{name}", value, 1)
        require_count("suite.batch_size", self.batch_size, 1)
        if self.num_samples is not None:
            require_count("suite.num_samples", self.num_samples, 1)


def read_suite(cfg: DictConfig, overrides: list[str]) -> Suite:
    """The suite of an evaluation.

    Args:
        cfg: the composed config.
        overrides: what the command line says; it may narrow the suite, but name no net or attack
            of its own beside it.

    Raises:
        InputError: another key than a suite has, a value of another type, or both a suite and what
            only an evaluation without one has.
    """
    for override in overrides:
        key = override.lstrip("+~").split("=")[0]
        if key.split(".")[0] in ("attack", "net", "data", "split", "num_samples", "batch_size"):
            raise InputError(
                f"{key} has no meaning beside a suite, which says for itself what runs: "
                "suite.models, suite.attacks, suite.num_steps, suite.num_samples, suite.batch_size"
            )
    values = plain(cfg.suite)
    for name in ("models", "attacks", "num_steps", "fixed_budgets"):
        if not isinstance(values[name], list):
            raise InputError(f"expected `suite.{name}` to be a list, got {values[name]!r}")
    return Suite(**values)


def suite_attack(name: str, num_steps: int) -> Attack:
    """An option of the config group ``attack`` with ``num_steps``.

    Raises:
        InputError: there is no such option.
    """
    node = _option("attack", name)
    attack: Attack = make(OmegaConf.merge(node, {"num_steps": num_steps}), f"attack={name}")
    require_attack(f"attack={name}", attack)
    return attack


def suite_samples(model: str, suite: Suite, seed: int) -> tuple[Any, Any, Any]:
    """A net of a suite, its data and the samples to attack.

    Raises:
        UnavailableError: weights or data are not here and cannot be had.
        InputError: a damaged file, or a net and data that do not go together.
    """
    name = describe_net(model)["data"]
    assert isinstance(name, dict)
    node = _option("data", str(name["name"]))
    net = load_net(model)
    data = build_data(
        OmegaConf.merge({"seed": seed}, {"data": node}, {"data": {"download": suite.download}}).data
    )
    check_net(net, data, model)
    part = data.part("test")
    wanted = len(part) if suite.num_samples is None else min(suite.num_samples, len(part))
    return net, data, Subset(part, range(wanted))


def _option(group: str, name: str) -> Any:
    """One YAML of a config group, without what it says of other groups."""
    folder = files(CONFIG_MODULE) / group
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(
            entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml")
        )
        raise InputError(f"there is no {group}={name}; known here: {', '.join(known)}")
    node = OmegaConf.create(path.read_text(encoding="utf-8"))
    assert isinstance(node, DictConfig)
    node.pop("defaults", None)
    return node
