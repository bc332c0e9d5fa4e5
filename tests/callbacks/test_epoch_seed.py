"""The seed of each epoch, and what it is for: a resumed training is the whole one, bit for bit."""

from itertools import product
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pace import slow_after
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from toy_training import foreign_module, loader, make_trainer, toy_net

from sztrain.attacks import AttackMix, SigmaZero
from sztrain.callbacks import CollapseGuard, CollapseRule, EpochSeed, SparseRobustness
from sztrain.data import Digits
from sztrain.errors import InputError
from sztrain.training import MART, TRADES, SparseAT
from sztrain.training.schedules import cosine


def seeded(seed, epoch, rank):
    trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    EpochSeed(seed).on_train_epoch_start(trainer, None)
    return torch.initial_seed()


def test_every_seed_epoch_and_process_has_its_own_state():
    places = list(product(range(4), range(6), range(4)))
    seeds = {seeded(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeded(1, 2, 3) == seeded(1, 2, 3)


def test_seeds_are_the_same_on_every_machine():
    # Numbers, not strings, are hashed: Python salts the latter anew in each process.
    assert seeded(0, 0, 0) == 3010437511937009226
    assert seeded(7, 3, 1) == 392975784757629358


@pytest.mark.parametrize(
    ("seed", "message"),
    [(-1, "to be at least 0, got -1"), ("a", "to be a whole number, got 'a'")],
)
def test_bad_seed_is_refused(seed, message):
    with pytest.raises(InputError, match=f"`seed` {message}"):
        EpochSeed(seed)


class Killed(Exception):  # noqa: N818  (it is no error)
    pass


class Killer(pl.Callback):
    """Ends the process in the second batch of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise Killed


class Curves(pl.Callback):
    """Writes down what the budget goes by in each epoch."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        curve = pl_module.training_budget.curve
        self.seen[trainer.current_epoch] = None if curve is None else curve.tolist()


def train(folder, method_class, *, seed_of_process, callbacks=(), ckpt_path=None, **options):
    torch.manual_seed(seed_of_process)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 16),
            nn.ReLU(),
            nn.Dropout(),
            nn.BatchNorm1d(16),
            nn.Linear(16, 10),
        )
    options = {"attack": SigmaZero(num_steps=3, recheck=False)} | options
    every_n_epochs = options.pop("every_n_epochs", 1)
    method = method_class(
        net,
        num_classes=10,
        budget=6,
        ramp_epochs=2.5,
        warmup_epochs=0.5,
        **options,
        scheduler=lambda optimizer, steps: cosine(optimizer, steps, warmup=0.2),
    )
    data = Digits(augment=True, limit_train=60, batch_size=20, seed=1, val_fraction=0.02)
    last = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    gauge = SparseRobustness(
        attack=SigmaZero(num_steps=3), num_samples=10, budgets=(5,), every_n_epochs=every_n_epochs
    )
    calm = CollapseRule(margin=1, max_drop=1, max_gap=1, max_loss=1)
    guard = CollapseGuard(rule=calm, monitor="val/robust_acc@5", dirpath=folder)
    trainer = make_trainer(
        pl, callbacks=[gauge, guard, last, *callbacks], max_epochs=4, enable_checkpointing=True
    )
    trainer.fit(method, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return method, trainer


# All that draws random numbers or has a memory.
EVERYTHING = {
    "attack": AttackMix(num_steps=4, recheck=False),
    "noise": 2.0,
    "soft_labels_from": 0.3,
    "budget_schedule": "gauge",
    "budget_multiplier": 2.0,
}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize(
    ("method_class", "options", "epoch"),
    slow_after(
        2,
        [
            (SparseAT, {}, 2),
            (MART, EVERYTHING, 2),
            (TRADES, {}, 2),
            (SparseAT, EVERYTHING, 2),
            # Gauged in epochs 0, 2 and 3, not in epoch 1, where it goes on.
            (SparseAT, EVERYTHING | {"every_n_epochs": 2}, 1),
        ],
    ),
)
def test_killed_and_resumed_is_bit_identical(method_class, options, epoch, tmp_path):
    given = options

    def seeded_train(folder, process, *callbacks, **options):
        return train(
            tmp_path / folder,
            method_class,
            seed_of_process=process,
            callbacks=[EpochSeed(seed=7), *callbacks],
            **given,
            **options,
        )

    curves, other_curves = Curves(), Curves()
    whole, trainer = seeded_train("whole", 1, curves)
    with pytest.raises(Killed):
        seeded_train("cut", 2, Killer(epoch))
    last = tmp_path / "cut" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == epoch - 1
    resumed, other = seeded_train("cut", 3, other_curves, ckpt_path=last)
    assert trainer.global_step == other.global_step == 12
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    (moments,), (other_moments,) = (
        [optimizer.state_dict()["state"] for optimizer in t.optimizers] for t in (trainer, other)
    )
    for index, moment in moments.items():
        assert torch.equal(moment["momentum_buffer"], other_moments[index]["momentum_buffer"])
    for key in ("train/loss", "train/broken", "train/budget", "val/loss", "val/mean_l0"):
        assert trainer.callback_metrics[key] == other.callback_metrics[key], key
    assert other_curves.seen == {e: curves.seen[e] for e in range(epoch, 4)}
    assert resumed.attack_seconds > 0
    if given:
        assert torch.equal(whole.soft_labels.targets, resumed.soft_labels.targets)
        assert whole.soft_labels.targets.sum() > 0


class Looker(pl.Callback):
    """Looks, before anyone seeds, whether a random number was drawn since the epoch began."""

    def __init__(self, seed):
        self.seed = seed
        self.untouched = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            state = torch.get_rng_state()
            EpochSeed(self.seed).on_train_epoch_start(trainer, pl_module)
            self.untouched.append(torch.equal(state, torch.get_rng_state()))


def test_our_own_loaders_draw_nothing_before_the_first_batch(tmp_path):
    looker = Looker(seed=7)
    callbacks = [looker, EpochSeed(seed=7)]
    train(tmp_path, SparseAT, seed_of_process=1, callbacks=callbacks, **EVERYTHING)
    assert looker.untouched == [True] * 4


def test_an_ordinary_loader_that_does_not_shuffle_is_resumable(lightning, tmp_path):
    def run(epochs, process, ckpt_path=None):
        torch.manual_seed(process)
        trainer = make_trainer(lightning, callbacks=[EpochSeed()], max_epochs=epochs)
        module = foreign_module(lightning)(toy_net(extra=[nn.Dropout()]))
        trainer.fit(module, loader(), loader(seed=1), ckpt_path=ckpt_path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "end.ckpt")
        return module.state_dict()

    whole = run(3, 1)
    run(1, 2)
    resumed = run(3, 3, tmp_path / "end.ckpt")
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_without_it_another_process_trains_another_net(tmp_path):
    one, _ = train(tmp_path / "one", SparseAT, seed_of_process=1)
    other, _ = train(tmp_path / "other", SparseAT, seed_of_process=2)
    assert not torch.equal(one.net[1].weight, other.net[1].weight)
