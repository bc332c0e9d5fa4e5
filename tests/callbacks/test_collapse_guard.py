"""The decision rule on made-up histories, the guard in trainings, and one that does collapse."""

import re
import warnings
from dataclasses import asdict, dataclass, field

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from toy_training import (
    INF,
    NUM_CLASSES,
    ScriptedAttack,
    foreign_module,
    loader,
    make_trainer,
    toy_net,
)

from sztrain.attacks import SigmaZero, SparseRS
from sztrain.callbacks import CollapseGuard, CollapseRule, EpochSeed, SparseRobustness
from sztrain.callbacks.collapse_guard import _State
from sztrain.data import Digits
from sztrain.errors import InputError
from sztrain.models import digits_cnn
from sztrain.training import SparseAT, StandardTraining

KEY = "val/robust_acc_worst@4"
SOUND = {
    "train/clean_acc": 0.9,
    "train/adv_acc": 0.6,
    "train/budget": 8.0,
    "val/clean_acc": 0.9,
    KEY: 0.3,
}
RULE = CollapseRule(margin=0.05, max_drop=0.2, max_gap=0.4, max_loss=0.5)


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        ({"train/adv_acc": 0.96, KEY: 0.6}, "adversaries (0.960) is above clean accuracy (0.900)"),
        ({"val/clean_acc": 0.69}, "clean accuracy swings, from 0.900 to 0.690"),
        ({KEY: 0.19}, f"adversaries is 0.600, {KEY} only 0.190"),
        ({KEY: 0.19, "train/budget": 4.0}, f"adversaries is 0.600, {KEY} only 0.190"),
        ({KEY: 0.14, "train/budget": 3.9}, f"{KEY} fell from 0.300 to 0.140"),
    ],
)
def test_each_sign_alone(changes, sign):
    (found,) = RULE.signs(SOUND | changes, best_clean=0.9, best_robust=0.3, monitor=KEY)
    assert found.endswith(sign)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train/adv_acc": 0.94, KEY: 0.6},
        {"val/clean_acc": 0.71},
        {KEY: 0.21},
        {KEY: 0.16, "train/budget": 3.9},  # the adversary does not try at 4 yet
    ],
)
def test_just_below_each_threshold_it_is_sound(changes):
    assert RULE.signs(SOUND | changes, best_clean=0.9, best_robust=0.3, monitor=KEY) == []


def test_what_was_not_measured_is_not_judged():
    rule, few = CollapseRule(max_loss=0), {"train/adv_acc": 0.9, "train/clean_acc": 0.9}
    assert rule.signs(few, best_clean=1, best_robust=1, monitor=KEY) == []
    assert rule.signs(SOUND, best_clean=0.9, best_robust=0.9) == []
    assert rule.signs(SOUND, best_clean=0.9, best_robust=0.9, monitor="val/clean_acc") == []
    # What never was robust cannot lose it.
    assert rule.signs(SOUND | {KEY: 0.1}, best_clean=0.9, best_robust=0.14, monitor=KEY) == []


def test_an_accuracy_alone_is_refused():
    with pytest.raises(InputError, match="beside train/clean_acc, and only the former is logged"):
        RULE.signs({"train/adv_acc": 0.9}, best_clean=1, best_robust=1)


@pytest.mark.parametrize(
    ("missing", "unseen"),
    [
        ([], {}),
        (["train/clean_acc"], {"margin": ["train/clean_acc"]}),
        (["val/clean_acc"], {"max_drop": ["val/clean_acc"]}),
        (["train/budget"], {"max_gap": ["train/budget"]}),
        ([KEY], {"max_gap": [KEY], "max_loss": [KEY]}),
        (
            ["train/adv_acc"],
            {name: ["train/adv_acc"] for name in ("margin", "max_drop", "max_gap", "max_loss")},
        ),
    ],
)
def test_a_threshold_misses_what_its_sign_goes_by(missing, unseen):
    logged = SOUND.keys() - set(missing)
    assert RULE.unseen(logged, KEY) == unseen
    # Signs that are switched off, and a monitor that is none, miss nothing.
    off = CollapseRule(**dict.fromkeys(("margin", "max_drop", "max_gap", "max_loss"), 1))
    assert off.unseen(logged, KEY) == {}
    without_budget = {name: unseen[name] for name in ("margin", "max_drop") if name in unseen}
    for monitor in (None, "val/loss"):
        assert RULE.unseen(logged, monitor) == without_budget


def logging_module(**figures):
    """A module of someone else's that logs these figures of its training."""

    class Logging(foreign_module(pl)):
        def training_step(self, batch, batch_idx):
            self.log_dict(figures, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    return Logging()


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        (
            {"train_adv": 0.5},
            "nothing logs train/adv_acc, train/clean_acc, val/clean_acc, so that no epoch is held "
            "against margin, max_drop; log what is missing .* max_drop=1",
        ),
        (
            {"train/adv_acc": 0.5, "train/clean_acc": 0.9},
            "nothing logs val/clean_acc, so that no epoch is held against max_drop; ",
        ),
        ({"train/clean_acc": 0.9}, None),  # without an adversary, as yet or all along
    ],
)
def test_what_nothing_logs_is_told_once_a_run(figures, text):
    guard = CollapseGuard()
    for _ in range(2):
        trainer = make_trainer(
            pl, callbacks=[guard], max_epochs=4, check_val_every_n_epoch=2, num_sanity_val_steps=0
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(logging_module(**figures), loader(), loader(seed=1))
        told = [str(each.message) for each in caught if "CollapseGuard: " in str(each.message)]
        assert len(told) == (text is not None)
        assert all(re.search(text, message) for message in told)


def test_values_out_of_range_are_refused():
    for options, message in (
        ({"action": "panic"}, "`action` to be one of warn, stop, more_steps, got panic"),
        ({"step_factor": 1}, "`step_factor` to be at least 2, got 1"),
        ({"max_steps": 0}, "`max_steps` to be at least 1, got 0"),
        ({"monitor": "acc@top5"}, "`monitor` to end in a budget, .* got acc@top5"),
        ({"action": "more_steps"}, "there is no `dirpath` to keep it in"),
        (
            {"rule": {"margin": 1}},
            r"`rule` to be a CollapseRule.*, got {'margin': 1} \(dict\)",
        ),
        ({"dirpath": __file__}, f"`dirpath` to be a folder, got the file {__file__}"),
        ({"dirpath": "s3://bucket/run"}, "to be a folder of this machine, got s3://bucket/run"),
    ):
        with pytest.raises(InputError, match=message):
            CollapseGuard(**options)
    with pytest.raises(InputError, match="`max_gap` to be at least 0, got -1"):
        CollapseRule(max_gap=-1)


def test_the_best_of_another_figure_is_none_of_this():
    """A training may go on with another probe, whose budget makes all the difference."""
    written = asdict(_State(best_clean=0.8, best_robust=0.6, monitor=KEY, num_steps=20))
    for monitor, best in ((KEY, 0.6), ("val/robust_acc_worst@8", 0.0), (None, 0.0)):
        guard = CollapseGuard(monitor=monitor)
        guard.load_state_dict(dict(written))
        found = guard.state_dict()
        assert (found["best_robust"], found["monitor"]) == (best, monitor)
        assert (found["best_clean"], found["num_steps"]) == (0.8, 20)


def test_a_state_of_another_version_is_read_as_far_as_it_is_known():
    guard = CollapseGuard(monitor=KEY)
    guard.load_state_dict({"best_clean": 0.8, "no_longer": 1})
    assert guard.state_dict()["best_clean"] == 0.8


@dataclass(frozen=True, kw_only=True)
class Scripted(CollapseRule):
    """Sees a collapse in some epochs, and writes down what it was asked."""

    collapses: tuple[int, ...] = ()
    asked: list = field(default_factory=list)

    def __post_init__(self):
        pass

    def signs(self, metrics, best_clean, best_robust, monitor=None):
        self.asked.append((dict(metrics), best_clean, best_robust, monitor))
        return ["bad"] if len(self.asked) - 1 in self.collapses else []


def warned(caught):
    texts = [str(warning.message) for warning in caught]
    others = ("LeafSpec", "SparseRobustness: ")  # torch's, see pyproject.toml, and the gauge's
    return [text for text in texts if not any(words in text for words in others)]


class Weights(pl.Callback):
    def __init__(self):
        self.at_end_of_epoch = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.at_end_of_epoch.append(flat(pl_module))


def flat(method):
    return torch.cat([value.flatten() for value in method.net.state_dict().values()])


def fit(guard, *, callbacks=(), max_epochs=4, ckpt_path=None, val_every=1, **options):
    """Weights are noted before the guard acts."""
    method = SparseAT(
        toy_net(), num_classes=NUM_CLASSES, attack=SigmaZero(num_steps=2), budget=2, **options
    )
    weights = Weights()
    trainer = make_trainer(
        pl,
        callbacks=[EpochSeed(3), weights, guard, *callbacks],
        max_epochs=max_epochs,
        check_val_every_n_epoch=val_every,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
    )
    trainer.fit(method, loader(), loader(seed=1), ckpt_path=ckpt_path, weights_only=True)
    return method, trainer, weights.at_end_of_epoch


def test_it_warns_tells_and_keeps_the_last_sound_epoch(tmp_path):
    rule = Scripted(collapses=(1, 2, 4, 5))
    guard = CollapseGuard(rule=rule, monitor="val/loss", dirpath=tmp_path)
    with pytest.warns(UserWarning, match="The training collapses") as caught:
        method, trainer, weights = fit(guard, max_epochs=6)
    texts = [  # once until it is sound again
        f"epoch {epoch}: bad; the last sound epoch is in {tmp_path / 'sound.ckpt'}"
        for epoch in (1, 4)
    ]
    assert warned(caught) == [f"The training collapses: {text}" for text in texts]
    assert trainer.current_epoch == 6
    sound = torch.load(tmp_path / "sound.ckpt", weights_only=True)
    assert sound["epoch"] == 3
    kept = torch.cat([value.flatten() for value in sound["state_dict"].values()])
    assert torch.equal(kept, weights[3])
    assert trainer.callback_metrics["train/collapse_signs"] == 1
    assert torch.equal(flat(method), weights[5])  # it only warns
    # It was asked with the best before the epoch in question.
    clean = [metrics["val/clean_acc"] for metrics, *_ in rule.asked]
    loss = [metrics["val/loss"] for metrics, *_ in rule.asked]
    assert [best for _, best, *_ in rule.asked] == [max([0.0, *clean[:e]]) for e in range(6)]
    assert [best for *_, best, _ in rule.asked] == [max([0.0, *loss[:e]]) for e in range(6)]
    assert {monitor for *_, monitor in rule.asked} == {"val/loss"}


def test_what_has_diverged_is_not_kept(tmp_path):
    class Diverging(foreign_module(pl)):
        def training_step(self, batch, batch_idx):
            figures = {"train/adv_acc": 0.5, "train/clean_acc": 0.9}
            figures["train/loss"] = torch.nan if self.current_epoch > 0 else 1.0
            self.log_dict(figures, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    guard = CollapseGuard(rule=CollapseRule(max_drop=1), dirpath=tmp_path)
    trainer = make_trainer(pl, callbacks=[guard], max_epochs=2)
    trainer.fit(Diverging(), loader(), loader(seed=1))
    kept = torch.load(tmp_path / "sound.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    # Who goes on from it can fall back.
    assert kept["callbacks"]["CollapseGuard"]["sound"] == str(tmp_path / "sound.ckpt")


def test_the_best_is_that_of_all_epochs_before():
    accuracies = [0.9, 0.5, 0.8, 0.6]

    class Falling(foreign_module(pl)):
        def training_step(self, batch, batch_idx):
            figures = {"train/adv_acc": 0.5, "train/clean_acc": 0.9}
            self.log_dict(figures, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val/clean_acc", accuracies[self.current_epoch])

    guard = CollapseGuard(rule=Scripted())
    trainer = make_trainer(pl, callbacks=[guard], max_epochs=2, num_sanity_val_steps=0)
    trainer.fit(Falling(), loader(), loader(seed=1))
    trainer.fit_loop.max_epochs = 4  # the same Trainer goes on
    trainer.fit(trainer.lightning_module, loader(), loader(seed=1))
    best = [best for _, best, *_ in guard.rule.asked]
    assert best == pytest.approx([0.0, 0.9, 0.9, 0.9])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_test_of_an_earlier_epoch_moves_nothing(tmp_path):
    every = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    guard = CollapseGuard(rule=Scripted(), dirpath=tmp_path)
    method, trainer, _ = fit(guard, callbacks=[every], max_epochs=2)
    first = str(tmp_path / "epoch=0.ckpt")
    trainer.test(method, loader(), ckpt_path=first, weights_only=True, verbose=False)
    assert torch.load(tmp_path / "sound.ckpt", weights_only=True)["epoch"] == 1
    assert not (tmp_path / "sound.1.ckpt").exists()


def test_a_smoke_test_is_not_judged(tmp_path):
    rule = Scripted(collapses=(0,))
    trainer = make_trainer(
        pl, callbacks=[CollapseGuard(rule=rule, dirpath=tmp_path)], fast_dev_run=True
    )
    method = SparseAT(toy_net(), num_classes=NUM_CLASSES, attack=SigmaZero(num_steps=1), budget=2)
    trainer.fit(method, loader(), loader(seed=1))
    assert rule.asked == []
    assert list(tmp_path.iterdir()) == []


def test_it_stops():
    with pytest.warns(UserWarning, match=r"epoch 1: bad; stopping$"):
        _, trainer, weights = fit(CollapseGuard(rule=Scripted(collapses=(1,)), action="stop"))
    assert len(weights) == trainer.current_epoch == 2


def test_it_goes_back_and_on_with_more_steps_until_there_are_no_more(tmp_path):
    guard = CollapseGuard(
        rule=Scripted(collapses=(1, 2, 3)), dirpath=tmp_path, action="more_steps", max_steps=6
    )
    with pytest.warns(UserWarning, match="bad") as caught:
        method, trainer, weights = fit(guard, max_epochs=6)
    assert [text.rpartition("; ")[2] for text in warned(caught)] == [
        "going on from there with 4 steps",
        "going on from there with 6 steps",
        "stopping",
    ]
    assert trainer.current_epoch == 4
    assert method.attack.num_steps == 6
    first = torch.load(tmp_path / "sound.ckpt", weights_only=True)
    assert first["epoch"] == 0
    # Every epoch after a fall-back begins where epoch 0 ended: with its weights and moments.
    assert not torch.equal(weights[2], weights[1])
    moments = first["optimizer_states"][0]["state"]
    assert moments[0]["momentum_buffer"].abs().sum() > 0


def test_a_fall_back_restores_weights_and_moments_but_not_the_learning_rate(tmp_path):
    class Look(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                (optimizer,) = trainer.optimizers
                self.weights, self.rate = flat(pl_module), optimizer.param_groups[0]["lr"]
                self.moment = optimizer.state_dict()["state"][0]["momentum_buffer"].clone()
                sound = torch.load(tmp_path / "sound.ckpt", weights_only=True)
                self.sound_moment = sound["optimizer_states"][0]["state"][0]["momentum_buffer"]

    look = Look()
    guard = CollapseGuard(rule=Scripted(collapses=(1,)), dirpath=tmp_path, action="more_steps")

    def halving(optimizer, total_steps):
        return torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)

    with pytest.warns(UserWarning, match="bad"):
        _, _, weights = fit(guard, callbacks=[look], max_epochs=3, scheduler=halving)
    assert torch.equal(look.weights, weights[0])
    assert torch.equal(look.moment, look.sound_moment)
    assert look.rate == 0.05 / 4  # halved after each epoch


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "lost"])
@pytest.mark.parametrize("renamed", [False, True], ids=["another", "renamed"])
def test_a_training_that_goes_on_elsewhere_can_go_back(tmp_path, kept, renamed):
    one, two = tmp_path / "one", tmp_path / "two"
    last = ModelCheckpoint(one, filename="last", enable_version_counter=False)
    _, _, before = fit(CollapseGuard(rule=Scripted(), dirpath=one), callbacks=[last], max_epochs=2)
    if not kept:
        (one / "sound.ckpt").unlink()
    if renamed:
        one.rename(two)
    start = (two if renamed else one) / "last.ckpt"
    guard = CollapseGuard(rule=Scripted(collapses=(0,)), dirpath=two, action="more_steps")
    found = rf"the last sound epoch is in {two / 'sound.ckpt'}; "
    told = rf"epoch 2: bad; {found if kept else ''}going on{' from there' if kept else ''} with 4"
    with pytest.warns(UserWarning, match=told):
        method, _, after = fit(guard, max_epochs=3, ckpt_path=start)
    assert torch.equal(flat(method), before[1] if kept else after[0])
    assert not torch.equal(before[1], after[0])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_sound_epoch_that_is_later_is_not_gone_back_to(tmp_path):
    """Of weights that are no part of a training that goes on before them."""
    every = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(CollapseGuard(rule=Scripted(), dirpath=tmp_path), callbacks=[every], max_epochs=3)
    guard = CollapseGuard(rule=Scripted(collapses=(0,)), dirpath=tmp_path, action="more_steps")
    with pytest.warns(UserWarning, match="epoch 1: bad; going on with 4 steps$"):
        fit(guard, max_epochs=2, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert torch.load(tmp_path / "sound.1.ckpt", weights_only=True)["epoch"] == 2


@pytest.mark.filterwarnings("ignore:The training collapses")
def test_a_checkpoint_that_cannot_be_gone_back_to_is_refused_when_it_is_written(tmp_path):
    """Not hours later, where the training collapses."""
    guard = CollapseGuard(rule=Scripted(collapses=(3,)), dirpath=tmp_path, action="more_steps")
    kept = {"net": SigmaZero()}  # as of a module that calls save_hyperparameters()
    with pytest.raises(InputError, match=r"holds objects, .*save_hyperparameters\(ignore="):
        fit(guard, hyper_parameters=kept)
    assert len(guard.rule.asked) == 1
    guard = CollapseGuard(rule=Scripted(collapses=(3,)), dirpath=tmp_path / "stop", action="stop")
    fit(guard, hyper_parameters=kept)


def test_another_training_is_watched_from_its_own_beginning(tmp_path):
    guard = CollapseGuard(dirpath=tmp_path)
    fit(guard, max_epochs=2)
    assert guard._state.best_clean > 0
    assert guard._state.sound
    seen = []

    class Look(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(asdict(guard._state))

    fit(guard, callbacks=[Look()], max_epochs=1)
    assert seen == [asdict(type(guard._state)())]


@pytest.mark.parametrize("average", ["pytorch_lightning", "lightning.pytorch"])
def test_it_cannot_go_back_where_weights_are_averaged(tmp_path, average):
    callbacks = pytest.importorskip(average).callbacks
    guard = CollapseGuard(dirpath=tmp_path, action="more_steps")
    trainer = make_trainer(pl, callbacks=[guard])
    trainer.callbacks.append(callbacks.EMAWeightAveraging())
    method = SparseAT(toy_net(), num_classes=NUM_CLASSES, attack=SigmaZero(num_steps=2), budget=2)
    with pytest.raises(InputError, match="cannot go back where a callback averages the weights"):
        guard.on_train_start(trainer, method)


@pytest.mark.parametrize(
    ("unit", "monitor", "compared"),
    [
        ("features", "val/robust_acc_worst@4", True),
        ("pixels", "val/robust_acc_worst_px@4", True),
        ("pixels", "val/robust_acc_worst@4", False),
        ("features", "val/robust_acc_worst_px@4", False),
    ],
)
def test_budgets_of_different_units_are_not_compared(unit, monitor, compared):
    rule = Scripted(max_gap=1, max_loss=1)  # there is no gauge
    guard = CollapseGuard(rule=rule, monitor=monitor)
    attack = SigmaZero(num_steps=1, unit=unit)
    method = SparseAT(toy_net(), num_classes=NUM_CLASSES, attack=attack, budget=2)
    make_trainer(pl, callbacks=[guard]).fit(method, loader(), loader(seed=1))
    (metrics, *_), *_ = rule.asked
    assert ("train/budget" in metrics) is compared


RESISTS, BREAKS = (INF,), (1.0,)
LOSS_ALONE = CollapseRule(margin=1, max_drop=0.9, max_gap=1)
ROBUST = "val/robust_acc@4"


def gauge_of(*script):
    return SparseRobustness(attack=ScriptedAttack(script=script), budgets=(4,), every_n_epochs=2)


def test_no_fall_back_by_the_figures_of_weights_that_are_gone(tmp_path):
    gauge = gauge_of(RESISTS, BREAKS, RESISTS)  # in epochs 0, 2 and 4
    guard = CollapseGuard(
        rule=LOSS_ALONE, monitor=ROBUST, dirpath=tmp_path, action="more_steps", max_steps=40
    )
    with pytest.warns(UserWarning, match=f"epoch 2: {ROBUST} fell from 1.000 to 0.000") as caught:
        method, *_ = fit(guard, callbacks=[gauge], max_epochs=5)
    assert len(warned(caught)) == 1
    assert method.attack.num_steps == 4


def test_an_epoch_that_is_not_gauged_is_neither_a_collapse_nor_sound(tmp_path):
    gauge = gauge_of(RESISTS, BREAKS, BREAKS, BREAKS)  # in epochs 0, 2, 4 and 5
    guard = CollapseGuard(rule=LOSS_ALONE, monitor=ROBUST, dirpath=tmp_path)
    with pytest.warns(UserWarning, match="epoch 2") as caught:
        fit(guard, callbacks=[gauge], max_epochs=6)
    assert len(warned(caught)) == 1
    assert torch.load(tmp_path / "sound.ckpt", weights_only=True)["epoch"] == 0


class Sounds(pl.Callback):
    """Writes down which epoch was the last sound one."""

    def __init__(self, path):
        self.path = path
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        known = self.path.exists()
        self.epochs.append(torch.load(self.path, weights_only=True)["epoch"] if known else None)


def test_an_epoch_that_is_not_validated_is_judged_by_its_own_figures(tmp_path):
    rule = Scripted()
    guard = CollapseGuard(rule=rule, dirpath=tmp_path)
    sounds = Sounds(guard.sound)
    fit(guard, callbacks=[sounds], max_epochs=5, val_every=2)
    assert ["val/clean_acc" in metrics for metrics, *_ in rule.asked] == [False, True] * 2 + [False]
    assert all("train/clean_acc" in metrics for metrics, *_ in rule.asked)
    assert sounds.epochs == [None, 1, 1, 3, 3]


def test_a_training_that_is_never_validated_is_judged_by_its_own_figures(tmp_path):
    rule = Scripted(max_drop=1)
    trainer = make_trainer(
        pl,
        callbacks=[CollapseGuard(rule=rule, dirpath=tmp_path)],
        max_epochs=2,
        limit_val_batches=0,
    )
    method = SparseAT(toy_net(), num_classes=NUM_CLASSES, attack=SigmaZero(num_steps=2), budget=2)
    trainer.fit(method, loader(), loader(seed=1))
    assert len(rule.asked) == 2
    assert torch.load(tmp_path / "sound.ckpt", weights_only=True)["epoch"] == 1


class Killed(Exception):  # noqa: N818  (it is no error)
    pass


class Killer(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 3 and batch_idx == 1:
            raise Killed


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:The training collapses")
def test_a_run_that_fell_back_and_was_killed_goes_on_bit_for_bit(tmp_path):
    def run(name, collapses, *callbacks, ckpt_path=None):
        last = ModelCheckpoint(tmp_path / name, filename="last", enable_version_counter=False)
        guard = CollapseGuard(
            rule=Scripted(collapses=collapses), dirpath=tmp_path / name, action="more_steps"
        )
        return fit(guard, callbacks=[last, *callbacks], max_epochs=5, ckpt_path=ckpt_path)

    whole, *_ = run("whole", (2,))
    with pytest.raises(Killed):
        run("cut", (2,), Killer())
    resumed, *_ = run("cut", (), ckpt_path=tmp_path / "cut" / "last.ckpt")
    assert torch.equal(flat(whole), flat(resumed))
    assert whole.attack.num_steps == resumed.attack.num_steps == 4


def test_a_training_without_an_adversary_is_left_alone(tmp_path):
    guard = CollapseGuard(rule=Scripted(collapses=(0,)), dirpath=tmp_path)
    trainer = make_trainer(pl, callbacks=[guard])
    trainer.fit(StandardTraining(toy_net(), num_classes=3), loader(), loader(seed=1))
    assert list(tmp_path.iterdir()) == []
    assert "train/collapse_signs" not in trainer.callback_metrics
    more = CollapseGuard(dirpath=tmp_path, action="more_steps")
    with pytest.raises(InputError, match=r"needs a method with an adversary, .* StandardTraining"):
        make_trainer(pl, callbacks=[more]).fit(
            StandardTraining(toy_net(), num_classes=3), loader(), loader(seed=1)
        )


@pytest.mark.slow
def test_a_one_step_training_that_collapses_is_found():
    gauge = SparseRobustness(
        attack=SigmaZero(num_steps=60),
        num_samples=100,
        budgets=(4,),
        probe=SparseRS(num_steps=100, budget=4),
    )
    guard = CollapseGuard(monitor=KEY, action="stop")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = SparseAT(
            digits_cnn(width=8),
            num_classes=10,
            attack=SigmaZero(num_steps=1, recheck=False),
            budget=16,
            clean_share=0.0,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        )
        trainer = make_trainer(pl, callbacks=[EpochSeed(0), gauge, guard], max_epochs=15)
        with pytest.warns(UserWarning, match=f"adversaries is 0.*, {KEY} only 0.0"):
            trainer.fit(method, datamodule=Digits(batch_size=32))
    assert trainer.current_epoch < 15  # it has stopped
    # The net looks robust to its adversary, and is not.
    assert trainer.callback_metrics["train/adv_acc"] > 0.5
    assert trainer.callback_metrics[KEY] < 0.05
