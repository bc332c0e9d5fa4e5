"""A suite: every net of a list under every attack of a list, with every number of steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from omegaconf import DictConfig

from sztrain.cli.build import make, plain
from sztrain.cli.groups import build_attack
from sztrain.errors import InputError, require_count, require_positive
from sztrain.types import Attack, Unit

# What says what runs where there is no suite.
_WITHOUT_SUITE = (
    "attack",
    "net",
    "data",
    "split",
    "first_sample",
    "num_samples",
    "batch_size",
    "budgets",
)

# By which other means a suite is told the same.
_INSTEAD = {
    "attack": "suite.attacks",
    "net": "suite.models",
    "data.download": "suite.download",
    "data.root": "the environment variable SZTRAIN_DATA_DIR",
    "first_sample": "suite.first_sample",
    "num_samples": "suite.num_samples",
    "batch_size": "suite.batch_size",
    "budgets": "suite.fixed_budgets",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attack of a suite.

    Attributes:
        label: part of the names of its files.
        steps: N of the table that it belongs to.
        attack: the attack.
        name: of the attack in the suite's list.
        explained: whether to draw what its changes do.
    """

    label: str
    steps: int
    attack: Attack
    name: str
    explained: bool = False


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What the config node ``suite`` says.

    Attributes:
        models: names of nets, as :func:`sztrain.models.load_net` takes them.
        attacks: options of the config group ``attack``.
        num_steps: numbers of steps N.
        num_samples: how many samples of each test split, or as many as there are; ``None``: all.
        batch_size: samples attacked at once; ``None``: what suits the device and the images.
        fixed_budgets: budgets of the table of fixed budgets.
        download: whether data that is missing may be fetched.
        steps_per_n: steps that an attack takes for each of N, where that is not 1; rounded.
        fixed_budget_attacks: attacks to run at each of the fixed budgets, beside what is read off
            the others.
        fixed_budget_steps_per_n: as ``steps_per_n``, at a fixed budget.
        grid: values of options of the attacks, of which every combination is run.
        loss_terms: whether to follow one run of σ-zero on each net, for a figure.
        variants: for a data set, by its name, options of the group ``attack`` to take in the place
            of those listed.
        explained_attacks: those of ``attacks`` of which to draw what their changes do.
        transfer: whether to keep all adversarial examples, and try them on the suite's other nets
            for the same data.
        worst_case: whether to tell for each net what all attacks together leave of it.
        unit: what all attacks count; ``None``: each what its option says.
        first_sample: where in each test split the samples begin.

    Raises:
        InputError: an empty list, an entry twice, a number that is none, or a grid over what the
            suite itself says: its numbers of steps, its budgets, or its unit.
    """

    models: list[str]
    attacks: list[str]
    num_steps: list[int]
    num_samples: int | None
    batch_size: int | None
    fixed_budgets: list[int]
    download: bool
    steps_per_n: dict[str, float]
    fixed_budget_attacks: list[str]
    fixed_budget_steps_per_n: dict[str, float]
    grid: dict[str, list[Any]]
    loss_terms: bool
    variants: dict[str, dict[str, str]]
    explained_attacks: list[str]
    transfer: bool
    worst_case: bool
    unit: Unit | None
    first_sample: int

    def __post_init__(self) -> None:
        for name in ("models", "attacks", "num_steps"):
            if not getattr(self, name):
                raise InputError(f"expected `suite.{name}` to have at least one entry, got none")
        for name, options in self.grid.items():
            if not isinstance(options, list) or not options:
                raise InputError(
                    f"expected `suite.grid.{name}` to be a list of at least one value, "
                    f"got {options!r}"
                )
            if any(value in options[:i] for i, value in enumerate(options)):
                raise InputError(
                    f"expected `suite.grid.{name}` to have no value twice, got {options}"
                )
        if "num_steps" in self.grid:
            raise InputError("a suite's numbers of steps are suite.num_steps, not part of its grid")
        if "budget" in self.grid:
            raise InputError(
                "a suite's budgets are suite.fixed_budgets, at which suite.fixed_budget_attacks "
                "run, not part of its grid"
            )
        if self.unit is not None and "unit" in self.grid:
            raise InputError("what a suite counts is either suite.unit or part of its grid")
        for name in ("num_steps", "fixed_budgets"):
            for value in getattr(self, name):
                require_count(f"suite.{name}", value, 1)
        for name in ("models", "attacks", "fixed_budget_attacks", "explained_attacks"):
            for value in getattr(self, name):
                if not isinstance(value, str):
                    raise InputError(f"expected `suite.{name}` to hold names, got {value!r}")
        for name in ("models", "attacks", "num_steps", "fixed_budget_attacks", "fixed_budgets"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"expected `suite.{name}` to have no entry twice, got {values}")
        for name in ("batch_size", "num_samples"):
            if getattr(self, name) is not None:
                require_count(f"suite.{name}", getattr(self, name), 1)
        require_count("suite.first_sample", self.first_sample, 0)
        for dataset, variants in self.variants.items():
            if not isinstance(variants, dict) or not all(
                isinstance(option, str) for option in variants.values()
            ):
                raise InputError(
                    f"expected `suite.variants.{dataset}` to name an attack for each of some "
                    f"attacks, such as {{gse: gse_mnist}}, got {variants!r}"
                )
        for name in ("steps_per_n", "fixed_budget_steps_per_n"):
            for attack, steps in getattr(self, name).items():
                require_positive(f"suite.{name}.{attack}", steps)

    @property
    def all_attacks(self) -> list[str]:
        """Its attacks by name, those at a fixed budget alone at the end."""
        return list(dict.fromkeys([*self.attacks, *self.fixed_budget_attacks]))

    @property
    def spoken_of(self) -> dict[str, list[str]]:
        """Attacks that it says something about, run or not, by the option that does."""
        return {
            "steps_per_n": list(self.steps_per_n),
            "fixed_budget_steps_per_n": list(self.fixed_budget_steps_per_n),
            "explained_attacks": self.explained_attacks,
            **{f"variants.{dataset}": list(names) for dataset, names in self.variants.items()},
        }

    @property
    def num_runs(self) -> int:
        """How many attacks every net meets."""
        return len(self.runs_on(""))

    def runs_on(self, dataset: str) -> list[Run]:
        """What is done to every net for a data set.

        Args:
            dataset: its name; one without variants gets the attacks as they are listed.

        Raises:
            InputError: no such attack, or a value that it refuses.
        """
        variants = self.variants.get(dataset, {})
        return [*self._minimal_norm_runs(variants), *self._fixed_budget_runs(variants)]

    def _minimal_norm_runs(self, variants: Mapping[str, str]) -> Iterator[Run]:
        points = [
            dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())
        ]
        for steps, name, point in product(self.num_steps, self.attacks, points):
            place = "".join(f"-{key}={value}" for key, value in point.items())
            num_steps = _of_steps(self.steps_per_n.get(name, 1), steps)
            option = variants.get(name, name)
            yield Run(
                label=f"{option}-{steps}{place}",
                steps=steps,
                attack=build_attack(option, {**self._unit, **point, "num_steps": num_steps}),
                name=name,
                explained=name in self.explained_attacks,
            )

    def _fixed_budget_runs(self, variants: Mapping[str, str]) -> Iterator[Run]:
        for steps, name, budget in product(
            self.num_steps, self.fixed_budget_attacks, self.fixed_budgets
        ):
            num_steps = _of_steps(self.fixed_budget_steps_per_n.get(name, 1), steps)
            option = variants.get(name, name)
            options = {**self._unit, "num_steps": num_steps, "budget": budget}
            yield Run(
                label=f"{option}-{steps}-budget={budget}",
                steps=steps,
                attack=build_attack(option, options),
                name=name,
            )

    @property
    def _unit(self) -> dict[str, Unit]:
        return {} if self.unit is None else {"unit": self.unit}


def _of_steps(share: float, num_steps: int) -> int:
    """A multiple or a share of the steps; what an attack needs at least it says itself."""
    return max(1, round(share * num_steps))


def without_unused(values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of an evaluation less what a suite does not go by.

    Example:
        >>> without_unused({"suite": {"models": ["M1"]}, "net": "M2", "device": "cpu"})
        {'suite': {'models': ['M1']}, 'device': 'cpu'}
    """
    return {key: value for key, value in values.items() if key not in _WITHOUT_SUITE}


def read_suite(cfg: DictConfig, overrides: list[str]) -> Suite:
    """The suite of an evaluation.

    Args:
        cfg: the composed config.
        overrides: what the command line says; it may narrow the suite, but name no net or attack
            of its own beside it.

    Raises:
        InputError: another key than a suite has, a value of another type, both a suite and what
            only an evaluation without one has, or attacks at budgets of which there are none.
    """
    for override in overrides:
        key = override.lstrip("+~").split("=")[0]
        if key in _INSTEAD:
            raise InputError(f"{key} has no meaning beside a suite: set {_INSTEAD[key]} instead")
        if key.split(".")[0] in _WITHOUT_SUITE:
            raise InputError(
                f"{key} has no meaning beside a suite, which says for itself what runs: "
                + ", ".join(f"suite.{field.name}" for field in fields(Suite))
            )
    values = plain(cfg.suite)
    if values.get("grid") is None:
        values["grid"] = {}
    known = [field.name for field in fields(Suite)]
    for name in sorted(values.keys() ^ set(known)):
        wrong = "there is no such option" if name in values else "it is missing"
        raise InputError(
            f"suite.{name}: {wrong}; a suite begins with `defaults: [base/suite@_here_, _self_]` "
            f"and says {', '.join(known)}"
        )
    suite: Suite = make({"_target_": f"{__name__}.Suite", **values}, "suite")
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    # By emptying the budgets alone a person leaves these attacks out.
    meant = "suite.fixed_budgets" not in given or "suite.fixed_budget_attacks" in given
    if meant and suite.fixed_budget_attacks and not suite.fixed_budgets:
        raise InputError(
            f"{', '.join(suite.fixed_budget_attacks)} would run at suite.fixed_budgets, of which "
            "there are none; name some, such as suite.fixed_budgets=[24]"
        )
    return suite
