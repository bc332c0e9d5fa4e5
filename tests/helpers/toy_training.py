"""Toy nets, data, attacks and trainings for tests that train; expected figures written by hand."""

import copy
import csv
import math
import statistics
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle, islice

import torch
from scipy.stats import binom
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from sztrain.attacks import SigmaZero
from sztrain.types import AttackResult

SHAPE = (2, 4, 4)
NUM_CLASSES = 3
INF = math.inf


def toy_data(num_samples=24, seed=0):
    """Images whose class is the row that is brighter: a net learns this in an epoch or two."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % NUM_CLASSES
    images = 0.6 * torch.rand(num_samples, *SHAPE, generator=generator)
    images[torch.arange(num_samples), :, labels] += 0.4
    return TensorDataset(images, labels)


def loader(num_samples=24, batch_size=8, seed=0, **options):
    return DataLoader(toy_data(num_samples, seed), batch_size=batch_size, **options)


class Indexed(Dataset):
    """A dataset whose samples say which they are, as soft labels need it."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return (*self.dataset[index], index)


def toy_net(seed=0, extra=()):
    """A small net with the same weights at each call; ``extra`` layers stand before the last."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), *extra, nn.Linear(16, NUM_CLASSES)
        )


@cache
def foreign_module(lightning):
    """A Lightning module as someone else may have written it, in either namespace."""

    class Foreign(lightning.LightningModule):
        def __init__(self, net=None, lr=0.3, manual=False):
            super().__init__()
            self.body = toy_net() if net is None else net
            self.lr = lr
            self.automatic_optimization = not manual
            self.train_flags = []

        def forward(self, inputs):
            return self.body(inputs)

        def loss(self, batch):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def training_step(self, batch, batch_idx):
            self.train_flags.append([module.training for module in self.modules()])
            loss = self.loss(batch)
            if not self.automatic_optimization:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            if dataloader_idx == 0 and isinstance(batch, list):
                loss = self.loss(batch)
                self.log("loss_valid", loss, add_dataloader_idx=False, sync_dist=True)

        def test_step(self, batch, batch_idx):
            self.log("loss_test", self.loss(batch), sync_dist=True)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=self.lr)

    return Foreign


def make_trainer(lightning, **options):
    """A quiet Trainer on one CPU."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return lightning.Trainer(**quiet | options)


@dataclass(frozen=True)
class Call:
    """What an attack was called with."""

    inputs: torch.Tensor
    labels: torch.Tensor
    num_steps: int
    budget: int | None
    net: nn.Module
    flags: list[bool]


def _body(net):
    """The net itself: in a gauge, an adapter stands around someone's module, and that around it."""
    module = getattr(net, "module", net)
    return getattr(module, "body", module)


def record(attack, net, inputs, labels):
    """Write down a call, but no gauge's trial before the training: a step on two samples."""
    if attack.num_steps == 1 and len(inputs) == 2:
        return
    flags = [module.training for module in net.modules()]
    with torch.inference_mode(False):
        twin = copy.deepcopy(_body(net))
        call = Call(inputs.clone(), labels.clone(), attack.num_steps, attack.budget, twin, flags)
    attack.calls.append(call)


@dataclass(frozen=True, kw_only=True)
class RecordingSigmaZero(SigmaZero):
    """σ-zero that writes down what it was called with."""

    calls: list[Call] = field(default_factory=list)

    def __call__(self, net, inputs, labels):
        record(self, net, inputs, labels)
        return super().__call__(net, inputs, labels)


def answer(adv_inputs, l0):
    """What an attack answers that claims this l0, after one pass forwards and one backwards."""
    passes = torch.ones(len(l0), dtype=torch.int64)
    return AttackResult(
        adv_inputs=adv_inputs,
        success=l0.isfinite(),
        l0=l0,
        num_forwards=passes,
        num_backwards=passes,
        last_inputs=adv_inputs,
        best_inputs=adv_inputs,
    )


@dataclass(frozen=True, kw_only=True)
class ScriptedAttack:
    """Claims, call after call, the l0 of its script; changes that many of the first units."""

    script: tuple[tuple[float, ...], ...] = ((1.0,),)
    unit: str = "features"
    budget: int | None = None
    num_steps: int = 7
    calls: list[Call] = field(default_factory=list)

    def __call__(self, net, inputs, labels):
        row = self.script[len(self.calls) % len(self.script)]
        record(self, net, inputs, labels)
        l0 = torch.tensor(list(islice(cycle(row), len(inputs))))
        counted = inputs[0] if self.unit == "features" else inputs[0, :1]
        order = torch.arange(counted.numel()).view(counted.shape)
        changed = order < l0.nan_to_num(posinf=0)[:, None, None, None]
        adv_inputs = torch.where(changed, (inputs + 0.5) % 1, inputs)
        return answer(adv_inputs, l0)


def figures(l0, budgets, stage="val", suffix=""):
    """The figures that a gauge shall log for these l0, by hand."""
    finite = [value for value in l0 if value < INF]
    # The largest rank that a fair coin stays below in at most 2.5 % of all series of throws.
    ranks = [r for r in range(1, len(l0)) if binom.cdf(r - 1, len(l0), 0.5) <= 0.025]
    ends = [sorted(l0)[max(ranks) - 1], sorted(l0)[-max(ranks)]] if ranks else [0, INF]

    def share(budget):
        return sum(value <= budget for value in l0) / len(l0)

    return {
        f"{stage}/median_l0{suffix}": statistics.median(l0),
        f"{stage}/mean_l0{suffix}": statistics.fmean(finite) if finite else INF,
        f"{stage}/median_l0{suffix}_low": ends[0],
        f"{stage}/median_l0{suffix}_high": ends[1],
        f"{stage}/num_samples": len(l0),
        f"{stage}/gauge_clean_acc": 1 - share(0),
        f"{stage}/asr_inf": len(finite) / len(l0),
        **{f"{stage}/asr{suffix}@{k}": share(k) for k in budgets},
        **{f"{stage}/robust_acc{suffix}@{k}": 1 - share(k) for k in budgets},
    }


def csv_rows(folder):
    """Rows of every metrics.csv below a folder, empty cells left out."""
    rows = []
    for path in sorted(folder.glob("**/metrics.csv")):
        with path.open() as file:
            rows += [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return rows
