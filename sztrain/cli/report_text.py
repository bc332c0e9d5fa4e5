"""What is said of results, on the screen and at the head of the report."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from sztrain.cli.findings import Finding
from sztrain.cli.suites import Suite
from sztrain.evaluation.attack_names import judged_by
from sztrain.evaluation.record import CHANGES
from sztrain.evaluation.rows import headings_of

_NOT_ON_SCREEN = ("split", "first_sample", "vram_gb", "broken_by", "verdict", *CHANGES)


def screen_title(findings: Sequence[Finding], suite: Suite | None) -> str:
    """What stands above the table on the screen: what is the same in all of its rows."""
    images = _listed(f"{finding.num_samples} images of {finding.source}" for finding in findings)
    if suite is None:
        return f"{judged_by(findings[-1].attack)} on {images}" if findings else ""
    units = {finding.attack.unit for finding in findings}
    counted = f"counted in {units.pop()}" if len(units) == 1 else ""
    return ", ".join(filter(None, [images, counted]))


def screen_headings(rows: Sequence[Mapping[str, Any]], suite: Suite | None) -> dict[str, str]:
    """Columns for the screen, without what is the same in all rows and told elsewhere."""
    left_out = set() if suite is not None else {"attack", "steps", "options", "unit"}
    if suite is not None and suite.unit is not None:
        left_out.add("unit")
    headings: dict[str, str] = {}
    for key, heading in headings_of(rows).items():
        if key not in left_out and key not in _NOT_ON_SCREEN:
            headings[key] = heading
        if key == "median_l0":
            headings["paper_median_l0"] = "paper"
    return headings


def rows_to_read(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, but of what cannot be had one for each reason: a net, or an attack on it."""
    found = [row for row in rows if not row["notes"]]
    at_hand = {row["model"] for row in found}
    missing: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in (row for row in rows if row["notes"]):
        named = ["model", "dataset", "notes", *(["attack"] if row["model"] in at_hand else [])]
        told = {key: row[key] for key in named}
        missing.setdefault(tuple(told.values()), told)
    return [*found, *missing.values()]


def verdicts_on_paper(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every row that stands beside one of the paper."""
    return [
        f"{row['model']}, {row['attack']}, N={row['steps']}: {row['verdict']}"
        for row in rows
        if row["verdict"] and not row["notes"]
    ]


def reasons_of_gaps(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for every reason why something cannot be had."""
    missing: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows_to_read(rows):
        if row["notes"]:
            missing[row["notes"]].append(row)
    return [f"{_what_is_missing(of_it)}: {why}" for why, of_it in missing.items()]


def facts(
    rows: Sequence[Mapping[str, Any]],
    findings: Sequence[Finding],
    labels: Mapping[str, str],
    grid: Mapping[str, Any],
    budgeted: Mapping[str, Sequence[int]],
) -> dict[str, str]:
    """What the figures rest on, for the head of the report.

    Args:
        rows: of the table of results.
        findings: what was found.
        labels: every net's, by its name or path.
        grid: the options that a suite varies, if it does.
        budgeted: the budgets that attacks were given, by what the attacks are.
    """
    verdicts = Counter(
        "not available" if row["notes"] else re.split(r"[:(]", row["verdict"])[0].strip()
        for row in rows
    )
    judges = [
        *(judged_by(finding.attack, finding.steps) for finding in findings),
        *(f"{judge}, given {', '.join(map(str, k))} to spend" for judge, k in budgeted.items()),
    ]
    told = {
        "Nets": _listed(
            label if label == name else f"{label} ({name})"
            for name, label in labels.items()
            if name in {finding.model for finding in findings}
        ),
        "Judged by": f"a grid of {' and '.join(grid)}" if grid else _listed(judges, "; "),
        "Images": _listed(f"{finding.num_samples} of {finding.source}" for finding in findings),
        "Device": _listed(row["device"] for row in rows if not row["notes"]),
        "Versions": f"sztrain {version('sztrain')}, torch {version('torch')}",
        "Beside the paper": ", ".join(
            f"{count} of {len(rows)} {verdict}" for verdict, count in verdicts.items() if verdict
        ),
    }
    return {name: text for name, text in told.items() if text}


def _what_is_missing(rows: Sequence[Mapping[str, Any]]) -> str:
    """The nets of some rows, and the attacks where it is these that cannot be had."""
    nets = _listed(row["model"] for row in rows)
    attacks = _listed(row["attack"] for row in rows if "attack" in row)
    return f"{attacks} on {nets}" if attacks else nets


def _listed(names: Iterable[str], separator: str = ", ") -> str:
    return separator.join(dict.fromkeys(names))
