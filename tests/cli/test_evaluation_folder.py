"""What stands in the folder of an evaluation, and what refusals leave of it."""

import json
from pathlib import Path

import pytest
from filelock import FileLock

from sztrain.cli import jobs
from sztrain.cli.one_at_a_time import one_at_a_time
from sztrain.errors import InputError, SztrainWarning
from sztrain.models import digits_cnn, save_net

ALONE = "evaluate net=digits_standard attack.num_steps=2 num_samples=20"
SUITE = "evaluate suite=quick suite.num_steps=[2] suite.num_samples=20 suite.loss_terms=false"
SUITE += " hydra.run.dir=out"
WEIGHTS = {"_target_": "sztrain.models.digits_cnn", "num_classes": 10, "width": 16}


def keep_net(path, *, num_classes=10, **data):
    """Save a net of some data; returns its path."""
    spec = WEIGHTS | {"num_classes": num_classes}
    net = digits_cnn(num_classes=num_classes, width=WEIGHTS["width"])
    about = {"net": spec, "data": {"name": "digits", **data}, "unit": "features", "method": {}}
    save_net(net, about, path)
    return path


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_repeat_that_is_refused_loses_no_table(call, tmp_path, without_pictures):
    nets = [keep_net(tmp_path / f"{name}.safetensors") for name in "ab"]
    command = f"{SUITE} suite.models=[{nets[0]},{nets[1]}] suite.transfer=true"
    command += " suite.worst_case=true"
    assert call(command).status == 0
    before = contents("out")
    names = {path.name for path in before}
    assert names >= {"transfer.csv", "worst_case.csv", "results_fixed_budget.csv"}
    keep_net(nets[1])  # trained anew
    outcome = call(command)
    assert outcome.status == 2
    assert "has records of another run: net is" in outcome.err
    assert contents("out") == before


def test_what_is_refused_before_it_begins_leaves_the_folder_as_it_is(call, without_pictures):
    assert call(f"{ALONE} hydra.run.dir=out").status == 0
    before = contents("out")
    assert call(f"{ALONE} hydra.run.dir=out device=fpga").status == 2
    assert contents("out") == before


@pytest.mark.slow
def test_records_of_another_evaluation_in_the_folder_are_told_of(call, without_pictures):
    assert call(f"{ALONE} hydra.run.dir=out").err == ""
    other = ALONE.replace("digits_standard", "digits_sparse_at")
    told = r"also holds what an earlier evaluation found \(digits_standard\)"
    with pytest.warns(SztrainWarning, match=told):
        assert call(f"{other} hydra.run.dir=out").status == 0


def test_robust_accuracy_at_the_budgets_is_in_the_tables(call, table, without_pictures):
    outcome = call(f"{ALONE} hydra.run.dir=out budgets=[3,500]")
    assert outcome.status == 2  # of 64 features
    outcome = call(f"{ALONE} hydra.run.dir=out budgets=[3,5]")
    (row,), records = table("out/results.csv"), table("out/records/digits_standard.csv")
    for budget in (3, 5):
        left = sum(float(record["l0"]) > budget for record in records)
        assert float(row[f"robust_acc_{budget}"]) == pytest.approx(100 * left / len(records))
    assert "RA3" in outcome.out
    assert "RA5" in Path("out/results.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", [ALONE, SUITE])
def test_one_process_at_a_time(call, command, tmp_path, monkeypatch, without_pictures):
    command = f"{command} hydra.run.dir=out"
    with one_at_a_time(tmp_path / "out"):
        outcome = call(command)
        assert outcome.status == 2
        assert f"another process is at work in {tmp_path / 'out'}" in outcome.err
        assert not (tmp_path / "out" / "batches").exists()

    held = []

    def watched(*arguments):
        held.append((tmp_path / "out" / ".lock").exists())
        return attack_share(*arguments)

    attack_share = jobs.attack_share
    monkeypatch.setattr("sztrain.cli.evaluate.attack_share", watched)
    assert call(command).status == 0
    assert held
    assert all(held)
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise NotImplementedError("this file system has no locks")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with one_at_a_time(tmp_path):
        pass


@pytest.mark.parametrize("same", ["data.num_workers=1", "data.download=true", "data.augment=true"])
def test_how_samples_are_read_makes_no_other_evaluation(call, monkeypatch, same):
    places = []
    monkeypatch.setattr("sztrain.cli.evaluate.evaluate", lambda cfg: places.append(cfg.output_dir))
    for command in (ALONE, f"{ALONE} {same}"):
        assert call(command).status == 0
    assert places[0] == places[1]


@pytest.mark.slow
def test_which_samples_there_are_makes_another(call, monkeypatch):
    places = []
    monkeypatch.setattr("sztrain.cli.evaluate.evaluate", lambda cfg: places.append(cfg.output_dir))
    others = ("first_sample=1", "num_samples=21", "batch_size=7", "data.split_seed=1")
    for other in ("", *others):
        assert call(f"{ALONE} {other}").status == 0
    assert len(set(places)) == 1 + len(others)


def test_records_of_other_samples_say_which(call):
    assert call(f"{ALONE} hydra.run.dir=out").status == 0
    outcome = call(f"{ALONE} first_sample=1 hydra.run.dir=out")
    assert outcome.status == 2
    assert "first_sample is 0 there and 1 here" in outcome.err


@pytest.mark.slow
def test_records_of_before_their_samples_had_names_are_as_good(call, tmp_path):
    assert call(f"{ALONE} hydra.run.dir=out").status == 0
    (path,) = tmp_path.glob("out/batches/*/identity.json")
    identity = json.loads(path.read_text())
    for key in ("dataset", "split", "first_sample"):
        del identity[key]
    path.write_text(json.dumps(identity))
    outcome = call(f"{ALONE} hydra.run.dir=out")
    assert outcome.status == 0
    assert "nothing was run anew" in outcome.out


# --- suites that are refused before anything begins ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("+suite.grid.sigma=[0.001,1e-3]", "to have no value twice, got [0.001, 0.001]"),
        (
            "suite.fixed_budget_attacks=[sparse_rs] suite.fixed_budgets=[]",
            "sparse_rs would run at suite.fixed_budgets, of which there are none",
        ),
        ("suite.models=[digits_standard,digits_standart] logger=wandb", "got digits_standart"),
    ],
)
def test_a_suite_is_refused_before_it_begins(call, options, message, tmp_path):
    outcome = call(f"{SUITE} {options}")
    assert outcome.status == 2
    assert message in outcome.err
    assert "W&B" not in outcome.out + outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_attack_and_its_variant_are_not_run_into_the_same_files(call, tmp_path):
    variants = "+suite.variants.digits={gse: gse_mnist}"
    outcome = call(f"{SUITE} suite.attacks=[gse,gse_mnist] '{variants}'")
    assert outcome.status == 2
    assert "got gse_mnist-2 twice on digits" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_net_with_other_classes_is_refused_before_the_first_attack(call, tmp_path, monkeypatch):
    def attack_share(*arguments):
        raise AssertionError("nothing should be attacked")

    monkeypatch.setattr("sztrain.cli.evaluate.attack_share", attack_share)
    other = keep_net(tmp_path / "twelve.safetensors", num_classes=12)
    outcome = call(f"{SUITE} suite.models=[digits_standard,{other}]")
    assert outcome.status == 2
    assert "tells 12 classes apart, the data has 10" in outcome.err
    assert "(data.num_classes)" in outcome.err  # there is no model to choose here


@pytest.mark.slow
def test_nets_with_other_test_parts_are_not_laid_side_by_side(call, tmp_path, without_pictures):
    first, second = (
        keep_net(tmp_path / f"net{seed}.safetensors", split_seed=seed) for seed in (0, 3)
    )
    outcome = call(f"{SUITE} suite.models=[{first},{second}]")
    assert outcome.status == 2
    assert "have other test parts of digits" in outcome.err
    assert "data.split_seed=0" in outcome.err
    # Another validation part is no other test part.
    third = keep_net(tmp_path / "net.safetensors", split_seed=0, val_fraction=0.2)
    assert call(f"{SUITE} suite.models=[{first},{third}]").status == 0


def test_damaged_data_of_a_suite_is_told_of_in_options_of_a_suite(call, tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for name in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{name}-ubyte").write_bytes(b"damaged")
    monkeypatch.setenv("SZTRAIN_DATA_DIR", str(tmp_path))
    outcome = call(f"{SUITE} suite.models=[mnist_sparse_at]")
    assert outcome.status == 2
    assert "is damaged" in outcome.err
    assert "suite.download=true" in outcome.err
    assert "data.download" not in outcome.err


def test_one_at_a_time_refuses_in_one_line(tmp_path):
    with one_at_a_time(tmp_path), pytest.raises(InputError) as caught, one_at_a_time(tmp_path):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_no_process_of_several_works_in_a_folder_where_another_is_at_work(spawn, tmp_path):
    with one_at_a_time(tmp_path / "out"):
        outcome = spawn(f"{ALONE} device=cpu devices=2 batch_size=4 hydra.run.dir=out")
    assert outcome.status == 2
    assert f"another process is at work in {tmp_path / 'out'}" in outcome.err
    assert "Traceback" not in outcome.err
    assert not list((tmp_path / "out").rglob("*.csv"))


@pytest.mark.slow
def test_a_variant_for_data_of_no_net_matters_to_none(call, without_pictures):
    variants = "+suite.variants.mnist={gse: gse_mnist}"
    options = "suite.models=[digits_standard] suite.attacks=[gse,gse_mnist] suite.num_steps=[4]"
    assert call(f"{SUITE} {options} '{variants}'").status == 0


@pytest.mark.slow
def test_a_repeat_that_reads_its_samples_otherwise_is_the_same(call, tmp_path, without_pictures):
    nets = [keep_net(tmp_path / f"{name}.safetensors") for name in "ab"]
    command = f"evaluate net=[{nets[0]},{nets[1]}] attack.num_steps=2 num_samples=20"
    assert call(f"{command} hydra.run.dir=out").status == 0
    before = contents("out")
    keep_net(nets[1])
    assert call(f"{command} hydra.run.dir=out data.num_workers=1 num_threads=1").status == 2
    tables = [path for path in before if path.name.startswith("results")]
    assert len(tables) == 3
    after = contents("out")
    assert all(after[path] == before[path] for path in tables)
