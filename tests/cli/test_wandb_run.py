"""What an evaluation tells Weights & Biases, with a stand-in for its run."""

import math

import pytest
import wandb
from findings import finding

from sztrain.cli.wandb_run import WandbRun


class Run:
    """Keeps what it is told."""

    def __init__(self):
        self.logged, self.artifacts, self.summary = {}, [], {}

    def log(self, values):
        self.logged |= values

    def log_artifact(self, artifact):
        self.artifacts.append(artifact)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    monkeypatch.setattr(
        "sztrain.cli.wandb_run.curve_media", lambda key, curves, unit: {key: [*curves]}
    )

    def finish(findings, rows):
        report = tmp_path / "report.html"
        report.write_text("<p>")
        run = Run()
        WandbRun(run, tmp_path).finish({"results": rows}, findings, [], report)
        return run

    return finish


def test_each_data_set_has_a_chart_of_its_own(finished):
    findings = [finding("M1", "mnist"), finding("M2", "mnist"), finding("C1", "cifar10")]
    logged = finished(findings, [{"model": "M1"}]).logged
    charts = {key: curves for key, curves in logged.items() if key.startswith("curves/")}
    assert charts == {
        "curves/mnist-N=10-features": ["M1 under sigma-zero", "M2 under sigma-zero"],
        "curves/cifar10-N=10-features": ["C1 under sigma-zero"],
    }


def test_where_nothing_could_be_had_there_are_no_records_to_keep(finished, tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1")
    (artifact,) = finished([], [{"model": "M1", "notes": "not available: no weights"}]).artifacts
    assert isinstance(artifact, wandb.Artifact)
    assert [*artifact.manifest.entries] == ["config.yaml"]


def test_a_figure_that_no_panel_can_draw_is_left_out(tmp_path):
    row = dict.fromkeys(("clean_acc", "asr_10", "asr_50", "asr_inf", "mean_l0"), 50.0)
    run = Run()
    WandbRun(run, tmp_path).add(row | {"median_l0": math.inf, "robust_acc": None}, finding())
    assert run.summary == {f"M1-10/{key}": 50.0 for key in row}


def test_at_a_fixed_budget_what_is_left_there_is_told(tmp_path):
    untried = dict.fromkeys(("asr_10", "asr_50", "asr_inf", "median_l0", "mean_l0"))
    run = Run()
    WandbRun(run, tmp_path).add(untried | {"clean_acc": 90.0, "robust_acc": 40.0}, finding())
    assert run.summary == {"M1-10/clean_acc": 90.0, "M1-10/robust_acc": 40.0}
