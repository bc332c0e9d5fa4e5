r"""What an epoch of adversarial training costs, in standard epochs of the same net.

    python tests/benchmarks/bench_training.py --net small_cnn --num-steps 10 --attack sparse_pgd

sztrain has to be importable (installed, or ``PYTHONPATH=.``). One thread on a CPU, or ``--device
cuda``. Trains the same net on the same made-up images by every method, an epoch each, in turns, and
prints a line each: the median of the ratios of the rounds, and N + 2, which it may cost at most:
N steps of the adversary, one pass over the clean images, one over its examples. Budget 1 is next to
no early stop, as few samples are broken by one change; with the larger budgets samples leave the
batch once they are broken.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sztrain.attacks import AttackMix, BudgetedSigmaZero, SigmaZero, SparsePGD
from sztrain.cli.build import quieten
from sztrain.cli.memory import keep_freed_memory
from sztrain.evaluation.runner import wall_time
from sztrain.models import digits_cnn, preact_resnet18, small_cnn
from sztrain.training import MART, TRADES, RobustClassifier, SparseAT, StandardTraining

NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, int, int]]] = {
    "digits_cnn": (digits_cnn, (1, 8, 8)),
    "small_cnn": (small_cnn, (1, 28, 28)),
    "preact_resnet18": (preact_resnet18, (3, 32, 32)),
}
ATTACKS: dict[str, Callable[..., Any]] = {
    "sigma_zero": SigmaZero,
    "sparse_pgd": SparsePGD,
    "budgeted_sigma_zero": BudgetedSigmaZero,
    "attack_mix": AttackMix,
}
METHODS: dict[str, Callable[..., RobustClassifier]] = {
    "sparse_at": SparseAT,
    "sparse_at_without_clean": partial(SparseAT, clean_share=0),
    "trades": TRADES,
    "mart": MART,
}


class Clock(pl.Callback):
    """Wall time of the training batches of an epoch."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self._start = wall_time(pl_module.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        self.seconds = wall_time(pl_module.device) - self._start


def epoch_seconds(method: RobustClassifier, loader: DataLoader[Any], device: str) -> float:
    """Seconds of one epoch."""
    clock = Clock()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator=device,
        devices=1,
        callbacks=[clock],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, loader, loader)
    return clock.seconds


def accuracy_of(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images that the net is right about."""
    net.cpu().eval()
    with torch.no_grad():
        logits = torch.cat([net(part) for part in images.split(64)])
    net.train()
    return float((logits.argmax(dim=1) == labels).float().mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", choices=NETS, default="small_cnn")
    parser.add_argument("--attack", choices=ATTACKS, nargs="+", default=list(ATTACKS))
    parser.add_argument("--method", choices=METHODS, nargs="+", default=["sparse_at"])
    parser.add_argument("--budget", type=int, nargs="+", default=[1, 30])
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--num-samples", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    quieten()
    torch.set_num_threads(1)
    keep_freed_memory()
    factory, shape = NETS[options.net]
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(options.num_samples) % 10
    images = 0.5 * torch.rand(options.num_samples, *shape, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, label * shape[1] // 10] += 0.5  # a bright row tells the class
    loader = DataLoader(TensorDataset(images, labels), batch_size=options.batch_size, shuffle=True)
    # A sample that the net errs on is not attacked: all start from one net that is mostly right.
    start, accuracy = factory(num_classes=10), 0.0
    for _ in range(20):
        if accuracy > 0.98:
            break
        method = StandardTraining(start, num_classes=10, optimizer=torch.optim.Adam)
        epoch_seconds(method, loader, options.device)
        accuracy = accuracy_of(start, images, labels)
    print(f"{options.net} at the start: clean accuracy {accuracy:.1%}")
    weights = {key: value.cpu().clone() for key, value in start.state_dict().items()}

    def seconds_of(make: Callable[..., RobustClassifier], **arguments: Any) -> float:
        net = factory(num_classes=10)
        net.load_state_dict(weights)
        return epoch_seconds(make(net, num_classes=10, **arguments), loader, options.device)

    cases = [(m, a, b) for m in options.method for a in options.attack for b in options.budget]
    ratios: dict[tuple[str, str, int], list[float]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for method, attack, budget in cases:
            standard = seconds_of(StandardTraining)
            adversary = ATTACKS[attack](num_steps=options.num_steps, recheck=False)
            adversarial = seconds_of(METHODS[method], attack=adversary, budget=budget)
            ratios[method, attack, budget].append(adversarial / standard)
    limit = options.num_steps + 2
    for (method, attack, budget), found in ratios.items():
        ratio = median(found)
        verdict = "within" if ratio <= limit else "ABOVE"
        print(
            f"{options.net}, {method}, {attack}, N={options.num_steps}, budget {budget}: "
            f"{ratio:.2f} standard epochs ({min(found):.2f} to {max(found):.2f}), "
            f"{verdict} N + 2 = {limit}"
        )


if __name__ == "__main__":
    main()
