"""The classifier of another library: lightly's fine-tuning, which sztrain knows nothing of.

Needs `pip install -c constraints.txt -e '.[examples]'`. Some seconds on a CPU; TensorBoard shows
logs/lightly (`pip install tensorboard`).
"""

import pytorch_lightning as pl
import torch
from lightly.utils.benchmarking import FinetuneClassifier
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchvision.models import resnet18

from sztrain.attacks import SigmaZero
from sztrain.callbacks import RobustnessDashboard, SparseRobustness


def main():
    pl.seed_everything(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # in [0, 1]
    data = TensorDataset(images.repeat(1, 3, 1, 1), torch.tensor(digits.target))
    train, val = random_split(data, [1500, 297])

    backbone = resnet18()  # weights="DEFAULT", or what lightly trained without labels
    backbone.fc = torch.nn.Identity()
    # Not its LinearClassifier: that cuts the gradient behind the head, and an attack that follows
    # gradients would find nothing and call the net robust.
    module = FinetuneClassifier(
        backbone, batch_size_per_device=64, lr=0.4, feature_dim=512, num_classes=10
    )
    gauge = SparseRobustness(attack=SigmaZero(num_steps=30), num_samples=32, budgets=(5, 10))
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[gauge, RobustnessDashboard()],
        logger=TensorBoardLogger("logs", name="lightly", version=""),
        log_every_n_steps=10,
        enable_checkpointing=False,
    )
    trainer.fit(module, DataLoader(train, 64, shuffle=True), DataLoader(val, 128))
    for name in ("val_top1", "val/median_l0", "val/robust_acc@10"):
        print(f"{name} {float(trainer.callback_metrics[name]):.3g}")


if __name__ == "__main__":
    main()
