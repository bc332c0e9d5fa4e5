"""Whole trainings, small: they learn, follow their schedules, and attack as they should."""

import math
import warnings
from dataclasses import dataclass, field, replace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, default_collate
from toy_training import (
    INF,
    NUM_CLASSES,
    ScriptedAttack,
    csv_rows,
    loader,
    make_trainer,
    toy_data,
    toy_net,
)

from sztrain.attacks import AttackMix, SigmaZero
from sztrain.attacks.base import Found, run_attack
from sztrain.callbacks import SparseRobustness
from sztrain.errors import InputError, SztrainWarning
from sztrain.losses import wrong_class_margin
from sztrain.training import MART, TRADES, SparseAT, StandardTraining, craft_examples
from sztrain.training.schedules import cosine

SHORT = SigmaZero(num_steps=4, recheck=False)
ADVERSARIAL = [SparseAT, TRADES, MART]
METHODS = [(StandardTraining, {}), *((method, {"attack": SHORT}) for method in ADVERSARIAL)]


def make(method_class, net=None, **options):
    return method_class(toy_net() if net is None else net, num_classes=NUM_CLASSES, **options)


def fit(method, *, data=None, callbacks=(), **options):
    trainer = make_trainer(pl, callbacks=list(callbacks), **options)
    trainer.fit(method, data or loader(), loader(seed=1))
    return trainer


def column(folder, key):
    return [row[key] for row in csv_rows(folder) if key in row]


@pytest.mark.parametrize(("method_class", "options"), METHODS)
def test_smoke_run(method_class, options):
    method = make(method_class, **options)
    trainer = fit(method, fast_dev_run=True)
    assert trainer.global_step == 1
    trainer.test(method, loader(seed=2), verbose=False)
    assert {"test/loss", "test/clean_acc"} <= set(trainer.callback_metrics)


@pytest.mark.parametrize(("precision", "told"), [("32-true", 0), ("bf16-mixed", 1)])
def test_a_training_says_where_half_precision_is_slow(precision, told, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SztrainWarning)
        fit(make(StandardTraining), fast_dev_run=True, precision=precision)
    assert sum("bfloat16" in str(warning.message) for warning in caught) == told


@pytest.mark.parametrize(("method_class", "options"), METHODS)
def test_two_epochs_lower_the_loss(method_class, options, tmp_path):
    budget = {} if method_class is StandardTraining else {"budget": 2}
    method = make(method_class, **options, **budget)
    fit(method, data=loader(96), max_epochs=2, logger=CSVLogger(tmp_path))
    for key in ("train/loss", "val/loss"):
        first, second = column(tmp_path, key)
        assert second < 0.9 * first
    keys = {key for row in csv_rows(tmp_path) for key in row} - {"epoch", "step"}
    expected = {"train/loss", "train/clean_acc", "val/loss", "val/clean_acc"}
    if method_class is not StandardTraining:
        expected |= {"train/broken", "train/adv_acc", "train/budget", "train/attack_seconds"}
    assert keys == expected


class Frozen(nn.Module):
    """Always the same logits for the same image: the first three features."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        return inputs.flatten(1)[:, :NUM_CLASSES] + self.weight


def test_losses_and_accuracies_are_those_of_all_samples():
    # 20 samples in batches of 8, 8, 4: a mean of means would be another number.
    method = make(StandardTraining, Frozen(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    trainer = make_trainer(pl)
    trainer.fit(method, loader(20), loader(20, seed=1))
    check_stage(trainer.callback_metrics, "train", seed=0)
    check_stage(trainer.callback_metrics, "val", seed=1)
    trainer.test(method, loader(20, seed=2), verbose=False)
    check_stage(trainer.callback_metrics, "test", seed=2)


def check_stage(metrics, stage, seed):
    images, labels = toy_data(20, seed).tensors
    logits = images.flatten(1)[:, :NUM_CLASSES]
    log_p = logits.log_softmax(dim=1)
    loss = -log_p[range(20), labels].mean()
    assert metrics[f"{stage}/loss"] == pytest.approx(loss.item())
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    assert metrics[f"{stage}/clean_acc"] == pytest.approx(accuracy.item())


# The adversary in the step


class ModeSpy(nn.Module):
    """Writes down in which mode each pass was made, and on what."""

    def __init__(self):
        super().__init__()
        self.passes = []

    def forward(self, inputs):
        self.passes.append((self.training, inputs.detach().clone()))
        return inputs


@pytest.mark.parametrize("method_class", ADVERSARIAL)
def test_attack_in_eval_mode_and_training_in_train_mode(method_class):
    spy = ModeSpy()
    net = nn.Sequential(spy, *toy_net(extra=[nn.BatchNorm1d(16), nn.Dropout()]))
    method = make(method_class, net, attack=SigmaZero(num_steps=5), budget=2)
    fit(method, limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0)
    *attacking, clean_pass, adv_pass, validation = spy.passes
    assert len(attacking) >= 5
    assert not any(training for training, _ in [*attacking, validation])
    (training, clean), (training_too, examples) = clean_pass, adv_pass
    assert training
    assert training_too
    images = toy_data().tensors[0][:8]
    assert torch.equal(clean, images)
    changed = (examples != images).flatten(1).sum(dim=1)
    assert changed.max() == 2
    batch_norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm1d))
    assert batch_norm.num_batches_tracked == 2


@pytest.mark.parametrize("unbroken", ["best", "last"])
def test_what_unbroken_samples_train_on_is_the_methods_choice(unbroken, monkeypatch):
    chosen = []

    def craft(*args, unbroken):
        chosen.append(unbroken)
        return craft_examples(*args, unbroken=unbroken)

    monkeypatch.setattr("sztrain.training.adversarial.craft_examples", craft)
    fit(make(SparseAT, attack=SHORT, budget=2, unbroken=unbroken), fast_dev_run=True)
    assert chosen == [unbroken]


@dataclass(frozen=True, kw_only=True)
class SeededAttack(ScriptedAttack):
    seed: int = 0
    seeds: list[int] = field(default_factory=list)

    def __call__(self, net, inputs, labels):
        self.seeds.append(self.seed)
        return super().__call__(net, inputs, labels)


def test_an_attack_with_a_seed_starts_anew_in_each_batch_and_again_in_each_run():
    runs = []
    for _ in range(2):
        attack = SeededAttack()
        torch.manual_seed(7)
        fit(make(SparseAT, attack=attack, budget=2), data=loader(32), max_epochs=2)
        runs.append(attack.seeds)
        assert attack.seed == 0
    assert len(set(runs[0])) == len(runs[0]) == 8
    assert runs[0] == runs[1]


@dataclass(frozen=True, kw_only=True)
class Leaning(ScriptedAttack):
    """Notes whether it is to be lean; ends away from the image."""

    lean: bool = False
    orders: list[bool] = field(default_factory=list)

    def __call__(self, net, inputs, labels):
        self.orders.append(self.lean)
        result = super().__call__(net, inputs, labels)
        last_inputs = inputs.flatten(1).clone()
        last_inputs[:, :2] = (last_inputs[:, :2] + 0.5) % 1
        return replace(result, last_inputs=last_inputs.view_as(inputs))


@pytest.mark.parametrize(
    ("num_steps", "options", "expected"),
    [
        (1, {}, True),
        (3, {}, True),
        (4, {}, False),
        (4, {"lean_up_to": 4}, True),
        (1, {"lean_up_to": 0}, False),
        (1, {"budget": None}, False),  # a search has to know what it has found
    ],
)
def test_an_adversary_of_few_steps_is_lean(num_steps, options, expected):
    attack = Leaning(num_steps=num_steps)
    fit(make(SparseAT, attack=attack, **{"budget": 2, **options}), fast_dev_run=True)
    assert attack.orders == [expected]
    assert not attack.lean


def test_an_adversary_that_is_lean_stays_so_however_many_its_steps():
    attack = Leaning(num_steps=9, lean=True)
    fit(make(SparseAT, attack=attack, budget=2), fast_dev_run=True)
    assert attack.orders == [True]


@pytest.mark.parametrize("clean_share", [0, 0.5])
def test_what_such_an_adversary_does_not_ask_shows_in_the_passes_of_the_training(clean_share):
    attack = Leaning(script=((INF,),), num_steps=1)
    net = Frozen()
    options = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.0), "clean_share": clean_share}
    passed = []
    net.register_forward_pre_hook(lambda net, args: passed.append((net.training, args[0].clone())))
    trainer = fit(
        make(SparseAT, net, attack=attack, budget=2, **options),
        data=loader(20),
        num_sanity_val_steps=0,
    )
    images, labels = toy_data(20).tensors
    wrong = images.flatten(1)[:, :NUM_CLASSES].argmax(dim=1) != labels
    examples = images.flatten(1).clone()
    examples[~wrong, :2] = (examples[~wrong, :2] + 0.5) % 1  # misclassified: the clean image
    assert 0 < wrong.sum() < 20
    trained_on = torch.cat([inputs for training, inputs in passed if training][1::2])
    assert torch.equal(trained_on.flatten(1), examples)
    broken = examples[:, :NUM_CLASSES].argmax(dim=1) != labels
    assert 0 < (broken & ~wrong).sum() < (~wrong).sum()
    metrics = trainer.callback_metrics
    assert metrics["train/broken"] == pytest.approx(broken.float().mean().item())
    assert metrics["train/adv_acc"] == pytest.approx(1 - broken.float().mean().item())


@pytest.mark.parametrize("method_class", ADVERSARIAL)
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_an_adversary_of_few_steps_leaves_out_the_passes_of_the_training(method_class, num_steps):
    spy = ModeSpy()
    net = nn.Sequential(spy, *toy_net())
    mix = AttackMix(num_steps=num_steps, recheck=False)
    weights = dict.fromkeys(mix.weights, 1)
    method = make(method_class, net, attack=replace(mix, weights=weights), budget=1)
    fit(method, data=loader(200), num_sanity_val_steps=0, limit_val_batches=0)
    training = sum(len(inputs) for training, inputs in spy.passes if training)
    attacking = sum(len(inputs) for training, inputs in spy.passes if not training)
    assert training == 2 * 200
    at_most = num_steps + (num_steps > 1)  # sparse-PGD may find its end worse than what it saw
    assert 0.5 * num_steps * 200 < attacking <= at_most * 200


def test_budgets_of_a_training_follow_the_schedule(tmp_path):
    attack = ScriptedAttack(script=((1.0, INF, 1.0, INF),))
    method = make(SparseAT, attack=attack, budget=8, warmup_epochs=1.5, ramp_epochs=2)
    fit(method, data=loader(32), max_epochs=5, logger=CSVLogger(tmp_path))
    epochs = [batch / 4 for batch in range(20)]
    budgets = [max(1, round(min((e - 1.5) / 2, 1) * 8)) for e in epochs if e >= 1.5]
    assert [call.budget for call in attack.calls] == budgets
    assert attack.budget is None
    rows = [row for row in csv_rows(tmp_path) if "train/loss" in row]
    assert "train/budget" not in rows[0]
    assert "train/broken" not in rows[0]
    # In epoch 1 the adversary took part in the last two batches.
    expected = [sum(budgets[:2]) / 2, *(sum(budgets[k : k + 4]) / 4 for k in (2, 6, 10))]
    assert [row["train/budget"] for row in rows[1:]] == pytest.approx(expected)
    assert [row["train/broken"] for row in rows[1:]] == [0.5] * 4
    # Only where it covers the same batches as the accuracy on clean images.
    assert ["train/adv_acc" in row for row in rows] == [False, False, *[True] * 3]


def test_budget_of_the_method_counts_and_not_the_attacks_own():
    attack = ScriptedAttack(budget=9)
    fit(make(SparseAT, attack=attack, budget=3))
    assert {call.budget for call in attack.calls} == {3}


def test_attack_sees_the_batch_in_the_warmup_not_at_all():
    attack = ScriptedAttack()
    trainer = fit(make(SparseAT, attack=attack, warmup_epochs=1), max_epochs=1)
    assert attack.calls == []
    assert not {"train/broken", "train/budget"} & set(trainer.callback_metrics)
    assert trainer.callback_metrics["train/attack_seconds"] == 0


@pytest.mark.parametrize("method_class", ADVERSARIAL)
def test_without_an_adversary_a_batch_is_passed_once(method_class):
    seen = []

    class Watched(method_class):
        def batch_loss(self, inputs, labels, indices=None):
            loss, logits = super().batch_loss(inputs, labels, indices)
            seen.append((loss, logits, labels))
            return loss, logits

    net = toy_net(extra=[nn.BatchNorm1d(16), nn.Dropout()])
    fit(make(Watched, net, attack=ScriptedAttack(), warmup_epochs=1))
    assert len(seen) == net[3].num_batches_tracked == 3
    for loss, logits, labels in seen:
        expected = nn.functional.cross_entropy(logits, labels)
        if method_class is MART:
            expected = expected + wrong_class_margin(logits, labels).mean()
        # No divergence between two dropout masks.
        torch.testing.assert_close(loss, expected)


def test_share_of_broken_samples_is_over_the_samples(tmp_path):
    # Batches of 8, 8, 4 of which 0, 4, 4 are broken.
    attack = ScriptedAttack(script=((INF,), (1.0, INF), (1.0,)))
    fit(make(SparseAT, attack=attack, budget=1), data=loader(20), logger=CSVLogger(tmp_path))
    assert column(tmp_path, "train/broken") == pytest.approx([8 / 20])


def test_accuracy_on_the_examples_is_over_the_samples():
    # In the first two batches some samples, and all, are changed in their first two features.
    attack = ScriptedAttack(script=((INF, INF, 2.0), (2.0,), (INF,)))
    method = make(SparseAT, Frozen(), attack=attack, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    trainer = fit(method, data=loader(20))
    images, labels = toy_data(20).tensors
    examples = images.flatten(1).clone()
    moved = [i for i in range(20) if i // 8 == 1 or (i < 8 and i % 3 == 2)]
    examples[moved, :2] = (examples[moved, :2] + 0.5) % 1
    right = (examples[:, :NUM_CLASSES].argmax(dim=1) == labels).float().mean()
    assert trainer.callback_metrics["train/adv_acc"] == pytest.approx(right.item())
    assert right != pytest.approx(float(trainer.callback_metrics["train/clean_acc"]))


def test_cost_of_the_adversary_is_summed_over_the_epochs(tmp_path, monkeypatch):
    devices = []

    def tick(device):
        devices.append(device)
        return float(len(devices))

    monkeypatch.setattr("sztrain.training.adversarial.wall_time", tick)
    method = make(SparseAT, attack=ScriptedAttack())
    fit(method, max_epochs=2, logger=CSVLogger(tmp_path))
    assert column(tmp_path, "train/attack_seconds") == [3, 6]  # a tick a batch
    assert devices == [torch.device("cpu")] * 12


# Divergence


class Diverging(nn.Module):
    """Returns NaN in training, in one batch alone."""

    def __init__(self, batch, value):
        super().__init__()
        self.net = toy_net()
        self.batch = batch
        self.value = value
        self.passes = 0

    def forward(self, inputs):
        logits = self.net(inputs)
        if self.training:
            self.passes += 1
            if self.passes == self.batch:
                return logits * self.value
        return logits


@pytest.mark.parametrize("value", [math.nan, INF])
@pytest.mark.parametrize("batch", [1, 3])
def test_training_that_diverged_ends_in_one_line(batch, value):
    method = make(StandardTraining, Diverging(batch, value))
    with pytest.raises(
        InputError,
        match=r"train/loss is (nan|inf) after epoch 0; .*\(optimizer.lr\), .*precision=32-true",
    ) as error:
        fit(method, max_epochs=3)
    assert "\n" not in str(error.value)
    assert "epoch 0" in str(error.value)


@pytest.mark.parametrize("make_batch", [lambda x, y: {"image": x, "label": y}, lambda x, y: [x]])
def test_batches_of_another_make_are_refused_in_one_line(make_batch):
    other = DataLoader(toy_data(), 4, collate_fn=lambda rows: make_batch(*default_collate(rows)))
    with pytest.raises(InputError, match=r"begin with inputs and labels, .* got (dict|list); give"):
        make_trainer(pl).fit(make(SparseAT, attack=ScriptedAttack()), other, loader(seed=1))


def test_losses_that_are_not_one_a_sample_are_refused():
    class Column(SparseAT):
        def sample_losses(self, *arguments):
            return super().sample_losses(*arguments).unsqueeze(1)

    with pytest.raises(InputError, match=r"`sample_losses` of Column .* one loss a sample"):
        fit(make(Column, attack=ScriptedAttack()))


def test_training_with_an_adversary_says_so_too():
    method = make(SparseAT, Diverging(2, math.nan), attack=ScriptedAttack())
    with pytest.raises(InputError, match="the training diverged: train/loss is nan"):
        fit(method)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_training_that_goes_on_behind_its_last_batch_has_not_diverged(tmp_path):
    saved = ModelCheckpoint(tmp_path, filename="{epoch}", save_on_train_epoch_end=False)
    options = {"check_val_every_n_epoch": 2, "enable_checkpointing": True}
    fit(make(StandardTraining), max_epochs=2, callbacks=[saved], **options)
    method = make(StandardTraining)
    trainer = make_trainer(pl, callbacks=[saved], max_epochs=3, **options)
    trainer.fit(
        method, loader(), loader(seed=1), ckpt_path=saved.best_model_path, weights_only=True
    )
    assert trainer.current_epoch == 3


def test_a_gauge_beside_it_says_so_too():
    method = make(StandardTraining, Diverging(1, math.nan))
    gauge = SparseRobustness(attack=SHORT, budgets=(1,))
    with pytest.raises(InputError, match=r"non-finite logits .* diverged"):
        fit(method, callbacks=[gauge])


# Optimizer and schedule


class RateWatcher(pl.Callback):
    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 2}, 10),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, 6),  # 5 batches an epoch
        ({"max_steps": 7, "max_epochs": -1}, 7),
    ],
)
def test_schedule_spans_the_steps_of_the_whole_run(options, steps):
    told = []

    def schedule(optimizer, total_steps):
        told.append(total_steps)
        return cosine(optimizer, total_steps)

    watcher = RateWatcher()
    method = make(
        StandardTraining, optimizer=lambda p: torch.optim.SGD(p, lr=0.2), scheduler=schedule
    )
    trainer = fit(method, data=loader(40), callbacks=[watcher], **options)
    assert told == [steps]
    assert trainer.global_step == steps
    expected = [0.1 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    assert watcher.rates == pytest.approx(expected)


def test_schedule_without_an_end_is_refused():
    method = make(StandardTraining, scheduler=cosine)
    with pytest.raises(InputError, match=r"set trainer\.max_epochs or trainer\.max_steps"):
        fit(method, max_epochs=-1, max_time={"seconds": 5})


def test_default_optimizer_is_that_of_the_documentation():
    trainer = fit(make(StandardTraining), fast_dev_run=True)
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.05, 0.9)
    assert trainer.lr_scheduler_configs == []


# Precision


class GradientWatcher(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_after_backward(self, trainer, pl_module):
        for name, parameter in pl_module.net.named_parameters():
            self.seen.append((name, parameter.grad is not None and bool(parameter.grad.any())))


@dataclass(frozen=True, kw_only=True)
class BlackBox:
    """Asks the net without gradients: autocast keeps weights that were cast without them."""

    unit: str = "features"
    budget: int | None = None
    num_steps: int = 1

    def __call__(self, net, inputs, labels):
        return run_attack(self.search, net, inputs, labels, unit=self.unit, budget=self.budget)

    @staticmethod
    def search(logits_of, inputs, labels):
        with torch.no_grad():
            logits_of(inputs)
        passes = torch.ones_like(labels)
        never = torch.full((len(labels),), INF)
        return Found(
            best_inputs=inputs,
            best_l0=never,
            last_inputs=1 - inputs,
            num_forwards=passes,
            num_backwards=0 * passes,
        )


@pytest.mark.parametrize(
    "attack", [SigmaZero(num_steps=2, recheck=False), SigmaZero(num_steps=2), BlackBox()]
)
@pytest.mark.parametrize(
    ("method_class", "options"),
    [(SparseAT, {}), (SparseAT, {"clean_share": 0}), (TRADES, {}), (MART, {})],
)
def test_under_autocast_every_weight_gets_a_gradient(method_class, options, attack):
    watcher = GradientWatcher()
    method = make(method_class, attack=attack, budget=2, **options)
    trainer = fit(method, precision="bf16-mixed", callbacks=[watcher], max_epochs=2)
    assert trainer.global_step == 6
    assert len(watcher.seen) == 6 * 4
    assert all(moved for _, moved in watcher.seen)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


@pytest.mark.slow
def test_half_precision_does_not_round_the_means_that_are_logged():
    """In bfloat16 a sum of 256 samples does not grow any more."""
    losses = []

    class Watched(SparseAT):
        def batch_loss(self, *args):
            loss, logits = super().batch_loss(*args)
            losses.append(loss.item())
            return loss, logits

    breaks_a_third = ScriptedAttack(script=((1.0, INF, INF),))
    method = make(Watched, attack=breaks_a_third, budget=2)
    data = loader(1200, batch_size=3)
    found = fit(method, data=data, precision="bf16-true").callback_metrics
    assert found["train/loss"] == pytest.approx(sum(losses) / 400, rel=1e-5)
    assert found["train/broken"] == pytest.approx(1 / 3, rel=1e-5)
    trainer = make_trainer(pl, precision="bf16-true")
    (shown,) = trainer.validate(method, data, verbose=False)
    inputs, labels = data.dataset.tensors
    with torch.no_grad():
        logits = method.eval()(inputs.bfloat16())
    expected = method.cross_entropies(logits, labels).mean()
    assert shown["val/loss"] == pytest.approx(float(expected), rel=1e-3)
