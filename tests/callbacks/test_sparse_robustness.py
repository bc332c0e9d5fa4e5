"""The gauge in trainings of its own and of others: what it logs, when, and what it refuses."""

import copy
import io
import math
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import pytorch_lightning as pl
import rich
import torch
from pace import slow_after
from peer_libraries import marks_of
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toy_training import (
    INF,
    SHAPE,
    RecordingSigmaZero,
    ScriptedAttack,
    csv_rows,
    figures,
    foreign_module,
    loader,
    make_trainer,
    toy_data,
)

from sztrain import attacks
from sztrain.attacks import FMN, PGDL0, AttackMix, SigmaZero, SparseAutoAttack, SparsePGD
from sztrain.callbacks import SparseRobustness
from sztrain.callbacks.smoke_test import shortened
from sztrain.errors import InputError, UnavailableError
from sztrain.evaluation import runner


def fit(gauge, *, module=None, data=None, val=None, callbacks=(), **options):
    """Train someone's module with the gauge; return both."""
    module = foreign_module(pl)() if module is None else module
    trainer = make_trainer(pl, callbacks=[gauge, *callbacks], **options)
    trainer.fit(module, data or loader(), val or loader(seed=1))
    return trainer, module


def logged(rows, stage="val/"):
    """Rows that hold figures of the gauge, those figures alone, with their epoch."""
    return [
        {key: value for key, value in row.items() if key.startswith(stage) or key == "epoch"}
        for row in rows
        if any(key.startswith(stage) for key in row)
    ]


def gauged(gauge):
    """Samples that each measurement attacked, joined over the batches of equal nets."""
    inputs = torch.cat([call.inputs for call in gauge.attack.calls])
    return inputs.split(gauge.num_samples)


class Watcher(pl.Callback):
    """Writes down what monitors see at the end of each validation."""

    def __init__(self, key):
        self.key = key
        self.seen = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.seen.append(float(trainer.callback_metrics[self.key]))


# What is logged


@pytest.mark.parametrize(("unit", "suffix"), [("features", ""), ("pixels", "_px")])
@pytest.mark.parametrize("manual", slow_after(1, [False, True]))
def test_keys_and_values_are_those_of_attacking_the_same_samples(
    lightning, loggers, unit, suffix, manual, tmp_path, monkeypatch
):
    ticks = iter(range(10**6))
    monkeypatch.setattr(runner, "perf_counter", lambda: float(next(ticks)))
    attack = RecordingSigmaZero(num_steps=25, unit=unit)
    gauge = SparseRobustness(attack=attack, num_samples=10, budgets=(1, 2, 5), batch_size=4)
    module = foreign_module(lightning)(manual=manual)
    trainer = make_trainer(
        lightning, callbacks=[gauge], max_epochs=3, logger=loggers.CSVLogger(tmp_path)
    )
    trainer.fit(module, loader(), loader(seed=1, batch_size=5))

    rows = logged(csv_rows(tmp_path))
    assert [row.pop("epoch") for row in rows] == [0, 1, 2]
    assert [len(call.labels) for call in attack.calls] == [4, 4, 2] * 3
    reference = SigmaZero(num_steps=25, unit=unit)
    seen = []
    for epoch, row in enumerate(rows):
        l0 = []
        for call in attack.calls[3 * epoch : 3 * epoch + 3]:
            l0 += reference(call.net, call.inputs, call.labels).l0.tolist()
        expected = figures(l0, (1, 2, 5), suffix=suffix)
        assert row == pytest.approx(expected | {"val/attack_seconds": 3})  # a tick a batch
        seen.append(row)
    assert seen[0] != seen[2]  # the net learns, and the gauge looks at the net of the moment
    assert trainer.callback_metrics["val/asr_inf"] == row["val/asr_inf"]


def test_a_probe_shows_what_the_attack_does_not_see(lightning, loggers, monitors, tmp_path):
    # Under the attack the net looks better from epoch to epoch, under the probe worse.
    attack = ScriptedAttack(script=((1.0, 3, 9, 9), (9.0, 9, 3, 9), (INF,)))
    probe = ScriptedAttack(script=((INF,), (2.0, INF, INF, INF), (2.0, 1, 2, INF)), budget=3)
    best = monitors.ModelCheckpoint(tmp_path / "best", monitor="val/robust_acc_worst@3", mode="max")
    gauge = SparseRobustness(attack=attack, probe=probe, num_samples=4, budgets=(1,))
    trainer = make_trainer(
        lightning,
        callbacks=[gauge, best],
        max_epochs=3,
        logger=loggers.CSVLogger(tmp_path),
        enable_checkpointing=True,
    )
    trainer.fit(foreign_module(lightning)(), loader(), loader(seed=1))
    rows = logged(csv_rows(tmp_path))
    assert [row["val/robust_acc_probe@3"] for row in rows] == [1, 0.75, 0.25]
    assert [row["val/robust_acc_worst@3"] for row in rows] == [0.5, 0.5, 0.25]
    assert [row["val/robust_acc@1"] for row in rows] == [0.75, 1, 1]
    assert all(row["val/probe_seconds"] > 0 for row in rows)
    assert float(best.best_model_score) == 0.5
    for first, second in zip(attack.calls, probe.calls, strict=True):
        assert torch.equal(first.inputs, second.inputs)


def test_a_probe_that_does_not_fit_is_refused_early():
    with pytest.raises(InputError, match="expected `probe` to count features"):
        SparseRobustness(probe=ScriptedAttack(unit="pixels"))
    gauge = SparseRobustness(probe=ScriptedAttack(budget=33), budgets=(1,))
    with pytest.raises(InputError, match=r"expected `probe\.budget` to be at most 32"):
        fit(gauge, num_sanity_val_steps=1)


def test_all_samples_resist_and_all_are_misclassified(tmp_path):
    gauge = SparseRobustness(attack=ScriptedAttack(script=((INF,), (0.0,))), budgets=(1,))
    fit(gauge, logger=CSVLogger(tmp_path), max_epochs=2)
    resisted, misclassified = logged(csv_rows(tmp_path))
    assert resisted["val/median_l0"] == resisted["val/mean_l0"] == INF
    assert (resisted["val/asr_inf"], resisted["val/robust_acc@1"]) == (0, 1)
    assert misclassified["val/median_l0"] == misclassified["val/mean_l0"] == 0
    assert (misclassified["val/asr@1"], misclassified["val/robust_acc@1"]) == (1, 0)


def test_measurement_holds_curve_and_examples():
    attack = ScriptedAttack(script=((0.0, 2.0, 2.0, INF),))
    gauge = SparseRobustness(attack=attack, num_samples=8, budgets=(1,), num_examples=3)
    fit(gauge)
    measurement = gauge.measurements["val"]
    d = math.prod(SHAPE)
    assert measurement.curve.tolist() == [0.75] * 2 + [0.25] * (d - 1)
    assert measurement.num_samples == 8
    assert measurement.unit == "features"
    assert len(measurement.examples.labels) == 3
    assert measurement.examples.inputs.shape == (3, *SHAPE)


def test_default_attack_takes_a_hundred_steps():
    assert SparseRobustness().attack == SigmaZero(num_steps=100)


# Which samples


def test_subset_is_fixed_and_part_of_the_validation_samples():
    gauge = SparseRobustness(attack=ScriptedAttack(), num_samples=10, budgets=(1,), batch_size=4)
    fit(gauge, max_epochs=3)
    first, second, third = gauged(gauge)
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    images, labels = toy_data(seed=1).tensors
    indices = [int((images == image).flatten(1).all(1).nonzero()) for image in first]
    assert indices == sorted(set(indices))
    assert indices != list(range(10))
    found = torch.cat([call.labels for call in gauge.attack.calls[:3]])
    assert torch.equal(found, labels[indices])


@pytest.mark.filterwarnings("ignore:.*sampler has shuffling enabled")
def test_subset_stays_under_a_shuffled_loader_and_changes_with_the_seed():
    subsets = []
    for seed in (0, 0, 1):
        attack = ScriptedAttack()
        gauge = SparseRobustness(attack=attack, num_samples=10, budgets=(1,), seed=seed)
        torch.manual_seed(5)
        fit(gauge, val=loader(seed=1, shuffle=True), max_epochs=2)
        first, second = gauged(gauge)
        assert torch.equal(first, second)
        subsets.append(first)
    assert torch.equal(subsets[0], subsets[1])
    assert not torch.equal(subsets[0], subsets[2])


def test_fewer_samples_than_wanted_are_all_gauged_once():
    gauge = SparseRobustness(attack=ScriptedAttack(), num_samples=1000, budgets=(1,))
    fit(gauge, num_sanity_val_steps=2, max_epochs=2)
    images = toy_data(seed=1).tensors[0]
    for call in gauge.attack.calls:
        assert torch.equal(call.inputs, images)


def test_a_new_run_collects_anew():
    gauge = SparseRobustness(attack=ScriptedAttack(), num_samples=24, budgets=(1,))
    fit(gauge)
    fit(gauge, val=loader(seed=2))
    first, second = gauged(gauge)
    assert torch.equal(first, toy_data(seed=1).tensors[0])
    assert torch.equal(second, toy_data(seed=2).tensors[0])


def test_a_new_run_has_no_measurement_of_the_one_before():
    gauge = SparseRobustness(attack=ScriptedAttack(), budgets=(1,))
    fit(gauge)
    before = gauge.measurements["val"]
    watcher = SanityWatcher(gauge)
    fit(gauge, callbacks=[watcher], num_sanity_val_steps=1)
    assert watcher.trace[1] == {}
    assert gauge.measurements["val"] is not before


def test_only_the_first_of_several_loaders_is_gauged():
    gauge = SparseRobustness(attack=ScriptedAttack(), num_samples=100, budgets=(1,))
    images, labels = toy_data(seed=2).tensors
    other = DataLoader(TensorDataset(3 * images, labels), batch_size=8)  # cannot be attacked
    junk = DataLoader([{"text": 1.0}] * 3)
    trainer, _ = fit(gauge, val=[loader(seed=1), other, junk], max_epochs=2)
    for call in gauge.attack.calls:
        assert torch.equal(call.inputs, toy_data(seed=1).tensors[0])
    assert trainer.callback_metrics["val/median_l0"] == 1


# Monitors and epochs


def test_best_checkpoint_is_the_most_robust(lightning, monitors, tmp_path):
    attack = ScriptedAttack(script=((1.0, 2.0), (3.0, 2.0), (2.0, 2.0)))
    best = monitors.ModelCheckpoint(tmp_path, filename="{epoch}", monitor="val/mean_l0", mode="max")
    trainer = make_trainer(
        lightning,
        callbacks=[SparseRobustness(attack=attack, budgets=(1,)), best],
        max_epochs=3,
        enable_checkpointing=True,
    )
    trainer.fit(foreign_module(lightning)(), loader(), loader(seed=1))
    assert best.best_model_path.endswith("epoch=1.ckpt")
    assert best.best_model_score == 2.5


@pytest.mark.parametrize(("check_finite", "epochs"), [(True, 1), (False, 4)])
def test_infinite_median_stops_an_early_stopping_that_checks_it(check_finite, epochs):
    attack = ScriptedAttack(script=((INF,), (3.0,), (2.0,), (2.0,), (9.0,)))
    stop = EarlyStopping("val/median_l0", mode="max", patience=3, check_finite=check_finite)
    gauge = SparseRobustness(attack=attack, budgets=(1,))
    trainer, _ = fit(gauge, callbacks=[stop], max_epochs=5)
    assert trainer.current_epoch == epochs


def test_in_between_the_monitors_see_the_last_figures_and_the_loggers_nothing(tmp_path):
    attack = ScriptedAttack(script=((1.0,), (5.0,), (2.0,), (3.0,)))
    gauge = SparseRobustness(attack=attack, budgets=(1,), every_n_epochs=2)
    watcher = Watcher("val/mean_l0")
    best = ModelCheckpoint(tmp_path / "c", filename="{epoch}", monitor="val/mean_l0", mode="max")
    stop = EarlyStopping("val/mean_l0", mode="max", patience=5)
    trainer, _ = fit(
        gauge,
        callbacks=[watcher, best, stop],
        max_epochs=6,
        logger=CSVLogger(tmp_path),
        enable_checkpointing=True,
    )
    assert watcher.seen == [1, 1, 5, 5, 2, 3]  # the last epoch is gauged as well
    assert len(attack.calls) == 4
    rows = logged(csv_rows(tmp_path))
    assert [row["epoch"] for row in rows] == [0, 2, 4, 5]
    assert [row["val/mean_l0"] for row in rows] == [1, 5, 2, 3]
    assert best.best_model_path.endswith("epoch=2.ckpt")
    assert trainer.current_epoch == 6


@pytest.mark.parametrize(
    ("options", "every", "epochs"),
    [
        ({"check_val_every_n_epoch": 2, "max_epochs": 8}, 2, [1, 3, 5, 7]),
        ({"check_val_every_n_epoch": 2, "max_epochs": 8}, 1, [1, 3, 5, 7]),
        ({"check_val_every_n_epoch": 2, "max_epochs": 12}, 4, [1, 5, 9, 11]),
        ({"check_val_every_n_epoch": 2, "max_epochs": 9}, 5, [1, 5, 7]),
        ({"max_steps": 9, "max_epochs": -1}, 5, [0, 2]),
        ({"val_check_interval": 1, "max_epochs": 4}, 3, [0, 0, 0, 3, 3, 3]),
        ({"val_check_interval": 1, "max_epochs": 2}, 1, [0, 0, 0, 1, 1, 1]),
    ],
)
def test_gauge_follows_the_validations_there_are(options, every, epochs, tmp_path):
    attack = ScriptedAttack()
    gauge = SparseRobustness(attack=attack, budgets=(1,), every_n_epochs=every)
    fit(gauge, logger=CSVLogger(tmp_path), **options)
    assert [row["epoch"] for row in logged(csv_rows(tmp_path))] == epochs
    assert len(attack.calls) == len(epochs)


def test_no_logger_is_needed_and_fast_dev_run_takes_one_step():
    attack, verdict = ScriptedAttack(), ScriptedAttack(num_steps=9)
    gauge = SparseRobustness(attack=attack, verdict=verdict, budgets=(1,))
    trainer, module = fit(gauge, fast_dev_run=True)
    trainer.test(module, loader(seed=2), verbose=False)
    assert [call.num_steps for call in attack.calls] == [1]
    assert [call.num_steps for call in verdict.calls] == [1]
    assert attack.num_steps == 7  # the gauge's own is as it was
    trainer, _ = fit(gauge)
    assert attack.calls[-1].num_steps == 7
    assert trainer.callback_metrics["val/median_l0"] == 1


def every_other_epoch(lightning, folder, epochs, ckpt_path=None):
    """Train until `epochs`, gauged in epochs 0, 2, ...; what the monitors and the logger saw."""
    gauge = SparseRobustness(
        attack=RecordingSigmaZero(num_steps=10), num_samples=10, budgets=(1,), every_n_epochs=2
    )
    watcher = Watcher("val/mean_l0")
    trainer = make_trainer(
        lightning,
        callbacks=[gauge, watcher],
        max_epochs=epochs,
        logger=CSVLogger(folder),
    )
    module = foreign_module(lightning)()
    trainer.fit(module, loader(), loader(seed=1), ckpt_path=ckpt_path, weights_only=True)
    rows = logged(csv_rows(folder))
    for row in rows:
        row.pop("val/attack_seconds")
    trainer.save_checkpoint(folder / "end.ckpt")
    return gauge, watcher.seen, rows


def test_resumed_training_logs_what_the_whole_one_logs(lightning, tmp_path):
    whole, seen, rows = every_other_epoch(lightning, tmp_path / "whole", 5)
    every_other_epoch(lightning, tmp_path / "first", 1)
    end = tmp_path / "first" / "end.ckpt"
    resumed, seen_later, later = every_other_epoch(lightning, tmp_path / "second", 5, end)
    assert [row["epoch"] for row in rows] == [0, 2, 4]
    assert later == rows[1:]
    assert seen_later == seen[1:]  # epoch 1 shows the figure of epoch 0
    assert len(resumed.attack.calls) == 2
    assert torch.equal(resumed.attack.calls[0].inputs, whole.attack.calls[0].inputs)


def test_a_checkpoint_without_figures_is_gauged_where_it_goes_on(tmp_path):
    every_other_epoch(pl, tmp_path / "first", 1)
    end = tmp_path / "first" / "end.ckpt"
    checkpoint = torch.load(end, weights_only=True)
    (key,) = [key for key in checkpoint["callbacks"] if key.startswith("SparseRobustness")]
    del checkpoint["callbacks"][key]
    torch.save(checkpoint, end)
    _, seen, rows = every_other_epoch(pl, tmp_path / "second", 5, end)
    assert [row["epoch"] for row in rows] == [1, 2, 4]  # the monitors of epoch 1 need a figure
    assert seen[0] == rows[0]["val/mean_l0"]


def test_validating_a_checkpoint_gauges_it(tmp_path):
    every_other_epoch(pl, tmp_path, 2)
    attack = ScriptedAttack(script=((3.0,),))
    gauge = SparseRobustness(attack=attack, budgets=(1,), every_n_epochs=9)
    trainer = make_trainer(pl, callbacks=[gauge], max_epochs=9)
    options = {"ckpt_path": tmp_path / "end.ckpt", "weights_only": True, "verbose": False}
    (values,) = trainer.validate(foreign_module(pl)(), loader(seed=1), **options)
    assert values["val/mean_l0"] == 3


def test_gauges_of_two_units_keep_their_own_figures(tmp_path):
    script = ((2.0,),)
    gauges = [
        SparseRobustness(attack=ScriptedAttack(script=script, unit=unit), budgets=(1,), name=name)
        for unit, name in (("features", ""), ("pixels", "pixel"))
    ]
    trainer, _ = fit(gauges[0], callbacks=[gauges[1]])
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    states = torch.load(tmp_path / "end.ckpt", weights_only=True)["callbacks"]
    for gauge, key in zip(gauges, ("val/mean_l0", "val/pixel/mean_l0_px"), strict=True):
        assert states[gauge.state_key]["values"][key] == 2
    probed = SparseRobustness(budgets=(1,), probe=SigmaZero())  # has other keys
    assert probed.state_key not in states
    assert SparseRobustness(budgets=(1, 2)).state_key not in states
    at_one, at_two = (
        SparseRobustness(budgets=(1,), probe=SigmaZero(budget=k)).state_key for k in (1, 2)
    )
    assert at_one != at_two


def test_gauges_with_names_log_beside_each_other():
    weak = SparseRobustness(attack=ScriptedAttack(script=((5.0,),)), budgets=(2,))
    strong = SparseRobustness(attack=ScriptedAttack(script=((1.0,),)), budgets=(2,), name="strong")
    set_up = []

    class Other(pl.Callback):
        def setup(self, trainer, pl_module, stage):
            set_up.append(stage)

    trainer, _ = fit(weak, callbacks=[Other(), strong])
    assert set_up == ["fit"]  # once, though the gauges move to the front
    seen = trainer.callback_metrics
    assert (seen["val/mean_l0"], seen["val/strong/mean_l0"]) == (5, 1)
    assert (seen["val/asr@2"], seen["val/strong/asr@2"]) == (0, 1)
    assert strong.keys().gauged <= seen.keys()
    assert trainer.callbacks[:2] == [weak, strong]
    trainer.validate(foreign_module(pl)(), loader(seed=1), verbose=False)
    assert trainer.callbacks[:2] == [weak, strong]  # in their order, whoever is set up last


def test_gauges_that_would_log_under_the_same_keys_are_refused():
    gauges = [SparseRobustness(budgets=budgets, name="one") for budgets in ((1,), (2,))]
    with pytest.raises(InputError, match="same keys, such as val/one/median_l0; give each but one"):
        fit(gauges[0], callbacks=[gauges[1]])
    with pytest.raises(InputError, match="`name` to be a word, part of the keys, got 'a/b'"):
        SparseRobustness(name="a/b")


ATTACKS = [name for name in attacks.__all__ if hasattr(getattr(attacks, name), "num_steps")]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_can_be_shortened(name):
    attack = getattr(attacks, name)()
    assert shortened(attack).num_steps == (2 if name in ("PGDL0", "PDPGD") else 1)
    assert shortened(replace(attack, num_steps=2)).num_steps <= 2


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in ATTACKS])
def test_every_attack_runs_once_it_is_shortened(name):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    result = shortened(getattr(attacks, name)())(net, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))
    assert result.l0.shape == (2,)


def test_an_attack_of_ones_own_may_refuse_few_steps_in_words_of_its_own():
    @dataclass(frozen=True, kw_only=True)
    class Slow(SigmaZero):
        def __post_init__(self):
            if self.num_steps < 5:
                raise ValueError("too few")

    assert shortened(Slow(num_steps=9)).num_steps == 5
    assert shortened(Slow(num_steps=5)).num_steps == 5


def test_a_mix_takes_as_few_steps_as_all_of_its_members_take():
    mix = AttackMix(members={"pgd": PGDL0()}, weights={"pgd": 1})
    assert (shortened(mix).num_steps, shortened(mix).budget) == (2, 1)
    assert shortened(PGDL0(evaluate_last=True, budget=3)) == PGDL0(
        num_steps=1, evaluate_last=True, budget=3
    )
    assert shortened(SparseAutoAttack(preset="full")).num_queries == 1


# Sanity check and refusals


class SanityWatcher(pl.Callback):
    def __init__(self, gauge):
        self.gauge = gauge
        self.trace = None

    def on_sanity_check_end(self, trainer, pl_module):
        self.trace = (
            len(self.gauge.attack.calls),
            dict(self.gauge.measurements),
            [key for key in trainer.callback_metrics if key != "loss_valid"],
        )


def test_sanity_check_leaves_no_trace(tmp_path):
    gauge = SparseRobustness(attack=ScriptedAttack(), num_samples=100, budgets=(1,))
    watcher = SanityWatcher(gauge)
    fit(gauge, callbacks=[watcher], num_sanity_val_steps=-1, logger=CSVLogger(tmp_path))
    assert watcher.trace == (0, {}, [])
    assert len(gauge.attack.calls[0].inputs) == 24
    assert len(logged(csv_rows(tmp_path))) == 1


def too_bright(images, labels):
    return TensorDataset(3 * images, labels)


def normalised(images, labels):
    return TensorDataset((images - 0.5) / 0.25, labels)


def damaged(images, labels):
    return TensorDataset(images * torch.nan, labels)


def float_labels(images, labels):
    return TensorDataset(images, labels.float())


def nameless(images, labels):
    return [{"image": image} for image in images]


def lonely(images, labels):
    return TensorDataset(images)


@pytest.mark.parametrize("sanity_steps", [0, 1])
@pytest.mark.parametrize(
    ("spoil", "budgets", "message"),
    [
        (too_bright, (1,), r"expected inputs in \[0, 1\], got values from .* to 2\.9"),
        (normalised, (1,), r"expected inputs in \[0, 1\].*sztrain\.models\.Normalize"),
        (damaged, (1,), r"expected inputs in \[0, 1\], got values from nan"),
        (float_labels, (1,), "expected labels to be int64"),
        (nameless, (1,), "pairs of inputs and labels, .* got dict of image; .* batch_to_inputs"),
        (lonely, (1,), "pairs of inputs and labels, .* got list of Tensor; "),
        (TensorDataset, (1, 33), "`budgets` to be at most 32, the features of a sample, got 33"),
    ],
)
def test_data_that_cannot_be_attacked_is_refused_early(sanity_steps, spoil, budgets, message):
    class Tolerant(foreign_module(pl)):
        def validation_step(self, batch, batch_idx):
            pass

    gauge = SparseRobustness(attack=ScriptedAttack(), budgets=budgets)
    module = Tolerant()
    val = DataLoader(spoil(*toy_data(seed=1).tensors), batch_size=8)
    with pytest.raises(InputError, match=message) as error:
        fit(gauge, module=module, val=val, num_sanity_val_steps=sanity_steps)
    assert "\n" not in str(error.value)
    assert len(module.train_flags) == (0 if sanity_steps else 3)
    assert gauge.attack.calls == []


@pytest.mark.parametrize("name", ["attack", "probe", "verdict"])
def test_an_attack_of_ones_own_that_answers_wrongly_is_refused_early(name):
    @dataclass(frozen=True, kw_only=True)
    class Liar(SigmaZero):
        def __call__(self, net, inputs, labels):
            return replace(super().__call__(net, inputs, labels), l0=labels + 0.5)

    module = foreign_module(pl)()
    gauge = SparseRobustness(**{name: Liar(num_steps=20)}, budgets=(1,))
    with pytest.raises(InputError, match=r"Liar"):
        fit(gauge, module=module, num_sanity_val_steps=1)
    assert module.train_flags == []


@pytest.mark.parametrize("name", ["attack", "probe", "verdict"])
def test_an_attack_that_does_not_look_at_all_it_tries_is_refused(name):
    with pytest.raises(InputError, match=rf"expected `{name}` to judge, got lean=True"):
        SparseRobustness(**{name: SigmaZero(lean=True)})


def test_budgets_are_held_against_the_unit_of_the_attack():
    gauge = SparseRobustness(attack=ScriptedAttack(unit="pixels"), budgets=(17,))
    with pytest.raises(InputError, match="`budgets` to be at most 16, the pixels of a sample"):
        fit(gauge)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe": SigmaZero(budget=33)}, r"`probe\.budget` to be at most 32, .* got 33"),
        (
            {"verdict": SigmaZero(unit="pixels"), "budgets": (17,)},
            "`budgets` to be at most 16, the pixels",
        ),
    ],
)
def test_budgets_that_no_sample_has_room_for_are_refused_early(options, message):
    module = foreign_module(pl)()
    with pytest.raises(InputError, match=message):
        fit(SparseRobustness(**{"budgets": (1,)} | options), module=module, num_sanity_val_steps=1)
    assert module.train_flags == []


@pytest.mark.parametrize("name", ["attack", "probe", "verdict"])
def test_too_few_steps_to_search_for_a_budget_are_refused_early(name):
    module = foreign_module(pl)()
    gauge = SparseRobustness(**{name: SparsePGD(num_steps=5)}, budgets=(1,))
    with pytest.raises(InputError, match=f"^{name}: expected `num_steps` to be at least 10 with"):
        fit(gauge, module=module, num_sanity_val_steps=0)
    assert module.train_flags == []
    fit(gauge, fast_dev_run=True)  # takes one step, within a budget


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "`num_samples` to be at least 1, got 0"),
        ({"every_n_epochs": 0}, "`every_n_epochs` to be at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` to be at least 1, got 0"),
        ({"verdict_samples": 0}, "`verdict_samples` to be at least 1, got 0"),
        ({"budgets": (5, 0)}, "`budgets` to be at least 1, got 0"),
        ({"budgets": (2.5,)}, "`budgets` to be a whole number, got 2.5"),
        ({"budgets": 10}, r"`budgets` to be several, such as \(10, 50\), got 10"),
        ({"budgets": "10"}, "`budgets` to be several, .* got '10'"),
        ({"name": 3}, "`name` to be a word, part of the keys, got 3"),
        ({"logits": "out"}, "`logits` to be a function, got 'out'"),
        ({"forward": "logits"}, "`forward` to be a function, got 'logits'"),
        ({"batch_to_inputs": 0}, "`batch_to_inputs` to be a function, got 0"),
        ({"num_examples": -1}, "`num_examples` to be at least 0, got -1"),
        ({"num_examples": 2.5}, "`num_examples` to be a whole number, got 2.5"),
        ({"seed": "a"}, "`seed` to be a whole number, got 'a'"),
        ({"attack": SigmaZero}, "`attack` to be an attack"),
        ({"attack": "sigma_zero"}, "`attack` to be an attack .* got 'sigma_zero'"),
        ({"verdict": 3}, "`verdict` to be an attack"),
        # Beyond its budget it would call robust what it has not tried.
        ({"attack": SigmaZero(budget=33)}, "`attack` to have no budget, got budget=33"),
        ({"verdict": SigmaZero(budget=33)}, "`verdict` to have no budget, got budget=33"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SparseRobustness(**options)


@pytest.mark.parametrize("several", [[1, 4], range(1, 5, 3), iter((1, 4)), np.array([1, 4])])
def test_budgets_are_those_that_were_given_whatever_holds_them(several):
    gauge, plain = SparseRobustness(budgets=several), SparseRobustness(budgets=(1, 4))
    assert gauge.budgets == (1, 4)
    assert gauge.state_key == plain.state_key


# validate and test


@pytest.mark.parametrize("inference_mode", [True, False])
def test_validate_and_test_in_and_out_of_inference_mode(lightning, inference_mode):
    attack = RecordingSigmaZero(num_steps=20)
    verdict = RecordingSigmaZero(num_steps=30, unit="pixels")
    gauge = SparseRobustness(
        attack=attack, num_samples=9, budgets=(1, 4), verdict=verdict, batch_size=8
    )
    module = foreign_module(lightning)()
    trainer = make_trainer(lightning, callbacks=[gauge], inference_mode=inference_mode)
    for stage, judge, suffix in (("val", attack, ""), ("test", verdict, "_px")):
        call = trainer.validate if stage == "val" else trainer.test
        (values,) = call(module, loader(seed=1), verbose=False)
        l0 = []
        for part in judge.calls:
            reference = SigmaZero(num_steps=judge.num_steps, unit=judge.unit)
            l0 += reference(part.net, part.inputs, part.labels).l0.tolist()
        assert len(l0) == (9 if stage == "val" else 24)  # the whole test set
        expected = figures(l0, (1, 4), stage, suffix)
        found = {key: value for key, value in values.items() if key in expected}
        assert found == pytest.approx(expected)
        assert set(values) - set(found) == {
            f"{stage}/attack_seconds",
            "loss_valid" if stage == "val" else "loss_test",
        }


@pytest.mark.parametrize("inference_mode", [True, False])
def test_fit_in_and_out_of_inference_mode(lightning, inference_mode):
    gauge = SparseRobustness(attack=SigmaZero(num_steps=10), budgets=(1,))
    trainer = make_trainer(lightning, callbacks=[gauge], inference_mode=inference_mode)
    trainer.fit(foreign_module(lightning)(), loader(), loader(seed=1))
    assert trainer.callback_metrics["val/median_l0"] >= 0


def test_validate_after_a_fit_looks_at_the_net_of_now():
    attack = ScriptedAttack(script=((1.0,), (2.0,), (3.0,)))
    gauge = SparseRobustness(attack=attack, budgets=(1,), every_n_epochs=2)
    trainer, module = fit(gauge, max_epochs=3)
    (values,) = trainer.validate(module, loader(seed=1), verbose=False)
    assert values["val/median_l0"] == 3


def test_verdict_takes_the_first_test_samples():
    attack, verdict = ScriptedAttack(), ScriptedAttack(script=((2.0,),))
    gauge = SparseRobustness(attack=attack, budgets=(1,), verdict=verdict, verdict_samples=11)
    trainer = make_trainer(pl, callbacks=[gauge])
    module = foreign_module(pl)()
    for seed in (2, 3):  # the second test is of other samples
        verdict.calls.clear()
        (values,) = trainer.test(module, loader(seed=seed), verbose=False)
        assert torch.equal(
            torch.cat([call.inputs for call in verdict.calls]), toy_data(seed=seed).tensors[0][:11]
        )
        assert values["test/mean_l0"] == 2
    assert attack.calls == []


def test_only_the_first_of_several_test_loaders_is_judged():
    class Tolerant(foreign_module(pl)):
        def test_step(self, batch, batch_idx, dataloader_idx=0):
            pass

    gauge = SparseRobustness(attack=ScriptedAttack(), budgets=(1,), verdict=ScriptedAttack())
    trainer = make_trainer(pl, callbacks=[gauge])
    loaders = [loader(seed=2), loader(seed=3), DataLoader([{"text": 1.0}] * 3)]
    trainer.test(Tolerant(), loaders, verbose=False)
    (call,) = gauge.verdict.calls
    assert torch.equal(call.inputs, toy_data(seed=2).tensors[0])


def test_without_a_verdict_testing_attacks_nothing():
    gauge = SparseRobustness(attack=ScriptedAttack(), budgets=(1,))
    trainer = make_trainer(pl, callbacks=[gauge])
    (values,) = trainer.test(foreign_module(pl)(), loader(seed=2), verbose=False)
    assert set(values) == {"loss_test"}
    assert gauge.attack.calls == []
    assert gauge.measurements == {}


def test_bad_test_data_is_refused_before_the_verdict():
    gauge = SparseRobustness(attack=ScriptedAttack(), budgets=(1,), verdict=ScriptedAttack())
    trainer = make_trainer(pl, callbacks=[gauge])
    val = DataLoader(too_bright(*toy_data().tensors), batch_size=8)
    with pytest.raises(InputError, match=r"inputs in \[0, 1\]"):
        trainer.test(foreign_module(pl)(), val, verbose=False)
    assert gauge.verdict.calls == []


def test_gauge_attacks_in_eval_mode():
    gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=2), budgets=(1,))
    module = foreign_module(pl)()
    fit(gauge, module=module)
    images, labels = toy_data(seed=1).tensors
    net = copy.deepcopy(module).eval()
    assert gauge.measurements["val"].curve[0] == (net(images).argmax(1) == labels).float().mean()


# The bar


@pytest.fixture
def terminal():
    """What is written on a terminal of rich's."""
    console = rich.get_console()
    before = console.__dict__.copy()
    output = io.StringIO()
    rich.reconfigure(file=output, force_terminal=True, width=200)
    yield output
    console.__dict__ = before


@pytest.mark.parametrize("bar", ["RichProgressBar", "TQDMProgressBar"])
def test_bar_shows_the_attack_inside_lightnings_own(lightning, monitors, bar, terminal):
    attack = ScriptedAttack(unit="pixels", script=((2.0, 3.0),))
    # Lightning's rich bar sets up the console anew.
    kept = {"file": terminal, "force_terminal": True, "width": 200}
    options = {"console_kwargs": kept} if bar == "RichProgressBar" else {}
    callbacks = [SparseRobustness(attack=attack, budgets=(1,)), getattr(monitors, bar)(**options)]
    trainer = make_trainer(lightning, callbacks=callbacks, enable_progress_bar=True)
    trainer.fit(foreign_module(lightning)(), loader(), loader(seed=1))
    assert "val attack" in terminal.getvalue()
    if bar == "TQDMProgressBar":  # a bar inside another is drawn with it, so perhaps not at the end
        assert "median ℓ0 2.5 pixels" in terminal.getvalue()


def test_no_bar_where_lightning_shows_none(terminal):
    fit(SparseRobustness(attack=ScriptedAttack(), budgets=(1,)))
    assert terminal.getvalue() == ""


def test_what_is_set_later_counts_as_well():
    gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=1), num_samples=4, budgets=(2,))
    gauge.box, gauge.seed = (0, 255), 7
    gauge.batch_to_inputs = lambda batch: (batch[0] / 2, batch[1])
    gauge.forward = lambda module, inputs: module(1 - inputs)
    module = foreign_module(pl)()
    _, module = fit(gauge, module=module, val=loader(16, seed=1))
    seen = torch.cat([call.inputs for call in gauge.attack.calls])
    images = toy_data(16, seed=1).tensors[0] / 2
    chosen = [int((images == one).flatten(1).all(dim=1).nonzero()) for one in seen[:4]]
    assert len(set(chosen)) == 4
    other = SparseRobustness(attack=RecordingSigmaZero(num_steps=1), num_samples=4, budgets=(2,))
    other.batch_to_inputs = gauge.batch_to_inputs
    fit(other, val=loader(16, seed=1))
    assert not torch.equal(torch.cat([call.inputs for call in other.attack.calls])[:4], seen[:4])


@pytest.mark.parametrize("argument", ["attack", "probe", "verdict"])
def test_a_library_that_is_missing_is_missed_before_the_training(argument, monkeypatch):
    monkeypatch.setitem(sys.modules, "adv_lib", None)
    monkeypatch.setitem(sys.modules, "adv_lib.attacks", None)
    module = foreign_module(pl)()
    with pytest.raises(UnavailableError, match="adv-lib"):
        fit(SparseRobustness(budgets=(1,), **{argument: FMN(num_steps=2)}), module=module)
    assert module.train_flags == []
