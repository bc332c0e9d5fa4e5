"""The pictures of an evaluation, drawn from what its jobs found."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor, nn

from sztrain.attacks import SigmaZero
from sztrain.cli.findings import Finding
from sztrain.cli.jobs import Job
from sztrain.cli.suites import Suite
from sztrain.evaluation.attack_names import attack_label, describe_options, paper_name
from sztrain.evaluation.examples import NUM_SHOWN, Examples, side_by_side
from sztrain.evaluation.explanation import label_noise
from sztrain.evaluation.figures import (
    AblationCell,
    ablation_figure,
    adversarial_examples_figure,
    attack_grid_figure,
    explanation_figure,
    loss_terms_figure,
    moments_figure,
    robustness_curve_figure,
    save_figure,
    trajectory_figure,
)
from sztrain.evaluation.html import Picture
from sztrain.evaluation.identity import attack_key
from sztrain.evaluation.toy import toy_problem
from sztrain.evaluation.trace import trace_attack
from sztrain.metrics import measure_key
from sztrain.types import Ensemble

_RUNS = "Runs step by step"
_EXPLAINED = "What the changes do"
_SIDE_BY_SIDE = "Examples side by side"
_SEARCHED = "searching for the fewest changes; at a given budget an attack may find more"
_SPENT = "which it may spend on any image; at smaller ones it may find more"


def draw_examples(finding: Finding, output_dir: Path) -> list[Picture]:
    """Adversarial examples of one job, where the images can be drawn."""
    if finding.examples is None:
        return []
    attack = finding.attack
    shown = finding.examples.broken_first(NUM_SHOWN)
    figure = adversarial_examples_figure(shown, attack.unit, max_examples=NUM_SHOWN)
    caption = f"{finding.model} under {attack_label(attack)}, N={finding.steps}"
    return [_saved(figure, output_dir / "examples", finding.label, "Examples", caption)]


def draw_run(job: Job, finding: Finding, output_dir: Path) -> list[Picture]:
    """One run of σ-zero, step by step; nothing for other attacks.

    It is that on an image that was broken, if there is one. What was drawn of these very records
    is not run again.
    """
    if not isinstance(job.attack, SigmaZero) or job.attack.autocast or job.attack.cuda_graph:
        return []
    caption = f"σ-zero on one image, {job.model}, N={job.steps}"
    terms, moments = (
        Picture(_RUNS, caption, output_dir / "runs" / f"{job.label}-{name}.png")
        for name in ("loss_terms", "moments")
    )
    drawn = job.records.precede(terms.path) and job.records.precede(moments.path)
    if finding.examples is not None and not drawn:
        _draw_run(job.net, job.attack, finding.examples, terms.path, moments.path)
    return [picture for picture in (terms, moments) if picture.path.is_file()]


def _draw_run(
    net: nn.Module, attack: SigmaZero, examples: Examples, terms: Path, moments: Path
) -> None:
    for path in (terms, moments):
        path.unlink(missing_ok=True)  # of other records; not every run has something to draw
    device = next(net.parameters()).device
    one = examples.broken_first(1)
    trace = trace_attack(net, attack, one.inputs.to(device), one.labels.to(device))
    if trace.l0.any():  # else the net is wrong from the start
        save_figure(loss_terms_figure(trace), terms)
    if trace.l0.any() and trace.improvements:
        save_figure(moments_figure(trace), moments)


def draw_explanation(job: Job, finding: Finding, output_dir: Path) -> list[Picture]:
    """What the changes of a job's examples do; nothing where none of them was broken by a change.

    What was drawn of these very records is not worked out again.
    """
    caption = f"{finding.model} under {attack_label(finding.attack)}, N={finding.steps}"
    path = output_dir / "explanations" / f"{finding.label}.png"
    examples = finding.examples
    if examples is not None and not job.records.precede(path):
        path.unlink(missing_ok=True)
        broken = examples.at(examples.broken)
        if len(broken.labels) > 0:
            save_figure(_explanation(job.net, broken.broken_first(NUM_SHOWN)), path)
    return [Picture(_EXPLAINED, caption, path)] if path.is_file() else []


def _explanation(net: nn.Module, examples: Examples) -> Figure:
    device = next(net.parameters()).device
    inputs, adv_inputs, labels = (
        values.to(device) for values in (examples.inputs, examples.adv_inputs, examples.labels)
    )
    kinds = label_noise(net, inputs, adv_inputs, labels)
    return explanation_figure(examples.inputs, kinds, examples.labels, examples.adv_predictions)


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
    if suite is not None and set(suite.grid) == {"sigma", "tau"}:
        return [*_ablations(findings, output_dir)]
    if suite is not None and suite.grid:  # a picture for each of its attacks would fill the page
        return [*_curves_of_attacks(findings, budgets, output_dir, named=suite.grid)]
    return [
        *_curves_of_nets(findings, suite, budgets, output_dir),
        *_curves_of_attacks(findings, budgets, output_dir),
        *_attack_grids(findings, output_dir),
    ]


def _curves_of_nets(
    findings: Iterable[Finding], suite: Suite | None, budgets: list[int], output_dir: Path
) -> Iterator[Picture]:
    """One picture for each attack, with a curve for each net."""
    for group in _grouped(findings, _run_of):
        attack, dataset = group[0].attack, group[0].dataset
        label = attack_label(attack)
        name = f"{dataset}-{label}-N={group[0].steps}-{attack.unit}"
        curves = {finding.net_label: finding.curve for finding in group}
        alone = "" if isinstance(attack, Ensemble) else " only"
        title = f"{label}{alone}, N={group[0].steps}, {dataset}"
        marked = budgets if attack.budget is None else [attack.budget]
        figure = robustness_curve_figure(curves, attack.unit, _fitting(marked, curves), title)
        place = attack.unit if suite is None else name
        budget = attack.budget
        rests_on = _SEARCHED if budget is None else f"within its budget of {budget}, {_SPENT}"
        caption = f"{title}, {rests_on}"
        yield _saved(figure, output_dir / "curves", place, "Robustness curves", caption)


def _curves_of_attacks(
    findings: Iterable[Finding],
    budgets: list[int],
    output_dir: Path,
    named: Collection[str] = (),
) -> Iterator[Picture]:
    """One picture for each net that several attacks tried, with a curve for each attack."""
    for group in _by_net(findings):
        attack, net = group[0].attack, group[0].net_label
        curves = {name: one.curve for name, one in _named(group, named)}
        title = f"{net} on {group[0].dataset}, N={group[0].steps}"
        figure = robustness_curve_figure(
            curves, attack.unit, _fitting(budgets, curves), title, measure="asr", scale="log"
        )
        name = f"{net}-N={group[0].steps}-{attack.unit}"
        caption = f"{title}, {_SEARCHED}"
        yield _saved(figure, output_dir / "curves", name, "Attacks compared", caption)


def _attack_grids(findings: Iterable[Finding], output_dir: Path) -> Iterator[Picture]:
    """One picture for each net that several attacks tried, with a row for each attack."""
    for group in _by_net(findings):
        attack, net = group[0].attack, group[0].net_label
        examples = {name: one.examples for name, one in _named(group) if one.examples is not None}
        shared = side_by_side(examples, NUM_SHOWN) if examples else {}
        if not shared:
            continue
        title = f"{net} on {group[0].dataset}, N={group[0].steps}"
        figure = attack_grid_figure(shared, attack.unit, title=title)
        name = f"{net}-N={group[0].steps}-{attack.unit}"
        yield _saved(figure, output_dir / "examples", name, _SIDE_BY_SIDE, title)


def _ablations(findings: Iterable[Finding], output_dir: Path) -> Iterator[Picture]:
    """One picture for each number of steps and other options, over a grid as that of Fig. 4."""
    findings = [finding for finding in findings if isinstance(finding.attack, SigmaZero)]
    for group in _grouped(findings, lambda f: (f.steps, _without_grid(_sigma_zero(f)))):
        attack = _without_grid(_sigma_zero(group[0]))
        plain = attack.step_rule == "sgd"
        others = describe_options(replace(attack, step_rule=SigmaZero.step_rule))
        which = f"σ-zero{' with the plain step' if plain else ''} {others}".rstrip()
        title = f"{which}, N={group[0].steps}, {group[0].num_samples} images a data set"
        figure = ablation_figure([*map(_cell, group)], attack.unit, title=title)
        parts = [f"N={group[0].steps}", attack.unit, "sgd" if plain else "", others]
        name = "-".join(filter(None, parts))
        yield _saved(figure, output_dir / "ablation", name, "Ablation", title)


def _without_grid(attack: SigmaZero) -> SigmaZero:
    """What all cells of one ablation have in common."""
    return replace(attack, sigma=SigmaZero.sigma, tau=SigmaZero.tau)


def _sigma_zero(finding: Finding) -> SigmaZero:
    assert isinstance(finding.attack, SigmaZero)
    return finding.attack


def _cell(finding: Finding) -> AblationCell:
    attack, values = _sigma_zero(finding), finding.measurement.values
    return AblationCell(
        net=finding.net_label,
        sigma=attack.sigma,
        tau=attack.tau,
        asr_inf=values["asr_inf"],
        median_l0=values[measure_key("median_l0", attack.unit)],
        mean_l0=values[measure_key("mean_l0", attack.unit)],
    )


def draw_trajectory(output_dir: Path) -> Picture:
    """σ-zero on a problem that can be drawn."""
    net, attack, inputs, labels = toy_problem()
    figure = trajectory_figure(net, trace_attack(net, attack, inputs, labels, keep="all"))
    caption = "σ-zero where it can be watched: a toy problem with two features"
    return _saved(figure, output_dir / "runs", "toy", _RUNS, caption)


def _by_net(findings: Iterable[Finding]) -> list[list[Finding]]:
    """What several attacks with one number of steps found on one net."""
    groups = _grouped(findings, lambda f: (f.model, f.steps, f.attack.unit))
    return [group for group in groups if len(group) > 1]


def _named(group: Sequence[Finding], named: Collection[str] = ()) -> list[tuple[str, Finding]]:
    """What was found, by the attack's name, and its options where only these tell attacks apart."""
    names = [paper_name(finding.attack) for finding in group]
    if len(set(names)) == len(names):
        return list(zip(names, group, strict=True))
    return [(attack_label(finding.attack, named), finding) for finding in group]


def _run_of(finding: Finding) -> Hashable:
    """What those have in common that one attack found on several nets."""
    return finding.dataset, attack_key(finding.attack), finding.steps


def _grouped(
    findings: Iterable[Finding], key: Callable[[Finding], Hashable]
) -> Iterable[list[Finding]]:
    groups: dict[Hashable, list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[key(finding)].append(finding)
    return groups.values()


def _fitting(budgets: Iterable[int], curves: Mapping[str, Tensor]) -> list[int]:
    size = min(len(curve) for curve in curves.values()) - 1
    return [budget for budget in budgets if budget <= size]


def _saved(figure: Figure, folder: Path, name: str, section: str, caption: str) -> Picture:
    name = re.sub(r"[^\w.=+-]+", "_", name)  # an attack's options may be paths
    return Picture(section, caption, save_figure(figure, folder / f"{name}.png"))
