"""The keys of a gauge's measurements in a logger; dashboards are built from them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from sztrain.metrics import measure_key
from sztrain.types import UNITS, Unit

Best = Literal["max", "min"]


@dataclass(frozen=True, kw_only=True)
class GaugeKeys:
    """The keys of one stage of a training with a gauge.

    A key that ends in ``_table`` is the table that the chart of the same name is drawn from.

    Args:
        stage: ``val``, the gauge after each validation, or ``test``, the verdict.
        name: of the gauge, where there are several; part of its keys.
        unit: what l0 and the budgets count.
        budgets: budgets k of the gauge.
        probe_budgets: budgets at which a probe was judged; empty: there is none.

    Example:
        >>> keys = GaugeKeys(unit="pixels", budgets=(10,), probe_budgets=(24,))
        >>> keys.median_l0, keys.class_l0, *keys.robust_accs, *keys.worst_accs
        ('val/median_l0_px', 'val/class_l0', 'val/robust_acc_px@10', 'val/robust_acc_worst_px@24')
    """

    stage: str = "val"
    name: str = ""
    unit: Unit = "features"
    budgets: tuple[int, ...]
    probe_budgets: tuple[int, ...] = ()

    @classmethod
    def from_logged(cls, logged: Iterable[str], stage: str = "val") -> "GaugeKeys | None":
        """Recognise the gauge that a run was logged by; ``None``: there was none.

        Of several it is the one without a name, else the first by name.

        Args:
            logged: all keys of the run.
            stage: ``val`` or ``test``.

        Example:
            >>> GaugeKeys.from_logged(["val/median_l0", "val/asr@9", "val/asr@2"]).budgets
            (2, 9)
            >>> GaugeKeys.from_logged(["val/strong/median_l0", "val/strong/asr@2"]).name
            'strong'
        """
        found = set(logged)
        gauges = [
            (match.group(1) or "", unit)
            for unit in UNITS
            for key in found
            if (match := re.fullmatch(_median_of(stage, unit), key))
        ]
        if not gauges:
            return None
        name, unit = min(gauges)  # which are sorted as UNITS are
        bare = cls(stage=stage, name=name, unit=unit, budgets=())
        return replace(
            bare,
            budgets=_budgets(found, bare.measure("asr")),
            probe_budgets=_budgets(found, bare.measure("robust_acc_probe")),
        )

    def key(self, name: str) -> str:
        """The key of what has one name in every stage."""
        place = f"{self.stage}/{self.name}" if self.name else self.stage
        return f"{place}/{name}"

    def measure(self, name: str, budget: int | None = None) -> str:
        """The key of a measure that depends on the unit."""
        return self.key(measure_key(name, self.unit, budget))

    # --- figures, one a measurement ---

    @property
    def clean_acc(self) -> str:
        """Clean accuracy on the gauge's own samples, to lay beside its robust accuracy."""
        return self.key("gauge_clean_acc")

    @property
    def median_l0(self) -> str:
        """Median l0."""
        return self.measure("median_l0")

    @property
    def median_interval(self) -> list[str]:
        """The ends of the median's confidence interval."""
        return [f"{self.median_l0}_low", f"{self.median_l0}_high"]

    @property
    def num_samples(self) -> str:
        """How many samples were attacked."""
        return self.key("num_samples")

    @property
    def mean_l0(self) -> str:
        """Mean l0 over broken samples."""
        return self.measure("mean_l0")

    @property
    def asr_inf(self) -> str:
        """Attack success rate within any budget."""
        return self.key("asr_inf")

    @property
    def robust_accs(self) -> list[str]:
        """Robust accuracy under the gauge's attack at each budget."""
        return [self.measure("robust_acc", k) for k in self.budgets]

    @property
    def asrs(self) -> list[str]:
        """Attack success rate of the gauge's attack at each budget."""
        return [self.measure("asr", k) for k in self.budgets]

    @property
    def probe_accs(self) -> list[str]:
        """Robust accuracy under the probe."""
        return [self.measure("robust_acc_probe", k) for k in self.probe_budgets]

    @property
    def worst_accs(self) -> list[str]:
        """Robust accuracy under both attacks together."""
        return [self.measure("robust_acc_worst", k) for k in self.probe_budgets]

    @property
    def seconds(self) -> list[str]:
        """What the attacks of a measurement took."""
        names = ["attack_seconds", "probe_seconds"] if self.probe_budgets else ["attack_seconds"]
        return [self.key(name) for name in names]

    @property
    def figures(self) -> set[str]:
        """All of them, those that sztrain's methods log included."""
        return {*self.best, *self.median_interval, self.num_samples}

    @property
    def gauged(self) -> set[str]:
        """Those of the gauge alone."""
        return self.figures - {f"{self.stage}/clean_acc", f"{self.stage}/loss"}

    # --- charts, tables and pictures ---

    @property
    def curve(self) -> str:
        """Chart: the robustness curve of each epoch."""
        return self.key("robustness_curve")

    @property
    def l0_histogram(self) -> str:
        """Chart: how many samples were broken at which l0."""
        return self.key("l0_histogram")

    @property
    def class_l0(self) -> str:
        """Chart: median l0 by class."""
        return self.key("class_l0")

    @property
    def places(self) -> str:
        """Picture: how often each position was changed."""
        return self.key("attacked_places")

    @property
    def examples(self) -> str:
        """Table of adversarial images."""
        return self.key("adversarial_examples")

    @property
    def best(self) -> dict[str, Best]:
        """Which end of each figure is the good one, those that sztrain's methods log included."""
        high = [f"{self.stage}/clean_acc", self.clean_acc, self.median_l0, self.mean_l0]
        high += [*self.robust_accs, *self.probe_accs, *self.worst_accs]
        low = [f"{self.stage}/loss", self.asr_inf, *self.asrs, *self.seconds]
        return {**dict.fromkeys(high, "max"), **dict.fromkeys(low, "min")}


def _median_of(stage: str, unit: Unit) -> str:
    """Pattern of the key of a gauge's median, whose group is the gauge's name."""
    return rf"{stage}/(?:([\w.+-]+)/)?{measure_key('median_l0', unit)}"


def _budgets(keys: set[str], name: str) -> tuple[int, ...]:
    matches = (re.fullmatch(rf"{re.escape(name)}@(\d+)", key) for key in keys)
    return tuple(sorted(int(match.group(1)) for match in matches if match))
