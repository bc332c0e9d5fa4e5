"""The table of a sweep: a row for every training that is done, the best first."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from sztrain.cli.sweep_table import SweepTable, print_sweep
from sztrain.errors import InputError

SUMMARY = {
    "clean_accuracy": 0.9875,
    "median_l0": None,
    "robust_accuracy": {"2": 0.5, "4": 0.25},
    "unit": "features",
    "attacks": ["sigma_zero", "sparse_rs"],
    "num_steps": 100,
    "num_queries": 30,
    "num_samples": 512,
    "train_seconds": 2.0,
}


@pytest.fixture
def end_job(tmp_path):
    """Tells the callback that a job has ended."""

    def end(
        run,
        score,
        *overrides,
        summary=SUMMARY,
        mode=RunMode.MULTIRUN,
        done=True,
        best=None,
        folder=None,
    ):
        folder = tmp_path / run if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        if summary is not None:
            (folder / "summary.json").write_text(json.dumps(summary))
        config = OmegaConf.create(
            {
                "monitor": "val/robust_acc_worst@4",
                "output_dir": str(folder),
                "callbacks": {"best": best},
                "hydra": {
                    "mode": mode,
                    "sweep": {"dir": str(tmp_path)},
                    "overrides": {"task": list(overrides)},
                },
            }
        )
        status = JobStatus.COMPLETED if done else JobStatus.FAILED
        SweepTable().on_job_end(config, JobReturn(status=status, _return_value=score))
        return config

    return end


@pytest.fixture
def printed(capsys, monkeypatch):
    """The words that are printed at the end on a screen of so many columns, and those by row."""

    def read(config, columns=120):
        monkeypatch.setenv("COLUMNS", str(columns))
        SweepTable().on_multirun_end(config)
        out = capsys.readouterr().out
        return " ".join(out.split()), [line.split() for line in out.splitlines()]

    return read


def test_every_job_adds_its_row_at_once(end_job, table, tmp_path):
    end_job("0", 0.5, "seed=0")
    assert len(table(tmp_path / "sweep.csv")) == 1
    end_job("1", None, "seed=1", summary=None)  # without a verdict and without a monitor
    first, second = table(tmp_path / "sweep.csv")
    assert (first["run"], first["overrides"], first["score"]) == ("0", "seed=0", "0.5")
    assert (first["median_l0"], first["robust_acc@4"]) == ("inf", "0.25")
    assert (first["attacks"], first["num_samples"]) == ("sigma_zero+sparse_rs", "512")
    assert (second["run"], second["score"], second["median_l0"]) == ("1", "", "")


def test_single_jobs_are_no_part_of_it(end_job, tmp_path):
    end_job("0", 0.5, "seed=0", mode=RunMode.RUN)
    assert not (tmp_path / "sweep.csv").exists()


def test_jobs_that_failed_stand_last_with_the_reason(end_job, table, printed, tmp_path):
    reason = InputError("method: expected `clean_share` to be in [0, 1], got 7")
    end_job("0", reason, "seed=0", "method.clean_share=7", summary=None, done=False)
    out, lines = printed(end_job("1", 0.5, "seed=0", "method.clean_share=0.5"))
    first, second = table(tmp_path / "sweep.csv")
    assert (first["score"], first["failed"]) == ("", str(reason))
    assert (second["score"], second["failed"]) == ("0.5", "")
    rows = [words for words in lines if "clean_share=" in " ".join(words[:2])]
    assert [row[:3] for row in rows] == [
        ["1", "method.clean_share=0.5", "0.5"],
        ["0", "method.clean_share=7", "failed"],
    ]
    assert f"0 failed: {reason}" in out
    assert "2 trainings, chosen by" in out


def _end_many(number, folder):
    config = OmegaConf.create(
        {
            "monitor": "val/loss",
            "output_dir": str(folder / str(number)),
            "hydra": {
                "mode": RunMode.MULTIRUN,
                "sweep": {"dir": str(folder)},
                "overrides": {"task": []},
            },
        }
    )
    job_return = JobReturn(status=JobStatus.COMPLETED, _return_value=float(number))
    SweepTable().on_job_end(config, job_return)


def test_jobs_that_end_at_once_all_have_their_row(table, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(_end_many, folder=tmp_path), range(24)))
    rows = table(tmp_path / "sweep.csv")
    assert sorted(int(row["run"]) for row in rows) == list(range(24))


def test_a_job_that_runs_again_replaces_its_row(end_job, table, tmp_path):
    for score in (0.25, 0.5):
        end_job("0", score, "seed=0")
    assert [row["score"] for row in table(tmp_path / "sweep.csv")] == ["0.5"]


def test_runs_are_named_by_their_place(end_job, table, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    end_job("trades/0", 0.5)
    end_job("", 0.5, folder=elsewhere)
    names = [row["run"] for row in table(tmp_path / "sweep.csv")]
    assert names == [str(Path("trades/0")), str(elsewhere)]


@pytest.mark.parametrize(
    ("best", "order"),
    [
        (None, ["2", "0", "1"]),
        ({"monitor": "val/loss", "mode": "min"}, ["0", "2", "1"]),
    ],
)
def test_the_best_is_printed_first_by_what_differs(end_job, printed, best, order):
    for run, score in enumerate((0.25, None, 0.75)):
        config = end_job(str(run), score, f"seed={run}", "method=trades", best=best)
    out, lines = printed(config)
    rows = [words for words in lines if "seed=" in " ".join(words)]
    assert [row[:2] for row in rows] == [[run, f"seed={run}"] for run in order]
    assert rows[-1][2:] == ["98.8", "∞", "50.0", "25.0"]
    assert f"3 trainings, chosen by {(best or {}).get('monitor', 'val/robust_acc_worst@4')}" in out
    assert "512 test images, sigma_zero+sparse_rs, N=100, num_queries=30, features; " in out


def test_scores_of_several_figures_are_not_ranked(end_job, printed):
    end_job("0", 0.1, "seed=0", best={"monitor": "val/clean_acc"})
    out, _ = printed(end_job("1", 0.9, "seed=1"))
    assert out.index("seed=0") < out.index("seed=1")
    assert "chosen by val/clean_acc, val/robust_acc_worst@4" in out
    assert "scores of different figures cannot be ranked" in out
    (line,) = (line for line in out.splitlines() if "seed=0" in line)
    assert "val/clean_acc" in line  # whose score it is


def test_verdicts_that_cannot_be_compared_are_not_passed_off_as_such(end_job, printed):
    end_job("0", 0.1, "seed=0")
    out, _ = printed(end_job("1", 0.9, "seed=1", summary=SUMMARY | {"unit": "pixels"}))
    assert "verdicts of several kinds, which cannot be compared" in out


def test_without_verdicts_there_are_no_columns_for_them(end_job, printed):
    out, _ = printed(end_job("0", 0.5, "seed=0", summary=None))
    assert "0.5" in out
    assert "clean" not in out
    assert "the verdict on" not in out


@pytest.mark.parametrize("columns", [40, 80])
def test_what_differs_is_whole_on_a_narrow_screen(end_job, printed, columns):
    budgets = {str(k): 0.5 for k in (1, 2, 4, 8, 10, 24, 50, 100)}
    words = [f"method.attack.num_steps={n} method.soft_labels_from=0.{n}" for n in (5, 10)]
    for run, text in enumerate(words):
        config = end_job(
            str(run), 0.5, *text.split(), summary=SUMMARY | {"robust_accuracy": budgets}
        )
    out, _ = printed(config, columns)
    assert "…" not in out.partition("score:")[0]
    for text in ("5", "10"):
        assert f"={text}" in out.replace(" ", "")


def test_names_with_brackets_stand_as_they_are(end_job, printed):
    config = end_job("0", 0.5, "data.root=[/data/a]", "attacks=[sigma_zero,red]")
    end_job("1", 0.5, "data.root=b")
    out, _ = printed(config)
    assert "data.root=[/data/a] attacks=[sigma_zero,red]" in out


def test_a_sweep_without_a_job_prints_nothing(printed, end_job):
    out, _ = printed(end_job("0", None, mode=RunMode.RUN))
    assert out == ""


def test_rows_without_a_score_come_last(capsys):
    row = {"monitor": "val/loss", "mode": "min", "run": "a", "overrides": "seed=0", "score": ""}
    print_sweep([row, row | {"run": "b", "score": "0.5"}], Path("sweep.csv"))
    words = capsys.readouterr().out.split()
    assert words.index("b") < words.index("a")
