"""An evaluation in Weights & Biases: tables, curves, examples, and the records as an artifact."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from sztrain.cli.build import make
from sztrain.cli.findings import Finding
from sztrain.evaluation.attack_names import attack_label
from sztrain.evaluation.examples import NUM_SHOWN
from sztrain.evaluation.html import Picture
from sztrain.evaluation.wandb_media import curve_media, example_table, result_table
from sztrain.progress import print_line
from sztrain.types import Unit

_SUMMARY = ("clean_acc", "robust_acc", "asr_10", "asr_50", "asr_inf", "median_l0", "mean_l0")


class WandbRun:
    """One run of W&B that tells what an evaluation found.

    Args:
        run: what ``wandb.init`` gave.
        output_dir: folder of the evaluation.
    """

    def __init__(self, run: Any, output_dir: Path) -> None:
        self._run = run
        self._output_dir = output_dir

    def add(self, row: Mapping[str, Any], finding: Finding) -> None:
        """Tell of a job that is done, while others still run."""
        figures = {f"{finding.label}/{key}": row[key] for key in _SUMMARY}
        # Not of every attack there are all; and a panel cannot draw ∞: half of the samples were
        # never broken, or all of them.
        drawable = {k: v for k, v in figures.items() if v is not None and math.isfinite(v)}
        self._run.summary.update(drawable)
        if finding.examples is not None:
            shown = finding.examples.broken_first(NUM_SHOWN)
            self._run.log({f"examples/{finding.label}": example_table(shown)})

    def finish(
        self,
        tables: Mapping[str, Sequence[Mapping[str, Any]]],
        findings: Sequence[Finding],
        pictures: Sequence[Picture],
        report: Path,
    ) -> None:
        """Log the tables, curves and pictures of the whole, and keep its records.

        Args:
            tables: rows by the name of their file; empty ones are left out.
            findings: of all jobs that ran.
            pictures: all that were drawn.
            report: the page with all of it.
        """
        import wandb

        with report.open(encoding="utf-8") as page:
            logged: dict[str, Any] = {"report": wandb.Html(page)}
        logged |= {name: result_table(rows) for name, rows in tables.items() if rows}
        for key, curves, unit in _curves(findings):
            logged |= curve_media(key, curves, unit)
        for picture in pictures:
            inside = picture.path.relative_to(self._output_dir).with_suffix("")
            if inside.parts[0] != "examples":
                logged[f"pictures/{inside}"] = wandb.Image(picture.path, caption=picture.caption)
        self._run.log(logged)
        artifact = wandb.Artifact("records", type="records")
        for name in (*(f"{table}.csv" for table in tables), "config.yaml"):
            if (self._output_dir / name).is_file():
                artifact.add_file(str(self._output_dir / name))
        records = self._output_dir / "records"
        if records.is_dir():  # else nothing of what was asked for could be had
            artifact.add_dir(str(records), name="records")
        self._run.log_artifact(artifact)


def _curves(findings: Iterable[Finding]) -> Iterator[tuple[str, dict[str, Tensor], Unit]]:
    """Curves that can stand on one chart: of one data set, one number of steps and one unit."""
    groups: dict[tuple[str, int, Unit], dict[str, Tensor]] = defaultdict(dict)
    for finding in findings:
        attack = finding.attack
        place = (finding.dataset, finding.steps, attack.unit)
        name = f"{finding.model} under {attack_label(attack)}"
        groups[place][name] = finding.curve
    for (dataset, steps, unit), curves in groups.items():
        yield f"curves/{dataset}-N={steps}-{unit}", curves, unit


@contextmanager
def ended_run(*, used: bool) -> Iterator[None]:
    """End W&B's run with what happens inside: the next one of a sweep is another.

    Of a run that is kept offline it says how to upload it.

    Args:
        used: whether W&B is used at all.
    """
    if not used:
        yield
        return
    import wandb

    wandb.setup()  # silent from here on; what Lightning asks of it would make it warn
    failed = True
    try:
        yield
        failed = False
    finally:
        run = wandb.run  # of the first process alone
        wandb.finish(exit_code=int(failed))
        if run is not None and run.offline:
            upload = f"The W&B run is offline; to upload it: wandb sync {run.settings.sync_dir}"
            print_line(Console(), upload)


@contextmanager
def evaluation_run(
    node: Mapping[str, Any] | None, config: Mapping[str, Any], output_dir: Path
) -> Iterator[WandbRun | None]:
    """The run of the config node ``logger.wandb``; ``None`` where there is none.

    Args:
        node: the config node.
        config: the whole configuration, as plain containers; the run keeps it.
        output_dir: folder of the evaluation.

    Raises:
        InputError: an option that W&B's logger does not have.
    """
    with ended_run(used=node is not None):
        logger = make(node, "logger.wandb")
        if logger is None:
            yield None
            return
        logger.experiment.config.update(dict(config))
        yield WandbRun(logger.experiment, output_dir)
