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


class Watched(SparseAT):
    """Writes down what each batch learns."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.learned = []

    def sample_losses(self, clean_logits, adv_logits, labels, targets):
        self.learned.append((self.current_epoch, labels, clean_logits.detach(), targets))
        return super().sample_losses(clean_logits, adv_logits, labels, targets)


class Keeper(pl.Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_fit_end(self, trainer, pl_module):
        found = (pl_module.soft_labels.targets, pl_module.learned)
        torch.save(found, self.folder / f"{trainer.global_rank}.pt")


def train(folder):
    """The net stands still, so that its predictions are known."""
    method = Watched(
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
    expected = followed(EPOCHS, labels, predictions)
    for rank in (0, 1):
        targets, learned = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(targets, expected)
        assert len(learned) == 3 * EPOCHS
        # Of all processes' targets each learns those of its own samples.
        for epoch, shown, logits, given in learned:
            torch.testing.assert_close(given, followed(epoch + 1, shown, logits.softmax(dim=1)))


def followed(times, labels, predictions):
    """The targets after so many updates by the same predictions."""
    kept = MOMENTUM**times
    return kept * torch.eye(NUM_CLASSES)[labels] + (1 - kept) * predictions


if __name__ == "__main__":
    train(Path(sys.argv[1]))
