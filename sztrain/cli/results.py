"""What an evaluation leaves behind: tables, pictures, a report, and a few words on the screen."""

import csv
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
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
from sztrain.cli.report import print_results
from sztrain.cli.resolvers import decisive
from sztrain.cli.suites import Suite
from sztrain.cli.transfer import KeptExamples, transfer_rows
from sztrain.cli.wandb_run import WandbRun
from sztrain.cli.worst_case import WorstCases
from sztrain.errors import SztrainWarning, UnavailableError
from sztrain.evaluation.attack_names import judged_by
from sztrain.evaluation.changes import MEASURES
from sztrain.evaluation.html import Picture, write_report
from sztrain.evaluation.rows import budget_rows, headings_of, paper_row
from sztrain.evaluation.tables import printed_table, write_csv, write_latex, write_markdown
from sztrain.evaluation.transfer import transfer_table
from sztrain.files import write_whole

_NOT_ON_SCREEN = ("split", "first_sample", "vram_gb", "broken_by", "verdict", *MEASURES)

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
        # Tables first: what hours were spent on is on disk, whatever becomes of the pictures.
        drawn = draw_pictures(self._findings, self.suite, self.budgets, self.output_dir)
        pictures = [*drawn, *self._pictures]
        if self.suite is not None and self.suite.loss_terms and self._findings:
            pictures.append(draw_trajectory(self.output_dir))
        labels = file_labels(self._models())
        report = self.output_dir / "report.html"
        write_report(
            report,
            title=title,
            facts=self._facts(labels),
            tables={
                "Results": printed_table(_by_labels(self._rows_to_read(), labels)),
                **self._worst_case.printed(_by_labels(worst_case, labels), whole=True),
                "Fixed budgets": printed_table(
                    _by_labels(self._budget_rows, labels), _BUDGET_HEADINGS
                ),
                "Transfer": transfer_table(_by_labels(transfer, labels)),
            },
            pictures=pictures,
            config=self.config,
        )
        if self.run is not None:
            tables = {
                "results": self.rows,
                "results_fixed_budget": self._budget_rows,
                "transfer": transfer,
                "worst_case": worst_case,
            }
            self.run.finish(tables, self._findings, pictures, report)
        # What cannot be had is told below, in a line for each reason.
        found = _by_labels((row for row in self.rows if not row["notes"]), labels)
        shown = {self._title(): printed_table(found, self._headings())} if found else {}
        shown |= self._worst_case.printed(_by_labels(worst_case, labels), whole=False)
        print_results(shown, [*self._worst_case.remarks(), *self._remarks(transfer)], report)
        self._warn_of_others()
        if not self._findings and not self._budget_rows:
            # Not with status 0, by which a script goes on.
            raise UnavailableError("nothing was measured; the lines above say what is missing")

    def _warn_of_others(self) -> None:
        """Say that the folder holds records of which these tables do not tell."""
        found = {path.stem for path in (self.output_dir / "records").glob("*.csv")}
        others = sorted(found - self._labels)
        if others:
            warnings.warn(
                f"{self.output_dir / 'records'} also holds what an earlier evaluation found "
                f"({', '.join(others)}); the tables beside it tell of this one alone",
                SztrainWarning,
                stacklevel=2,
            )

    def _models(self) -> list[str]:
        """Every net by its name or path, once."""
        return [*dict.fromkeys(row["model"] for row in (*self.rows, *self._budget_rows))]

    def _headings(self) -> dict[str, str]:
        """Columns for the screen, without what is the same in all rows and told elsewhere."""
        left_out = set() if self.suite is not None else {"attack", "steps", "options", "unit"}
        if self.suite is not None and self.suite.unit is not None:
            left_out.add("unit")
        headings: dict[str, str] = {}
        for key, heading in headings_of(self.rows).items():
            if key not in left_out and key not in _NOT_ON_SCREEN:
                headings[key] = heading
            if key == "median_l0":
                headings["paper_median_l0"] = "paper"
        return headings

    def _rows_to_read(self) -> list[dict[str, Any]]:
        """The rows, but of what cannot be had one for each reason: a net, or an attack on it."""
        found = [row for row in self.rows if not row["notes"]]
        at_hand = {row["model"] for row in found}
        missing: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in (row for row in self.rows if row["notes"]):
            named = ["model", "dataset", "notes", *(["attack"] if row["model"] in at_hand else [])]
            told = {key: row[key] for key in named}
            missing.setdefault(tuple(told.values()), told)
        return [*found, *missing.values()]

    def _title(self) -> str:
        found = self._findings
        images = _listed(f"{finding.num_samples} images of {finding.source}" for finding in found)
        if self.suite is None:
            return f"{judged_by(found[-1].attack)} on {images}" if found else ""
        units = {finding.attack.unit for finding in found}
        counted = f"counted in {units.pop()}" if len(units) == 1 else ""
        return ", ".join(filter(None, [images, counted]))

    def _remarks(self, transfer: Sequence[Mapping[str, Any]]) -> list[str]:
        missing: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self._rows_to_read():
            if row["notes"]:
                missing[row["notes"]].append(row)
        verdicts = [
            f"{row['model']}, {row['attack']}, N={row['steps']}: {row['verdict']}"
            for row in self.rows
            if row["verdict"] and not row["notes"]
        ]
        remarks = [f"{_what_is_missing(rows)}: {why}" for why, rows in missing.items()]
        if self.suite is not None and self.suite.transfer and not transfer:
            remarks.append("no transfer: no two nets were attacked on the same samples")
        return verdicts + remarks

    def _facts(self, labels: Mapping[str, str]) -> dict[str, str]:
        """What the figures rest on, for the head of the report."""
        found = self._findings
        verdicts = Counter(
            "not available" if row["notes"] else re.split(r"[:(]", row["verdict"])[0].strip()
            for row in self.rows
        )
        facts = {
            "Nets": _listed(
                label if label == name else f"{label} ({name})"
                for name, label in labels.items()
                if name in {finding.model for finding in found}
            ),
            "Judged by": _listed(
                (judged_by(finding.attack, finding.steps) for finding in found), "; "
            )
            if not self._grid
            else f"a grid of {' and '.join(self._grid)}",
            "Images": _listed(f"{finding.num_samples} of {finding.source}" for finding in found),
            "Device": _listed(row["device"] for row in self.rows if not row["notes"]),
            "Versions": f"sztrain {version('sztrain')}, torch {version('torch')}",
            "Beside the paper": ", ".join(
                f"{count} of {len(self.rows)} {verdict}"
                for verdict, count in verdicts.items()
                if verdict
            ),
        }
        return {name: text for name, text in facts.items() if text}


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


def _what_is_missing(rows: Sequence[Mapping[str, Any]]) -> str:
    """The nets of some rows, and the attacks where it is these that cannot be had."""
    nets = _listed(row["model"] for row in rows)
    attacks = _listed(row["attack"] for row in rows if "attack" in row)
    return f"{attacks} on {nets}" if attacks else nets


def _listed(names: Iterable[str], separator: str = ", ") -> str:
    return separator.join(dict.fromkeys(names))
