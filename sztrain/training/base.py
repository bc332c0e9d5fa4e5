"""The Lightning module that every method of training shares."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassAccuracy

from sztrain.errors import InputError, require_at_least
from sztrain.losses import at_least_float32
from sztrain.models.layout import to_channels_last
from sztrain.precision import warn_of_slow_bfloat16
from sztrain.training.sample_mean import SampleMean

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer, int], LRScheduler]

Batch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
"""Inputs and labels; in training also the index of each sample, where the method asks for it."""


class RobustClassifier(pl.LightningModule, ABC):
    """Trains a net to classify; subclasses say by which loss.

    Logs ``train/loss``, ``train/clean_acc`` (in train mode, on what the method takes for the clean
    images), ``val/loss``, ``val/clean_acc``, ``test/loss`` and ``test/clean_acc``.

    Args:
        net: maps images in [0, 1], shape ``(N, C, H, W)``, to logits ``(N, num_classes)``.
        num_classes: number of classes.
        optimizer: called with the parameters; ``None``: SGD, lr 0.05, momentum 0.9.
        scheduler: called with the optimizer and the number of optimizer steps of the whole run,
            stepped after each; ``None``: a constant learning rate.
        label_smoothing: probability spread over all classes in the cross-entropy.
        compile: compile the net with ``torch.compile``.
        channels_last: keep weights of convolutions in ``torch.channels_last``, which is faster for
            most of them, and in half precision much faster.
        hyper_parameters: plain containers that describe the run; kept in the checkpoint, from
            which :func:`sztrain.models.load_net` rebuilds the net.

    Raises:
        InputError: a value out of its range.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        num_classes: int,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        label_smoothing: float = 0.0,
        compile: bool = False,  # noqa: A002  (torch's own word for it)
        channels_last: bool = False,
        hyper_parameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require_at_least("num_classes", num_classes, 2)
        if not 0 <= label_smoothing < 1:
            raise InputError(f"expected `label_smoothing` to be in [0, 1), got {label_smoothing}")
        self.net = net
        self.num_classes = num_classes
        self.optimizer = optimizer or _default_optimizer
        self.scheduler = scheduler
        self.label_smoothing = label_smoothing
        self.save_hyperparameters(dict(hyper_parameters or {}))
        if channels_last:
            to_channels_last(net)
        if compile:
            net.compile()  # in place, so that the state dict keeps its names
        # Left to itself, the metric drops NaN, and a training that diverged would look sound.
        self.train_loss = SampleMean(nan_strategy=float("nan"))
        self.val_loss = SampleMean(nan_strategy=float("nan"))
        self.test_loss = SampleMean(nan_strategy=float("nan"))
        self.train_acc = MulticlassAccuracy(num_classes, average="micro")
        self.val_acc = MulticlassAccuracy(num_classes, average="micro")
        self.test_acc = MulticlassAccuracy(num_classes, average="micro")

    @abstractmethod
    def batch_loss(
        self, inputs: Tensor, labels: Tensor, indices: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss to descend and the logits of the clean inputs.

        Args:
            inputs: clean images, shape ``(N, C, H, W)`` in [0, 1].
            labels: int64 ``(N,)``.
            indices: which training samples they are, int64 ``(N,)``; ``None``: nobody knows.

        Returns:
            A scalar, the mean over the batch, and logits ``(N, K)``.
        """

    def cross_entropies(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each sample, with the label smoothing of this training.

        Args:
            logits: shape ``(N, K)``.
            targets: classes, int64 ``(N,)``, or their probabilities, float ``(N, K)``.

        Returns:
            Shape ``(N,)``, in single precision at least.
        """
        smoothing = self.label_smoothing if self.training else 0.0
        return nn.functional.cross_entropy(
            at_least_float32(logits), targets, label_smoothing=smoothing, reduction="none"
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images ``(N, C, H, W)`` in [0, 1]."""
        logits: Tensor = self.net(inputs)
        return logits

    def on_fit_start(self) -> None:
        """Say where half precision would make the training slower instead of faster."""
        if "bf16" in str(self.trainer.precision):
            warn_of_slow_bfloat16(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """One step of descent on :meth:`batch_loss`."""
        inputs, labels, *indices = _parts(batch)
        loss, clean_logits = self.batch_loss(inputs, labels, *indices)
        self.train_loss.update(loss.detach(), weight=len(labels))
        self.train_acc.update(clean_logits.detach(), labels)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/clean_acc", self.train_acc, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        """Stop a training that has diverged before it wastes hours."""
        if self.train_loss.weight == 0:
            return  # resumed from a checkpoint that was written behind the last batch
        # This process's own mean: a collective here would cross those that the progress bar of the
        # first process alone has just begun.
        loss = float(self.train_loss.mean_value / self.train_loss.weight)
        if not torch.tensor(loss).isfinite():
            raise InputError(
                f"the training diverged: train/loss is {loss} after epoch {self.current_epoch}; "
                "lower the learning rate (optimizer.lr), or train in full precision "
                "(trainer.precision=32-true)"
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Clean loss and accuracy on the validation part."""
        self._evaluate("val", self.val_loss, self.val_acc, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Clean loss and accuracy on the test part."""
        self._evaluate("test", self.test_loss, self.test_acc, batch)

    def _evaluate(
        self, stage: str, loss: SampleMean, accuracy: MulticlassAccuracy, batch: Batch
    ) -> None:
        inputs, labels = _parts(batch)[:2]
        logits = self(inputs)
        accuracy.update(logits, labels)
        loss.update(self.cross_entropies(logits, labels))
        self.log(f"{stage}/loss", loss)
        self.log(f"{stage}/clean_acc", accuracy, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the scheduler over the whole run if there is one."""
        optimizer = self.optimizer(self.net.parameters())
        if self.scheduler is None:
            return optimizer
        total_steps = self.trainer.estimated_stepping_batches
        if total_steps == float("inf"):
            raise InputError(
                "a learning-rate schedule needs to know where the run ends: "
                "set trainer.max_epochs or trainer.max_steps"
            )
        scheduler = self.scheduler(optimizer, max(int(total_steps), 1))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _default_optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def _parts(batch: Any) -> Sequence[Tensor]:
    """Inputs, labels and what follows them.

    Raises:
        InputError: the batch is of another make.
    """
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise InputError(
            "expected batches that begin with inputs and labels, as those of sztrain.data, got "
            f"{type(batch).__name__}; give the loader a `collate_fn` that returns the two"
        )
    return batch
