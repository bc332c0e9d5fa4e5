"""Nets side by side: what all attacks of a suite together leave of each."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sztrain.evaluation.rows import percent
from sztrain.metrics.functional import l0_histogram, mean_l0, median_l0, robust_accuracy
from sztrain.types import Unit


@dataclass(frozen=True, kw_only=True)
class JudgedRun:
    """What one run of an attack found on one net.

    Attributes:
        model: name of the net.
        dataset: name of the data set.
        steps: N of the table that it belongs to.
        unit: what was counted.
        attack: name of the attack; its runs count together.
        budget: that it was run at; ``None``: it looked for the fewest changes.
        num_units: largest l0 possible: features or pixels of a sample.
        l0: of every sample, float ``(N,)``; the same samples in the same order in all runs.
    """

    model: str
    dataset: str
    steps: int
    unit: Unit
    attack: str
    budget: int | None
    num_units: int
    l0: Tensor

    def tells_of(self, budget: int) -> bool:
        """Whether a sample that it left unbroken counts as robust at a budget."""
        return self.budget is None or self.budget >= budget


def worst_case_rows(
    runs: Iterable[JudgedRun], attacks: Sequence[str], budgets: Sequence[int]
) -> list[dict[str, Any]]:
    """Rows of ``worst_case.csv``: one for each net, N and unit, in the order of the runs.

    Args:
        runs: of all nets.
        attacks: names of all attacks that were asked for.
        budgets: budgets k.
    """
    groups: dict[tuple[str, int, Unit], list[JudgedRun]] = defaultdict(list)
    for run in runs:
        groups[run.model, run.steps, run.unit].append(run)
    return [worst_case_row(group, attacks, budgets) for group in groups.values()]


def worst_case_row(
    runs: Sequence[JudgedRun], attacks: Sequence[str], budgets: Sequence[int]
) -> dict[str, Any]:
    """What several attacks together leave of one net, accuracies in percent.

    A sample's l0 is the smallest that any run has found for it, whatever its own budget.
    ``median_l0`` and ``mean_l0`` are empty where no run looked for the fewest changes.
    ``robust_acc_<k>`` is the share of samples without an example within k changes, and
    ``robust_acc_<k>_<attack>`` the same of the runs of one attack alone; empty where none of these
    runs might have made k changes.

    Args:
        runs: all on one net, with one N and one unit.
        attacks: names of the attacks that were asked for; ``notes`` tells of those without a run,
            and of those whose runs stay below one of the budgets.
        budgets: budgets k.

    Example:
        >>> about = {"model": "M1", "dataset": "mnist", "steps": 100, "unit": "features"}
        >>> found = {"sigma_zero": [0.0, 9.0, 30.0], "sparse_rs": [0.0, 50.0, 9.0]}
        >>> runs = [
        ...     JudgedRun(**about, attack=name, budget=None, num_units=784, l0=torch.tensor(l0))
        ...     for name, l0 in found.items()
        ... ]
        >>> row = worst_case_row(runs, ["sigma_zero", "sparse_rs"], budgets=[24])
        >>> row["median_l0"], row["robust_acc_24"]
        (9.0, 0.0)
        >>> round(row["robust_acc_24_sigma_zero"], 2), round(row["robust_acc_24_sparse_rs"], 2)
        (33.33, 33.33)
    """
    of_attack = {name: [run for run in runs if run.attack == name] for name in attacks}
    fewest = _histogram(runs) if any(run.budget is None for run in runs) else None
    row: dict[str, Any] = {
        "model": runs[0].model,
        "dataset": runs[0].dataset,
        "steps": runs[0].steps,
        "unit": runs[0].unit,
        "num_samples": len(runs[0].l0),
        "clean_acc": _robust(runs, 0),
        "median_l0": None if fewest is None else float(median_l0(fewest)),
        "mean_l0": None if fewest is None else float(mean_l0(fewest)),
    }
    row |= {f"robust_acc_{k}": _robust(runs, k) for k in budgets}
    row |= {f"robust_acc_{k}_{a}": _robust(of_attack[a], k) for k in budgets for a in attacks}
    present = [name for name, own in of_attack.items() if own]
    return row | {"attacks": ", ".join(present), "notes": _notes(of_attack, budgets)}


def worst_case_headings(budgets: Iterable[int], attacks: Sequence[str] = ()) -> dict[str, str]:
    """Columns of the printed table, and their headings.

    Args:
        budgets: budgets k.
        attacks: those to show alone, too; there is seldom room for it on a screen.

    Example:
        >>> [*worst_case_headings([24], ["sparse_rs"]).values()][-3:]
        ['RA24', 'RA24 sparse_rs', 'notes']
    """
    headings = {"model": "net", "dataset": "data", "steps": "N", "num_samples": "images"}
    headings |= {"unit": "unit", "clean_acc": "clean", "median_l0": "median", "mean_l0": "mean"}
    budgets = list(budgets)
    headings |= {f"robust_acc_{k}": f"RA{k}" for k in budgets}
    headings |= {f"robust_acc_{k}_{a}": f"RA{k} {a}" for k in budgets for a in attacks}
    return headings | {"notes": "notes"}


def _robust(runs: Sequence[JudgedRun], budget: int) -> float | None:
    """Percent of the samples that all runs left unbroken; ``None`` where that says nothing."""
    if not any(run.tells_of(budget) for run in runs):
        return None
    return percent(float(robust_accuracy(_histogram(runs), budget)), len(runs[0].l0))


def _histogram(runs: Sequence[JudgedRun]) -> Tensor:
    """Of the fewest changes that any of the runs found for each sample."""
    return l0_histogram(torch.stack([run.l0 for run in runs]).amin(dim=0), runs[0].num_units)


def _notes(of_attack: Mapping[str, Sequence[JudgedRun]], budgets: Sequence[int]) -> str:
    """Which attacks say nothing, or nothing about the largest budgets."""
    missing = [name for name, own in of_attack.items() if not own]
    notes = [f"without {', '.join(missing)}"] if missing else []
    for name, own in of_attack.items():
        limits = [run.budget for run in own if run.budget is not None]
        if own and not all(any(run.tells_of(k) for run in own) for k in budgets):
            notes.append(f"{name} only up to k={max(limits)}")
    return "; ".join(notes)
