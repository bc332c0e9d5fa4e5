"""The pictures of an evaluation, drawn from what its jobs found."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from sztrain.cli.jobs import Finding
from sztrain.cli.suites import Suite
from sztrain.evaluation.figures import (
    adversarial_examples_figure,
    robustness_curve_figure,
    save_figure,
)
from sztrain.evaluation.html import Picture
from sztrain.evaluation.rows import attack_label
from sztrain.types import Unit


def draw_examples(finding: Finding) -> list[Picture]:
    """Adversarial examples of one job, where the images can be drawn."""
    if finding.examples is None:
        return []
    job = finding.job
    figure = adversarial_examples_figure(finding.examples, job.attack.unit)
    caption = f"{job.model} under {attack_label(job.attack)}, N={job.attack.num_steps}"
    path = job.output_dir / "examples" / f"{job.label}.png"
    return [_saved(figure, path, "Examples", caption)]


def draw_pictures(
    findings: Sequence[Finding], suite: Suite | None, budgets: list[int], output_dir: Path
) -> list[Picture]:
    """Everything that shows several jobs together.

    Args:
        findings: of all jobs that ran.
        suite: the suite, if any.
        budgets: budgets to mark in the curves.
        output_dir: folder of the evaluation.
    """
    if suite is not None and suite.grid:
        return []
    return [
        *_curves_of_nets(findings, suite, budgets, output_dir),
        *_curves_of_attacks(findings, budgets, output_dir),
    ]


def _curves_of_nets(
    findings: Iterable[Finding], suite: Suite | None, budgets: list[int], output_dir: Path
) -> Iterator[Picture]:
    """One picture for each attack, with a curve for each net."""
    groups = _grouped(findings, lambda f: (f.job.selection.data.name, f.job.attack))
    for group in groups:
        job = group[0].job
        attack, dataset = attack_label(job.attack), job.selection.data.name
        steps, unit = job.attack.num_steps, job.attack.unit
        name = unit if suite is None else f"{dataset}-{attack}-N={steps}-{unit}"
        curves = {f.job.label if suite is None else f.job.model: f.measurement.curve for f in group}
        title = f"{attack} only, N={steps}, {dataset}"
        yield _curve_picture(curves, unit, budgets, title, output_dir / "curves" / name)


def _curves_of_attacks(
    findings: Iterable[Finding], budgets: list[int], output_dir: Path
) -> Iterator[Picture]:
    """One picture for each net that several attacks tried, with a curve for each attack."""
    groups = _grouped(findings, lambda f: (f.job.model, f.job.attack.num_steps, f.job.attack.unit))
    for group in groups:
        if len(group) < 2:
            continue
        job = group[0].job
        steps, unit = job.attack.num_steps, job.attack.unit
        curves = {attack_label(f.job.attack): f.measurement.curve for f in group}
        title = f"{job.model}, N={steps}, {job.selection.data.name}"
        path = output_dir / "curves" / f"{job.model}-N={steps}-{unit}"
        yield _curve_picture(curves, unit, budgets, title, path)


def _grouped(
    findings: Iterable[Finding], key: Callable[[Finding], Hashable]
) -> Iterable[list[Finding]]:
    groups: dict[Hashable, list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[key(finding)].append(finding)
    return groups.values()


def _curve_picture(
    curves: Mapping[str, Tensor], unit: Unit, budgets: Iterable[int], title: str, path: Path
) -> Picture:
    size = min(len(curve) for curve in curves.values()) - 1
    marked = [k for k in budgets if k <= size]
    figure = robustness_curve_figure(curves, unit, budgets=marked, title=title)
    return _saved(figure, path, "Robustness curves", title)


def _saved(figure: Figure, path: Path, section: str, caption: str) -> Picture:
    name = re.sub(r"[^\w.=+-]+", "_", path.name).removesuffix(".png")
    return Picture(section, caption, save_figure(figure, path.with_name(f"{name}.png")))
