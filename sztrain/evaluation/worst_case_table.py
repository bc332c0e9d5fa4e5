"""Nets side by side: what all attacks of a suite together leave of each."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
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
        size: largest l0 possible: features or pixels of a sample.
        l0: of every sample, float ``(N,)``; the same samples in the same order in all runs.
    """

    model: str
    dataset: str
    steps: int
    unit: Unit
    attack: str
    budget: int | None
    size: int
    l0: Tensor


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
    ``robust_acc_<k>_<attack>`` the same of the runs of one attack alone; empty where it has none.

    Args:
        runs: all on one net, with one N and one unit.
        attacks: names of the attacks that were asked for; ``notes`` tells of those without a run.
        budgets: budgets k.

    Example:
        >>> about = {"model": "M1", "dataset": "mnist", "steps": 100, "unit": "features"}
        >>> found = {"sigma_zero": [0.0, 9.0, 30.0], "sparse_rs": [0.0, 50.0, 9.0]}
        >>> runs = [
        ...     JudgedRun(**about, attack=name, budget=None, size=784, l0=torch.tensor(l0))
        ...     for name, l0 in found.items()
        ... ]
        >>> row = worst_case_row(runs, ["sigma_zero", "sparse_rs"], budgets=[24])
        >>> row["median_l0"], row["robust_acc_24"]
        (9.0, 0.0)
        >>> round(row["robust_acc_24_sigma_zero"], 2), round(row["robust_acc_24_sparse_rs"], 2)
        (33.33, 33.33)
    """
    num_samples = len(runs[0].l0)
    of_attack = {name: [run for run in runs if run.attack == name] for name in attacks}
    alone = {name: _histogram(own) for name, own in of_attack.items() if own}
    worst = _histogram(runs)
    assert worst is not None
    fewest = worst if any(run.budget is None for run in runs) else None

    def robust(histogram: Tensor | None, budget: int) -> float | None:
        if histogram is None:
            return None
        return percent(float(robust_accuracy(histogram, budget)), num_samples)

    row: dict[str, Any] = {
        "model": runs[0].model,
        "dataset": runs[0].dataset,
        "steps": runs[0].steps,
        "unit": runs[0].unit,
        "num_samples": num_samples,
        "clean_acc": robust(worst, 0),
        "median_l0": None if fewest is None else float(median_l0(fewest)),
        "mean_l0": None if fewest is None else float(mean_l0(fewest)),
    }
    row |= {f"robust_acc_{k}": robust(worst, k) for k in budgets}
    row |= {f"robust_acc_{k}_{a}": robust(alone.get(a), k) for k in budgets for a in attacks}
    missing = [name for name in attacks if name not in alone]
    notes = f"without {', '.join(missing)}" if missing else ""
    return row | {"attacks": ", ".join(alone), "notes": notes}


def worst_case_headings(budgets: Iterable[int], attacks: Sequence[str] = ()) -> dict[str, str]:
    """Columns of the printed table, and their headings.

    Args:
        budgets: budgets k.
        attacks: those to show alone, too; there is seldom room for it on a screen.

    Example:
        >>> [*worst_case_headings([24], ["sparse_rs"]).values()][-3:]
        ['RA24', 'RA24 sparse_rs', 'notes']
    """
    headings = {"model": "net", "steps": "N", "unit": "unit", "clean_acc": "clean"}
    headings |= {"median_l0": "median", "mean_l0": "mean"}
    budgets = list(budgets)
    headings |= {f"robust_acc_{k}": f"RA{k}" for k in budgets}
    headings |= {f"robust_acc_{k}_{a}": f"RA{k} {a}" for k in budgets for a in attacks}
    return headings | {"notes": "notes"}


def _histogram(runs: Sequence[JudgedRun]) -> Tensor | None:
    """Of the fewest changes that any of the runs found for each sample."""
    if not runs:
        return None
    return l0_histogram(torch.stack([run.l0 for run in runs]).amin(dim=0), runs[0].size)
