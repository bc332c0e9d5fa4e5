"""The seed of each epoch, and what it is for: a resumed training is the whole one, bit for bit."""

from itertools import product
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from toy_training import make_trainer

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


@pytest.fixture(autouse=True)
def _random_state_restored():
    with torch.random.fork_rng(devices=[]):
        yield


def test_every_seed_epoch_and_process_has_its_own_state():
    places = list(product(range(4), range(6), range(4)))
    seeds = {seeded(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeded(1, 2, 3) == seeded(1, 2, 3)


def test_seeds_are_the_same_on_every_machine():
    # Numbers, not strings, are hashed: Python salts the latter anew in each process.
    assert seeded(0, 0, 0) == hash((0, 0, 0)) % 2**63
    torch.manual_seed(hash((0, 0, 0)) % 2**63)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(seeded(0, 0, 0)))


def test_negative_seed_is_refused():
    with pytest.raises(InputError, match="`seed` to be at least 0, got -1"):
        EpochSeed(-1)


class Killed(Exception):  # noqa: N818  (it is no error)
    pass


class Killer(pl.Callback):
    """Ends the process in the second batch of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise Killed


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
    gauge = SparseRobustness(attack=SigmaZero(num_steps=3), num_samples=10, budgets=(5,))
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
    ("method_class", "options"),
    [(SparseAT, {}), (SparseAT, EVERYTHING), (TRADES, {}), (MART, EVERYTHING)],
)
def test_killed_and_resumed_is_bit_identical(method_class, options, tmp_path):
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

    whole, trainer = seeded_train("whole", 1)
    with pytest.raises(Killed):
        seeded_train("cut", 2, Killer(epoch=2))
    last = tmp_path / "cut" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 1
    resumed, other = seeded_train("cut", 3, ckpt_path=last)
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
    assert resumed.attack_seconds > 0
    if given:
        assert torch.equal(whole.soft_labels.targets, resumed.soft_labels.targets)
        assert whole.soft_labels.targets.sum() > 0


def test_without_it_another_process_trains_another_net(tmp_path):
    one, _ = train(tmp_path / "one", SparseAT, seed_of_process=1)
    other, _ = train(tmp_path / "other", SparseAT, seed_of_process=2)
    assert not torch.equal(one.net[1].weight, other.net[1].weight)
