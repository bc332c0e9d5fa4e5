import os
import shutil
import signal
import time

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from sztrain.callbacks import SparseRobustness
from sztrain.evaluation import recording
from sztrain.models import read_checkpoint

# Eight epochs of ten steps with all that is random in a training: the order, shifted images, and a
# net that drops out. Alarms are off: a gauge of three steps calls robust what is not, and with 320
# samples and dropout some accuracy is above another by chance.
RUN = (
    "model=wrn28 model.depth=10 model.width=1 model.dropout=0.3 data=digits "
    "trainer=cpu data.limit_train=320 data.batch_size=32 data.augment=true trainer.max_epochs=8 "
    "method.attack.num_steps=6 callbacks.gauge.num_samples=16 callbacks.gauge.attack.num_steps=3 "
    "callbacks.gauge.probe.num_steps=3 callbacks.gauge.probe.num_queries=10 "
    "verdict.num_steps=10 verdict.num_queries=10 verdict.num_samples=16 logger=csv "
    "callbacks.pictures.alarm_share=1 callbacks.guard.rule.margin=1 "
    "callbacks.guard.rule.max_loss=1"
)
STEPS_PER_EPOCH = 10


def wait_for(path, process, seconds=240):
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert path.exists(), process.communicate()


def interrupt(process):
    """What Ctrl-C in a terminal does: the signal reaches the whole group."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.fixture
def one_thread():
    """As in the processes started here: sums in another order differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_very_same_weights(
    start, call, one_thread, tmp_path, table
):
    process = start(f"train {RUN} hydra.run.dir=part1")
    last = tmp_path / "part1" / "checkpoints" / "last.ckpt"
    wait_for(last, process)
    interrupt(process)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    # Before it, the gauge's warning that so few samples tell little.
    assert (
        err.splitlines()[-1]
        == f"sztrain: interrupted; the same command goes on with ckpt_path={last}"
    )
    assert "Traceback" not in err
    checkpoint = read_checkpoint(last)
    whole_epochs = checkpoint["epoch"] + 1
    assert 1 <= whole_epochs < 8
    assert checkpoint["global_step"] == whole_epochs * STEPS_PER_EPOCH
    logged = [row for row in table(tmp_path / "part1" / "metrics.csv") if row.get("train/loss")]
    # The figures of an epoch follow its checkpoint, and the signal may have come between them.
    assert len(logged) in (whole_epochs - 1, whole_epochs)
    assert not list(last.parent.glob("*.tmp"))

    assert call(f"train {RUN} ckpt_path={last} hydra.run.dir=part2").status == 0
    assert call(f"train {RUN} hydra.run.dir=whole").status == 0
    runs = [tmp_path / name / "checkpoints" for name in ("part2", "whole")]
    resumed, whole = (read_checkpoint(run / "last.ckpt") for run in runs)
    assert resumed["epoch"] == whole["epoch"] == 7
    assert resumed["state_dict"].keys() == whole["state_dict"].keys()
    for key, weights in whole["state_dict"].items():
        assert torch.equal(weights, resumed["state_dict"][key]), key
    states = [ckpt["optimizer_states"][0]["state"] for ckpt in (resumed, whole)]
    for index, state in states[1].items():
        assert torch.equal(state["exp_avg_sq"], states[0][index]["exp_avg_sq"])
    best = [read_checkpoint(run / "best.ckpt")["epoch"] for run in runs]
    assert best[0] == best[1]


@pytest.mark.slow
def test_pressing_ctrl_c_twice_before_the_first_epoch_is_over_leaves_cleanly(start, tmp_path):
    attack = "attack@method.attack=sigma_zero method.attack.tau_factor=0"
    endless = f"data.limit_train=null {attack} method.attack.num_steps=500"
    process = start(f"train {RUN} {endless} logger=default hydra.run.dir=run")
    wait_for(tmp_path / "run" / "wandb", process)
    time.sleep(0.5)  # into the first epoch
    interrupt(process)
    time.sleep(0.05)
    interrupt(process)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines() == ["sztrain: interrupted"]
    assert "Traceback" not in out
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_an_interrupt_while_the_program_starts_leaves_cleanly(start):
    process = start("train")
    time.sleep(1.5)  # while torch is imported, or Hydra still composes
    interrupt(process)
    out, err = process.communicate(timeout=120)
    assert process.returncode in (130, -signal.SIGINT)  # before the first line of ours: Python's
    if process.returncode == 130:
        assert err.splitlines() == ["sztrain: interrupted"]
    assert out == ""


def interrupted(*args):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupt_during_the_verdict_keeps_the_training(call, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(SparseRobustness, "on_test_epoch_end", interrupted)
    outcome = call(f"train {tiny} logger=csv hydra.run.dir=run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert outcome.status == 130
    assert (
        outcome.err.strip()
        == f"sztrain: interrupted; the same command goes on with ckpt_path={last}"
    )
    assert last.exists()
    assert not (tmp_path / "run" / "summary.json").exists()


def test_an_interrupt_before_the_first_epoch_is_kept_names_what_there_is(
    call, tiny, tmp_path, monkeypatch
):
    """The guard keeps its epoch before the others do."""
    command = f"train {tiny} logger=none callbacks.gauge.verdict=null hydra.run.dir=run"
    folder = tmp_path / "run" / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(ModelCheckpoint, "on_train_epoch_end", interrupted)
        outcome = call(command)
    assert [path.name for path in folder.iterdir()] == ["sound.ckpt"]
    hint = f"ckpt_path={folder / 'sound.ckpt'}"
    assert outcome.err.strip() == f"sztrain: interrupted; the same command goes on with {hint}"
    refused = call(command)
    assert refused.status == 2
    assert refused.err.strip().endswith(f"go on from one of them, such as {hint}")
    outcome = call(f"{command} {hint} trainer.max_epochs=2")
    assert outcome.status == 0, outcome.err
    assert (folder / "last.ckpt").exists()
    assert call(command).err.strip().endswith(f"such as ckpt_path={folder / 'last.ckpt'}")


@pytest.mark.slow
def test_a_run_of_a_sweep_goes_on_alone_and_as_it_was_begun(call, tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SparseRobustness, "on_test_epoch_end", interrupted)
        command = f"train -m {tiny} logger=csv seed=3,4 method=standard hydra.sweep.dir=many"
        outcome = call(command)
    assert outcome.status == 130
    folder = tmp_path / "many" / "0"
    assert "no run of the sweep has ended, so there is no many/sweep.csv; this" in outcome.err
    hint = outcome.err.strip().rpartition("this run goes on, without -m, with ")[2]
    assert hint.endswith(f"hydra.run.dir={folder} ckpt_path={folder / 'checkpoints' / 'last.ckpt'}")
    assert "seed=3" in hint.split()
    assert not (tmp_path / "many" / "1").exists()
    outcome = call(f"train {hint} trainer.max_epochs=2")
    assert outcome.status == 0, outcome.err
    assert "written with other options" not in outcome.err
    assert (folder / "summary.json").exists()


@pytest.mark.slow
def test_a_sweep_that_breaks_off_says_what_is_there(call, tiny, tmp_path, monkeypatch):
    def second(gauge, trainer, *arguments):
        if (tmp_path / "many" / "sweep.csv").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(SparseRobustness, "on_train_epoch_start", second)
    sweep = "seed=3,4 method=standard callbacks.gauge.verdict=null hydra.sweep.dir=many"
    outcome = call(f"train -m {tiny} logger=none {sweep}")
    assert outcome.status == 130
    told = "sztrain: interrupted; many/sweep.csv has the run that ended before"
    assert outcome.err.splitlines()[-1] == told


def test_several_runs_do_not_go_on_from_one_checkpoint(call, tiny, tmp_path):
    outcome = call(f"train -m {tiny} seed=0,1 ckpt_path=last.ckpt hydra.sweep.dir=many")
    assert outcome.status == 2
    assert "several runs cannot go on from one checkpoint (last.ckpt)" in outcome.err
    assert not (tmp_path / "many").exists()


def test_an_interrupt_names_no_epoch_of_an_earlier_run(trained, call, small, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(trained.dir, folder)
    best = folder / "checkpoints" / "best.ckpt"

    monkeypatch.setattr(SparseRobustness, "on_train_epoch_start", interrupted)
    command = f"train {small} logger=none trainer.max_epochs=9 ckpt_path={best} hydra.run.dir=run"
    outcome = call(command)
    assert outcome.status == 130
    assert outcome.err.splitlines()[-1].endswith(f"goes on with ckpt_path={best}")


@pytest.mark.slow
def test_an_interrupted_evaluation_leaves_cleanly(call, trained, monkeypatch):
    monkeypatch.setattr(recording, "attack_batches", interrupted)
    outcome = call(f"evaluate net={trained.best} num_samples=4 attack.num_steps=1")
    said = "sztrain: interrupted; the same command goes on"
    assert (outcome.status, outcome.err.strip()) == (130, said)
    # The folder of a sweep is named by its time: the same command would begin another.
    outcome = call(f"evaluate -m net={trained.best} num_samples=4 attack.num_steps=1,2")
    assert (outcome.status, outcome.err.strip()) == (130, "sztrain: interrupted")
