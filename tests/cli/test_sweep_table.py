"""The table of a sweep: a row for every training that is done, the best first."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from sztrain.cli.sweep_table import SweepTable, print_sweep, sweep_row

SUMMARY = {
    "clean_accuracy": 0.9875,
    "median_l0": None,
    "unit": "features",
    "train_seconds": 2.0,
    "robust_accuracy": {"2": 0.5, "4": 0.25},
}


@pytest.fixture
def end_job(tmp_path):
    """Tells the callback that a job has ended."""

    def end(number, overrides, score, *, summary=None, mode=RunMode.MULTIRUN, done=True):
        folder = tmp_path / str(number)
        folder.mkdir()
        if summary is not None:
            (folder / "summary.json").write_text(json.dumps(summary))
        status = JobStatus.COMPLETED if done else JobStatus.FAILED
        config = OmegaConf.create(
            {
                "monitor": "val/robust_acc_worst@4",
                "hydra": {
                    "mode": mode,
                    "sweep": {"dir": str(tmp_path)},
                    "runtime": {"output_dir": str(folder)},
                    "overrides": {"task": overrides},
                },
            }
        )
        SweepTable().on_job_end(config, JobReturn(status=status, _return_value=score))
        return config

    return end


def test_every_job_adds_its_row_at_once(end_job, table, tmp_path):
    end_job(0, ["seed=0"], 0.5, summary=SUMMARY)
    assert len(table(tmp_path / "sweep.csv")) == 1
    end_job(1, ["seed=1"], None)  # without a verdict and without a monitor
    first, second = table(tmp_path / "sweep.csv")
    assert (first["run"], first["overrides"], first["score"]) == ("0", "seed=0", "0.5")
    assert (first["median_l0"], first["robust_acc@4"]) == ("inf", "0.25")
    assert (second["run"], second["score"], second["median_l0"]) == ("1", "", "")


@pytest.mark.parametrize("options", [{"mode": RunMode.RUN}, {"done": False}])
def test_single_and_failed_jobs_are_no_part_of_it(end_job, tmp_path, options):
    end_job(0, ["seed=0"], 0.5, summary=SUMMARY, **options)
    assert not (tmp_path / "sweep.csv").exists()


def test_the_best_is_printed_first_by_what_differs(end_job, capsys):
    for number, score in enumerate((0.25, None, 0.75)):
        both = [f"seed={number}", "method=trades"]
        config = end_job(number, both, score, summary=SUMMARY)
    SweepTable().on_multirun_end(config)
    printed = capsys.readouterr().out
    cells = [line.split("│")[1:-1] for line in printed.splitlines() if "seed=" in line]
    stripped = [[cell.strip() for cell in row] for row in cells]
    rest = ["98.8", "∞", "50.0 / 25.0"]
    assert stripped == [
        ["2", "seed=2", "0.75", *rest],
        ["0", "seed=0", "0.25", *rest],
        ["1", "seed=1", "", *rest],
    ]
    assert "3 trainings by val/robust_acc_worst@4" in printed
    assert "robust at 2 / 4" in printed


def test_scores_of_several_figures_are_not_ranked(capsys):
    rows = [
        sweep_row(Path(str(run)), overrides=[f"seed={run}"], monitor=monitor, score=score)
        for run, monitor, score in ((0, "val/clean_acc", 0.1), (1, "val/robust_acc_worst@4", 0.9))
    ]
    as_read = [{key: "" if cell is None else str(cell) for key, cell in r.items()} for r in rows]
    print_sweep(as_read, Path("sweep.csv"))
    printed = capsys.readouterr().out
    assert printed.index("seed=0") < printed.index("seed=1")
    assert "by val/clean_acc, val/robust_acc_worst@4" in printed


def test_a_sweep_without_a_job_that_is_done_prints_nothing(tmp_path, capsys):
    config = SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=str(tmp_path))))
    SweepTable().on_multirun_end(config)
    assert capsys.readouterr().out == ""


def test_a_median_that_is_there_is_kept(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY | {"median_l0": 4.0}))
    row = sweep_row(tmp_path, overrides=[], monitor=None, score=math.inf)
    assert row["median_l0"] == 4.0
