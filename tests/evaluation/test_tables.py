"""Rows beside the paper's: its columns, our figures in percent, and the difference."""

import csv
import math
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
import torch

from sztrain.attacks import BB, EAD, GSE, PGDL0, LinSparse, SigmaZero, SparseRS
from sztrain.evaluation.attack_names import attack_label, describe_options
from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.record import Cost
from sztrain.evaluation.rows import (
    BUDGET_COLUMNS,
    COLUMNS,
    budget_rows,
    difference,
    headings_of,
    missing_row,
    paper_row,
    verdict,
)
from sztrain.evaluation.setting import Setting
from sztrain.evaluation.tables import printed_table, write_csv, write_latex, write_markdown

INF = math.inf
PUBLISHED = files("sztrain.evaluation") / "published" / "minimum_norm.csv"


def published(model, attack, steps):
    """A row of the carried table, read here anew."""
    with PUBLISHED.open(encoding="utf-8") as file:
        (row,) = (
            row
            for row in csv.DictReader(file)
            if (row["model"], row["attack"], row["steps"]) == (model, attack, str(steps))
        )
    return row


def measured(unit="features", budgets=(10, 50), median=17.0):
    suffix = "_px" if unit == "pixels" else ""
    asr = {10: 0.25, 24: 0.5, 50: 0.75}
    values = {f"median_l0{suffix}": median, f"mean_l0{suffix}": 18.5, "asr_inf": 0.875}
    values |= {f"asr{suffix}@{k}": asr[k] for k in budgets}
    return Measurement(
        values=values,
        curve=torch.tensor([0.96875, 0.5, 0.25]),
        unit=unit,
        num_samples=64,
        attack_seconds=16.0,
        examples=None,
    )


def cost(peak_memory=2**31, device="cpu"):
    return Cost(
        num_samples=64,
        seconds=16.0,
        num_forwards=64 * 800,
        num_backwards=64 * 700,
        peak_memory=peak_memory,
        device=device,
    )


def setting(model="M1", dataset="mnist", attack=None, steps=None, **options):
    attack = SigmaZero(num_steps=1000) if attack is None else attack
    steps = attack.num_steps if steps is None else steps
    return Setting(model=model, dataset=dataset, attack=attack, steps=steps, **options)


def row(measurement=None, spent=None, *, broken_by=None, changes=None, named=(), **options):
    return paper_row(
        measured() if measurement is None else measurement,
        cost() if spent is None else spent,
        setting(**options),
        batch_size=32,
        broken_by=broken_by or {},
        changes=changes or {},
        named=named,
    )


def unavailable(**options):
    return missing_row(setting(**options), "no weights")


def test_columns_begin_with_those_of_the_paper():
    with PUBLISHED.open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    found = list(row())
    assert found[: len(header)] == header
    ours = ["num_samples", "unit", "device", "batch_size", "clean_acc", "mean_l0"]
    ours += ["resident_gb", "budget", "robust_acc", "split", "first_sample", "num_steps"]
    ours += ["options", "broken_by", "features", "pixels", "clusters", "verdict"]
    assert found[len(header) : len(header) + len(ours)] == ours
    compared = header[header.index("asr_10") : header.index("notes")]
    pairs = [f"{kind}_{column}" for column in compared for kind in ("paper", "delta")]
    assert found[len(header) + len(ours) :] == pairs
    # The table has the same columns whether the paper knows the net or not.
    assert list(row(model="toy")) == found
    # ... and whether or not the net can be had, which may be the first of them, or the only one.
    assert list(unavailable(model="toy")) == found


def test_every_column_is_explained():
    explained = (Path(__file__).parents[2] / "docs/results/README.md").read_text(encoding="utf-8")
    columns = {*COLUMNS, *BUDGET_COLUMNS, "attacks", "robust_acc_<k>", "robust_acc_<k>_<attack>"}
    beside = ("paper_", "delta_")  # which stand for all of their kind
    missing = {c for c in columns if not c.startswith(beside) and f"`{c}`" not in explained}
    assert missing == set()


def test_figures_are_in_the_units_of_the_paper():
    found = row(spent=cost(3 * 2**29, "some GPU"))
    assert (found["table"], found["dataset"], found["model"]) == ("I", "mnist", "M1")
    assert (found["steps"], found["attack"]) == (1000, "sigma-zero")
    assert (found["asr_10"], found["asr_50"], found["asr_inf"]) == (25, 75, 87.5)
    assert (found["median_l0"], found["mean_l0"]) == (17, 18.5)
    assert found["time_s"] == 0.25
    assert found["queries_k"] == 1.5
    assert (found["vram_gb"], found["resident_gb"]) == (1.5, None)
    assert found["clean_acc"] == 96.875
    assert (found["num_samples"], found["unit"]) == (64, "features")
    assert (found["device"], found["batch_size"]) == ("some GPU", 32)


@pytest.mark.parametrize(
    ("model", "dataset", "steps"),
    [("M1", "mnist", 1000), ("M2", "mnist", 100), ("C1", "cifar10", 1000)],
)
def test_the_papers_figures_stand_beside_ours(model, dataset, steps):
    attack, spent = SigmaZero(num_steps=steps), cost(device="some GPU")
    found = row(model=model, dataset=dataset, attack=attack, spent=spent)
    printed = published(model, "sigma-zero", steps)
    assert found["table"] == printed["table"]
    for column in ("asr_10", "asr_50", "asr_inf", "median_l0", "time_s", "queries_k", "vram_gb"):
        expected = float(printed[column])
        assert found[f"paper_{column}"] == expected
        assert found[f"delta_{column}"] == pytest.approx(found[column] - expected)


def test_memory_of_a_cpu_is_compared_with_nothing():
    found = row()
    assert found["paper_vram_gb"] == 0.04
    assert found["delta_vram_gb"] is None
    assert (found["vram_gb"], found["resident_gb"]) == (None, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "toy"},
        {"attack": SigmaZero(num_steps=300)},
        {"measurement": measured("pixels"), "attack": SigmaZero(num_steps=1000, unit="pixels")},
        {"attack": SigmaZero(num_steps=1000, sigma=1.0)},
        {"attack": SigmaZero(num_steps=1000, patience=100)},
        {"split": "train"},
        {"dataset": "folder"},
        {"attack": SigmaZero(num_steps=100), "steps": 1000},
        {"attack": SparseRS(num_steps=1000)},
        {"attack": SparseRS(num_steps=2000), "steps": 1000},
    ],
)
def test_what_the_paper_does_not_print_is_left_open(options):
    found = row(**options)
    assert found["table"] == ""
    compared = [key for key in found if key.startswith(("paper_", "delta_"))]
    assert len(compared) == 14
    assert all(found[key] is None for key in compared)
    assert (found["asr_10"], found["median_l0"], found["mean_l0"]) == (25, 17, 18.5)


def test_sparse_rs_is_granted_what_the_paper_grants_it():
    found = row(attack=SparseRS(num_steps=4000), steps=1000)
    assert (found["steps"], found["num_steps"]) == (1000, 4000)
    assert found["paper_median_l0"] == float(published("M1", "Sparse-RS", 1000)["median_l0"])


def test_a_row_says_which_samples_it_is_of(tmp_path):
    found = row(split="train", first_sample=25)
    assert (found["split"], found["first_sample"]) == ("train", 25)
    write_markdown([row(), found], tmp_path / "results.md")
    assert "| train | 25 |" in (tmp_path / "results.md").read_text()
    write_markdown([row()], tmp_path / "results.md")  # as nearly all are
    assert "| split |" not in (tmp_path / "results.md").read_text()


def test_how_an_attack_is_run_keeps_the_papers_figures():
    attack = SigmaZero(num_steps=1000, batch_size=16, autocast=True, recheck=False)
    found = row(attack=attack)
    assert found["paper_median_l0"] == 16
    assert found["options"] == "recheck=False autocast=True batch_size=16"


def test_options_name_what_differs_from_the_defaults():
    assert describe_options(SigmaZero(num_steps=7, unit="pixels")) == ""
    assert describe_options(SigmaZero(sigma=0.5, budget=24)) == "sigma=0.5 budget=24"
    assert attack_label(SigmaZero()) == "sigma-zero"
    assert attack_label(SigmaZero(tau=0.9)) == "sigma-zero tau=0.9"


def test_options_that_are_no_round_numbers_are_told_in_four_digits():
    attack = LinSparse(epsilon=96 / 255, step=30.0)
    assert describe_options(attack) == "epsilon=0.3765 step=30.0"
    assert describe_options(GSE(sigma=0.000625)) == "sigma=0.000625"


def test_a_verdict_on_few_samples_says_how_few():
    assert row()["verdict"].endswith("(on 64 samples)")
    assert row(replace(measured(), num_samples=1000))["verdict"].endswith("ASR50 -24.98")
    assert row(model="toy")["verdict"] == ""


def test_memory_of_which_no_peak_is_known_is_none():
    found = row(spent=cost(0, device="mps"))
    assert (found["vram_gb"], found["resident_gb"]) == (None, None)


def test_memory_of_several_devices_is_nobodys():
    found = row(spent=cost(device="cpu, some GPU"))
    assert found["device"] == "cpu, some GPU"
    assert (found["vram_gb"], found["resident_gb"]) == (None, None)


def test_memory_that_nobody_knows_is_left_open():
    assert row(spent=cost(0))["resident_gb"] is None


def test_who_broke_how_many_is_told():
    assert row()["broken_by"] == ""
    found = row(broken_by={"sigma_zero": 60, "sparse_rs": 2})
    assert found["broken_by"] == "sigma_zero 60, sparse_rs 2"


def test_how_the_changes_lie_stands_in_the_row_and_in_the_printed_table(tmp_path):
    found = row(changes={"features": 12.5, "pixels": 7.0, "clusters": 1.25})
    assert (found["features"], found["pixels"], found["clusters"]) == (12.5, 7.0, 1.25)
    assert row()["clusters"] is None
    write_markdown([found], tmp_path / "results.md")
    assert "| 12.50 | 7 | 1.25 |" in (tmp_path / "results.md").read_text()


def test_budget_larger_than_a_sample_is_no_restriction():
    found = row(measured(budgets=(10,)))
    assert (found["asr_10"], found["asr_50"]) == (25, 87.5)


def test_infinite_medians():
    found = row(measured(median=INF))
    assert (found["median_l0"], found["delta_median_l0"]) == (INF, INF)
    assert published("C6", "BB", 1000)["median_l0"] == "inf"
    of_c6 = {"model": "C6", "dataset": "cifar10", "attack": BB(num_steps=1000)}
    found = row(measured(median=INF), **of_c6)
    assert (found["paper_median_l0"], found["delta_median_l0"]) == (INF, 0)
    found = row(measured(median=17.0), **of_c6)
    assert found["delta_median_l0"] == -INF


def test_other_attacks_go_by_the_name_of_their_class():
    found = row(attack=EAD(num_steps=1000))
    assert found["attack"] == "EAD"
    assert found["paper_median_l0"] == float(published("M1", "EAD", 1000)["median_l0"]) == 49
    assert found["delta_median_l0"] == 17 - 49


def test_an_attack_of_anothers_making_is_not_compared_with_the_papers_of_its_name():
    @dataclass(frozen=True, kw_only=True)
    class EAD:
        num_steps: int = 1000
        unit: str = "features"
        budget: int | None = None

    found = row(attack=EAD())
    assert found["attack"] == f"{__name__}.EAD"
    assert (found["paper_median_l0"], found["delta_median_l0"]) == (None, None)


def test_csv_reads_back(tmp_path):
    path = tmp_path / "new" / "results.csv"
    rows = [row(measured(median=INF)), row(model="toy, the net")]
    write_csv(rows, path)
    found = pd.read_csv(path)
    assert list(found.columns) == list(rows[0])
    assert found["median_l0"].tolist() == [INF, 17]
    assert found["model"].tolist() == ["M1", "toy, the net"]
    assert found["paper_asr_10"].isna().tolist() == [False, True]
    write_csv(rows[:1], path)  # replaced, not appended to
    assert len(pd.read_csv(path)) == 1
    assert [file.name for file in path.parent.iterdir()] == ["results.csv"]


def test_whole_numbers_stay_whole_beside_what_is_missing(tmp_path):
    path = tmp_path / "results.csv"
    write_csv([row(), unavailable(model="M2")], path)
    with path.open() as file:
        found, missing = csv.DictReader(file)
    keys = ("num_samples", "batch_size", "first_sample", "median_l0", "paper_median_l0")
    assert [found[key] for key in keys] == ["64", "32", "0", "17.0", "16.0"]
    assert [missing[key] for key in keys[:4]] == [""] * 4


def test_a_net_that_cannot_be_had_keeps_the_papers_figures():
    found = unavailable(model="C9", dataset="cifar10")
    printed = published("C9", "sigma-zero", 1000)
    assert (found["table"], found["dataset"], found["steps"]) == ("II", "cifar10", 1000)
    assert found["notes"] == "not available: no weights"
    assert found["paper_median_l0"] == float(printed["median_l0"])
    assert found["median_l0"] is None
    assert unavailable(model="toy")["paper_median_l0"] is None


def test_an_attack_with_a_budget_says_what_is_left_there_and_nothing_of_others():
    values = {"median_l0": INF, "mean_l0": 20.0, "asr_inf": 0.75, "asr@10": 0.25, "asr@50": 0.75}
    found = row(replace(measured(), values=values), attack=SigmaZero(num_steps=1000, budget=24))
    assert (found["budget"], found["robust_acc"], found["clean_acc"]) == (24, 25, 96.875)
    untried = ("asr_10", "asr_50", "asr_inf", "median_l0", "mean_l0")
    assert [found[column] for column in untried] == [None] * 5
    assert (found["table"], found["paper_asr_50"]) == ("", None)
    assert [row()[column] for column in ("budget", "robust_acc")] == [None] * 2
    headings, _ = printed_table([found])
    assert {"k", "RA", "clean"} <= set(headings)
    assert not {"ASR10", "ASR50", "ASR∞", "median", "mean"} & set(headings)


def test_fixed_budgets_are_read_off_the_curve_beside_the_papers():
    # Of 64 samples 60, 32 and 16 resist budgets 0, 1 and 2.
    curve = torch.tensor([60, 32, 16]) / 64
    measurement = replace(measured(), curve=curve)
    rows = budget_rows(measurement, cost(), setting(), [1, 24])
    assert [row["asr"] for row in rows] == [50, 75]  # more than the sample has is all it has
    assert rows[0]["paper_asr"] is None
    path = files("sztrain.evaluation") / "published" / "fixed_budget.csv"
    with path.open(encoding="utf-8") as file:
        (printed,) = (
            row
            for row in csv.DictReader(file)
            if (row["model"], row["attack"], row["steps"], row["budget"])
            == ("M1", "sigma-zero", "1000", "24")
        )
    assert rows[1]["table"] == printed["table"] == "VIII"
    assert rows[1]["paper_asr"] == float(printed["asr"])
    assert rows[1]["delta_asr"] == pytest.approx(75 - float(printed["asr"]))
    assert rows[1]["queries_k"] == 1.5

    # An attack that has a budget says nothing of others.
    fixed = setting(attack=SigmaZero(num_steps=1000, budget=24))
    assert budget_rows(measurement, cost(), fixed, [1, 24, 50]) == [
        rows[1] | {"options": "budget=24"}
    ]

    # A grid's values stand in all of its rows, at the defaults, too.
    (of_grid,) = budget_rows(measurement, cost(), setting(), [24], named=["sigma"])
    assert of_grid == rows[1] | {"options": "sigma=0.001"}


@pytest.mark.parametrize(
    ("attack", "about", "beside"),
    [
        (PGDL0(num_steps=1000, budget=24), {}, True),
        (SparseRS(num_steps=2000, budget=24), {}, True),
        (SparseRS(num_steps=1000, budget=24), {}, False),
        (SigmaZero(num_steps=100), {}, False),
        # The paper runs these two at each budget: there is no search for the smallest in it.
        (PGDL0(num_steps=1000), {}, False),
        (SparseRS(num_steps=2000), {}, False),
        (SigmaZero(num_steps=1000), {"split": "val"}, False),
        (SigmaZero(num_steps=1000), {"dataset": "folder"}, False),
    ],
)
def test_a_fixed_budget_is_compared_with_what_was_run_alike(attack, about, beside):
    about = setting(attack=attack, steps=1000, **about)
    (found,) = budget_rows(measured(), cost(), about, [24])
    assert (found["paper_asr"] is not None) == beside
    assert found["num_steps"] == attack.num_steps


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ((0, 0, 0), "reproduced"),
        ((1, -2, 2), "reproduced"),
        ((1.5, 0, 0), "not reproduced: median +1.5"),
        ((-2, 2.5, -3), "not reproduced: median -2, ASR10 +2.5, ASR50 -3"),
        ((math.nan, 0, 0), "not reproduced: median +nan"),
        ((INF, 0, 0), "not reproduced: median +inf"),
        ((None, 0, 0), "reproduced"),
        ((None, None, None), ""),
    ],
)
def test_a_row_is_reproduced_within_a_feature_and_two_points(deltas, expected):
    keys = ("delta_median_l0", "delta_asr_10", "delta_asr_50")
    assert verdict(dict(zip(keys, deltas, strict=True))) == expected


@pytest.mark.parametrize("points", [2, -2])
def test_two_points_off_are_two_points_whatever_binary_fractions_make_of_them(points):
    """32.2 - 30.2 is 2.0000000000000036."""
    with PUBLISHED.open(encoding="utf-8") as file:
        printed = [float(row[key]) for row in csv.DictReader(file) for key in ("asr_10", "asr_50")]
    for asr in printed:
        ours = round(100 * (asr + points)) / 100  # of 10,000 images
        assert verdict({"delta_asr_10": difference(ours, asr)}) == "reproduced"
        assert difference(ours, asr) == points


def test_a_difference_that_is_infinite_is_printed_as_the_figures_are(tmp_path):
    write_markdown([row(measured(median=INF))], tmp_path / "results.md")
    assert "| ∞ (paper 16, +∞) |" in (tmp_path / "results.md").read_text()
    of_c6 = {"model": "C6", "dataset": "cifar10", "attack": BB(num_steps=1000)}
    write_latex([row(measured(median=17.0), **of_c6)], tmp_path / "results.tex")
    assert r"& 17 ($\infty$, -$\infty$) &" in (tmp_path / "results.tex").read_text()


def test_odd_names_do_not_break_a_table(tmp_path):
    rows = [row(model=r"[a|b & $c_1 {d} #e ~f^g\h")]
    write_latex(rows, tmp_path / "results.tex")
    name = (tmp_path / "results.tex").read_text().splitlines()[4].split(r" & sigma")[0]
    assert name == (
        r"{[}a\textbar{}b \& \$c\_1 \{d\} \#e "
        r"\textasciitilde{}f\textasciicircum{}g\textbackslash{}h"
    )
    write_markdown(rows, tmp_path / "results.md")
    head, _, line = (tmp_path / "results.md").read_text().splitlines()
    assert line.replace(r"\|", "").count("|") == head.count("|")


def test_printed_tables_show_both_figures_the_verdict_and_what_is_missing(tmp_path):
    rows = [row(), missing_row(setting(model="M2"), "no weights_here")]
    write_markdown(rows, tmp_path / "results.md")
    head, rule, first, second = (tmp_path / "results.md").read_text().splitlines()
    assert len({line.count("|") for line in (head, rule, first, second)}) == 1
    assert "| 25 (paper 19.60, +5.4) |" in first
    assert "not reproduced: ASR10 +5.4, ASR50 -24.98" in first
    assert "not available: no weights_here" in second
    write_latex(rows, tmp_path / "results.tex")
    text = (tmp_path / "results.tex").read_text()
    assert r"not available: no weights\_here" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = text.splitlines()[0].rsplit("{", 1)[1].rstrip("}")
    assert {line.count("&") for line in lines} == {len(columns) - 1}


def robust_at(budgets, **options):
    return paper_row(measured(), cost(), setting(**options), batch_size=32, budgets=budgets)


def test_robust_accuracy_at_other_budgets_stands_behind_that_of_the_attack():
    found = robust_at([1, 2, 999])  # 999: no sample has as many features
    columns = ["robust_acc_1", "robust_acc_2", "robust_acc_999"]
    assert [found[column] for column in columns] == [50.0, 25.0, 25.0]
    place = list(row()).index("robust_acc") + 1
    assert list(found)[place : place + 3] == columns
    assert [column for column in found if column not in columns] == list(row())
    # An attack at a budget of its own did not look beyond it.
    limited = SparseRS(num_steps=10, budget=2)
    assert list(robust_at([1, 2, 999], attack=limited)) == list(row())


def test_budgets_have_headings_whichever_row_has_them_first():
    """The first net of a suite may be one that cannot be had."""
    rows = [unavailable(model="M2"), robust_at([1, 24])]
    headings = list(headings_of(rows).values())
    place = headings.index("RA")
    assert headings[place : place + 4] == ["RA", "RA1", "RA24", "ASR10"]


def test_a_net_that_cannot_be_had_keeps_the_budget_of_the_attack():
    assert unavailable(attack=SparseRS(num_steps=10, budget=24))["budget"] == 24
    assert unavailable()["budget"] is None
