"""A net of timm that wants normalised images: make its mean and deviation a layer of the net.

An attack changes pixels in [0, 1], so that is what the loader has to give; the layer in front of
the net does what the data pipeline did before. Some seconds on a CPU. W&B writes an offline run;
`wandb sync` uploads it, and `python -m sztrain.dashboards entity/project` makes its dashboard.
"""

import pytorch_lightning as pl
import timm
import torch
from pytorch_lightning.loggers import WandbLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from sztrain.attacks import SigmaZero
from sztrain.callbacks import RobustnessDashboard, SparseRobustness
from sztrain.models import Normalize


class Classifier(pl.LightningModule):
    def __init__(self, name):
        super().__init__()
        net = timm.create_model(name, num_classes=10)  # pretrained=True for timm's weights
        wanted = timm.data.resolve_model_data_config(net)
        self.net = nn.Sequential(Normalize(wanted["mean"], wanted["std"]), net)

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels, label_smoothing=0.1)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_acc", (self(images).argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main():
    pl.seed_everything(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # in [0, 1]
    images = nn.functional.interpolate(images.repeat(1, 3, 1, 1), size=32)  # in colour, and larger
    train, val = random_split(TensorDataset(images, torch.tensor(digits.target)), [1500, 297])

    gauge = SparseRobustness(
        attack=SigmaZero(num_steps=30, unit="pixels"), num_samples=32, budgets=(5, 10)
    )
    trainer = pl.Trainer(
        max_epochs=2,
        limit_train_batches=12,  # half of them: this is an example
        accelerator="cpu",
        callbacks=[gauge, RobustnessDashboard()],
        logger=WandbLogger(project="sztrain-examples", save_dir="logs/timm", mode="offline"),
        log_every_n_steps=10,
        enable_checkpointing=False,
    )
    module = Classifier("test_efficientnet")
    trainer.fit(module, DataLoader(train, 64, shuffle=True), DataLoader(val, 128))
    for name in ("val_acc", "val/median_l0_px", "val/robust_acc_px@10"):
        print(f"{name} {float(trainer.callback_metrics[name]):.3g}")


if __name__ == "__main__":
    main()
