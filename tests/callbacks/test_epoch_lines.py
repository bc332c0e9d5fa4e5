"""A line an epoch where no bar shows the same."""

import re
from functools import partial
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from toy_training import (
    NUM_CLASSES,
    ScriptedAttack,
    foreign_module,
    loader,
    make_trainer,
    toy_net,
)

from sztrain.callbacks import EpochLines, SparseRobustness
from sztrain.progress import SpacedLines
from sztrain.training import StandardTraining


def bars(lightning, console, bar):
    """Lightning's bar, which would set up the console anew."""
    kept = {"file": console.file, "force_terminal": console.is_terminal, "width": console.width}
    return [lightning.callbacks.RichProgressBar(console_kwargs=kept)] if bar else []


def train(lightning, console, *, bar):
    class Module(foreign_module(lightning)):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            loss_so_far = 0.25 + 0.5 * batch_idx
            self.log("train/loss", loss_so_far, on_step=False, on_epoch=True, prog_bar=True)
            self.log("untold", 1.0)
            return loss

    callbacks = [EpochLines(), *bars(lightning, console, bar)]
    trainer = make_trainer(lightning, callbacks=callbacks, max_epochs=2, enable_progress_bar=bar)
    trainer.fit(Module(), loader(), loader(seed=1))


def without_times(text):
    return re.sub(r"\d+\.\d s", "_ s", text)


@pytest.mark.parametrize("console", [False], indirect=True)
@pytest.mark.parametrize("bar", [False, True])
def test_a_log_file_gets_a_line_an_epoch(lightning, console, bar):
    train(lightning, console, bar=bar)
    # The mean of three batches; the line is longer than the console is wide.
    expected = [f"Epoch {epoch}/1, _ s: train/loss 0.75" for epoch in (0, 1)]
    lines = without_times(console.file.getvalue()).splitlines()
    assert [line for line in lines if re.match(r"Epoch \d/1, ", line)] == expected
    assert "untold" not in console.file.getvalue()
    assert [line for line in lines if line] == expected  # and no bar, which a file would break


@pytest.mark.parametrize("console", [False], indirect=True)
def test_figures_of_an_earlier_epoch_are_not_told_again(console):
    attack = ScriptedAttack(script=((1.0,), (3.0,), (5.0,), (7.0,)))
    gauge = SparseRobustness(attack=attack, budgets=(1,), every_n_epochs=2)
    method = StandardTraining(toy_net(), num_classes=NUM_CLASSES)
    options = {"max_epochs": 6, "check_val_every_n_epoch": 1}
    trainer = make_trainer(pl, callbacks=[gauge, EpochLines()], **options)
    trainer.fit(method, loader(), loader(seed=1))
    lines = console.file.getvalue().splitlines()
    assert [line.partition("val/median_l0 ")[2] for line in lines] == ["1", "", "3", "", "5", "7"]
    assert all("val/clean_acc" in line for line in lines)


@pytest.mark.parametrize("console", [False], indirect=True)
def test_an_epoch_without_a_validation_has_none_of_its_figures(console):
    method = StandardTraining(toy_net(), num_classes=NUM_CLASSES)
    options = {"max_epochs": 4, "check_val_every_n_epoch": 2}
    make_trainer(pl, callbacks=[EpochLines()], **options).fit(method, loader(), loader(seed=1))
    lines = console.file.getvalue().splitlines()
    assert ["val/clean_acc" in line for line in lines] == [False, True, False, True]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
@pytest.mark.parametrize("console", [False], indirect=True)
def test_an_epoch_that_goes_on_counts_from_there(console, tmp_path, clock):
    half = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=1)
    options = {"max_epochs": 1, "enable_checkpointing": True}

    def fit(callbacks, **start):
        module = foreign_module(pl)()
        trainer = make_trainer(pl, callbacks=[half, *callbacks], **options)
        trainer.fit(module, loader(), loader(seed=1), **start)

    fit([])
    fit([EpochLines()], ckpt_path=half.best_model_path, weights_only=True)
    assert console.file.getvalue().startswith("Epoch 0/0, 0.0 s")


@pytest.mark.parametrize("console", [True], indirect=True)
def test_on_a_terminal_the_bar_shows_it_instead(lightning, console):
    train(lightning, console, bar=True)
    assert not re.search(r"Epoch \d/1, ", console.file.getvalue())
    assert "3/3" in console.file.getvalue()


@pytest.mark.parametrize("console", [True], indirect=True)
def test_on_a_terminal_without_a_bar_there_are_lines(lightning, console):
    train(lightning, console, bar=False)
    assert console.file.getvalue().count("Epoch") == 2


@pytest.mark.parametrize("console", [False], indirect=True)
def test_a_training_without_an_end_and_figures_has_its_line(console, lightning):
    trainer = make_trainer(lightning, callbacks=[EpochLines()], max_epochs=-1, max_steps=3)
    trainer.fit(foreign_module(lightning)(), loader(), loader(seed=1))
    assert without_times(console.file.getvalue()) == "Epoch 0, _ s\n"


def test_only_the_first_process_speaks(console):
    trainer = SimpleNamespace(
        progress_bar_callback=None, progress_bar_metrics={}, is_global_zero=False, max_epochs=2
    )
    lines = EpochLines()
    lines.on_train_epoch_start(trainer, None)
    lines.on_train_epoch_end(trainer, None)
    assert console.file.getvalue() == ""


@pytest.mark.parametrize("console", [False], indirect=True)
@pytest.mark.parametrize("bar", [False, True])
def test_the_gauge_says_how_far_it_is_where_lightning_has_a_bar(console, monkeypatch, bar):
    monkeypatch.setattr("sztrain.progress.SpacedLines", partial(SpacedLines, every=0))
    attack = ScriptedAttack(script=((2.0, 3.0),))
    gauge = SparseRobustness(attack=attack, budgets=(1,), batch_size=16)
    callbacks = [gauge, *bars(pl, console, bar)]
    trainer = make_trainer(pl, callbacks=callbacks, enable_progress_bar=bar)
    trainer.validate(foreign_module(pl)(), loader(seed=1), verbose=False)
    told = [line for line in console.file.getvalue().splitlines() if "samples" in line]
    lines = [f"val attack, median ℓ0 2.5 features: {done} of 24 samples" for done in (16, 24)]
    assert told == (lines if bar else [])
