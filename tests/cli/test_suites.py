"""Suites: many nets, attacks and numbers of steps by one command."""

import base64
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from omegaconf import OmegaConf
from pace import slow_after
from wandb_files import charts, logged_items, run_records

from sztrain.cli.evaluate import evaluate
from sztrain.cli.file_labels import file_labels
from sztrain.cli.team import automatic_batch_size
from sztrain.errors import InputError, SztrainWarning, UnavailableError


def floats(rows, name):
    return np.array([float(row[name]) for row in rows])


SUITE = "evaluate suite=quick suite.num_steps=[4,6] suite.num_samples=24 hydra.run.dir=out"

# Without the figures of single runs, which take longer than the attacks.
PLAIN = f"{SUITE} suite.loss_terms=false"


@pytest.mark.slow
def test_a_suite_attacks_every_net_with_every_number_of_steps(call, table, tmp_path):
    outcome = call(SUITE)
    assert outcome.status == 0
    rows = table("out/results.csv")
    nets = ["digits_standard", "digits_sparse_at"]
    assert [(row["model"], row["steps"]) for row in rows] == [(n, s) for n in nets for s in "46"]
    assert {row["num_samples"] for row in rows} == {"24"}
    budgets = table("out/results_fixed_budget.csv")
    assert [row["budget"] for row in budgets] == ["2", "4", "8"] * 4
    for row, first in zip(rows, range(0, 12, 3), strict=True):
        records = table(f"out/records/{row['model']}-sigma_zero-{row['steps']}.csv")
        for budget in budgets[first : first + 3]:
            expected = 100 * (floats(records, "l0") <= int(budget["budget"])).mean()
            assert float(budget["asr"]) == pytest.approx(expected)
    names = {path.name for path in (tmp_path / "out" / "curves").iterdir()}
    assert names == {f"digits-sigma-zero-N={steps}-features.png" for steps in (4, 6)}
    labels = [f"{net}-sigma_zero-{steps}" for net in nets for steps in (4, 6)]
    drawn = {path.name for path in (tmp_path / "out" / "runs").iterdir()}
    assert drawn >= {"toy.png", *(f"{label}-loss_terms.png" for label in labels)}
    for name in ("results.md", "results.tex"):
        assert "sigma-zero" in (tmp_path / "out" / name).read_text()


@pytest.mark.slow
def test_a_net_of_a_suite_that_cannot_be_had_becomes_a_row(call, table, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("SZTRAIN_DATA_DIR", str(tmp_path / "empty"))
    outcome = call(f"{SUITE} suite.models=[M1,digits_standard] suite.num_steps=[6]")
    assert outcome.status == 0, outcome.err
    missing, found = table("out/results.csv")
    assert missing["notes"].startswith("not available: ")
    assert (missing["model"], missing["median_l0"]) == ("M1", "")
    assert (found["model"], found["notes"]) == ("digits_standard", "")
    assert float(found["median_l0"]) > 0
    (remark,) = (line for line in outcome.out.splitlines() if "not available" in line)
    assert remark.startswith("M1: not available: ")  # whole, on one line


@pytest.mark.slow
def test_attacks_that_cannot_be_had_are_told_of_once_for_each_reason(call, table, monkeypatch):
    def missing(name, *needed):
        raise UnavailableError(f"{name} cannot be imported")

    monkeypatch.setattr("sztrain.attacks.peers.via_adv_lib.import_peer", missing)
    monkeypatch.setattr("sztrain.attacks.peers.via_foolbox.import_peer", missing)
    attacks = "suite.attacks=[fmn,vfga,ead,sigma_zero]"
    nets = "digits_standard,digits_sparse_at"
    outcome = call(f"{SUITE} suite.models=[{nets}] suite.num_steps=[4] {attacks}")
    assert outcome.status == 0, outcome.err
    assert len(table("out/results.csv")) == 8
    remarks = [line for line in outcome.out.splitlines() if "not available" in line]
    assert len(remarks) == 2
    both = "on digits_standard, digits_sparse_at: not available"
    assert remarks[0].startswith(f"FMN, VFGA {both}")
    assert remarks[1].startswith(f"EAD {both}")


@pytest.mark.slow
def test_an_attack_at_a_fixed_budget_that_cannot_be_had_is_told_of(
    call, table, monkeypatch, without_pictures
):
    def missing(name, *needed):
        raise UnavailableError(f"{name} cannot be imported")

    monkeypatch.setattr(
        "sztrain.cli.suite_jobs.check_library", lambda attack: missing("its library")
    )
    options = "suite.models=[digits_standard] suite.num_steps=[4] suite.fixed_budgets=[2,4]"
    outcome = call(f"{PLAIN} {options} suite.fixed_budget_attacks=[sigma_zero]")
    assert outcome.status == 2  # of all attacks
    rows = table("out/results.csv")
    assert [row["budget"] for row in rows] == ["", "2", "4"]
    assert {row["notes"] for row in rows} == {"not available: its library cannot be imported"}
    assert outcome.out.count("its library cannot be imported") == 1


@pytest.mark.slow
def test_the_files_of_a_net_that_is_a_path_stay_in_the_folder(call, trained, table, tmp_path):
    folder = Path(trained.best).parent
    before = set(folder.rglob("*"))
    options = f"suite.models=[{trained.best},{trained.last}] suite.num_steps=[4]"
    assert call(f"{PLAIN} {options} suite.attacks=[sigma_zero,sparse_rs]").status == 0
    assert set(folder.rglob("*")) == before
    names = {path.name for path in (tmp_path / "out" / "records").iterdir()}
    assert {"best-sigma_zero-4.csv", "last-sparse_rs-4.csv"} <= names
    assert len({row["model"] for row in table("out/results.csv")}) == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"best ({trained.best}), last ({trained.last})" in page
    assert f">{trained.best}<" not in page  # for which a table has no room
    for kind in ("curves", "examples"):  # the attacks side by side
        assert (tmp_path / "out" / kind / "best-N=4-features.png").is_file()


@pytest.mark.slow
def test_a_net_far_down_in_folders_has_pictures(call, trained, table, tmp_path):
    """Names of files have at most 255 bytes."""
    folder = tmp_path / "/".join(20 * ["a folder of some length"])
    folder.mkdir(parents=True)
    nets = [str(folder / name / "best.ckpt") for name in ("one", "two")]
    for net in nets:
        Path(net).parent.mkdir()
        shutil.copy(trained.best, net)
    listed = ",".join(f'"{net}"' for net in nets)
    options = f"'suite.models=[{listed}]' suite.num_steps=[4]"
    outcome = call(f"{PLAIN} {options} suite.attacks=[sigma_zero,sparse_rs]")
    assert outcome.status == 0, outcome.err
    assert [row["model"] for row in table("out/results.csv")] == [n for n in nets for _ in "12"]
    pictures = {path.name for path in (tmp_path / "out" / "curves").iterdir()}
    assert (
        len(
            [
                name
                for name in pictures
                if name in ("one_best-N=4-features.png", "two_best-N=4-features.png")
            ]
        )
        == 2
    )


def test_tables_are_written_before_the_pictures(call, table, monkeypatch, without_pictures):
    def fail(*arguments):
        raise InputError("no picture")

    monkeypatch.setattr("sztrain.cli.report.draw_pictures", fail)
    options = "suite.attacks=[sigma_zero] suite.num_steps=[2] suite.transfer=true"
    outcome = call(f"{PLAIN} {options} suite.worst_case=true suite.fixed_budgets=[2]")
    assert outcome.status == 2
    assert "no picture" in outcome.err
    assert len(table("out/transfer.csv")) == 2
    assert len(table("out/worst_case.csv")) == 2


def test_a_suite_that_measures_nothing_says_why_and_fails(
    call, table, tmp_path, monkeypatch, paper_nets
):
    monkeypatch.setenv("SZTRAIN_DATA_DIR", str(tmp_path))
    outcome = call(f"{SUITE} suite.models=[M1] suite.num_steps=[6]")
    assert outcome.status == 2
    assert outcome.err.splitlines()[-1] == (
        "sztrain: error: nothing was measured; the lines above say what is missing"
    )
    assert "M1: not available: MNIST is not on disk" in outcome.out
    assert "clean accuracy and ASR" not in outcome.out
    assert "report.html" not in outcome.out
    (row,) = table("out/results.csv")
    assert row["notes"].startswith("not available: MNIST is not on disk")
    # What it advises is what a suite takes.
    assert row["notes"].endswith(
        "set suite.download=true, or SZTRAIN_DATA_DIR to the folder above it"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("attack.num_steps=3", "attack.num_steps has no meaning beside a suite"),
        ("net=M1", "net has no meaning beside a suite"),
        ("budgets=[3]", "budgets has no meaning beside a suite"),
        ("+suite.speed=1", "speed"),
        ("~suite.models", "models"),
        ("data.download=true", "data.download has no meaning beside a suite: set suite.download"),
        ("data.root=x", "set the environment variable SZTRAIN_DATA_DIR instead"),
        ("suite.grid.sigma=[0.1]", "no option suite.grid.sigma; did you mean suite.grid?; +suite."),
        ("suite.steps_per_n={gse:3}", "no option suite.steps_per_n.gse; known here: "),
    ],
)
def test_what_has_no_meaning_beside_a_suite_is_refused(refused, options, message):
    refused(f"evaluate suite=quick {options}", message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("suite.attacks=[fgsm]", "there is no attack=fgsm; expected one of "),
        ("suite.attacks=[attack_mix]", "expected `attack=attack_mix` to be one that judges"),
        ("suite.fixed_budget_attacks=[attack_mix]", "got AttackMix, made to train"),
        ("suite.variants.cifar10.sigma_zero=attack_mix", "got AttackMix, made to train"),
        ("suite.models=[M9]", "expected a net's name"),
        ("suite.models=[]", "expected `suite.models` to have at least one entry"),
        ("suite.num_steps=[5,5]", "expected `suite.num_steps` to have no entry twice, got [5, 5]"),
        ("suite.num_steps=[0]", "expected `suite.num_steps` to be at least 1, got 0"),
        ("suite.num_steps=7", "expected `suite.num_steps` to be a list or group, got 7"),
        ("suite.models=[1]", "expected `suite.models` to hold names, got 1"),
        ("suite.models=[null]", "expected `suite.models` to hold names, got None"),
        ("suite.steps_per_n=null", "expected `suite.steps_per_n` to be a list or group, got None"),
        ("suite.fixed_budget_attacks=null", "expected `suite.fixed_budget_attacks` to be a list"),
        ("suite.fixed_budget_attacks=fmn", "expected `suite.fixed_budget_attacks` to be a list"),
        ("suite.loss_terms=7", "expected `suite.loss_terms` to be true or false, got 7"),
        ("suite.grid.num_steps=[1,2]", "suite.num_steps, not part of its grid"),
        ("suite.grid.budget=[1,2]", "budgets are suite.fixed_budgets"),
        ("suite.num_samples=0", "expected `suite.num_samples` to be at least 1, got 0"),
        (
            "suite.first_sample=359 suite.models=[digits_standard]",
            "expected `suite.first_sample` to be below 359, the size of the test split of digits",
        ),
        ("suite.steps_per_n.sparse_rs=0", "`suite.steps_per_n.sparse_rs` to be positive, got 0"),
        ("suite.steps_per_n.sparse_rs=abc", "`suite.steps_per_n.sparse_rs` to be a number, got 'a"),
        ("suite.batch_size=0", "expected `suite.batch_size` to be at least 1, got 0"),
        ("suite.grid.sigma=[]", "expected `suite.grid.sigma` to be a list of at least one value"),
        ("suite.grid.sigma=[1,0.1,1.0]", "expected `suite.grid.sigma` to have no value twice, got"),
        ("suite.grid.lean=[true]", "`attack=sigma_zero` to judge, got lean=True"),
        ("suite.grid=sigma", "expected `suite.grid` to be a list or group, got 'sigma'"),
        (
            "suite.grid.sigmas=[1]",
            "attack=sigma_zero has no option sigmas; it has num_steps, eta, sigma,",
        ),
        ("suite.grid.sigma=[-1]", "expected `sigma` to be positive, got -1"),
        ("suite.variants.mnist=gse", "expected `suite.variants.mnist` to name an attack for each"),
        ("suite.variants.mnits.gse=gse", "there is no data=mnits; expected one of "),
        ("suite.variants.cifar10.sigma_zero=fgsm", "there is no attack=fgsm; expected one of "),
        ("suite.explained_attacks=[1]", "expected `suite.explained_attacks` to hold names, got 1"),
        (
            "suite.explained_attacks=[nonsense]",
            "suite.explained_attacks: there is no attack=nonsense; expected one of ",
        ),
        ("suite.steps_per_n.sigma_zerro=4", "attack=sigma_zerro; expected one of "),
        ("suite.fixed_budget_steps_per_n.fnm=4", "fixed_budget_steps_per_n: there is no attack="),
        ("suite.variants.mnist.gsee=gse", "suite.variants.mnist: there is no attack=gsee; "),
        ("suite.transfer=7", "expected `suite.transfer` to be true or false, got 7"),
        ("suite.models=[M8,digits_standard,M9]", "got M8; expected a net's name"),
        ("suite.models=[digits_standard,M9]", "expected a net's name"),
    ],
)
def test_what_a_suite_cannot_do_is_refused(refused_config, options, message):
    """All of it before the first net is attacked, which may take hours."""
    refused_config(evaluate, "evaluate suite=quick", options, message)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["--config-dir conf", "hydra.searchpath=[file://conf]"])
def test_a_suite_takes_options_from_a_folder_of_ones_own(call, table, tmp_path, where):
    for group, text in {
        "attack": "defaults: [sigma_zero, _self_]\ntau: 0.5\n",
        "data": "defaults: [digits, _self_]\nname: digits\nsplit_seed: 1\n",
    }.items():
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(text)
    flag, override = (where, "") if where.startswith("-") else ("", where)
    mine = "suite.attacks=[mine] suite.models=[digits_standard] +suite.variants.mine={mine:mine}"
    command = f"{flag} suite=quick {mine} suite.num_steps=[3] suite.num_samples=4 {override}"
    assert call(f"evaluate {command} suite.loss_terms=false hydra.run.dir=out").status == 0
    (row,) = table("out/results.csv")
    assert row["options"] == "tau=0.5"


OWN_MODULE = """
from dataclasses import dataclass, field, replace
from sztrain.attacks import SigmaZero

@dataclass(frozen=True)
class Several:
    etas: list = field(default_factory=list)
    first: SigmaZero = SigmaZero()
    num_steps: int = 10
    unit: str = "features"
    budget: int | None = None

    def __call__(self, net, inputs, labels):
        return replace(self.first, num_steps=self.num_steps)(net, inputs, labels)

@dataclass(frozen=True)
class Opaque(Several):
    first: object = object()
"""


@pytest.mark.slow
def test_an_attack_of_ones_own_may_hold_lists_and_attacks(
    call, refused, table, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "attacks_of_mine.py").write_text(OWN_MODULE)
    (tmp_path / "conf" / "attack").mkdir(parents=True)
    config = "_target_: attacks_of_mine.Several\netas: [1.0, 0.5]\nnum_steps: 3\n"
    (tmp_path / "conf" / "attack" / "several.yaml").write_text(config)
    (tmp_path / "conf" / "attack" / "opaque.yaml").write_text(config.replace("Several", "Opaque"))
    command = "evaluate --config-dir conf net=digits_standard num_samples=4"
    outcome = call(f"{command} attack=several hydra.run.dir=out")
    assert outcome.status == 0, outcome.err
    assert len(table("out/results.csv")) == 1
    assert (tmp_path / "out" / "report.html").is_file()
    refused(f"{command} attack=opaque", "the options of `attack` to be numbers, text, lists")


@pytest.mark.slow
def test_suites_have_places_of_their_own(call, tmp_path, without_pictures):
    for steps in ("[1]", "[1]", "[2]"):
        short = f"suite.num_steps={steps} suite.num_samples=2 suite.loss_terms=false"
        command = f"evaluate suite=quick suite.models=[digits_standard] {short}"
        assert call(command).status == 0
    places = [path.name for path in (tmp_path / "outputs" / "evaluate").iterdir()]
    assert len(places) == 2
    assert all(place.startswith("quick-") for place in places)


@pytest.mark.parametrize(
    ("named", "threads"), [("", 1), ("num_threads=2", 2), ("++num_threads=2", 2)]
)
def test_a_suite_takes_one_thread_unless_the_command_says_otherwise(
    call, monkeypatch, named, threads
):
    taken = []

    def stop(num_threads):
        taken.append(num_threads)
        raise InputError("stop")

    monkeypatch.setattr("sztrain.cli.evaluate.set_num_threads", stop)
    assert call(f"{SUITE} {named}").status == 2
    assert taken == [threads]


@pytest.mark.slow
def test_a_grid_runs_every_combination_of_its_options(call, table, tmp_path):
    command = f"{PLAIN} suite.models=[digits_standard] suite.num_steps=[4]"
    assert call(f"{command} +suite.grid.sigma=[0.001,1.0] +suite.grid.tau=[0.3,0.5]").status == 0
    rows = table("out/results.csv")
    expected = [f"sigma={sigma} tau={tau}" for sigma in (0.001, 1.0) for tau in (0.3, 0.5)]
    assert [row["options"] for row in rows] == expected
    at_budgets = {row["options"] for row in table("out/results_fixed_budget.csv")}
    assert at_budgets == set(expected)
    names = {path.stem for path in (tmp_path / "out" / "records").iterdir()}
    points = [f"sigma={sigma}-tau={tau}" for sigma in (0.001, 1.0) for tau in (0.3, 0.5)]
    assert names == {f"digits_standard-sigma_zero-4-{point}" for point in points}
    assert [path.name for path in (tmp_path / "out" / "ablation").iterdir()] == ["N=4-features.png"]
    (plain,) = [row for row in rows if row["options"] == "sigma=0.001 tau=0.3"]
    assert call(f"{command} hydra.run.dir=alone").status == 0
    (alone,) = table("alone/results.csv")
    for key in ("median_l0", "mean_l0", "asr_10"):
        assert plain[key] == alone[key]


def test_a_grid_over_another_attack_with_the_options_of_fig_4_ends_well(call, table):
    options = "suite.models=[digits_standard] suite.num_steps=[4]"
    grid = "+suite.grid.sigma=[0.02] +suite.grid.tau=[0.3]"
    attacks = "suite.attacks=[aslo]"
    outcome = call(f"{PLAIN} {options} {grid} {attacks}")
    assert outcome.status == 0, outcome.err
    assert len(table("out/results.csv")) == 1


def test_a_suite_that_finds_fewer_samples_than_asked_for_says_so(call, without_pictures):
    command = (
        "evaluate suite=quick suite.models=[digits_standard] suite.num_steps=[2] "
        "suite.attacks=[sigma_zero] suite.first_sample=355 suite.num_samples=8"
    )
    with pytest.warns(SztrainWarning, match="the test split of digits has 4 samples from 355 on"):
        assert call(command).status == 0


@pytest.mark.slow
def test_attacks_that_break_different_samples_are_drawn_side_by_side(call, table, tmp_path):
    outcome = call(f"{PLAIN} suite.num_steps=[3] suite.attacks=[sigma_zero,sigma_zero_sgd]")
    assert outcome.status == 0, outcome.err
    assert "Examples side by side" in (tmp_path / "out" / "report.html").read_text()
    records = [
        f"out/records/digits_sparse_at-{name}-3.csv" for name in ("sigma_zero", "sigma_zero_sgd")
    ]
    broken = [[row["success"] for row in table(path)] for path in records]
    assert broken[0] != broken[1]


@pytest.mark.slow
def test_pictures_that_were_deleted_are_drawn_again(call, tmp_path):
    command = f"{SUITE} suite.models=[digits_standard] suite.num_steps=[6]"
    command += " suite.num_samples=8"
    assert call(command).status == 0
    pictures = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/*.png")}
    assert len(pictures) >= 4
    # Each is missing once while others are there.
    for lost in (list(pictures)[::2], list(pictures)[1::2]):
        for path in lost:
            path.unlink()
        assert call(command).status == 0
        assert {path: path.read_bytes() for path in pictures} == pictures


@pytest.mark.slow
def test_attacks_at_a_fixed_budget_stand_beside_what_is_read_off(call, table, without_pictures):
    command = f"{PLAIN} suite.models=[digits_standard] suite.num_steps=[20]"
    assert call(f"{command} suite.fixed_budget_attacks=[sigma_zero]").status == 0
    assert len(table("out/results.csv")) == 1
    rows = table("out/results_fixed_budget.csv")
    read_off, run = rows[:3], rows[3:]
    assert [row["options"] for row in run] == [f"budget={k}" for k in (2, 4, 8)]
    for first, second in zip(read_off, run, strict=True):
        assert (first["budget"], first["steps"]) == (second["budget"], second["steps"])
        # σ-zero breaks a sample within a budget in either way, only sooner.
        assert first["asr"] == second["asr"]
        assert float(first["queries_k"]) >= float(second["queries_k"])
    assert float(first["queries_k"]) > float(second["queries_k"])  # at the largest budget


@pytest.mark.slow
def test_an_attack_may_take_several_steps_for_each_of_n_at_a_fixed_budget(
    call, table, without_pictures
):
    # At 1 change the digit that is hardest to break takes all the steps it is given.
    options = "suite.models=[digits_standard] suite.num_steps=[4] suite.fixed_budgets=[1]"
    queries = []
    for factor in (1, 3):
        granted = f"+suite.fixed_budget_steps_per_n.sigma_zero={factor} hydra.run.dir=run{factor}"
        assert (
            call(f"{PLAIN} {options} suite.fixed_budget_attacks=[sigma_zero] {granted}").status == 0
        )
        _, row = table(f"run{factor}/results_fixed_budget.csv")
        assert (row["steps"], row["budget"], row["options"]) == ("4", "1", "budget=1")
        queries.append(float(row["queries_k"]))
    assert queries[1] > 1.5 * queries[0]


@pytest.mark.slow
def test_the_judge_is_named_with_its_members(call, table, tmp_path):
    command = f"{PLAIN} suite.models=[digits_standard] suite.num_steps=[12]"
    assert call(f"{command} suite.attacks=[sigma_zero,sparse_autoattack]").status == 0
    alone, judged = table("out/results.csv")
    assert alone["broken_by"] == ""
    counts = dict(part.split() for part in judged["broken_by"].split(", "))
    records = table("out/records/digits_standard-sparse_autoattack-12.csv")
    assert sum(map(int, counts.values())) == sum(row["broken_by"] != "" for row in records) > 0
    assert float(judged["median_l0"]) <= float(alone["median_l0"])
    assert "SparseAutoAttack (sigma_zero, " in (tmp_path / "out" / "report.html").read_text()
    names = {path.name for path in (tmp_path / "out").glob("*/*N=12-features.png")}
    assert "digits_standard-N=12-features.png" in names  # both attacks on one picture


@pytest.mark.slow
def test_an_attack_may_take_several_steps_for_each_of_n(call, table, without_pictures):
    command = f"{PLAIN} suite.models=[digits_standard] suite.num_steps=[3]"
    assert call(f"{command} +suite.steps_per_n.sigma_zero=4").status == 0
    (row,) = table("out/results.csv")
    assert row["steps"] == "3"
    # The last iterate takes no gradient, but a forward pass, and so does the check.
    assert float(row["queries_k"]) == pytest.approx((2 * 12 + 2) / 1000, abs=1e-3)
    outcome = call(f"{PLAIN} +suite.steps_per_n.sigma_zero=0")
    assert "expected `suite.steps_per_n.sigma_zero` to be positive" in outcome.err


@pytest.mark.slow
def test_an_attack_may_take_a_share_of_n(call, table, tmp_path, without_pictures):
    command = f"{PLAIN} suite.models=[digits_standard] suite.num_steps=[10]"
    assert call(f"{command} +suite.steps_per_n.sigma_zero=0.3").status == 0
    (row,) = table("out/results.csv")
    assert row["steps"] == "10"
    (identity,) = tmp_path.glob("out/batches/*sigma_zero-10/identity.json")
    assert json.loads(identity.read_text())["attack"]["num_steps"] == 3


def test_nets_never_share_a_file():
    names = ["a-b/best.ckpt", "a_b/best.ckpt", "a b/best.ckpt", "last.ckpt", "M1"]
    labels = file_labels(names)
    assert list(labels.values()) == [
        *("a_b_best", "a_b_best-2", "a_b_best-3"),
        *("last", "M1"),
    ]


def test_nets_of_one_name_are_told_apart_by_what_differs_in_their_places():
    names = [f"outputs/train/2026/{run}/checkpoints/best.ckpt" for run in ("08-24", "08-25")]
    assert list(file_labels(names).values()) == ["08_24_best", "08_25_best"]
    assert list(file_labels(["best.ckpt", "a/best.ckpt"]).values()) == ["best", "a_best"]


@pytest.mark.parametrize("attacks", slow_after(1, ["[sigma_zero]", "[]"]))
def test_a_budget_beyond_the_sample_is_refused_first(call, attacks, tmp_path):
    options = f"suite.fixed_budget_attacks={attacks} suite.fixed_budgets=[2,65]"
    outcome = call(f"{SUITE} suite.models=[digits_standard] {options}")
    assert outcome.status == 2
    assert "expected `suite.fixed_budgets` to be at most 64" in outcome.err
    assert not list(tmp_path.rglob("batches"))  # before anything was attacked


@pytest.mark.slow
def test_a_batch_size_that_is_left_open_suits_device_and_images(call, table, without_pictures):
    assert call(f"{PLAIN} suite.batch_size=null suite.num_steps=[2]").status == 0
    assert {row["batch_size"] for row in table("out/results.csv")} == {"128"}
    sizes = [
        automatic_batch_size(torch.device(device), shape)
        for device in ("cpu", "cuda")
        for shape in ((1, 8, 8), (3, 32, 32), (3, 224, 224), (3, 4000, 4000))
    ]
    assert sizes == [128, 128, 16, 16, 1024, 256, 16, 16]


# --- what a suite shows ---


class Page(HTMLParser):
    """What a browser would find on a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.cells = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(" ".join(data.split()))


@pytest.mark.slow
def test_the_report_is_one_page_that_needs_nothing_beside_it(call, paper_nets, table, tmp_path):
    options = "suite.models=[M1,C9] suite.num_steps=[100] suite.num_samples=3"
    assert call(f"{SUITE} {options}").status == 0
    (row,) = (row for row in table("out/results.csv") if row["model"] == "M1")
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert {"sigma-zero", "M1", "C9", "3 of mnist"} <= set(page.words)
    paper, delta = float(row["paper_median_l0"]), float(row["delta_median_l0"])
    assert f"{paper:g} ({delta:+g})" in page.words
    assert any(word.startswith("not available: ") for word in page.words)
    drawn = list((tmp_path / "out").glob("*/*.png"))
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == len(drawn) >= 2
    content = {path.read_bytes() for path in drawn}
    for picture in pictures:
        head, _, data = picture["src"].partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data) in content
        assert picture["alt"]
    for tag, attrs in page.tags:  # nothing is fetched
        assert tag not in ("script", "link", "iframe")
        assert attrs.get("href", "#").startswith("#")
        assert attrs.get("src", "data:").startswith("data:")


@pytest.mark.slow
def test_an_evaluation_in_wandb(call, table, tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    command = f"{SUITE} suite.num_steps=[4] suite.worst_case=true logger=wandb"
    assert call(command).status == 0
    wandb.teardown()
    (run_file,) = tmp_path.glob("out/wandb/offline-run-*/*.wandb")
    items = logged_items(run_file)
    files = run_file.parent / "files"

    def logged_table(key):
        return json.loads((files / items[f"{key}/path"]).read_text())

    shown = {"results": "asr_10", "results_fixed_budget": "asr", "worst_case": "robust_acc_4"}
    for key, name in shown.items():
        found, rows = logged_table(key), table(f"out/{key}.csv")
        assert found["columns"] == list(rows[0])
        column = found["columns"].index(name)
        expected = floats(rows, name)
        assert [values[column] for values in found["data"]] == pytest.approx(expected)
    chart = "curves/digits-N=4-features"
    assert chart in charts(run_file)
    curves = logged_table(f"{chart}_table")
    for net in ("digits_standard", "digits_sparse_at"):
        assert items[f"examples/{net}-sigma_zero-4/nrows"] == 8
        l0 = floats(table(f"out/records/{net}-sigma_zero-4.csv"), "l0")
        points = [cells for cells in curves["data"] if cells[0] == f"{net} under sigma-zero"]
        assert points
        assert all(share == pytest.approx((l0 > budget).mean()) for _, budget, share in points)
    report = (tmp_path / "out" / "report.html").read_text()
    assert (files / items["report/path"]).read_text().endswith(report[-1000:])
    artifacts = [record.artifact for record in run_records(run_file)]
    (artifact,) = [artifact for artifact in artifacts if artifact.type == "records"]
    kept = {entry.path for entry in artifact.manifest.contents}
    assert {"worst_case.csv", "config.yaml", "records/digits_standard-sigma_zero-4.csv"} <= kept
    told = OmegaConf.load("out/config.yaml")
    assert "suite" in told
    assert not {"net", "attack", "data", "num_samples"} & set(told)  # a suite has its own


def test_a_logger_that_would_do_nothing_is_refused(call):
    outcome = call(f"{SUITE} logger=csv")
    assert outcome.status == 2
    assert "expected logger=wandb or none, got csv" in outcome.err


def test_wandb_online_without_a_key_is_refused_first(call, tmp_path):
    outcome = call(f"{SUITE} logger=wandb logger.wandb.mode=online")
    assert outcome.status == 2
    assert "has no key" in outcome.err
    assert not (tmp_path / "out" / "records").exists()
