"""The scripts of examples/, run as a person runs them, in a folder of their own."""

import csv
import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
import wandb
from tensorboard_files import values_of
from wandb_files import logged_items

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run an example; return the figures that it prints."""
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # put back what seed_everything leaves behind
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
    monkeypatch.chdir(tmp_path)
    # W&B's service takes a relative folder from where it was started, maybe by another test.
    wandb.teardown()

    def run_example(name):
        monkeypatch.setattr(sys, "argv", [name])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        lines = capsys.readouterr().out.splitlines()[-3:]
        return {key: float(value) for key, value in (line.split() for line in lines)}

    yield run_example
    wandb.teardown()


def test_every_example_is_run_here():
    text = Path(__file__).read_text()
    assert all(f'run("{path.name}")' in text for path in EXAMPLES.glob("*.py"))


def test_plain_lightning(run, tmp_path):
    shown = run("plain_lightning.py")
    assert shown["val_acc"] > 0.7
    assert 0 < shown["val/median_l0"] < 64
    with (tmp_path / "logs" / "plain" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/median_l0"]]
    assert len(rows) == 3
    assert float(rows[-1]["val/robust_acc_worst@4"]) == pytest.approx(
        shown["val/robust_acc_worst@4"], rel=0.01
    )
    assert (tmp_path / "logs" / "plain" / "robustness_curves.csv").is_file()


@pytest.mark.slow
def test_timm_with_its_own_normalisation(run, tmp_path):
    shown = run("timm_normalised.py")
    assert shown["val_acc"] > 0.5
    wandb.teardown()
    (run_file,) = tmp_path.glob("logs/timm/wandb/offline-run-*/*.wandb")
    items = logged_items(run_file)
    assert items["val/median_l0_px"] == pytest.approx(shown["val/median_l0_px"], rel=0.01)
    assert items["val/adversarial_examples/nrows"] == 8


@pytest.mark.slow
def test_a_module_of_another_library(run, tmp_path):
    if importlib.util.find_spec("lightly") is None:
        pytest.skip("lightly is not installed: pip install -e '.[examples]'")
    shown = run("lightly_finetune.py")
    assert shown["val_top1"] > 0.5
    values = values_of(tmp_path / "logs" / "lightly")
    assert len(values["val/median_l0"]) == len(values["val/attacked_places"]) == 2
