"""What an evaluation leaves behind: tables, pictures, and a few words on the screen."""

from collections import defaultdict
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from sztrain.cli.jobs import Job, conclude
from sztrain.cli.report import print_results
from sztrain.cli.suites import Suite
from sztrain.evaluation.figures import robustness_curve_figure, save_figure
from sztrain.evaluation.tables import (
    budget_rows,
    paper_row,
    verdict,
    write_csv,
    write_latex,
    write_markdown,
)
from sztrain.types import Attack

_COLUMNS = [
    ("model", "net"),
    ("steps", "N"),
    ("clean_acc", "clean"),
    ("asr_10", "ASR10"),
    ("asr_50", "ASR50"),
    ("asr_inf", "ASR∞"),
    ("median_l0", "median"),
    ("paper_median_l0", "paper"),
    ("mean_l0", "mean"),
    ("time_s", "t"),
    ("queries_k", "q"),
]


class _About(TypedDict):
    model: str
    dataset: str
    attack: Attack


class Report:
    """Grows with every job that is done; its tables are written each time.

    Args:
        output_dir: folder of the evaluation.
        budgets: budgets to mark in the curves of an evaluation without a suite.
        suite: the suite, if any.
    """

    def __init__(self, output_dir: Path, budgets: list[int], suite: Suite | None) -> None:
        self.output_dir = output_dir
        self.budgets = budgets if suite is None else suite.fixed_budgets
        self.suite = suite
        self.rows: list[dict[str, Any]] = []
        self._budget_rows: list[dict[str, Any]] = []
        self._curves: dict[tuple[str, Attack], dict[str, Tensor]] = defaultdict(dict)
        self._title = ""

    def add(self, job: Job | dict[str, Any], device: str) -> None:
        """Add what was found, or the row of what cannot be had."""
        if isinstance(job, dict):
            self.rows.append(job)
        else:
            self._add_found(job, device)
        write_csv(self.rows, self.output_dir / "results.csv")
        write_markdown(self.rows, self.output_dir / "results.md")
        write_latex(self.rows, self.output_dir / "results.tex")
        if self._budget_rows:
            write_csv(self._budget_rows, self.output_dir / "results_fixed_budget.csv")

    def _add_found(self, job: Job, device: str) -> None:
        measurement, cost = conclude(job)
        about: _About = {"model": job.model, "dataset": job.data.name, "attack": job.attack}
        self.rows.append(
            paper_row(measurement, cost, batch_size=job.batch_size, device=device, **about)
        )
        if self.suite is not None and job.attack.unit == "features":
            self._budget_rows += budget_rows(measurement, cost, self.suite.fixed_budgets, **about)
        name = job.label if self.suite is None else job.model
        self._curves[job.data.name, job.attack][name] = measurement.curve
        self._title = f"{judged_by(job.attack)} on {len(job.samples)} images of {job.data.name}"

    def finish(self) -> None:
        """Draw the curves and print the table."""
        for (dataset, attack), curves in self._curves.items():
            unit = attack.unit
            name = unit if self.suite is None else f"{dataset}-N={attack.num_steps}-{unit}"
            size = min(len(curve) for curve in curves.values()) - 1
            budgets = [k for k in self.budgets if k <= size]
            figure = robustness_curve_figure(curves, unit, budgets=budgets, title=judged_by(attack))
            save_figure(figure, self.output_dir / "curves" / f"{name}.png")
        columns = [column for column in _COLUMNS if self.suite is not None or column[0] != "steps"]
        remarks = [
            f"{row['model']}, {row['attack']}, N={row['steps']}: {row['notes'] or verdict(row)}"
            for row in self.rows
            if row["notes"] or verdict(row)
        ]
        print_results(self.rows, columns, self._title if self.suite is None else "", remarks)


def judged_by(attack: Attack) -> str:
    """The attack that a figure rests on.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> judged_by(SigmaZero(num_steps=100))
        'SigmaZero only, N=100, features'
    """
    return f"{type(attack).__name__} only, N={attack.num_steps}, {attack.unit}"
