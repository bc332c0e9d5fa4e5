"""Soft labels in two processes: each keeps the targets of all samples.

The processes run this very file as a program, see tests/callbacks/test_gauge_two_processes.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from toy_training import (
    NUM_CLASSES,
    Indexed,
    ScriptedAttack,
    loader,
    make_trainer,
    toy_data,
    toy_net,
)

from sztrain.training import SparseAT

EPOCHS, MOMENTUM = 3, 0.8


class Keeper(pl.Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_fit_end(self, trainer, pl_module):
        torch.save(pl_module.soft_labels.targets, self.folder / f"{trainer.global_rank}.pt")


def train(folder):
    """The net stands still, so that its predictions are known."""
    method = SparseAT(
        toy_net(),
        num_classes=NUM_CLASSES,
        attack=ScriptedAttack(),
        soft_labels_from=0.0,
        soft_labels_momentum=MOMENTUM,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
    )
    trainer = make_trainer(
        pl, callbacks=[Keeper(folder)], devices=2, strategy="ddp_fork", max_epochs=EPOCHS
    )
    batches = torch.utils.data.DataLoader(Indexed(toy_data()), batch_size=4, shuffle=True)
    trainer.fit(method, batches, loader(seed=1, batch_size=3))


@pytest.mark.slow
def test_every_process_keeps_the_targets_of_all_samples(tmp_path):
    paths = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    images, labels = toy_data().tensors
    with torch.no_grad():
        predictions = toy_net()(images).softmax(dim=1)
    kept = MOMENTUM**EPOCHS
    expected = kept * torch.eye(NUM_CLASSES)[labels] + (1 - kept) * predictions
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
