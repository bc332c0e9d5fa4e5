"""A Lightning module of your own: two callbacks, and nothing else changes.

Some seconds on a CPU. The figures are in logs/plain/metrics.csv, the tables of the dashboard
beside it.
"""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from sztrain.attacks import SigmaZero, SparseRS
from sztrain.callbacks import RobustnessDashboard, SparseRobustness


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_acc", (self(images).argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main():
    pl.seed_everything(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # in [0, 1]
    train, val = random_split(TensorDataset(images, torch.tensor(digits.target)), [1500, 297])

    gauge = SparseRobustness(
        attack=SigmaZero(num_steps=50),
        num_samples=128,
        budgets=(2, 4, 8),
        probe=SparseRS(num_steps=50, budget=4),  # a second opinion that uses no gradient
    )
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[gauge, RobustnessDashboard()],
        logger=CSVLogger("logs", name="plain", version=""),
        log_every_n_steps=10,
    )
    trainer.fit(Classifier(), DataLoader(train, 64, shuffle=True), DataLoader(val, 128))
    for name in ("val_acc", "val/median_l0", "val/robust_acc_worst@4"):
        print(f"{name} {float(trainer.callback_metrics[name]):.3g}")


if __name__ == "__main__":
    main()
