"""What an evaluation leaves behind: tables, pictures, a report, and a few words on the screen."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from sztrain.cli.file_labels import file_labels
from sztrain.cli.findings import Finding, conclude
from sztrain.cli.jobs import Job
from sztrain.cli.pictures import (
    draw_examples,
    draw_explanation,
    draw_pictures,
    draw_run,
    draw_trajectory,
)
from sztrain.cli.report_text import (
    facts,
    reasons_of_gaps,
    rows_to_read,
    screen_headings,
    screen_title,
    verdicts_on_paper,
)
from sztrain.cli.resolvers import decisive
from sztrain.cli.screen import print_results
from sztrain.cli.suites import Suite
from sztrain.cli.transfer import KeptExamples, transfer_rows
from sztrain.cli.wandb_run import WandbRun
from sztrain.cli.worst_case import WorstCases
from sztrain.errors import UnavailableError, warn
from sztrain.evaluation.attack_names import judged_by
from sztrain.evaluation.html import Picture, write_report
from sztrain.evaluation.rows import budget_rows, paper_row
from sztrain.evaluation.tables import printed_table, write_csv, write_latex, write_markdown
from sztrain.evaluation.transfer import transfer_table
from sztrain.files import write_whole
from sztrain.types import Attack

_BUDGET_HEADINGS = {
    "model": "net",
    "attack": "attack",
    "options": "options",
    "steps": "N",
    "unit": "unit",
    "budget": "k",
    "asr": "ASR",
    "time_s": "t",
    "queries_k": "q",
}


# Of another evaluation in the same folder they would tell of other jobs than its tables.
_NOT_OF_EVERY_RUN = ("results_fixed_budget.csv", "transfer.csv", "worst_case.csv")

# What an evaluation may do in another way without becoming another one.
_FREE = ("device", "devices", "logger", "num_nodes", "num_threads", "output_dir")

_OF_NETS = ("model", "source", "target")


class Report:
    """Grows with every job that is done; its tables are written each time.

    Args:
        output_dir: folder of the evaluation.
        config: the composed config, as YAML.
        budgets: budgets to mark in the curves of an evaluation without a suite.
        suite: the suite, if any.
        run: W&B's run, if any.
    """

    def __init__(
        self,
        output_dir: Path,
        config: str,
        budgets: list[int],
        suite: Suite | None,
        run: WandbRun | None,
    ) -> None:
        self.output_dir = output_dir
        self.config = config
        self.budgets = budgets if suite is None else suite.fixed_budgets
        self.suite = suite
        self.run = run
        self._grid: Mapping[str, Any] = {} if suite is None else suite.grid
        self.rows: list[dict[str, Any]] = []
        self._budget_rows: list[dict[str, Any]] = []
        self._findings: list[Finding] = []
        self._budgeted: dict[str, list[int]] = defaultdict(list)
        self._worst_case = WorstCases(suite)
        self._pictures: list[Picture] = []
        self._kept: list[KeptExamples] = []
        self._labels: set[str] = set()
        self._is_repeat = _is_same(output_dir / "config.yaml", config)

    def add(self, job: Job | dict[str, Any]) -> None:
        """Add what was found, or the row of what cannot be had."""
        if isinstance(job, dict):
            self.rows.append(job)
        else:
            self._labels.add(job.label)
            self._add_found(job)
        # Not before: in the folder of another evaluation the job was refused.
        write_whole(self.output_dir / "config.yaml", self.config)
        if not self._is_repeat:
            self._remove_tables()
        if not self._is_repeat or self._has_caught_up():
            self._write_tables()

    def _remove_tables(self) -> None:
        for name in _NOT_OF_EVERY_RUN:
            (self.output_dir / name).unlink(missing_ok=True)

    def _has_caught_up(self) -> bool:
        """Whether this run knows all that the tables of the same evaluation hold by now."""
        tables = {"results.csv": self.rows, "results_fixed_budget.csv": self._budget_rows}
        return all(len(rows) >= _num_rows(self.output_dir / name) for name, rows in tables.items())

    def _write_tables(self) -> None:
        write_csv(self.rows, self.output_dir / "results.csv")
        write_markdown(self.rows, self.output_dir / "results.md")
        write_latex(self.rows, self.output_dir / "results.tex")
        if self._budget_rows:
            write_csv(self._budget_rows, self.output_dir / "results_fixed_budget.csv")

    def _add_found(self, job: Job) -> None:
        finding = conclude(job)
        measured = (finding.measurement, finding.cost, finding)
        if self.suite is not None:
            self._worst_case.add(finding)
            self._budget_rows += budget_rows(*measured, self.suite.fixed_budgets, named=self._grid)
            if finding.attack.budget is not None:
                self._add_budgeted(finding.attack, finding.attack.budget, finding.steps)
                return
        self._findings.append(finding)
        row = paper_row(
            *measured,
            batch_size=finding.batch_size,
            broken_by=finding.broken_by,
            changes=finding.changes,
            named=self._grid,
            # A suite has tables of its own for them.
            budgets=self.budgets if self.suite is None else (),
        )
        self.rows.append(row)
        if not self._grid:  # a grid would fill the page with them
            self._pictures += draw_examples(finding, self.output_dir)
        if self.suite is not None and self.suite.loss_terms:
            self._pictures += draw_run(job, finding, self.output_dir)
        if job.explained:
            self._pictures += draw_explanation(job, finding, self.output_dir)
        if job.keeps_adv_inputs:
            self._kept.append(KeptExamples.of(job))
        if self.run is not None:
            self.run.add(row, finding)

    def _add_budgeted(self, attack: Attack, budget: int, steps: int) -> None:
        """Take down who tried at which budget, on whatever net."""
        budgets = self._budgeted[judged_by(replace(attack, budget=None), steps)]
        if budget not in budgets:
            budgets.append(budget)

    def finish(self, title: str) -> None:
        """Draw the pictures, write the report under this heading and print the table.

        Raises:
            UnavailableError: nothing of what was asked for could be had.
        """
        self._remove_tables()  # an earlier run may have had some that this one has not
        self._write_tables()
        transfer = transfer_rows(self._kept, named=self._grid)
        if transfer:
            write_csv(transfer, self.output_dir / "transfer.csv")
        worst_case = self._worst_case.rows()
        if worst_case:
            write_csv(worst_case, self.output_dir / "worst_case.csv")
        tables = {
            "results": self.rows,
            "results_fixed_budget": self._budget_rows,
            "transfer": transfer,
            "worst_case": worst_case,
        }
        # Tables first: what hours were spent on is on disk, whatever becomes of the pictures.
        pictures = self._draw()
        labels = file_labels(self._models())
        to_read = {name: _by_labels(rows, labels) for name, rows in tables.items()}
        page = self.output_dir / "report.html"
        write_report(
            page,
            title=title,
            facts=facts(self.rows, self._findings, labels, self._grid, self._budgeted),
            tables={
                "Results": printed_table(rows_to_read(to_read["results"])),
                **self._worst_case.printed(to_read["worst_case"], whole=True),
                "Fixed budgets": printed_table(to_read["results_fixed_budget"], _BUDGET_HEADINGS),
                "Transfer": transfer_table(to_read["transfer"]),
            },
            pictures=pictures,
            config=self.config,
        )
        if self.run is not None:
            self.run.finish(tables, self._findings, pictures, page)
        self._print(to_read, page)
        self._warn_of_others()
        if not self._findings and not self._budget_rows:
            # Not with status 0, by which a script goes on.
            raise UnavailableError("nothing was measured; the lines above say what is missing")

    def _draw(self) -> list[Picture]:
        """The pictures of all nets together, and then those drawn on the way."""
        drawn = draw_pictures(self._findings, self.suite, self.budgets, self.output_dir)
        pictures = [*drawn, *self._pictures]
        if self.suite is not None and self.suite.loss_terms and self._findings:
            pictures.append(draw_trajectory(self.output_dir))
        return pictures

    def _print(self, to_read: Mapping[str, list[dict[str, Any]]], page: Path) -> None:
        # What cannot be had is told below, in a line for each reason.
        found = [row for row in to_read["results"] if not row["notes"]]
        title = screen_title(self._findings, self.suite)
        headings = screen_headings(self.rows, self.suite)
        shown = {title: printed_table(found, headings)} if found else {}
        shown |= self._worst_case.printed(to_read["worst_case"], whole=False)
        remarks = [
            *self._worst_case.remarks(),
            *verdicts_on_paper(self.rows),
            *reasons_of_gaps(self.rows),
        ]
        if self.suite is not None and self.suite.transfer and not to_read["transfer"]:
            remarks.append("no transfer: no two nets were attacked on the same samples")
        print_results(shown, remarks, page)

    def _warn_of_others(self) -> None:
        """Say that the folder holds records of which these tables do not tell."""
        found = {path.stem for path in (self.output_dir / "records").glob("*.csv")}
        others = sorted(found - self._labels)
        if others:
            warn(
                f"{self.output_dir / 'records'} also holds what an earlier evaluation found "
                f"({', '.join(others)}); the tables beside it tell of this one alone"
            )

    def _models(self) -> list[str]:
        """Every net by its name or path, once."""
        return [*dict.fromkeys(row["model"] for row in (*self.rows, *self._budget_rows))]


def _is_same(path: Path, config_now: str) -> bool:
    """Whether the file holds the config of the same evaluation."""
    try:
        before = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError):  # none, or damaged
        return False
    now = OmegaConf.to_container(OmegaConf.create(config_now))
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return False
    for config in (before, now):
        config["data"] = decisive(config.get("data") or {})
    differing = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    return differing <= set(_FREE)


def _num_rows(path: Path) -> int:
    """Rows of a table; 0 where there is none that can be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.DictReader(file))
    except (OSError, ValueError, csv.Error):  # it is written anew
        return 0


def _by_labels(rows: Iterable[dict[str, Any]], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows to read, in which there is no room for paths."""
    return [row | {key: labels[row[key]] for key in _OF_NETS if key in row} for row in rows]
