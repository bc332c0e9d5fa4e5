"""The trainings of a sweep in one table: what differs, what was reached, by whom it was judged."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sztrain.progress import print_line

FILE = "sweep.csv"
_JUDGE = ("attacks", "num_steps", "num_queries", "num_samples", "unit")


class SweepTable(Callback):
    """Hydra's callback that keeps a row of each training of a sweep, and prints all at its end.

    The row goes into ``sweep.csv`` when its training is done, or has failed, so that a sweep that
    breaks off has the rows until then.
    """

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Keep what a job of a sweep has reached."""
        if config.hydra.mode != RunMode.MULTIRUN or job_return.status == JobStatus.UNKNOWN:
            return
        from sztrain.evaluation.tables import write_csv  # imports torch, as the job has done

        folder, output_dir = Path(config.hydra.sweep.dir), Path(config.output_dir)
        # The monitor by which the checkpoint was chosen; `monitor` is but its default.
        best = OmegaConf.select(config, "callbacks.best") or {}
        row = {
            "run": _name(output_dir, folder),
            "overrides": " ".join(config.hydra.overrides.task),
            "monitor": best.get("monitor", config.monitor),
            "mode": best.get("mode", "max"),
            **_outcome(job_return),
            **verdict_cells(output_dir / "summary.json"),
        }
        path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{FILE}.lock"):  # some launchers run several at once
            known = [one for one in _read(path) if one["run"] != row["run"]]
            write_csv([*known, row], path)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print what is known of the trainings, the best first."""
        print_kept(Path(config.hydra.sweep.dir))


def print_kept(folder: Path) -> None:
    """Print what the folder of a sweep holds of its trainings; nothing where none is done."""
    rows = _read(folder / FILE)
    if rows:
        print_sweep(rows, folder / FILE)


def what_is_kept(folder: Path) -> str:
    """What to say of a sweep that breaks off: its table has the trainings before.

    Example:
        >>> what_is_kept(Path("nowhere"))
        'no run of the sweep has ended, so there is no nowhere/sweep.csv'
    """
    path = folder / FILE
    number = len(_read(path))
    if number == 0:
        return f"no run of the sweep has ended, so there is no {path}"
    return f"{path} has the {f'{number} runs' if number > 1 else 'run'} that ended before"


def _outcome(job_return: JobReturn) -> dict[str, Any]:
    """The score of a training, or why there is none."""
    if job_return.status == JobStatus.COMPLETED:
        return {"score": job_return.return_value, "failed": None}
    error = job_return._return_value  # which the property raises, with a line more on the screen
    return {"score": None, "failed": str(error.args[0] if error.args else error) or repr(error)}


def verdict_cells(path: Path) -> dict[str, Any]:
    """What a ``summary.json`` says, in one row; nothing where there is none.

    Example:
        >>> verdict_cells(Path("nowhere.json"))
        {}
    """
    if not path.is_file():
        return {}
    summary = json.loads(path.read_text(encoding="utf-8"))
    median = summary["median_l0"]
    return {
        "clean_accuracy": summary["clean_accuracy"],
        "median_l0": float("inf") if median is None else median,
        **{f"robust_acc@{k}": accuracy for k, accuracy in summary["robust_accuracy"].items()},
        **{key: summary.get(key) for key in _JUDGE},
        "attacks": "+".join(summary["attacks"]),
        "train_seconds": summary["train_seconds"],
    }


def print_sweep(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Print the table of a sweep, the best first if all trainings were chosen by one figure.

    Args:
        rows: as ``sweep.csv`` has them.
        path: where that is.
    """
    from rich.console import Console

    from sztrain.cli.screen import whole_tables
    from sztrain.evaluation.tables import Cell

    failed = {row["run"]: row["failed"] for row in rows if row.get("failed")}
    chosen_by = {(row["monitor"], row["mode"]) for row in rows}
    is_ranked = len(chosen_by) == 1
    if is_ranked:
        rows = sorted(rows, key=_rank)  # those that failed last
    shared = set.intersection(*(set(row["overrides"].split()) for row in rows))
    budgets = [key for key in rows[0] if key.startswith("robust_acc@")]
    is_judged = any(row.get("clean_accuracy") for row in rows)
    headings = ["run", "what differs", "score"]
    if not is_ranked:
        headings.append("of")
    if is_judged:
        headings += ["clean", "median", *(f"RA{key.partition('@')[2]}" for key in budgets)]
    cells = []
    for row in rows:
        differs = " ".join(word for word in row["overrides"].split() if word not in shared)
        texts = [row["run"], differs, "failed" if row["run"] in failed else _figure(row["score"])]
        if not is_ranked:
            texts.append(row["monitor"])
        if is_judged:
            texts += [_percent(row["clean_accuracy"]), _figure(row["median_l0"])]
            texts += [_percent(row[key]) for key in budgets]
        cells.append([Cell(text) for text in texts])
    monitors = ", ".join(sorted({row["monitor"] or "nothing" for row in rows}))
    console = Console()
    title = f"{len(rows)} training{'' if len(rows) == 1 else 's'}, chosen by {monitors}"
    for table in whole_tables(title, (headings, cells), console.width):
        console.print(table)
    notes = [f"{run} failed: {reason}" for run, reason in failed.items()]
    notes.append("score: the best value of that figure, on validation samples")
    if not is_ranked:
        notes.append("scores of different figures cannot be ranked: in the order of the sweep")
    if is_judged:
        notes.append(f"the other figures, in percent but for the median ℓ0: {_judge(rows)}")
    for line in (*notes, f"The table: {path}"):
        print_line(console, line)


def _judge(rows: Sequence[Mapping[str, str]]) -> str:
    """Whose verdict the figures are, where all trainings had the same."""
    judged = {tuple(row[key] for key in _JUDGE) for row in rows if row["clean_accuracy"]}
    if len(judged) > 1:
        return "verdicts of several kinds, which cannot be compared; the table says which"
    attacks, num_steps, num_queries, num_samples, unit = judged.pop()
    queries = f", num_queries={num_queries}" if num_queries else ""
    return (
        f"the verdict on {num_samples} test images, {attacks}, N={num_steps}{queries}, {unit}; "
        "nothing should be chosen by it"
    )


def _rank(row: Mapping[str, str]) -> float:
    if not row["score"]:
        return float("inf")
    return float(row["score"]) * (1 if row["mode"] == "min" else -1)


def _name(output_dir: Path, folder: Path) -> str:
    """A run by its folder inside of the sweep's, or by the whole path if it is elsewhere."""
    output_dir, folder = output_dir.resolve(), folder.resolve()
    inside = output_dir.is_relative_to(folder)
    return str(output_dir.relative_to(folder) if inside else output_dir)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _figure(cell: str) -> str:
    return f"{float(cell):.4g}".replace("inf", "∞") if cell else ""


def _percent(cell: str) -> str:
    return f"{100 * float(cell):.1f}" if cell else ""
