"""Two processes log the figures of all samples, as one process would.

The processes run this very file as a program: under pytest's importlib mode, a process of
Lightning's could not import the test module to find its functions.
"""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.nn.functional import cross_entropy
from toy_training import (
    NUM_CLASSES,
    SHAPE,
    RecordingSigmaZero,
    csv_rows,
    figures,
    foreign_module,
    loader,
    make_trainer,
    toy_data,
    toy_net,
)

from sztrain.attacks import SigmaZero
from sztrain.callbacks import CollapseGuard, RobustnessDashboard, SparseRobustness, _pace
from sztrain.training import SparseAT, craft_examples

STEPS, BUDGETS = 15, (1, 3)
SHORT = SigmaZero(num_steps=6)


class Reporter(pl.Callback):
    """Writes down, in each process, what it attacked and what its monitors see."""

    def __init__(self, folder, gauge):
        self.folder = folder
        self.gauge = gauge

    def report(self, trainer, stage, attack):
        report = {
            "metrics": {key: float(value) for key, value in trainer.callback_metrics.items()},
            "inputs": [call.inputs.tolist() for call in attack.calls],
            "l0": sorted(self.gauge.measurements[stage].breakdown.l0.tolist()),
        }
        path = self.folder / f"{stage}{trainer.global_rank}.json"
        path.write_text(json.dumps(report))

    def on_fit_end(self, trainer, pl_module):
        self.report(trainer, "val", self.gauge.attack)

    def on_test_end(self, trainer, pl_module):
        self.report(trainer, "test", self.gauge.verdict)


def still(parameters):
    """An optimizer that moves nothing, so that the test knows the net of every epoch."""
    return torch.optim.SGD(parameters, lr=0.0)


MODULES = {
    "foreign": lambda: foreign_module(pl)(lr=0.0),
    "sparse_at": lambda: SparseAT(
        toy_net(), num_classes=NUM_CLASSES, attack=SHORT, budget=3, optimizer=still
    ),
}


def train(folder, name, num_samples):
    """Three epochs and a test in two processes."""
    gauge = SparseRobustness(
        attack=RecordingSigmaZero(num_steps=STEPS),
        num_samples=num_samples,
        budgets=BUDGETS,
        every_n_epochs=2,
        verdict=RecordingSigmaZero(num_steps=STEPS),
        verdict_samples=5,
    )
    trainer = make_trainer(
        pl,
        callbacks=[gauge, RobustnessDashboard(), Reporter(folder, gauge)],
        devices=2,
        strategy="ddp_fork",
        max_epochs=3,
        logger=CSVLogger(folder),
    )
    module = MODULES[name]()
    trainer.fit(module, loader(), loader(seed=1, batch_size=3))
    trainer.test(module, loader(seed=2, batch_size=3), verbose=False)


class Keeper(pl.Callback):
    """Writes down, in each process, the weights, a random number and what monitors see."""

    def __init__(self, folder):
        self.folder = folder

    def on_fit_end(self, trainer, pl_module):
        kept = {"weights": pl_module.state_dict(), "drawn": torch.rand(2)}
        kept["epochs"] = trainer.current_epoch
        kept["metrics"] = {k: float(v) for k, v in trainer.callback_metrics.items()}
        torch.save(kept, self.folder / f"kept{trainer.global_rank}.pt")


@dataclass(frozen=True, kw_only=True)
class SlowByRank(SigmaZero):
    """Takes a second in the first process, two in the second."""

    clock: list[float] = field(default_factory=lambda: [0.0])

    def __call__(self, net, inputs, labels):
        self.clock[0] += 1 + torch.distributed.get_rank()
        return super().__call__(net, inputs, labels)


def learn(folder, gauges):
    """Two epochs of a net with BatchNorm and Dropout, in an order of the global random state."""
    torch.manual_seed(7)
    extra = [torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.3)]
    trainer = make_trainer(
        pl, callbacks=[*gauges, Keeper(folder)], devices=2, strategy="ddp_fork", max_epochs=2
    )
    trainer.fit(foreign_module(pl)(toy_net(extra=extra)), loader(shuffle=True), loader(seed=1))


def learn_alone(folder):
    learn(folder, [])


def learn_gauged(folder):
    attack, probe = SlowByRank(num_steps=6), SigmaZero(num_steps=2, budget=1)
    _pace.perf_counter = lambda: attack.clock[0]
    gauge = SparseRobustness(attack=attack, budgets=(1,), batch_size=2, probe=probe, max_seconds=4)
    learn(folder, [gauge])


LEARNINGS = {"alone": learn_alone, "gauged": learn_gauged}


class EachItsOwn(foreign_module(pl)):
    """Logs figures of one process, as many do: a collapse in the first, none in the second."""

    def training_step(self, batch, batch_idx):
        self.log("train/adv_acc", 0.5 if self.global_rank else 0.9, on_epoch=True)
        self.log("train/clean_acc", 0.6, on_epoch=True)
        return super().training_step(batch, batch_idx)


def guard(folder):
    """Three epochs under a guard, which keeps a checkpoint, or stops, in both or in none."""
    warnings.filterwarnings("ignore", message="It is recommended to use")
    callbacks = [CollapseGuard(dirpath=folder, action="stop"), Keeper(folder)]
    trainer = make_trainer(pl, callbacks=callbacks, devices=2, strategy="ddp_fork", max_epochs=3)
    trainer.fit(EachItsOwn(), loader(), loader(seed=1))


def indices(images, inputs):
    return [int((images == image).flatten(1).all(1).nonzero()) for image in inputs]


def l0_by_hand(dataset, chosen):
    images, labels = dataset.tensors
    return SigmaZero(num_steps=STEPS)(toy_net(), images[chosen], labels[chosen]).l0.tolist()


def by_hand(dataset, chosen, stage):
    return figures(l0_by_hand(dataset, chosen), BUDGETS, stage)


def training_by_hand():
    """Figures of SparseAT on all training samples, and on all of both other parts."""
    net, (images, labels) = toy_net(), toy_data().tensors
    examples = craft_examples(replace(SHORT, budget=3), net, images, labels)
    loss = sum(cross_entropy(net(inputs), labels) for inputs in (images, examples.inputs)) / 2
    found = {
        "train/loss": loss.item(),
        "train/broken": examples.broken.float().mean().item(),
        "train/budget": 3,
    }
    for stage, seed in (("train", 0), ("val", 1)):
        images, labels = toy_data(seed=seed).tensors
        accuracy = (net(images).argmax(dim=1) == labels).float().mean().item()
        found[f"{stage}/clean_acc"] = accuracy
    return found


@pytest.mark.slow
def test_figures_are_those_of_one_process(tmp_path):
    # More samples than there are, and a subset.
    runs = {"foreign": 100, "sparse_at": 7, **dict.fromkeys([*LEARNINGS, "guard"], 0)}
    finished = subprocess.run(
        [
            sys.executable,
            "-W",
            "error:It is recommended to use",  # self.log without sync_dist
            __file__,
            str(tmp_path),
            *(f"{name}:{size}" for name, size in runs.items()),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    for name in MODULES:
        check(tmp_path / name, runs[name])
    for rank in (0, 1):
        report = json.loads((tmp_path / "sparse_at" / f"val{rank}.json").read_text())
        expected = training_by_hand()
        found = {key: report["metrics"][key] for key in expected}
        assert found == pytest.approx(expected)
    check_learnings(tmp_path)
    for rank in (0, 1):  # both have ended, and after the same epoch
        assert torch.load(tmp_path / "guard" / f"kept{rank}.pt")["epochs"] == 1


def check_learnings(folder):
    for rank in (0, 1):
        alone, gauged = (torch.load(folder / name / f"kept{rank}.pt") for name in LEARNINGS)
        assert torch.equal(gauged["drawn"], alone["drawn"])
        for key, value in gauged["weights"].items():
            assert torch.equal(value, alone["weights"][key]), key
        # In 4 seconds, 4 batches of 2 samples in the one process and 2 in the other.
        assert gauged["metrics"]["val/num_samples"] == 12


def check(folder, num_samples):
    rows = csv_rows(folder)
    for stage, dataset in (("val", toy_data(seed=1)), ("test", toy_data(seed=2))):
        reports = [json.loads((folder / f"{stage}{rank}.json").read_text()) for rank in (0, 1)]
        wanted = {"val": min(num_samples, 24), "test": 5}[stage]
        shares = []
        for rank, report in enumerate(reports):
            first, *later = report["inputs"]
            assert all(inputs == first for inputs in later)
            share = indices(dataset.tensors[0], torch.tensor(first).view(-1, *SHAPE))
            assert share == sorted(set(share))
            assert len(share) == wanted // 2 + (rank < wanted % 2)
            assert all(index % 2 == rank for index in share)  # Lightning deals them out in turn
            shares.append(share)
        if stage == "test":
            assert shares == [[0, 2, 4], [1, 3]]  # the first five over all processes
        elif wanted < 24:  # not the same places of both shards, which would be neighbours
            first, second = ({index // 2 for index in share} for share in shares)
            assert not second <= first  # the smaller share would be a part of the larger
        expected = by_hand(dataset, sorted(shares[0] + shares[1]), stage)
        if stage == "val":  # the tables of the first process have the samples of both
            first, second = (report["l0"] for report in reports)
            assert first == second == sorted(l0_by_hand(dataset, sorted(shares[0] + shares[1])))
        for report in reports:
            found = {key: report["metrics"][key] for key in expected}
            assert found == pytest.approx(expected)
        logged = [row for row in rows if f"{stage}/median_l0" in row]
        for row in logged:
            assert {key: row[key] for key in expected} == pytest.approx(expected)
        assert [row["epoch"] for row in logged] == ([0, 2] if stage == "val" else [0])


if __name__ == "__main__":
    for run in sys.argv[2:]:
        name, size = run.split(":")
        place = Path(sys.argv[1]) / name
        place.mkdir()
        if name in LEARNINGS:
            LEARNINGS[name](place)
        elif name == "guard":
            guard(place)
        else:
            train(place, name, int(size))
