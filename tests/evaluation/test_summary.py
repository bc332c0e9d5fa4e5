"""The verdict as JSON: all keys that are promised, and no ∞ or NaN."""

import json
import math

import pytest
import torch

from sztrain.attacks import SigmaZero, SparseAutoAttack
from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.summary import finite, training_summary, write_json

INF = math.inf
PROMISED = {
    "clean_accuracy",
    "median_l0",
    "mean_l0",
    "robust_accuracy",
    "asr",
    "asr_inf",
    "unit",
    "attacks",
    "num_steps",
    "num_samples",
    "method",
    "train_seconds",
    "attack_seconds",
    "epochs",
    "checkpoint",
    "best_epoch",
}


def summary(unit="features", **options):
    suffix = "_px" if unit == "pixels" else ""
    values = {
        f"median_l0{suffix}": INF,
        f"mean_l0{suffix}": 7.5,
        "asr_inf": 0.4,
        f"asr{suffix}@10": 0.1,
        f"asr{suffix}@50": 0.3,
        f"robust_acc{suffix}@10": 0.9,
        f"robust_acc{suffix}@50": 0.7,
    }
    measurement = Measurement(
        values=values,
        curve=torch.ones(3),
        unit=unit,
        num_samples=360,
        attack_seconds=12.5,
        examples=None,
    )
    return training_summary(
        measurement,
        **{
            "budgets": (10, 50),
            "attack": SigmaZero(num_steps=1000, unit=unit),
            "clean_accuracy": 0.95,
            "method": "SparseAT",
            "train_seconds": 60.0,
            "attack_seconds": 41.0,
            "epochs": 8,
            "checkpoint": "checkpoints/best.ckpt",
            "best_epoch": 6,
        }
        | options,
    )


@pytest.mark.parametrize("unit", ["features", "pixels"])
def test_everything_that_is_promised_is_there(unit, tmp_path):
    write_json(summary(unit), tmp_path / "summary.json")
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert set(found) >= PROMISED
    assert found["median_l0"] is None  # ∞
    assert found["mean_l0"] == 7.5
    assert found["robust_accuracy"] == {"10": 0.9, "50": 0.7}
    assert found["asr"] == {"10": 0.1, "50": 0.3}
    assert found["asr_inf"] == 0.4
    assert found["unit"] == unit
    assert found["attacks"] == ["SigmaZero"]
    assert (found["num_steps"], found["num_samples"]) == (1000, 360)
    assert found["clean_accuracy"] == 0.95
    assert found["method"] == "SparseAT"
    times = (found["train_seconds"], found["attack_seconds"], found["verdict_seconds"])
    assert times == (60, 41, 12.5)
    assert (found["epochs"], found["checkpoint"]) == (8, "checkpoints/best.ckpt")
    assert found["best_epoch"] == 6
    assert "SigmaZero only" in found["note"]


def test_what_was_not_measured_is_null(tmp_path):
    options = {"train_seconds": None, "checkpoint": None, "clean_accuracy": math.nan}
    found = json.loads(json.dumps(summary(**options), allow_nan=False))
    assert [found[key] for key in options] == [None, None, None]


def test_finite_reaches_into_dictionaries():
    value = {"a": -INF, 3: {4: math.nan, "b": 1.5}, "c": [1], "d": "inf", "e": 0, "f": None}
    expected = {"a": None, "3": {"4": None, "b": 1.5}, "c": [1], "d": "inf", "e": 0, "f": None}
    assert finite(value) == expected
    assert finite(INF) is None
    assert finite(2.0) == 2


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    write_json({"a": 1, "name": "σ"}, path)
    with pytest.raises(ValueError, match="JSON"):
        write_json({"a": INF}, path)
    with pytest.raises(TypeError):
        write_json({"a": object()}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1, "name": "σ"}
    assert [found.name for found in tmp_path.iterdir()] == ["summary.json"]


def test_an_ensemble_goes_by_its_members_and_its_queries():
    members = ("sigma_zero", "sparse_rs")
    found = summary(attack=SparseAutoAttack(attacks=members, num_steps=20, num_queries=30))
    assert found["attacks"] == [*members]
    assert "sigma_zero + sparse_rs only" in found["note"]
    assert (found["num_steps"], found["num_queries"]) == (20, 30)
    assert "num_queries" not in summary()


def test_the_last_epoch_is_there_if_it_was_judged():
    assert summary()["last"] is None
    assert summary(last={"epoch": 7, "median_l0": INF})["last"] == {"epoch": 7, "median_l0": None}
