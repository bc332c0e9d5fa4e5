"""Rows of results as CSV, Markdown and LaTeX."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sztrain.evaluation.rows import difference, headings_of
from sztrain.files import write_whole


def write_csv(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write rows as CSV, whole or not at all; ∞ is written ``inf``, whole numbers as such.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.csv"
        >>> write_csv([{"model": "M1", "median_l0": float("inf")}], path)
        >>> path.read_text().split()
        ['model,median_l0', 'M1,inf']
    """
    # As objects: beside a cell that is missing, 20 would become 20.0.
    write_whole(path, pd.DataFrame(list(rows), dtype=object).to_csv(index=False))


def write_markdown(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Write rows as a table in Markdown; the paper's figure follows ours in brackets.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.md"
        >>> write_markdown([{"model": "M1", "median_l0": 15.0, "paper_median_l0": 16.0}], path)
        >>> print(path.read_text().strip())
        | net | median |
        |---|---|
        | M1 | 15 (paper 16, -1) |
    """
    headings, body = printed_table(rows)
    table = [headings, *([cell.text("{} (paper {}, {})") for cell in row] for row in body)]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(headings))
    write_whole(path, "\n".join(lines) + "\n")


def write_latex(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    r"""Write rows as a LaTeX table (package booktabs); the paper's figure follows in brackets.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.tex"
        >>> write_latex([{"model": "M_1", "asr_inf": 100.0}], path)
        >>> print(path.read_text().splitlines()[4])
        M\_1 & 100 \\
    """
    headings, body = printed_table(rows)
    lines = [
        f"\\begin{{tabular}}{{ll{'r' * (len(headings) - 2)}}}",
        "\\toprule",
        _latex_line(headings),
        "\\midrule",
        *(_latex_line([cell.text("{} ({}, {})") for cell in row]) for row in body),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    write_whole(path, "\n".join(lines) + "\n")


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "_%&$#{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",  # else a dash
        "[": "{[}",  # at the beginning of a line, else an option of the line before
        "∞": r"$\infty$",
    }
)


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"


class Cell(NamedTuple):
    """A figure of a printed table, and the paper's where there is one."""

    ours: str
    paper: str = ""
    difference: str = ""

    def text(self, beside: str) -> str:
        """The figure alone, or formatted together with the paper's."""
        return beside.format(*self) if self.paper else self.ours


def printed_table(
    rows: Sequence[dict[str, Any]],
    headings: Mapping[str, str] | None = None,
    *,
    keep_unit: bool = False,
) -> tuple[list[str], list[list[Cell]]]:
    """Headings and cells to print.

    Columns that are empty throughout are left out, and where the samples are from if they are the
    first of the test split.

    Args:
        rows: as :func:`sztrain.evaluation.rows.paper_row` makes them.
        headings: heading of each column to print, by its key; ``None``: those of
            :func:`sztrain.evaluation.rows.headings_of`.
        keep_unit: whether to name the unit where it is features throughout, too.

    Example:
        >>> headings, ((_, median),) = printed_table(
        ...     [{"model": "M1", "median_l0": 15.0, "paper_median_l0": 16.0}]
        ... )
        >>> headings, median
        (['net', 'median'], Cell(ours='15', paper='16', difference='-1'))
    """
    headings = headings_of(rows) if headings is None else headings
    rows = [row | {"verdict": row.get("notes") or row.get("verdict")} for row in rows]
    untold: dict[str, Any] = {"split": "test", "first_sample": 0}
    if not keep_unit:
        untold["unit"] = "features"
    keys = [
        key
        for key in headings
        if any(row.get(key) not in (None, "", untold.get(key)) for row in rows)
    ]
    return [headings[key] for key in keys], [
        [_cell(row.get(key), row.get(f"paper_{key}")) for key in keys] for row in rows
    ]


def _cell(ours: Any, printed: Any) -> Cell:
    if not isinstance(ours, float) or printed is None:
        return Cell(digits(ours))
    off = f"{difference(ours, printed):+.3g}".replace("inf", "∞")
    return Cell(digits(ours), digits(printed), off)


def digits(value: Any) -> str:
    """A cell of a printed table: a few digits of a figure, nothing for ``None``.

    Example:
        >>> digits(0.0123), digits(15.0), digits(float("inf")), digits("M1"), digits(None)
        ('0.012', '15', '∞', 'M1', '')
    """
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if value == float("inf"):
        return "∞"
    return f"{value:.2g}" if 0 < abs(value) < 0.1 else f"{value:.2f}".removesuffix(".00")
