"""Dashboards as code, without a network: what is built, and what is said where it cannot be."""

import runpy
import sys
from types import SimpleNamespace

import pytest
import wandb

from sztrain.dashboards import build_report, build_workspace
from sztrain.dashboards.__main__ import main
from sztrain.dashboards.library import reports, workspaces
from sztrain.evaluation.gauge_keys import GaugeKeys

LOGGED = [
    *("epoch", "val/loss", "val/median_l0_px", "val/asr_px@24", "val/asr_px@3", "val/asr_inf"),
    *("val/robust_acc_px@3", "val/robust_acc_probe_px@12", "val/robust_acc_worst_px@12"),
]
VERDICT = ["test/median_l0_px", "test/asr_px@3"]


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine that W&B knows nothing of."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def project(nowhere, monkeypatch):
    """A project of W&B that holds runs and takes dashboards, all in this process."""
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    held = SimpleNamespace(runs=[], asked=[], saved=[])

    class Api:
        def runs(self, place, order):
            held.asked.append((place, order))
            return [SimpleNamespace(summary=dict.fromkeys(keys)) for keys in held.runs]

    monkeypatch.setattr(wandb, "Api", Api)
    for cls, name in ((workspaces().Workspace, "workspace"), (reports().Report, "report")):
        monkeypatch.setattr(cls, "save", lambda made: held.saved.append(made))
        monkeypatch.setattr(cls, "url", f"https://wandb.ai/{name}")
    return held


def lines_of(dashboard):
    sections = getattr(dashboard, "sections", None) or dashboard.blocks
    panels = [panel for section in sections for panel in getattr(section, "panels", [])]
    lines = [panel for panel in panels if type(panel).__name__ == "LinePlot"]
    return {str(getattr(key, "name", key)) for panel in lines for key in panel.y}


def said(capsys):
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    return captured.err


def test_a_dashboard_fits_the_newest_run_that_has_a_gauge(project, capsys):
    project.runs = [["train/loss"], LOGGED + VERDICT, ["val/median_l0", "val/asr@9"]]
    assert main(["me/nets"]) == 0
    assert project.asked == [("me/nets", "-created_at")]
    assert capsys.readouterr().out.split() == [
        "https://wandb.ai/workspace",
        "https://wandb.ai/report",
    ]
    workspace, report = project.saved
    for made in (workspace, report):
        assert (made.entity, made.project) == ("me", "nets")
        assert {"val/robust_acc_px@3", "val/robust_acc_worst_px@12"} < lines_of(made)
        assert "val/robust_acc@9" not in lines_of(made)
    assert workspace.sections[-1].name == "Verdict"


@pytest.mark.parametrize(
    ("extra", "runs"), [(["--no-verdict"], [LOGGED + VERDICT]), ([], [LOGGED])]
)
def test_a_verdict_is_shown_where_there_is_one(extra, runs, project):
    project.runs = runs
    assert main(["me/nets", *extra]) == 0
    assert "Verdict" not in [section.name for section in project.saved[0].sections]


def test_budgets_can_be_given_before_there_is_a_run(project):
    budgets = ["--budgets", "2", "4", "--probe-budgets", "4", "--unit", "pixels"]
    assert main(["me/nets", *budgets]) == 0
    keys = {"val/robust_acc_px@2", "val/robust_acc_px@4", "val/robust_acc_worst_px@4"}
    assert keys < lines_of(project.saved[0])


def test_without_a_gauge_in_any_run_it_is_one_line(project, capsys):
    project.runs = [["train/loss"]]
    assert main(["me/nets"]) == 2
    assert "has a gauge" in said(capsys)
    assert project.saved == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (wandb.errors.CommError("no\nway"), "no"),
        (ValueError("no project"), "no project"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_wandb_refuses_is_one_line(error, reason, project, monkeypatch, capsys):
    def refuse(self):
        raise error

    monkeypatch.setattr(workspaces().Workspace, "save", refuse)
    assert main(["me/nets", "--budgets", "2"]) == 2
    advice = "check the name, the key and the network"
    assert said(capsys) == f"sztrain: error: W&B did not take me/nets: {reason}; {advice}\n"


@pytest.mark.parametrize("alone", [["--unit", "pixels"], ["--probe-budgets", "4"]])
def test_what_says_nothing_without_budgets_is_refused(alone, project, capsys):
    project.runs = [["val/robust_acc@2"]]
    assert main(["me/nets", *alone]) == 2
    assert "have no meaning without --budgets" in said(capsys)


@pytest.mark.parametrize("place", ["nets", "me/", "/nets", "me/nets/x"])
def test_a_place_that_is_none_is_one_line(place, capsys):
    assert main([place]) == 2
    assert f"expected entity/project, got {place}" in said(capsys)


def test_without_an_account_it_is_one_line(nowhere, capsys):
    assert main(["me/nets", "--budgets", "2"]) == 2
    assert "has no key; run `wandb login` first" in said(capsys)


def test_without_the_package_it_is_one_line(nowhere, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("wandb_workspaces")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert main(["me/nets"]) == 2
    assert "pip install -c constraints.txt -e '.[dashboards]'" in said(capsys)


def test_the_package_is_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dashboards", "nets"])
    monkeypatch.delitem(sys.modules, "sztrain.dashboards.__main__")
    with pytest.raises(SystemExit) as left:
        runpy.run_module("sztrain.dashboards", run_name="__main__")
    assert left.value.code == 2
    assert said(capsys) == "sztrain: error: expected entity/project, got nets\n"


def test_keys_are_recognised_by_what_was_logged():
    keys = GaugeKeys.from_logged(LOGGED)
    assert keys == GaugeKeys(unit="pixels", budgets=(3, 24), probe_budgets=(12,))
    assert GaugeKeys.from_logged(LOGGED, stage="test") is None
    logged = ["test/median_l0", "test/asr@7"]
    assert GaugeKeys.from_logged(logged, stage="test") == GaugeKeys(stage="test", budgets=(7,))


def test_of_several_gauges_it_is_the_one_without_a_name_else_the_first():
    def named(name):
        keys = ("median_l0", "asr@2", "asr@4", "robust_acc_probe@4", "robust_acc_worst@4")
        return [f"val/{name}/{key}" for key in keys]

    found = GaugeKeys.from_logged([*named("weak"), *named("strong-2.0")])
    assert found == GaugeKeys(name="strong-2.0", budgets=(2, 4), probe_budgets=(4,))
    assert GaugeKeys.from_logged([*LOGGED, *named("a")]) == GaugeKeys.from_logged(LOGGED)
    assert GaugeKeys.from_logged(named("strong"), stage="test") is None
    assert GaugeKeys.from_logged(["val/median_l0_low", "val/a/b/median_l0"]) is None


def test_a_dashboard_fits_a_gauge_that_has_a_name(project):
    project.runs = [["val/strong/median_l0", "val/strong/asr@7", "test/strong/median_l0"]]
    assert main(["me/nets"]) == 0
    keys = {"val/strong/median_l0", "val/strong/robust_acc@7", "val/strong/gauge_clean_acc"}
    for made in project.saved:
        assert keys < lines_of(made)
    assert project.saved[0].sections[-1].name == "Verdict"


def test_without_a_probe_the_gauge_stands_for_it():
    keys = GaugeKeys(budgets=(2, 4))
    assert not [key for key in lines_of(build_workspace("me", "x", keys)) if "worst" in key]
    assert "val/robust_acc@4" in lines_of(build_report("me", "x", keys))


@pytest.mark.parametrize(
    ("probe_budgets", "robust"),
    [((3, 6), "val/robust_acc_worst@6.max"), ((), "val/robust_acc@4.max")],
)
def test_runs_are_compared_by_clean_accuracy_and_the_worst_case(probe_budgets, robust):
    keys = GaugeKeys(budgets=(2, 4), probe_budgets=probe_budgets)
    (compared,) = (
        panel
        for section in build_workspace("me", "x", keys).sections
        for panel in section.panels
        if type(panel).__name__ == "ScatterPlot"
    )
    assert (compared.x.name, compared.y.name) == ("val/gauge_clean_acc.max", robust)


def test_a_workspace_is_what_wandb_takes():
    keys = GaugeKeys(budgets=(2,), probe_budgets=(2,))
    view = build_workspace("me", "x", keys)._to_model()
    sections = view.spec.section.panel_bank_config.sections
    assert [section.name for section in sections[:5]] == [
        *("Robustness", "By budget and by class", "Attacked images", "Cost", "Runs compared")
    ]
