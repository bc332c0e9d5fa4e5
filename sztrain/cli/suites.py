"""A suite: every net of a list under every attack of a list, with every number of steps."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Subset

from sztrain.attacks.base import require_attack
from sztrain.cli.build import build_data, make, plain
from sztrain.cli.checks import check_net
from sztrain.cli.jobs import Job, Selection
from sztrain.cli.messages import CONFIG_MODULE
from sztrain.cli.team import automatic_batch_size
from sztrain.errors import InputError, UnavailableError, require_count
from sztrain.evaluation.rows import missing_row
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
        batch_size: samples attacked at once; ``None``: what suits the device and the images.
        fixed_budgets: budgets of the table of fixed budgets.
        download: whether data that is missing may be fetched.
        grid: values of options of the attacks, of which every combination is run.
        loss_terms: whether to follow one run of σ-zero on each net, for a figure.

    Raises:
        InputError: an empty list, or a number that is none.
    """

    models: list[str]
    attacks: list[str]
    num_steps: list[int]
    num_samples: int | None
    batch_size: int | None
    fixed_budgets: list[int]
    download: bool
    grid: dict[str, list[Any]]
    loss_terms: bool

    def __post_init__(self) -> None:
        for name in ("models", "attacks", "num_steps"):
            if not getattr(self, name):
                raise InputError(f"expected `suite.{name}` to have at least one entry, got none")
        for name in ("num_steps", "fixed_budgets"):
            for value in getattr(self, name):
                require_count(f"suite.{name}", value, 1)
        for name in ("batch_size", "num_samples"):
            if getattr(self, name) is not None:
                require_count(f"suite.{name}", getattr(self, name), 1)

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """Every combination of the options in the grid; without a grid one, of none."""
        return [
            dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())
        ]

    @property
    def num_jobs(self) -> int:
        """How many times a net is attacked."""
        lists = (self.models, self.attacks, self.num_steps, self.combinations)
        return math.prod(len(items) for items in lists)


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
    values["grid"] = values.get("grid") or {}
    if not isinstance(values["grid"], dict):
        raise InputError(
            f"expected `suite.grid` to give options their values, got {values['grid']!r}"
        )
    for name, options in values["grid"].items():
        if not isinstance(options, list) or not options:
            raise InputError(
                f"expected `suite.grid.{name}` to be a list of at least one value, got {options!r}"
            )
    return Suite(**values)


def suite_jobs(
    suite: Suite, *, device: torch.device, seed: int, output_dir: Path
) -> Iterator[Job | dict[str, Any]]:
    """The jobs of a suite, one net in memory at a time; a row where a net cannot be had.

    Args:
        suite: what runs.
        device: where it runs, for batch sizes that are left open.
        seed: of the data.
        output_dir: folder of the evaluation.

    Raises:
        InputError: an attack or a net that does not exist; a damaged file; data unfit for the net.
    """
    attacks = [
        (name, options, _attack(name, {**options, "num_steps": num_steps}))
        for num_steps in suite.num_steps
        for name in suite.attacks
        for options in suite.combinations
    ]

    for model in suite.models:
        with suppress(UnavailableError):
            describe_net(model)  # a name that is wrong shall show before hours are spent

    @cache
    def selection_of(name: str) -> Selection:
        return _selection(name, suite, seed)

    for model in suite.models:
        try:
            selection = selection_of(_data_name(model))
            net = load_net(model)
        except UnavailableError as error:
            for _, _, attack in attacks:
                yield missing_row(model, attack, str(error))
            continue
        check_net(net, selection.data, model)
        shape = selection.data.image_shape
        for name, options, attack in attacks:
            point = "".join(f"-{key}={value}" for key, value in options.items())
            yield Job(
                label=f"{model}-{name}-{attack.num_steps}{point}",
                model=model,
                net=net,
                attack=attack,
                selection=selection,
                batch_size=suite.batch_size or automatic_batch_size(device, shape),
                budgets=suite.fixed_budgets,
                output_dir=output_dir,
            )


def _attack(name: str, options: Mapping[str, Any]) -> Attack:
    """An option of the config group ``attack``, some of its own options replaced."""
    node = _option("attack", name)
    for key in options:
        if key not in node:
            known = ", ".join(str(option) for option in node if option != "_target_")
            raise InputError(f"attack={name} has no option {key}; it has {known}")
    attack: Attack = make(OmegaConf.merge(node, dict(options)), f"attack={name}")
    require_attack(f"attack={name}", attack)
    return attack


def _data_name(model: str) -> str:
    described = describe_net(model)["data"]
    assert isinstance(described, dict)
    return str(described["name"])


def _selection(name: str, suite: Suite, seed: int) -> Selection:
    """The samples of one data set that the suite wants."""
    node = {"seed": seed, "data": _option("data", name)}
    data = build_data(OmegaConf.merge(node, {"data": {"download": suite.download}}).data)
    part = data.part("test")
    wanted = len(part) if suite.num_samples is None else min(suite.num_samples, len(part))
    return Selection(data, Subset(part, range(wanted)))


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
