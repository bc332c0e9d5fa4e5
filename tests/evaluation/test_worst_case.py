"""What several attacks together leave of a net, against plain numpy over the samples."""

import numpy as np
import pytest
import torch
from toy_training import INF

from sztrain.evaluation.worst_case import (
    JudgedRun,
    worst_case_headings,
    worst_case_row,
    worst_case_rows,
)


def judged(attack, l0, budget=None, model="M1", steps=10, unit="features", num_units=64):
    return JudgedRun(
        model=model,
        dataset="mnist",
        steps=steps,
        unit=unit,
        attack=attack,
        budget=budget,
        num_units=num_units,
        l0=torch.tensor(l0, dtype=torch.float),
    )


def test_a_sample_is_broken_if_any_attack_breaks_it():
    runs = [judged("a", [0, 2, INF, INF, 9]), judged("b", [0, INF, 2, INF, 8])]
    row = worst_case_row(runs, ["a", "b"], [1, 2, 8])
    assert row == {
        **{"model": "M1", "dataset": "mnist", "steps": 10, "unit": "features", "num_samples": 5},
        **{"clean_acc": 80.0, "median_l0": 2.0, "mean_l0": 3.0},
        **{"robust_acc_1": 80.0, "robust_acc_2": 40.0, "robust_acc_8": 20.0},
        **{"robust_acc_1_a": 80.0, "robust_acc_1_b": 80.0},
        **{"robust_acc_2_a": 60.0, "robust_acc_2_b": 60.0},
        **{"robust_acc_8_a": 60.0, "robust_acc_8_b": 40.0},
        **{"attacks": "a, b", "notes": ""},
    }


def test_a_run_at_a_budget_counts_beside_one_without():
    runs = [judged("a", [5, 6, 7, 8]), judged("a", [2, INF, 4, INF], budget=4)]
    row = worst_case_row(runs, ["a"], [2, 4, 6])
    assert (row["median_l0"], row["mean_l0"]) == (5.0, 5.0)  # of 2, 6, 4, 8
    for suffix in ("", "_a"):
        found = [row[f"robust_acc_{k}{suffix}"] for k in (2, 4, 6)]
        assert found == [75.0, 50.0, 25.0]


@pytest.mark.parametrize(("k", "told"), [(3, True), (4, True), (5, False)])
def test_a_run_at_a_budget_says_nothing_about_larger_ones(k, told):
    def found(*runs):
        row = worst_case_row(runs, ["a", "b"], [k])
        names = (f"robust_acc_{k}", f"robust_acc_{k}_a", f"robust_acc_{k}_b")
        return [row[name] for name in names], row["notes"]

    low, high = judged("a", [2, INF], budget=4), judged("b", [INF, 6], budget=9)
    note = "" if told else "a only up to k=4"
    alone = [50.0, 50.0, None] if told else [None, None, None]
    assert found(low) == (alone, "; ".join(filter(None, ["without b", note])))
    # What it broke within its budget is broken at any larger one, and so counts beside others.
    assert found(low, high) == ([50.0, 50.0 if told else None, 100.0], note)
    assert found(low, judged("a", [INF, INF], budget=5)) == ([50.0, 50.0, None], "without b")
    assert found(low, judged("a", [INF, INF])) == ([50.0, 50.0, None], "without b")


def test_every_attack_that_stays_below_a_budget_is_told_of():
    runs = [judged("b", [1.0], budget=2), judged("b", [1.0], budget=3), judged("c", [1.0], 2)]
    row = worst_case_row([*runs, judged("d", [1.0])], ["a", "b", "c", "d"], [1, 50, 2])
    assert row["notes"] == "without a; b only up to k=3; c only up to k=2"
    assert row["attacks"] == "b, c, d"
    assert row["clean_acc"] == 100.0
    assert worst_case_row(runs, ["b", "c"], [])["notes"] == ""


def test_only_runs_at_a_budget_give_no_median():
    row = worst_case_row([judged("a", [2, INF, 0], budget=4)], ["a"], [4])
    assert (row["median_l0"], row["mean_l0"]) == (None, None)
    assert row["clean_acc"] == pytest.approx(200 / 3)
    assert row["robust_acc_4"] == pytest.approx(100 / 3)


def test_what_was_never_broken_is_infinite_and_beyond_every_budget():
    row = worst_case_row([judged("a", [INF, INF, INF])], ["a"], [1, 64, 1000])
    assert (row["median_l0"], row["mean_l0"], row["clean_acc"]) == (INF, INF, 100.0)
    assert [row[f"robust_acc_{k}"] for k in (1, 64, 1000)] == [100.0] * 3


def test_an_attack_without_a_run_is_told_of():
    row = worst_case_row([judged("b", [3.0])], ["a", "b", "c"], [4])
    assert [row[f"robust_acc_4_{name}"] for name in "abc"] == [None, 0.0, None]
    assert (row["attacks"], row["notes"]) == ("b", "without a, c")


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_are_those_of_numpy(seed):
    generator = np.random.default_rng(seed)
    plan = [("a", None), ("b", None), ("b", 5), ("c", 3), ("c", 5)]
    wrong = generator.random(97) < 0.1
    runs = []
    for attack, budget in plan:
        found = generator.integers(1, (budget or 64) + 1, 97).astype(float)
        found[generator.random(97) < 0.6] = INF
        runs.append(judged(attack, np.where(wrong, 0, found), budget))
    row = worst_case_row(runs, ["a", "b", "c"], [3, 5, 20])
    l0 = np.array([run.l0.numpy() for run in runs])
    fewest = l0.min(axis=0)
    assert row["clean_acc"] == pytest.approx(100 * (1 - wrong.mean()))
    assert row["median_l0"] == np.sort(fewest)[48]
    assert row["mean_l0"] == pytest.approx(fewest[np.isfinite(fewest)].mean())
    for k in (3, 5, 20):
        assert row[f"robust_acc_{k}"] == pytest.approx(100 * (l0.min(axis=0) > k).mean())
        for name, own in {"a": l0[:1], "b": l0[1:3], "c": l0[3:]}.items():
            expected = pytest.approx(100 * (own.min(axis=0) > k).mean())
            told = name != "c" or k <= 5
            assert row[f"robust_acc_{k}_{name}"] == (expected if told else None)
    assert row["notes"] == "c only up to k=5"


def test_nets_numbers_of_steps_and_units_stay_apart():
    runs = [
        judged("a", [1.0]),
        judged("a", [2.0], steps=20),
        judged("a", [3.0], model="M2"),
        judged("a", [4.0], unit="pixels"),
        judged("b", [5.0], model="M2"),
    ]
    rows = worst_case_rows(runs, ["a", "b"], [])
    found = [(row["model"], row["steps"], row["unit"], row["median_l0"]) for row in rows]
    assert found == [
        ("M1", 10, "features", 1.0),
        ("M1", 20, "features", 2.0),
        ("M2", 10, "features", 3.0),
        ("M1", 10, "pixels", 4.0),
    ]


def test_answers_for_other_samples_are_a_mistake():
    with pytest.raises(RuntimeError, match="size"):
        worst_case_row([judged("a", [1, 2]), judged("b", [1, 2, 3])], ["a", "b"], [1])


def test_every_column_that_is_printed_is_one_of_the_row():
    headings = worst_case_headings([1, 2], ["a"])
    about = ["net", "data", "N", "images", "unit", "clean", "median", "mean"]
    assert [*headings.values()] == [*about, "RA1", "RA2", "RA1 a", "RA2 a", "notes"]
    assert set(headings) <= set(worst_case_row([judged("a", [1.0])], ["a"], [1, 2]))
