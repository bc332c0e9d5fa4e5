"""What a run says to the person in front of it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sztrain.evaluation.html import Printed
from sztrain.evaluation.tables import digits
from sztrain.progress import print_line

_LEGEND = (
    "clean accuracy and ASR in percent, median and mean of ℓ0, "
    "t in seconds and q in thousands of passes a sample"
)


_FAR = 0.2  # clean accuracy by which the last epoch may exceed the best one


def print_verdict(summary: dict[str, Any], output_dir: Path) -> None:
    """Print the verdict of a training run as a small table.

    Args:
        summary: as :func:`sztrain.evaluation.summary.training_summary` made it.
        output_dir: where the run left its files.
    """
    unit = summary["unit"]
    names, steps = summary["attacks"], f"N={summary['num_steps']}"
    if "num_queries" in summary:
        steps += f", num_queries={summary['num_queries']}"
    judged = f"{names[0]}, {steps} only"
    if len(names) > 1:
        judged = f"worst case of {', '.join(names)}, {steps}"
    table = Table(title=f"Verdict on {summary['num_samples']} test images ({judged})")
    table.add_column("measure")
    table.add_column(summary["method"], justify="right")
    table.add_row("clean accuracy (all images)", _percent(summary["clean_accuracy"]))
    table.add_row(f"median ℓ0 ({unit})", _number(summary["median_l0"]))
    table.add_row(f"mean ℓ0 ({unit})", _number(summary["mean_l0"]))
    for budget, accuracy in summary["robust_accuracy"].items():
        table.add_row(f"robust accuracy at {budget} {unit}", _percent(accuracy))
    table.add_row("attack success without a budget", _percent(summary["asr_inf"]))
    if summary["best_epoch"] is not None:
        counted = f"best epoch (of 0 to {summary['epochs'] - 1})"
        table.add_row(counted, str(summary["best_epoch"]))
    table.add_row("training time", _seconds(summary["train_seconds"]))
    table.add_row("  of it the adversary", _seconds(summary["attack_seconds"]))
    table.add_row("time of this verdict", _seconds(summary["verdict_seconds"]))
    console = Console()
    console.print(table)
    if summary["last"] is not None:
        console.print(_last_epoch(summary["last"], unit), soft_wrap=True)
        if summary["last"]["clean_accuracy"] > summary["clean_accuracy"] + _FAR:
            console.print(
                "The best is a net that has hardly learnt yet, and so has little to lose: train "
                "longer, or choose by another figure (monitor=val/clean_acc)",
                soft_wrap=True,
            )
    console.print(f"Figures, pictures and checkpoints: {output_dir}", soft_wrap=True, markup=False)


def print_without_verdict(clean_accuracy: float | None, output_dir: Path) -> None:
    """Print where a training left its files, where no gauge has judged it.

    Args:
        clean_accuracy: on the test images; ``None``: it was not tested.
        output_dir: where the run left its files.
    """
    console = Console()
    if clean_accuracy is not None:
        console.print(
            f"Clean accuracy on the test images {_percent(clean_accuracy)}; no verdict on its "
            "robustness was taken (callbacks.gauge.verdict)",
            soft_wrap=True,
        )
    console.print(f"Figures and checkpoints: {output_dir}", soft_wrap=True, markup=False)


def _last_epoch(last: Mapping[str, Any], unit: str) -> str:
    robust = ", ".join(f"{_percent(a)} at {k}" for k, a in last["robust_accuracy"].items())
    return (
        f"The last epoch instead of the best, on {last['num_samples']} test images: "
        f"clean accuracy {_percent(last['clean_accuracy'])} (all images), "
        f"robust accuracy {robust} {unit}"
    )


_FIGURE = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|[-+]?∞")
_KEYS = ("N", "k")  # figures that say which row it is
_WIDEST = 0.2  # share of the screen that a word may take, such as a path, before it is broken


def whole_tables(title: str, printed: Printed, width: int) -> list[Table]:
    """A table with everything in it whole: words over several lines, figures on one.

    Where not all figures have room beside the words, the words stand again beside the others, and
    so do figures that tell rows apart.

    Args:
        title: what stands above it.
        printed: headings and cells.
        width: of the screen, in letters.
    """
    headings, body = printed
    columns = [
        [heading, *(row[place].ours for row in body)] for place, heading in enumerate(headings)
    ]
    words = [
        place
        for place, column in enumerate(columns)
        if not _in_figures(column) or (column[0] in _KEYS and len(set(column[1:])) > 1)
    ]
    room = left = width - sum(_needed(columns[place], width) + 1 for place in words) - 1
    parts: list[set[int]] = [set(words)]
    for place in (place for place in range(len(columns)) if place not in words):
        needed = max(map(len, columns[place])) + 1
        if needed > left and parts[-1] > set(words):
            parts.append(set(words))
            left = room
        parts[-1].add(place)
        left -= needed
    titles = [title, *[None] * (len(parts) - 1)]
    return [
        _table(name, [columns[place] for place in sorted(part)], width)
        for name, part in zip(titles, parts, strict=True)
    ]


def _in_figures(column: Sequence[str]) -> bool:
    return all(not cell or _FIGURE.fullmatch(cell) for cell in column[1:])


def _needed(column: Sequence[str], width: int) -> int:
    """Letters that a column takes at least: its figures, or its longest word."""
    if _in_figures(column):
        return max(map(len, column))
    words = [word for text in column for word in text.split()]
    return min(max(map(len, words), default=0), max(4, int(_WIDEST * width)))


def _table(title: str | None, columns: Sequence[Sequence[str]], width: int) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=0)
    needed = [_needed(column, width) for column in columns]
    roomy = sum(needed) + len(needed) < width
    for column, least in zip(columns, needed, strict=True):
        table.add_column(
            column[0],
            justify="right",
            overflow="fold",
            no_wrap=roomy and _in_figures(column),
            min_width=least if roomy else None,
        )
    for row in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*map(Text, row))  # as it is: [x] in a path is no markup
    return table


_AT_BUDGET = re.compile(r"RA\d+")


def print_results(tables: Mapping[str, Printed], remarks: Sequence[str], report: Path) -> None:
    """Print tables of results.

    Args:
        tables: headings and cells, the results first; by the title above each.
        remarks: lines below the tables.
        report: the page that shows more.
    """
    console = Console()
    for title, printed in tables.items():
        for table in whole_tables(title, printed, console.width):
            console.print(table)
    if tables:
        console.print(_LEGEND)  # no caption: a narrow table would squeeze it
    if any("RA" in headings for headings, _ in tables.values()):
        console.print("RA: robust accuracy in percent, when at most k values may change")
    at_budgets = [h for headings, _ in tables.values() for h in headings if _AT_BUDGET.fullmatch(h)]
    for first in at_budgets[:1]:
        budget = first.removeprefix("RA")
        console.print(f"{first}: robust accuracy in percent, when at most {budget} may change, ...")
    for remark in remarks:
        print_line(console, remark)
    if not tables:
        return
    console.print(
        f"Tables, curves and examples on one page: {report}", soft_wrap=True, markup=False
    )


def _number(value: float | None) -> str:
    return digits(float("inf") if value is None else value)


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
