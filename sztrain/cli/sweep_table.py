"""The trainings of a sweep in one table: what differs, what was reached, where it lies."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

FILE = "sweep.csv"


class SweepTable(Callback):
    """Hydra's callback that adds a row to ``sweep.csv`` after each job, and prints all at the end.

    A sweep that ends before its last job has the rows of those that are done.

    Example:
        >>> SweepTable().on_multirun_end  # doctest: +ELLIPSIS
        <bound method SweepTable.on_multirun_end of ...>
    """

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Keep what a job of a sweep has reached."""
        if config.hydra.mode != RunMode.MULTIRUN or job_return.status != JobStatus.COMPLETED:
            return
        from sztrain.evaluation.tables import write_csv  # imports torch, as the job has done

        path = Path(config.hydra.sweep.dir) / FILE
        row = sweep_row(
            Path(config.hydra.runtime.output_dir),
            overrides=config.hydra.overrides.task,
            monitor=config.monitor,
            score=job_return.return_value,
        )
        write_csv([*_read(path), row], path)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the rows of all jobs, the best first."""
        path = Path(config.hydra.sweep.dir) / FILE
        rows = _read(path)
        if rows:
            print_sweep(rows, path)


def sweep_row(
    output_dir: Path, *, overrides: Sequence[str], monitor: str | None, score: float | None
) -> dict[str, Any]:
    """What a training has reached.

    Args:
        output_dir: its folder, where ``summary.json`` holds the verdict if there is one.
        overrides: its arguments.
        monitor: the figure on validation samples that chose its checkpoint.
        score: the best value of it.

    Example:
        >>> row = sweep_row(Path("nowhere/3"), overrides=["seed=1"], monitor="val/loss", score=0.5)
        >>> row["run"], row["overrides"], row["score"], row["clean_accuracy"]
        ('3', 'seed=1', 0.5, None)
    """
    path = output_dir / "summary.json"
    summary = json.loads(path.read_text()) if path.is_file() else {}
    robust = {
        f"robust_acc@{budget}": accuracy
        for budget, accuracy in summary.get("robust_accuracy", {}).items()
    }
    if "median_l0" in summary:  # None: half of the samples were never broken
        summary["median_l0"] = float(
            "inf" if summary["median_l0"] is None else summary["median_l0"]
        )
    figures = ("clean_accuracy", "median_l0", "unit", "train_seconds")
    return {
        "run": output_dir.name,
        "overrides": " ".join(overrides),
        "monitor": monitor,
        "score": score,
        **{key: summary.get(key) for key in figures},
        **robust,
    }


def print_sweep(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Print the table of a sweep.

    Trainings are to be compared by the score, which is of validation samples; the other figures
    are of the test split, on which nothing should be chosen. The best stands first, unless
    several figures were monitored.

    Args:
        rows: as ``sweep.csv`` has them.
        path: where that is.
    """
    monitors = {row["monitor"] for row in rows}
    if len(monitors) == 1:
        rows = sorted(rows, key=lambda row: -float(row["score"] or "-inf"))
    shared = set.intersection(*(set(row["overrides"].split()) for row in rows))
    budgets = [key for key in rows[0] if key.startswith("robust_acc@")]
    at = " / ".join(key.partition("@")[2] for key in budgets)
    table = Table(title=f"{len(rows)} trainings by {', '.join(sorted(monitors))}")
    table.add_column("run")
    table.add_column("what differs")
    for heading in ("score", "clean", "median ℓ0", f"robust at {at}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        differs = [word for word in row["overrides"].split() if word not in shared]
        table.add_row(
            *(row["run"], " ".join(differs)),
            *(_short(row["score"]), _percent(row["clean_accuracy"]), _short(row["median_l0"])),
            " / ".join(_percent(row[key]) for key in budgets),
        )
    console = Console()
    console.print(table)
    note = (
        "score: its best value, on validation samples; the rest is the verdict, on the test split, "
        "in percent"
    )
    for line in (note, f"The table: {path}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _short(cell: str) -> str:
    return f"{float(cell):.4g}".replace("inf", "∞") if cell else ""


def _percent(cell: str) -> str:
    return f"{100 * float(cell):.1f}" if cell else ""
