"""The worst case of all attacks of a suite, from what its jobs found."""

from collections.abc import Sequence
from typing import Any

from sztrain.cli.findings import Finding
from sztrain.cli.suites import Suite
from sztrain.evaluation.html import Printed
from sztrain.evaluation.tables import printed_table
from sztrain.evaluation.worst_case import (
    JudgedRun,
    worst_case_headings,
    worst_case_rows,
)


class WorstCases:
    """Keeps the l0 of every sample in every run, where a suite asks for the worst case.

    Args:
        suite: the suite, if any.
    """

    def __init__(self, suite: Suite | None) -> None:
        self._suite = suite if suite is not None and suite.worst_case else None
        self._runs: list[JudgedRun] = []

    def add(self, finding: Finding) -> None:
        """Keep what a job found."""
        if self._suite is None:
            return
        self._runs.append(
            JudgedRun(
                model=finding.model,
                dataset=finding.dataset,
                steps=finding.steps,
                unit=finding.attack.unit,
                attack=finding.attack_name,
                budget=finding.attack.budget,
                num_units=len(finding.measurement.curve) - 1,
                l0=finding.l0,
            )
        )

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``worst_case.csv``; none where they are not wanted."""
        if self._suite is None:
            return []
        return worst_case_rows(self._runs, self._suite.all_attacks, self._suite.fixed_budgets)

    def printed(self, rows: Sequence[dict[str, Any]], *, whole: bool) -> dict[str, Printed]:
        """The table to read, by its heading; none where it is not wanted.

        Args:
            rows: as :meth:`rows` gave them.
            whole: with a column for each attack alone, for which a screen seldom has room.
        """
        if self._suite is None or not rows:
            return {}
        attacks = self._suite.all_attacks
        headings = worst_case_headings(self._suite.fixed_budgets, attacks if whole else ())
        return {"Worst case": printed_table(rows, headings, keep_unit=True)}

    def remarks(self) -> list[str]:
        """What the table on the screen rests on, in one line."""
        if self._suite is None or not self._runs:
            return []
        attacks = ", ".join(self._suite.all_attacks)
        return [f"Worst case of {attacks}; RA: robust accuracy in percent"]
