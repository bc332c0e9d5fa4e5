"""What a row of results is about, and the paper's row that it may be compared with."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sztrain.evaluation.attack_names import changed_options, describe_options, paper_name
from sztrain.evaluation.published import (
    PublishedBudgetRow,
    PublishedRow,
    find_budget_row,
    find_row,
)
from sztrain.types import Attack

# How an attack is run, not what it looks for: the paper's figures may stand beside ours.
_IMMATERIAL = ("num_steps", "seed", "batch_size", "recheck", "autocast", "cuda_graph")

# Steps that the paper grants an attack for each of N, where that is not 1; and at a fixed budget,
# for those that it runs at each, while of others it reads all budgets off one run.
_STEPS_PER_N = {"Sparse-RS": 4}
_STEPS_PER_N_AT_BUDGET = {"PGD-l0": 1, "Sparse-RS": 2}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A net, an attack and the samples that it attacks.

    Attributes:
        model: the net's name.
        dataset: name of the data set.
        attack: the attack.
        steps: N of the table that the row belongs to; some attacks take several steps for each.
        split: of the data set, from which the samples are.
        first_sample: where in the split they begin.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> setting = Setting(model="M1", dataset="mnist", attack=SigmaZero(), steps=1000)
        >>> setting.published_row().median_l0, setting.published_budget_row(24).asr
        (16.0, 83.79)
    """

    model: str
    dataset: str
    attack: Attack
    steps: int
    split: str = "test"
    first_sample: int = 0

    def cells(self, named: Collection[str] = ()) -> dict[str, Any]:
        """Its columns.

        Args:
            named: options to name at their defaults, too, as those of a grid.
        """
        return {
            "dataset": self.dataset,
            "model": self.model,
            "steps": self.steps,
            "attack": paper_name(self.attack),
            "split": self.split,
            "first_sample": self.first_sample,
            "num_steps": self.attack.num_steps,
            "options": describe_options(self.attack, named),
        }

    def published_row(self) -> PublishedRow | None:
        """The paper's row of a minimal-norm attack that was run as in the paper."""
        name = paper_name(self.attack)
        if self.attack.budget is not None or not self._is_as_in_paper(_STEPS_PER_N.get(name, 1)):
            return None
        published = find_row(self.model, name, self.steps)
        return published if published and published.dataset == self.dataset else None

    def published_budget_row(self, budget: int) -> PublishedBudgetRow | None:
        """The paper's row of this budget, where the attack was run as the paper ran it for it."""
        name = paper_name(self.attack)
        if self.attack.budget is None and name in _STEPS_PER_N_AT_BUDGET:
            return None
        if not self._is_as_in_paper(_STEPS_PER_N_AT_BUDGET.get(name, 1)):
            return None
        return find_budget_row(self.dataset, self.model, name, self.steps, budget)

    def _is_as_in_paper(self, steps_per_n: int) -> bool:
        changed = changed_options(self.attack).keys() - {"budget", *_IMMATERIAL}
        granted = self.attack.num_steps == self.steps * steps_per_n
        return self.split == "test" and granted and not changed
