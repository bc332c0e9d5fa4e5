import json
import math
import re
import shutil
from pathlib import Path

import cifar_files
import numpy as np
import pytest
import torch
import yaml
from one_line import assert_one_line
from pace import slow_after
from PIL import Image
from wandb_files import summary_of

from sztrain.attacks import SparseAutoAttack
from sztrain.callbacks import SparseRobustness
from sztrain.cli.train import train
from sztrain.data import Digits
from sztrain.errors import SztrainWarning
from sztrain.models import load_net, read_checkpoint
from sztrain.norms import l0_norm
from sztrain.training import adversarial
from sztrain.training.adversary import craft_examples


def column(rows, name):
    return [float(row[name]) for row in rows if row[name]]


def wandb_ids(folder):
    return [path.name.rpartition("-")[2] for path in sorted(folder.glob("wandb/offline-run-*"))]


# --- what a run leaves behind ---


def test_all_files_are_there(trained):
    left = {str(path.relative_to(trained.dir)) for path in trained.dir.rglob("*.*")}
    expected = {"metrics.csv", "config.yaml", "summary.json", "robustness_curve.png"} | {
        "adversarial_examples.png",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "checkpoints/sound.ckpt",
    }
    assert expected <= left
    assert not [name for name in left if name.endswith((".tmp", "-v1.ckpt"))]
    for picture in ("robustness_curve.png", "adversarial_examples.png"):
        pixels = np.asarray(Image.open(trained.dir / picture).convert("L"))
        assert min(pixels.shape) > 100
        assert np.ptp(pixels) > 100  # something is drawn


def test_the_return_value_is_the_best_of_the_monitored_figure(trained, table):
    rows = table(trained.dir / "metrics.csv")
    gauged = column(rows, "val/robust_acc_worst@4")
    assert len(gauged) == 6
    assert trained.value == max(gauged)
    best, last = (read_checkpoint(path)["epoch"] for path in (trained.best, trained.last))
    assert best == max(epoch for epoch in range(6) if gauged[epoch] == max(gauged))
    assert last == 5


def test_the_best_value_is_told_to_the_loggers(trained, table):
    sweep = Path(__file__).parents[2] / "examples" / "sweep.yaml"
    objective = yaml.safe_load(sweep.read_text())["metric"]
    assert objective["goal"] == "maximize"
    assert column(table(trained.dir / "metrics.csv"), objective["name"]) == [trained.value]
    (run_file,) = trained.dir.glob("wandb/offline-run-*/*.wandb")
    summary = summary_of(run_file)
    assert summary[objective["name"]] == trained.value == summary["val/robust_acc_worst@4.max"]


def test_metrics_hold_every_figure_of_every_epoch(trained, table):
    rows = table(trained.dir / "metrics.csv")
    for name in ("train/loss", "train/clean_acc", "train/broken", "train/budget", "val/loss"):
        assert len(column(rows, name)) == 6, name
    for k in (2, 4, 8):
        robust, asr = column(rows, f"val/robust_acc@{k}"), column(rows, f"val/asr@{k}")
        assert np.allclose(np.add(robust, asr), 1)
        assert len(column(rows, f"test/robust_acc@{k}")) == 1
    assert column(rows, "val/clean_acc")[-1] > 0.5  # it has learnt
    assert column(rows, "train/budget") == sorted(column(rows, "train/budget"))


def test_a_monitor_may_be_any_figure_of_the_validation(trained, table):
    """What is known beforehand is what is logged, no more and no less."""
    logged = {key for key in table(trained.dir / "metrics.csv")[0] if key.startswith("val/")}
    keys = SparseRobustness(budgets=(2, 4, 8), probe=SparseAutoAttack(budget=4)).keys()
    assert logged == {"val/loss", "val/clean_acc"} | keys.figures


def test_summary_says_what_was_judged_by_whom(trained):
    summary = trained.summary
    assert set(summary) >= {
        *("clean_accuracy", "median_l0", "mean_l0", "asr_inf", "robust_accuracy", "asr", "unit"),
        *("attacks", "num_steps", "num_samples", "method", "train_seconds", "attack_seconds"),
        *("epochs", "checkpoint"),
    }
    members = ["sigma_zero", "sigma_zero_sgd", "sparse_pgd", "sparse_pgd_projected", "sparse_rs"]
    assert summary["attacks"] == members
    assert (summary["num_steps"], summary["num_samples"], summary["epochs"]) == (15, 359, 6)
    assert summary["num_queries"] == 20
    assert (summary["method"], summary["unit"]) == ("SparseAT", "features")
    assert summary["checkpoint"] == trained.best
    assert summary["best_epoch"] == read_checkpoint(trained.best)["epoch"] < 5
    for figures in (summary["robust_accuracy"], summary["asr"]):
        assert list(figures) == ["2", "4", "8"]
    for k, robust in summary["robust_accuracy"].items():
        assert robust + summary["asr"][k] == pytest.approx(1)
    robust = list(summary["robust_accuracy"].values())
    assert summary["clean_accuracy"] >= robust[0] > robust[1] > robust[2]


def test_summary_counts_the_seconds_of_the_whole_training(trained, table):
    """The best checkpoint is not the last: its counters must not be reported."""
    spent = column(table(trained.dir / "metrics.csv"), "train/attack_seconds")
    assert trained.summary["attack_seconds"] == pytest.approx(spent[-1])
    assert spent[-1] > spent[3] > 0
    assert trained.summary["train_seconds"] > spent[-1]


def accuracy_of(net):
    samples = Digits().part("test")
    inputs = torch.stack([samples[index][0] for index in range(len(samples))])
    labels = torch.stack([samples[index][1] for index in range(len(samples))])
    with torch.no_grad():
        return (net(inputs).argmax(dim=1) == labels).double().mean().item()


def test_the_best_checkpoint_has_the_accuracy_that_the_summary_says(trained):
    accuracy = accuracy_of(load_net(trained.best))
    assert trained.summary["clean_accuracy"] == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.slow
def test_averaged_weights_are_judged_and_not_those_of_the_moment(call, tiny, tmp_path):
    averaged = "callbacks.ema._target_=pytorch_lightning.callbacks.EMAWeightAveraging"
    command = f"train {tiny} +{averaged} +callbacks.ema.decay=0.98 method=standard"
    longer = "model.width=8 data.limit_train=null trainer.max_epochs=2"
    outcome = call(f"{command} {longer} hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["clean_accuracy"]
    net = load_net(best)
    assert found == pytest.approx(accuracy_of(net), abs=1e-6)
    momentary = read_checkpoint(best)["current_model_state"]
    names = net.state_dict()
    net.load_state_dict({name: momentary[f"net.{name}"] for name in names})
    assert found != pytest.approx(accuracy_of(net), abs=1e-6)


def test_the_config_is_written_resolved(trained):
    text = (trained.dir / "config.yaml").read_text()
    config = yaml.safe_load(text)
    assert "${" not in text
    assert config["model"]["num_classes"] == 10
    assert config["method"]["attack"]["num_steps"] == 2
    assert config["callbacks"]["best"]["dirpath"] == str(trained.dir / "checkpoints")


def test_wandb_writes_an_offline_run_that_the_checkpoint_names(trained):
    described = read_checkpoint(trained.last)["hyper_parameters"]
    assert wandb_ids(trained.dir) == [described["method"]["run_id"]]
    assert list(trained.dir.glob("wandb/offline-run-*/*.wandb"))


# --- judged again, resumed, swept ---


@pytest.mark.slow
def test_evaluating_the_best_checkpoint_gives_the_summary_again(trained, call, table):
    summary = trained.summary
    judge = "attack=sparse_autoattack attack.num_steps=15 attack.num_queries=20"
    layout = "channels_last=true"  # as the digits are trained
    outcome = call(f"evaluate net={trained.best} {judge} {layout} hydra.run.dir=again")
    assert outcome.status == 0
    (row,) = table("again/results.csv")
    assert float(row["median_l0"]) == summary["median_l0"]
    assert float(row["mean_l0"]) == pytest.approx(summary["mean_l0"], abs=1e-6)
    assert float(row["asr_inf"]) == pytest.approx(100 * summary["asr_inf"], abs=1e-4)
    assert float(row["clean_acc"]) == pytest.approx(100 * summary["clean_accuracy"], abs=1e-4)
    l0 = np.array(column(table("again/records/best.csv"), "l0"))
    for k, robust in summary["robust_accuracy"].items():
        assert (l0 > int(k)).mean() == pytest.approx(robust, abs=1e-6)


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_wandb_run(trained, call, table, small, tmp_path):
    command = f"train {small} trainer.max_epochs=7 ckpt_path={trained.last} hydra.run.dir=on"
    assert call(command).status == 0
    folder = tmp_path / "on"
    rows = table(folder / "metrics.csv")
    assert {row["epoch"] for row in rows if row["train/loss"]} == {"6"}
    assert wandb_ids(folder) == wandb_ids(trained.dir)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 7
    assert summary["attack_seconds"] > trained.summary["attack_seconds"]
    assert summary["train_seconds"] > trained.summary["train_seconds"]


@pytest.mark.slow
def test_a_run_that_goes_on_in_its_folder_keeps_its_tables(call, tiny, table, tmp_path):
    command = f"train {tiny} logger=csv hydra.run.dir=run"
    assert call(command).status == 0
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    outcome = call(f"{command} trainer.max_epochs=2 ckpt_path=run/checkpoints/last.ckpt")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "run" / "metrics.1.csv").read_bytes() == before
    rows = table("run/metrics.csv")
    assert {row["epoch"] for row in rows if row["train/loss"]} == {"1"}
    for name in ("robustness_curves", "class_l0", "l0_histogram"):
        assert (tmp_path / "run" / f"{name}.1.csv").is_file()


@pytest.mark.slow
def test_a_training_starts_from_the_weights_of_another_net(trained, call, tiny):
    """A learning rate of 0 leaves them as they were; all else begins anew."""
    start = f"start_from={trained.best} optimizer.lr=0 model.width=8"
    command = f"train {tiny} {start} method=standard logger=none"
    assert call(f"{command} hydra.run.dir=run").status == 0
    checkpoint = read_checkpoint("run/checkpoints/last.ckpt")
    assert checkpoint["epoch"] == 0
    method = checkpoint["hyper_parameters"]["method"]
    assert (method["name"], method["start_from"]) == ("StandardTraining", trained.best)
    expected = load_net(trained.best).state_dict()
    found = load_net("run/checkpoints/last.ckpt").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.slow
def test_a_training_that_is_done_says_that_nothing_is_left(trained, call, small):
    epochs = read_checkpoint(trained.last)["epoch"] + 1
    told = f"nothing was trained: {epochs} epochs lie behind .* by trainer.max_epochs={epochs} "
    with pytest.warns(SztrainWarning, match=told):
        assert call(f"train {small} ckpt_path={trained.last} hydra.run.dir=on").status == 0


@pytest.mark.slow
def test_a_training_without_a_gauge_tells_its_accuracy_and_where_it_is(call, tiny):
    bare = "callbacks.gauge=null callbacks.pictures=null logger=none"
    outcome = call(f"train {tiny} {bare} hydra.run.dir=bare")
    assert outcome.status == 0
    assert "nothing was trained" not in outcome.err
    assert re.search(r"Clean accuracy on the test images \d+\.\d\d %; no verdict", outcome.out)
    assert re.search(r"Figures and checkpoints: \S+/bare$", outcome.out, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nothing was trained")
def test_a_training_that_goes_on_does_not_start_again(trained, call, small):
    """The command that stopped, with ckpt_path: its weights, wherever the first epoch began."""
    start = "start_from=gone.safetensors trainer.max_epochs=6 verdict.num_samples=8"
    command = f"train {small} {start} ckpt_path={trained.last} hydra.run.dir=on"
    assert call(command).status == 0


def test_a_training_does_not_go_on_beyond_its_end(trained, call, small):
    epochs = read_checkpoint(trained.last)["epoch"] + 1
    command = f"train {small} ckpt_path={trained.last} hydra.run.dir=on"
    outcome = call(f"{command} trainer.max_epochs={epochs - 1}")
    told = f"{trained.last} has {epochs} epochs behind it, and the training ends by trainer.max_ep"
    assert_one_line(
        outcome, [told, f"={epochs + 1} or more it goes on, with {epochs} it is judged"]
    )
    assert not Path("on").exists()


def test_the_folder_of_a_run_is_no_checkpoint_but_its_checkpoints_are_named(trained, call, small):
    for word in ("ckpt_path", "start_from"):
        outcome = call(f"train {small} {word}={trained.dir} hydra.run.dir=on")
        assert_one_line(outcome, [f"got the folder {trained.dir}, which holds {trained.best}, "])


def test_another_method_does_not_go_on(trained, call, small):
    outcome = call(f"train {small} method=trades ckpt_path={trained.last} hydra.run.dir=on")
    assert outcome.status == 2
    assert f"{trained.last} was written by SparseAT, not TRADES" in outcome.err
    assert "go on with the command that began it" in outcome.err


@pytest.mark.slow
def test_what_a_run_does_otherwise_than_before_is_said(trained, call, small):
    began = read_checkpoint(trained.last)["hyper_parameters"]
    budget, samples = began["method"]["budget"], began["data"]["limit_train"]
    others = f"method.budget={budget + 1} data.limit_train=32 method.channels_last=true"
    command = f"train {small} ckpt_path={trained.last} trainer.max_epochs=7 verdict.num_samples=8"
    with pytest.warns(SztrainWarning, match="was written with other options") as caught:
        assert call(f"{command} {others} hydra.run.dir=on").status == 0
    (said,) = [str(w.message) for w in caught if "other options" in str(w.message)]
    changed = [f"method.budget={budget} (now {budget + 1})", f"data.limit_train={samples} (now 32)"]
    assert said.endswith(f"does not share: {', '.join(changed)}")


@pytest.mark.slow
def test_the_best_of_the_first_part_stays_the_best_of_a_resumed_run(
    trained, call, small, table, tmp_path, monkeypatch
):
    """Nothing beats it later, so the verdict is on it, wherever the second part writes."""
    monkeypatch.setattr(
        SparseRobustness,
        "_log",
        lambda self, module, values: module.log("val/robust_acc_worst@4", 0.0),
    )
    first = tmp_path / "first"
    shutil.copytree(trained.dir, first)
    # Guard and dashboard would rightly raise an alarm at such figures; -1 is no accuracy.
    rule = "callbacks.guard.rule.max_gap=2 callbacks.guard.rule.max_loss=9"
    small = f"{small} {rule} callbacks.pictures.alarm_share=1"
    command = f"train {small} logger=csv trainer.max_epochs=7 hydra.run.dir=on"
    assert call(f"{command} ckpt_path={first}/checkpoints/last.ckpt").status == 0
    best = tmp_path / "on" / "checkpoints" / "best.ckpt"
    assert read_checkpoint(best)["epoch"] == read_checkpoint(trained.best)["epoch"]
    summary = json.loads((tmp_path / "on" / "summary.json").read_text())
    assert summary["checkpoint"] == str(best)
    assert summary["clean_accuracy"] == trained.summary["clean_accuracy"]
    check_last_epoch(tmp_path / "on", summary["last"])
    assert len(column(table(tmp_path / "on" / "metrics.csv"), "test/clean_acc")) == 1


def check_last_epoch(folder, found):
    """Its weights are judged, too, on fewer samples; the loggers hear of the best alone."""
    net, samples = load_net(folder / "checkpoints" / "last.ckpt"), Digits().part("test")
    inputs = torch.stack([samples[index][0] for index in range(len(samples))])
    labels = torch.stack([samples[index][1] for index in range(len(samples))])
    with torch.no_grad():
        accuracy = (net(inputs).argmax(dim=1) == labels).double().mean().item()
    assert found["clean_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    judge = SparseAutoAttack(num_steps=15, num_queries=20)
    l0 = judge(net, inputs[:40], labels[:40]).l0
    assert found["num_samples"] == 40
    assert found["robust_accuracy"] == {
        str(k): pytest.approx((l0 > k).double().mean().item(), abs=1e-6) for k in (2, 4, 8)
    }


@pytest.mark.slow
def test_where_the_last_epoch_is_the_best_it_is_judged_once(call, tiny, tmp_path):
    assert call(f"train {tiny} logger=csv hydra.run.dir=run").status == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["last"] is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nothing was trained")
def test_a_finished_run_can_be_judged_again(trained, call, small, tmp_path):
    command = f"train {small} logger=csv ckpt_path={trained.last} hydra.run.dir=again"
    assert call(f"{command} verdict.num_steps=12").status == 0
    summary = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert summary["clean_accuracy"] == trained.summary["clean_accuracy"]
    assert (summary["num_steps"], summary["epochs"]) == (12, 6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nothing was trained")
def test_a_run_is_not_written_over_another(call, tiny, tmp_path):
    folder = tmp_path / "run"
    command = f"train {tiny} logger=none hydra.run.dir=run"
    assert call(command).status == 0

    def files():
        found = (path for path in folder.rglob("*.*") if path.is_file())
        return {path: path.read_bytes() for path in found if path.parent.name != ".hydra"}

    before = files()
    assert folder / "summary.json" in before
    outcome = call(f"{command} seed=7 callbacks.gauge.verdict=null")
    assert outcome.status == 2
    assert f"{folder / 'checkpoints'} holds the checkpoints of another run" in outcome.err
    assert len(outcome.lines) == 1
    assert files() == before

    last = folder / "checkpoints" / "last.ckpt"
    assert call(f"{command} ckpt_path={last} callbacks.gauge.verdict=null").status == 0
    # What the first part was found to be worth says nothing about the whole.
    names = ("summary.json", "robustness_curve.png", "adversarial_examples.png")
    assert not [name for name in names if (folder / name).exists()]


@pytest.mark.slow
def test_a_run_of_a_sweep_that_cannot_be_does_not_end_the_others(call, tiny, table):
    command = f"train -m method.budget=900,3,901 {tiny} hydra.sweep.dir=sweep"
    outcome = call(command)
    assert outcome.status == 2
    rows = table("sweep/sweep.csv")
    assert [row["run"] for row in rows] == ["0", "1", "2"]
    assert [bool(row["failed"]) for row in rows] == [True, False, True]
    assert [bool(row["score"]) for row in rows] == [False, True, False]
    assert "3 trainings, chosen by" in outcome.out
    errors = [line for line in outcome.err.splitlines() if line.startswith("sztrain: error: ")]
    assert [("method: expected `budget` to be at most 64" in line) for line in errors] == 3 * [True]
    assert ["got 900" in line for line in errors] == [True, False, True]
    assert "the first run of this sweep that failed: method:" in errors[-1]
    assert "The table: sweep/sweep.csv" in outcome.out
    assert "Traceback" not in outcome.err


@pytest.mark.slow
def test_a_sweep_makes_one_run_each(call, tiny, table, tmp_path):
    outcome = call(f"train -m method=standard,sparse_at {tiny} hydra.sweep.dir=sweep")
    assert outcome.status == 0
    folders = [tmp_path / "sweep" / name for name in ("0", "1")]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    assert [summary["method"] for summary in summaries] == ["StandardTraining", "SparseAT"]
    assert summaries[0]["attack_seconds"] == 0
    rows = table(tmp_path / "sweep" / "sweep.csv")
    assert [row["overrides"].split()[0] for row in rows] == ["method=standard", "method=sparse_at"]
    assert column(rows, "clean_accuracy") == [summary["clean_accuracy"] for summary in summaries]
    words = " ".join(outcome.out.split())
    assert "2 trainings, chosen by val/clean_acc, val/robust_acc_worst@4" in words
    ids = [wandb_ids(folder) for folder in folders]
    assert [len(of_one) for of_one in ids] == [1, 1]
    assert ids[0] != ids[1]  # the second run is not written into the first


@pytest.mark.slow
def test_optuna_searches_for_what_the_gauge_likes_best(spawn, tiny, table, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra `sweep`")
    study = "hydra.sweeper.n_trials=3 hydra.sweep.dir=sweep callbacks.gauge.num_samples=40"
    outcome = spawn(f"train -m sweep=optuna {tiny} {study} trainer.max_epochs=2 logger=csv")
    assert outcome.status == 0, outcome.err
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    reached = [
        max(column(table(tmp_path / "sweep" / str(trial) / "metrics.csv"), key))
        for trial in range(3)
        for key in ["val/robust_acc_worst@4"]
    ]
    assert found["best_value"] == max(reached)
    best = yaml.safe_load(
        (tmp_path / "sweep" / str(reached.index(max(reached))) / "config.yaml").read_text()
    )
    assert best["method"]["noise"] == found["best_params"]["method.noise"]


@pytest.mark.slow
def test_another_seed_gives_another_net(call, tiny, tmp_path):
    weights = []
    for seed in (5, 6):
        assert call(f"train {tiny} seed={seed} logger=none hydra.run.dir=run{seed}").status == 0
        checkpoint = read_checkpoint(tmp_path / f"run{seed}" / "checkpoints" / "last.ckpt")
        weights.append(torch.cat([w.flatten() for w in checkpoint["state_dict"].values()]))
    assert not torch.equal(*weights)


# --- variants that a person tries ---


@pytest.mark.parametrize(
    "attack", slow_after(1, ["budgeted_sigma_zero", "aslo", "gse", "lin_sparse"])
)
def test_the_adversary_is_exchanged_by_one_word(call, monkeypatch, attack):
    seen, trained_net = [], load_net("digits_standard")

    def watched(adversary, net, inputs, labels, **options):
        # An untrained net is wrong about most images: there would be nothing to attack.
        examples = craft_examples(adversary, trained_net, inputs, labels, **options)
        seen.append((adversary, l0_norm(examples.inputs - inputs)))
        return examples

    monkeypatch.setattr(adversarial, "craft_examples", watched)
    quick = "trainer=cpu trainer.fast_dev_run=true model.width=4 callbacks.gauge.verdict=null"
    options = f"attack@method.attack={attack} method.budget=6 method.ramp_epochs=0"
    outcome = call(f"train {quick} {options} method=sparse_at")
    assert outcome.status == 0, outcome.err
    ((adversary, l0),) = seen
    assert type(adversary).__name__.lower() == attack.replace("_", "")
    assert (adversary.budget, adversary.num_steps, adversary.recheck) == (6, 20, False)
    assert l0.max() <= 6
    assert (l0 > 0).sum() > 16


@pytest.mark.slow
def test_a_fast_dev_run_ends_well_and_claims_no_more_steps_than_it_took(call, tmp_path):
    outcome = call("train trainer.fast_dev_run=true trainer=cpu hydra.run.dir=run")
    assert outcome.status == 0
    assert "sparse_rs, N=1, num_queries=1)" in " ".join(outcome.out.split())
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "wandb").exists()


@pytest.mark.slow
def test_the_verdict_is_printed_with_its_judge_and_its_place(call, tiny, tmp_path):
    outcome = call(f"train {tiny} verdict.num_steps=13 hydra.run.dir=run")
    assert outcome.status == 0
    assert outcome.err == ""
    words = " ".join(outcome.out.split())
    members = "sigma_zero, sigma_zero_sgd, sparse_pgd, sparse_pgd_projected, sparse_rs"
    assert f"Verdict on 4 test images (worst case of {members}, N=13, num_queries=10)" in words
    assert str(tmp_path / "run") in outcome.out
    (wandb_run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert f"to upload it: wandb sync {wandb_run}\n" in outcome.out
    assert "Epoch 0/0, " in outcome.out
    assert "wandb:" not in outcome.out


@pytest.mark.parametrize(
    "without",
    slow_after(
        1,
        [
            "~callbacks.gauge ~callbacks.pictures",
            "~callbacks.best ~callbacks.last logger=none",
            "logger=none",
            "~logger ~callbacks.lr_monitor",
            "~scheduler",
            "~callbacks.timer ~callbacks.epoch_seed ~callbacks.pictures ~callbacks.progress_bar",
        ],
    ),
)
def test_parts_can_be_left_out(call, tiny, tmp_path, without):
    command = f"train {tiny} logger=csv {without} hydra.run.dir=run"
    if "gauge" in without:
        command = " ".join(arg for arg in command.split() if not arg.startswith("callbacks.gauge"))
    if "logger" in without:
        command = command.replace("logger=csv ", "")
    outcome = call(command)
    assert (outcome.status, outcome.err) == (0, "")
    assert (tmp_path / "run" / "summary.json").exists() == ("gauge" not in without)


@pytest.mark.slow
def test_pixels_are_counted_and_named(call, tiny, tmp_path):
    unit = "callbacks.gauge.attack.unit=pixels callbacks.gauge.verdict.unit=pixels"
    outcome = call(f"train {tiny} method.attack.unit=pixels {unit} logger=csv hydra.run.dir=run")
    assert outcome.status == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["unit"] == "pixels"
    last = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert last["hyper_parameters"]["unit"] == "pixels"
    assert "val/median_l0_px" in (tmp_path / "run" / "metrics.csv").read_text().split("\n")[0]


@pytest.mark.slow
def test_train_returns_nothing_where_nothing_is_monitored(composed, tiny, undisturbed):
    assert train(composed("train", *tiny.split(), "logger=none", "~callbacks.best")) is None
    other = ("logger=none", "monitor=val/clean_acc", "output_dir=other")
    value = train(composed("train", *tiny.split(), *other))
    assert 0 <= value <= 1
    assert not math.isnan(value)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 10])
def test_a_wide_resnet_takes_its_first_steps(call, tmp_path, width):
    cifar_files.write_cifar10(tmp_path / "data", num_images=2, num_test=2)
    small = f"model.width={width} data.limit_train=2"
    outcome = call(f"train model=wrn28 trainer.fast_dev_run=true {small}")
    assert outcome.status == 0, outcome.err
    assert "Verdict on 2 test images" in outcome.out
    assert "Traceback" not in outcome.err


@pytest.mark.slow
def test_two_processes_train_together_and_say_everything_once(spawn, tiny, tmp_path, table):
    two = "trainer=ddp trainer.accelerator=cpu trainer.devices=2"
    small = " ".join(arg for arg in tiny.split() if arg != "trainer=cpu")
    outcome = spawn(f"train {two} {small} hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("Verdict on 4 test images") == 1
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["num_samples"] == 4
    rows = table(tmp_path / "run" / "metrics.csv")
    # What the processes add up are counts of the same thing: no share above 1, no loss of a guess.
    assert 0 <= column(rows, "train/broken")[0] <= 1
    assert column(rows, "train/loss")[0] == pytest.approx(math.log(10), abs=0.3)
    refused = spawn(f"train {two} {small} method.budget=65")
    assert refused.status == 2
    assert "Traceback" not in refused.err
