"""Nets side by side under the worst case of several attacks."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sztrain.models import digits_cnn, save_net

NETS = ["digits_standard", "digits_sparse_at"]
ATTACKS = ["sigma_zero", "sparse_pgd", "sparse_pgd_projected", "sparse_rs"]
SHORT = "evaluate suite=defence suite.num_steps=[10] suite.num_samples=20 suite.batch_size=12"
DEFENCE = f"{SHORT} suite.models=[{','.join(NETS)}] suite.fixed_budgets=[2,4] hydra.run.dir=out"


@pytest.fixture
def without_pictures(monkeypatch):
    """They take most of the time."""
    for name in ("draw_examples", "draw_pictures"):
        monkeypatch.setattr(f"sztrain.cli.results.{name}", lambda *arguments: [])


def l0_of(table, net, attack, *, at=()):
    """The l0 that every run of an attack left in its records, and those at a budget."""
    names = [f"{net}-{attack}-10", *(f"{net}-{attack}-10-budget={k}" for k in at)]
    found = [table(f"out/records/{name}.csv") for name in names]
    return np.array([[float(record["l0"]) for record in records] for records in found])


def check_row(row, table, budgets):
    """Every figure of a row against the records."""
    net = row["model"]
    runs = {a: l0_of(table, net, a, at=() if a == "sigma_zero" else budgets) for a in ATTACKS}
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


def test_nets_side_by_side_under_the_worst_case(call, table, tmp_path, without_pictures):
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
    assert "RA4" in outcome.out
    report = (tmp_path / "out" / "report.html").read_text()
    assert 'id="Worst-case"' in report
    assert '<th scope="col">RA4 sparse_pgd_projected</th>' in report

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


def test_colour_images_may_be_judged_in_pixels(call, table, colour_net, without_pictures):
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
    assert len(budgets) == 2 * (4 + 3)
    assert "Counted in pixels" in outcome.out


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
def test_what_makes_no_sense_is_refused(call, options, message):
    outcome = call(f"evaluate suite=defence {options}")
    assert outcome.status == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.slow
def test_two_processes_leave_the_table_of_one(spawn, tmp_path):
    command = f"{SHORT} suite.models=[digits_standard] suite.fixed_budgets=[2] device=cpu"
    command += " suite.attacks=[sigma_zero,sparse_rs] suite.fixed_budget_attacks=[sparse_rs]"
    for name, devices in (("one", 1), ("two", 2)):
        outcome = spawn(f"{command} devices={devices} hydra.run.dir={name}")
        assert outcome.status == 0, outcome.err
    first, second = ((tmp_path / run / "worst_case.csv").read_bytes() for run in ("one", "two"))
    assert first == second
