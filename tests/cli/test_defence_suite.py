"""Nets side by side under the worst case of several attacks."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from sztrain.cli import report
from sztrain.errors import UnavailableError
from sztrain.evaluation import recording
from sztrain.models import digits_cnn, save_net

NETS = ["digits_standard", "digits_sparse_at"]
MINIMUM_NORM = ("sigma_zero", "sigma_zero_sgd")
ATTACKS = ["sigma_zero", "sigma_zero_sgd", "sparse_pgd", "sparse_pgd_projected", "sparse_rs"]
SHORT = "evaluate suite=defence suite.num_steps=[10] suite.num_samples=20 suite.batch_size=12"
DEFENCE = f"{SHORT} suite.models=[{','.join(NETS)}] suite.fixed_budgets=[2,4] hydra.run.dir=out"


@pytest.fixture
def shown(monkeypatch):
    """The tables that the screen shows, as they are: it may have no room for long headings."""
    tables = {}
    print_results = report.print_results

    def kept(shown, remarks, report):
        tables.clear()
        tables.update(shown)
        print_results(shown, remarks, report)

    monkeypatch.setattr(report, "print_results", kept)
    return tables


def without_peers(monkeypatch):
    """As on a machine without the library of most other attacks."""

    def missing(name, *needed):
        raise UnavailableError(f"{name} cannot be imported")

    monkeypatch.setattr("sztrain.attacks.peers.via_adv_lib.import_peer", missing)


def page_table(report, heading):
    """Cells of a table of the report, the headings first."""
    (section,) = re.findall(rf'<section id="{heading}">(.*?)</section>', report, re.DOTALL)
    rows = re.findall("<tr>(.*?)</tr>", section, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


def columns(cells, heading):
    """What stands below a heading, in every row."""
    headings, *body = cells
    return [row[headings.index(heading)] for row in body]


def l0_of(table, net, attack, *, at=(), steps=10):
    """The l0 that every run of an attack left in its records, and those at a budget."""
    names = [f"{net}-{attack}-{steps}", *(f"{net}-{attack}-{steps}-budget={k}" for k in at)]
    found = [table(f"out/records/{name}.csv") for name in names]
    return np.array([[float(record["l0"]) for record in records] for records in found])


def check_row(row, table, budgets, attacks=ATTACKS):
    """Every figure of a row against the records."""
    net, steps = row["model"], row["steps"]
    runs = {
        a: l0_of(table, net, a, at=() if a in MINIMUM_NORM else budgets, steps=steps)
        for a in attacks
    }
    fewest = np.concatenate([*runs.values()]).min(axis=0)
    assert float(row["clean_acc"]) == pytest.approx(100 * (fewest > 0).mean())
    assert float(row["median_l0"]) == np.median(fewest)
    assert float(row["mean_l0"]) == pytest.approx(fewest[np.isfinite(fewest)].mean())
    for k in budgets:
        left = {attack: (found > k).all(axis=0) for attack, found in runs.items()}
        together = np.all([*left.values()], axis=0)
        assert float(row[f"robust_acc_{k}"]) == pytest.approx(100 * together.mean())
        for attack, withstood in left.items():
            expected = pytest.approx(100 * withstood.mean())
            assert float(row[f"robust_acc_{k}_{attack}"]) == expected


@pytest.mark.slow
def test_nets_side_by_side_under_the_worst_case(call, table, tmp_path, without_pictures, shown):
    outcome = call(DEFENCE)
    assert outcome.status == 0, outcome.err
    rows = table("out/worst_case.csv")
    about = ("model", "dataset", "steps", "unit", "num_samples", "attacks", "notes")
    assert [[row[key] for key in about] for row in rows] == [
        [net, "digits", "10", "features", "20", ", ".join(ATTACKS), ""] for net in NETS
    ]
    for row in rows:
        check_row(row, table, [2, 4])
    # Each attack breaks a sample that the others do not, or the table would tell nothing new.
    assert any(
        float(row[f"robust_acc_{k}"]) < min(float(row[f"robust_acc_{k}_{a}"]) for a in ATTACKS)
        for row in rows
        for k in (2, 4)
    )

    projected = json.loads(
        (tmp_path / f"out/batches/{NETS[0]}-sparse_pgd_projected-10/identity.json").read_text()
    )
    assert projected["attack"]["projected"] is True
    assert (projected["attack"]["num_steps"], projected["attack"]["unit"]) == (10, "features")
    queries = json.loads(
        (tmp_path / f"out/batches/{NETS[0]}-sparse_rs-10/identity.json").read_text()
    )
    assert queries["attack"]["num_steps"] == 20

    remark = f"Worst case of {', '.join(ATTACKS)}; RA: robust accuracy in percent"
    assert remark in outcome.out.splitlines()
    about = ["net", "data", "N", "images", "unit", "clean", "median", "mean", "RA2", "RA4"]
    headings, body = shown["Worst case"]  # a column for each attack has no room on a screen
    assert headings == about
    assert [row[1].ours for row in body] == ["digits"] * 2
    assert [row[3].ours for row in body] == ["20"] * 2
    report = (tmp_path / "out" / "report.html").read_text()
    alone = [f"RA{k} {attack}" for k in (2, 4) for attack in ATTACKS]
    assert page_table(report, "Worst-case")[0] == [*about, *alone]
    facts = " ".join(re.sub("<[^>]*>", " ", report).split())
    assert "sigma-zero only, N=10, features; " in facts
    assert "SparsePGD only, N=10, features, given 2, 4 to spend; " in facts
    # Features are what is counted where nothing else is said.
    for heading in ("Results", "Fixed-budgets"):
        assert "unit" not in page_table(report, heading)[0]

    _check_resumed(call, tmp_path / "out")


def _check_resumed(call, out):
    """The same table, whatever is left of the records of attacks and budgets."""
    before = (out / "worst_case.csv").read_bytes()
    for label in (f"{NETS[0]}-sigma_zero-10", f"{NETS[1]}-sparse_rs-10-budget=2"):
        (out / "batches" / label / "000012.csv").unlink()
    (out / "worst_case.csv").unlink()
    assert call(DEFENCE).status == 0
    assert (out / "worst_case.csv").read_bytes() == before


@pytest.fixture
def colour_net(tmp_path):
    """A file with a net that finds one half of some colour images to be of either class."""
    generator = np.random.default_rng(0)
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "pictures" / place).mkdir(parents=True)
        for i in range(8):
            values = generator.integers(0, 255, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / "pictures" / place / f"{i}.png")
    options = {"num_classes": 2, "in_channels": 3}
    spec = {"_target_": "sztrain.models.digits_cnn", "width": 2, **options}
    data = {"name": "folder", "root": "pictures", **options}
    described = {"net": spec, "data": data, "unit": "features", "method": {"name": "standard"}}
    torch.manual_seed(0)
    net = digits_cnn(width=2, **options)
    with torch.no_grad():
        logits = net(torch.rand(64, 3, 8, 8))
        list(net.parameters())[-1].sub_(logits.median(dim=0).values)
    save_net(net, described, tmp_path / "net.safetensors")
    return "net.safetensors"


@pytest.mark.slow
def test_colour_images_may_be_judged_in_pixels(
    call, table, tmp_path, colour_net, without_pictures, shown
):
    command = f"{SHORT} suite.models=[{colour_net}] suite.fixed_budgets=[1,3]"
    outcome = call(f"{command} suite.unit=pixels hydra.run.dir=out")
    assert outcome.status == 0, outcome.err
    (row,) = table("out/worst_case.csv")
    assert (row["unit"], row["num_samples"]) == ("pixels", "16")
    check_row(row | {"model": "net"}, table, [1, 3])
    records = [record for a in ATTACKS for record in table(f"out/records/net-{a}-10.csv")]
    broken = [record for record in records if record["success"] == "True"]
    assert all(float(record["l0"]) == float(record["pixels"]) for record in broken)
    assert any(record["features"] != record["pixels"] for record in broken)
    # Runs at a budget stand in their own table, as they do where features are counted.
    assert len(table("out/results.csv")) == len(ATTACKS)
    budgets = table("out/results_fixed_budget.csv")
    assert {(row["budget"], row["unit"]) for row in budgets} == {("1", "pixels"), ("3", "pixels")}
    assert len(budgets) == 2 * (len(ATTACKS) + 3)
    title = "16 images of folder, counted in pixels"
    assert title in " ".join(outcome.out.split())
    report = (tmp_path / "out" / "report.html").read_text()
    for heading, size in {
        "Results": len(ATTACKS),
        "Worst-case": 1,
        "Fixed-budgets": len(budgets),
    }.items():
        assert columns(page_table(report, heading), "unit") == ["pixels"] * size
    (screen, _) = shown[title]
    assert "unit" not in screen  # it is in the title
    head, _, *lines = (tmp_path / "out" / "results.md").read_text().splitlines()
    assert "| unit |" in head
    assert all("| pixels |" in line for line in lines)


@pytest.mark.slow
def test_a_grid_over_the_unit_names_it_in_every_row(
    call, table, tmp_path, colour_net, without_pictures, shown
):
    command = f"{SHORT} suite.models=[{colour_net}] suite.fixed_budgets=[3] hydra.run.dir=out"
    command += " suite.attacks=[sigma_zero] suite.fixed_budget_attacks=[sparse_rs]"
    assert call(f"{command} +suite.grid.unit=[features,pixels]").status == 0
    report = (tmp_path / "out" / "report.html").read_text()
    both = ["features", "pixels"]
    assert columns(page_table(report, "Results"), "unit") == both
    assert columns(page_table(report, "Worst-case"), "unit") == both
    assert columns(page_table(report, "Fixed-budgets"), "unit") == [*both, "features"]
    headings, body = shown["16 images of folder"]
    assert "attack" in headings  # though there is one alone
    assert [row[headings.index("unit")].ours for row in body] == both
    notes = [row["notes"] for row in table("out/worst_case.csv")]
    assert notes == ["", "without sparse_rs"]  # which the grid does not reach


@pytest.mark.slow
def test_every_number_of_steps_has_a_row(call, table, without_pictures):
    attacks = ["sigma_zero", "sparse_rs"]
    command = f"{DEFENCE} suite.models=[digits_standard] suite.num_steps=[10,40]"
    command += f" suite.attacks=[{','.join(attacks)}] suite.fixed_budget_attacks=[sparse_rs]"
    assert call(command).status == 0
    rows = table("out/worst_case.csv")
    assert [row["steps"] for row in rows] == ["10", "40"]
    for row in rows:
        check_row(row, table, [2, 4], attacks)
    assert rows[0]["mean_l0"] != rows[1]["mean_l0"]


@pytest.mark.slow
def test_a_variant_counts_as_the_attack_that_it_stands_for(call, table, without_pictures):
    # One of either kind of run, each with one of its own.
    variants = "{sparse_pgd:sparse_pgd_projected,sparse_rs:budgeted_sigma_zero}"
    command = f"{DEFENCE} suite.models=[digits_standard] +suite.variants.digits={variants}"
    command += " suite.attacks=[sigma_zero,sparse_pgd] suite.fixed_budget_attacks=[sparse_rs]"
    outcome = call(command)
    assert outcome.status == 0, outcome.err
    (row,) = table("out/worst_case.csv")
    assert (row["attacks"], row["notes"]) == ("sigma_zero, sparse_pgd, sparse_rs", "")
    (projected,) = l0_of(table, "digits_standard", "sparse_pgd_projected")
    budgeted = np.concatenate(
        [
            l0_of(table, "digits_standard", "budgeted_sigma_zero", steps=f"10-budget={k}")
            for k in (2, 4)
        ]
    )
    for k in (2, 4):
        expected = 100 * (projected > k).mean()
        assert float(row[f"robust_acc_{k}_sparse_pgd"]) == pytest.approx(expected)
        expected = 100 * (budgeted > k).all(axis=0).mean()
        assert float(row[f"robust_acc_{k}_sparse_rs"]) == pytest.approx(expected)


@pytest.mark.slow
def test_runs_at_a_budget_say_nothing_about_larger_ones(
    call, table, shown, tmp_path, without_pictures
):
    (tmp_path / "conf" / "attack").mkdir(parents=True)
    option = "_target_: sztrain.attacks.SigmaZero\nnum_steps: 10\nbudget: 4\n"
    (tmp_path / "conf" / "attack" / "up_to_4.yaml").write_text(option)
    command = f"{DEFENCE} suite.models=[digits_standard] suite.fixed_budgets=[2,4,8]"
    command += " suite.attacks=[up_to_4] suite.fixed_budget_attacks=[]"
    outcome = call(f"{command} --config-dir conf")
    assert outcome.status == 0, outcome.err
    (row,) = table("out/worst_case.csv")
    (records,) = l0_of(table, "digits_standard", "up_to_4")
    for k in (2, 4):
        for column in (f"robust_acc_{k}", f"robust_acc_{k}_up_to_4"):
            assert float(row[column]) == pytest.approx(100 * (records > k).mean())
    empty = ("median_l0", "mean_l0", "robust_acc_8", "robust_acc_8_up_to_4")
    assert [row[column] for column in empty] == [""] * 4
    assert row["notes"] == "up_to_4 only up to k=4"
    headings, _ = shown["Worst case"]
    assert headings[-3:] == ["RA2", "RA4", "notes"]


@pytest.mark.slow
def test_an_attack_whose_library_is_missing_is_told_of(
    call, table, monkeypatch, shown, without_pictures
):
    without_peers(monkeypatch)
    command = f"{DEFENCE} suite.models=[digits_standard] suite.attacks=[vfga,sigma_zero]"
    outcome = call(f"{command} suite.fixed_budget_attacks=[]")
    assert outcome.status == 0, outcome.err
    (row,) = table("out/worst_case.csv")
    assert (row["attacks"], row["notes"]) == ("sigma_zero", "without vfga")
    assert row["robust_acc_2_vfga"] == ""
    assert row["robust_acc_2_sigma_zero"] == row["robust_acc_2"] != ""
    headings, ((*_, note),) = shown["Worst case"]
    assert (headings[-1], note.ours) == ("notes", "without vfga")


@pytest.mark.slow
def test_too_few_steps_show_before_the_first_attack(call, tmp_path):
    outcome = call(f"{DEFENCE} suite.num_steps=[5]")
    assert outcome.status == 2
    assert "suite: sparse_pgd-5: expected `num_steps` to be at least 10" in outcome.err
    assert not (tmp_path / "out" / "batches").exists()


@pytest.mark.slow
def test_no_table_of_an_earlier_run_is_left(call, tmp_path, monkeypatch, without_pictures):
    found = tmp_path / "out" / "worst_case.csv"
    command = f"{DEFENCE} suite.models=[digits_standard] suite.fixed_budget_attacks=[]"
    assert call(f"{command} suite.attacks=[sigma_zero]").status == 0
    before = found.read_bytes()

    # A run that does not belong into this folder leaves it as it is.
    assert call(f"{command} suite.attacks=[sigma_zero] suite.num_samples=10").status == 2
    assert found.read_bytes() == before

    # One that ends too early leaves none: the old one knows nothing of the attack that is new.
    def interrupted(*arguments):
        raise KeyboardInterrupt
        yield  # at the first batch that has no records yet

    with monkeypatch.context() as patched:
        patched.setattr(recording, "attack_batches", interrupted)
        outcome = call(f"{command} suite.attacks=[sigma_zero,sparse_rs]")
    assert (outcome.status, outcome.err) == (
        130,
        "sztrain: interrupted; the same command goes on\n",
    )
    assert not found.exists()

    # Nor is a table left of budgets that are not asked for any more.
    budgets = tmp_path / "out" / "results_fixed_budget.csv"
    assert budgets.exists()
    assert call(f"{command} suite.attacks=[sigma_zero] suite.fixed_budgets=[]").status == 0
    assert not budgets.exists()

    assert call(f"{command} suite.attacks=[sigma_zero]").status == 0
    assert found.read_bytes() == before
    assert call(f"{command} suite.attacks=[sigma_zero] suite.worst_case=false").status == 0
    assert not found.exists()


@pytest.mark.slow
def test_a_suite_of_ones_own_needs_no_word_of_it(call, tmp_path):
    (tmp_path / "mine" / "suite").mkdir(parents=True)
    own = (
        "defaults: [base/suite@_here_, _self_]\nmodels: [digits_standard]\nattacks: [sigma_zero]\n"
    )
    (tmp_path / "mine" / "suite" / "own.yaml").write_text(own + "num_steps: [9]\n")
    command = "evaluate --config-dir=mine suite=own suite.num_steps=[2] suite.num_samples=4"
    outcome = call(f"{command} hydra.run.dir=out")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "out" / "results.csv").exists()
    assert not (tmp_path / "out" / "worst_case.csv").exists()


@pytest.mark.slow
def test_a_net_that_cannot_be_had_has_no_row(call, table, tmp_path, monkeypatch, without_pictures):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("SZTRAIN_DATA_DIR", str(tmp_path / "empty"))
    short = "suite.attacks=[sigma_zero] suite.fixed_budget_attacks=[] suite.fixed_budgets=[2]"
    outcome = call(f"{SHORT} suite.models=[M1,digits_standard] {short} hydra.run.dir=out")
    assert outcome.status == 0, outcome.err
    (row,) = table("out/worst_case.csv")
    assert row["model"] == "digits_standard"
    (remark,) = (line for line in outcome.out.splitlines() if "not available" in line)
    assert remark.startswith("M1: not available: ")


@pytest.mark.slow
def test_only_a_suite_that_asks_for_it_has_the_table(call, tmp_path):
    quick = "evaluate suite=quick suite.num_steps=[2] suite.num_samples=4 hydra.run.dir=out"
    outcome = call(quick)
    assert outcome.status == 0
    assert "Worst case" not in outcome.out + (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "out" / "worst_case.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("suite.unit=voxels", "expected `suite.unit` to be features or pixels or null, got 'vox"),
        ("suite.worst_case=7", "expected `suite.worst_case` to be true or false, got 7"),
        ("suite.unit=pixels +suite.grid.unit=[features]", "either suite.unit or part of its grid"),
    ],
)
def test_what_makes_no_sense_is_refused(refused, options, message):
    refused(f"evaluate suite=defence {options}", message)


@pytest.mark.slow
def test_two_processes_leave_the_table_of_one(spawn, tmp_path):
    command = f"{SHORT} suite.models=[digits_standard] suite.fixed_budgets=[2] device=cpu"
    command += " suite.attacks=[sigma_zero,sparse_rs] suite.fixed_budget_attacks=[sparse_rs]"
    for name, devices in (("one", 1), ("two", 2)):
        outcome = spawn(f"{command} devices={devices} hydra.run.dir={name}")
        assert outcome.status == 0, outcome.err
    first, second = ((tmp_path / run / "worst_case.csv").read_bytes() for run in ("one", "two"))
    assert first == second
