"""A workspace and a report of W&B, built without a network; saving them needs an account."""

from typing import Any

from sztrain.dashboards.library import reports, workspaces
from sztrain.dashboards.panels import Panels, training_panels, verdict_panels
from sztrain.evaluation.gauge_keys import GaugeKeys

_TITLE = "Sparse robustness"
_WORDS = {
    "Robustness": "The gauge attacks the same validation samples after each epoch. Its figures are "
    "upper bounds: believe the worst case of gauge and probe before either of them.",
    "By budget and by class": "What is left at every budget, epoch by epoch; how many changes "
    "broke a sample; which classes fall first (no bar: half of the class resists).",
    "Attacked images": "Where the attack changes images, and what it makes of a few of them. "
    'All epochs in one table: runs.history.concat["{examples}"].',
    "Cost": "What gauge and probe take of the wall time.",
    "Runs compared": "The best epoch of every run: up and to the right is better.",
    "Verdict": "The attack after the training, on test samples that nothing was chosen by.",
}


def build_workspace(
    entity: str, project: str, keys: GaugeKeys, verdict: GaugeKeys | None = None
) -> Any:
    """A ``wandb_workspaces.workspaces.Workspace`` with a section for each group of panels.

    Args:
        entity: user or team.
        project: whose runs it shows.
        keys: under which the gauge logs, stage ``val``.
        verdict: keys of the stage ``test``; ``None``: no verdict is taken.

    Raises:
        UnavailableError: wandb-workspaces is not installed.

    Example:
        >>> keys = GaugeKeys(budgets=(10, 50), probe_budgets=(24,))
        >>> build_workspace("me", "nets", keys).save()  # doctest: +SKIP
    """
    ws = workspaces()
    sections = [
        ws.Section(name=name, panels=panels, is_open=True)
        for name, panels in _panels(keys, verdict).items()
    ]
    return ws.Workspace(entity=entity, project=project, name=_TITLE, sections=sections)


def build_report(
    entity: str, project: str, keys: GaugeKeys, verdict: GaugeKeys | None = None
) -> Any:
    """A ``wandb_workspaces.reports.v2.Report`` of the same panels, with a word on each group.

    Args:
        entity: user or team.
        project: whose runs it shows.
        keys: under which the gauge logs, stage ``val``.
        verdict: keys of the stage ``test``; ``None``: no verdict is taken.

    Raises:
        UnavailableError: wandb-workspaces is not installed.
    """
    wr = reports()
    blocks: list[Any] = [wr.TableOfContents()]
    for name, panels in _panels(keys, verdict).items():
        words = _WORDS[name].format(examples=keys.examples)
        runset = wr.Runset(entity=entity, project=project)
        blocks += [wr.H1(text=name), wr.P(text=words)]
        blocks.append(wr.PanelGrid(runsets=[runset], panels=panels))
    return wr.Report(
        entity=entity,
        project=project,
        title=_TITLE,
        description=f"ℓ0 robustness, counted in {keys.unit}",
        blocks=blocks,
        width="fluid",
    )


def _panels(keys: GaugeKeys, verdict: GaugeKeys | None) -> Panels:
    panels = training_panels(keys) | (verdict_panels(verdict) if verdict is not None else {})
    return {name: group for name, group in panels.items() if group}
