"""What the methods with an adversary share: its schedule, its cost, its success."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from sztrain.attacks import SigmaZero
from sztrain.attacks.base import require_attack
from sztrain.errors import require_at_least, require_count, require_in
from sztrain.norms import check_budgets
from sztrain.training.adversary import UNBROKEN, Unbroken, craft_examples
from sztrain.training.base import Batch, RobustClassifier
from sztrain.types import Attack


class AdversarialTraining(RobustClassifier):
    """A training with an adversary in its step; subclasses say by which loss.

    Logs ``train/broken`` (share of the samples the adversary broke within the budget),
    ``train/adv_acc`` (accuracy on the examples, in train mode as ``train/clean_acc``),
    ``train/budget`` and ``train/attack_seconds``.

    Args:
        net: see :class:`~sztrain.training.base.RobustClassifier`, as all other keywords.
        attack: the adversary, any attack of :mod:`sztrain.attacks`; ``None``: σ-zero, 20 steps.
        budget: largest l0 of a training example in the attack's unit; ``None``: any.
        unbroken: see :func:`~sztrain.training.adversary.craft_examples`.
        warmup_epochs: first epochs without attack.
        ramp_epochs: epochs after the warm-up in which the budget grows linearly to its full size;
            a budget that starts at full size ruins early learning.
        **kwargs: passed on.

    Raises:
        InputError: a value out of its range.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        attack: Attack | None = None,
        budget: int | None = None,
        unbroken: Unbroken = "last",
        warmup_epochs: float = 0,
        ramp_epochs: float = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(net, **kwargs)
        if budget is not None:
            require_count("budget", budget, 1)
        require_in("unbroken", unbroken, UNBROKEN)
        require_at_least("warmup_epochs", warmup_epochs, 0)
        require_at_least("ramp_epochs", ramp_epochs, 0)
        self.attack: Attack = (
            attack if attack is not None else SigmaZero(num_steps=20, recheck=False)
        )
        require_attack("attack", self.attack)
        self.budget = budget
        self.unbroken: Unbroken = unbroken
        self.warmup_epochs = warmup_epochs
        self.ramp_epochs = ramp_epochs
        self.attack_seconds = 0.0
        self.broken = MeanMetric()
        self.adv_acc = MulticlassAccuracy(self.train_acc.num_classes, average="micro")

    @abstractmethod
    def sample_losses(
        self, clean_logits: Tensor, adv_logits: Tensor, labels: Tensor, targets: Tensor
    ) -> Tensor:
        """What each sample of a batch has to do with the loss.

        Args:
            clean_logits: of the clean images, shape ``(N, K)``.
            adv_logits: of the adversary's examples, shape ``(N, K)``.
            labels: int64 ``(N,)``.
            targets: what to learn, see
                :meth:`~sztrain.training.base.RobustClassifier.cross_entropies`.

        Returns:
            Shape ``(N,)``.
        """

    def batch_loss(
        self,
        inputs: Tensor,
        labels: Tensor,
        indices: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """The mean of the sample losses, on examples that are crafted first."""
        adv_inputs = self.craft(inputs, labels)
        clean_logits, adv_logits = self(inputs), self(adv_inputs)
        if adv_inputs is not inputs:
            self.adv_acc.update(adv_logits.detach(), labels)
        return self.sample_losses(clean_logits, adv_logits, labels, labels).mean(), clean_logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step of descent on the examples."""
        loss = super().training_step(batch, batch_idx)
        if self.adv_acc.update_called:
            self.log("train/adv_acc", self.adv_acc, on_step=False, on_epoch=True)
        return loss

    def check_budget(self, input_shape: Sequence[int]) -> None:
        """Refuse a budget larger than a sample before the training starts.

        Args:
            input_shape: shape of one sample, ``(C, H, W)``.

        Raises:
            InputError: the budget is larger than the number of units.
        """
        check_budgets("budget", [self.budget], tuple(input_shape), self.attack.unit)

    def budget_at(self, epoch: float) -> int | None:
        """The budget ``epoch`` epochs into the training; 0 during the warm-up.

        Example:
            >>> from sztrain.training import SparseAT
            >>> method = SparseAT(nn.Flatten(), num_classes=2, budget=8, ramp_epochs=4)
            >>> [method.budget_at(epoch) for epoch in (0, 1, 2, 3.9, 4, 9)]
            [1, 2, 4, 8, 8, 8]
        """
        if epoch < self.warmup_epochs:
            return 0
        if self.budget is None or self.ramp_epochs == 0:
            return self.budget
        share = min((epoch - self.warmup_epochs) / self.ramp_epochs, 1.0)
        return max(1, round(share * self.budget))

    def craft(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Examples to train on at this point of the training: the clean inputs in the warm-up."""
        epoch = self.current_epoch + self._share_of_epoch()
        budget = self.budget_at(epoch)
        if budget == 0:
            return inputs
        start = perf_counter()
        attack = replace(self.attack, budget=budget)
        if "seed" in attack.__dataclass_fields__:
            # Each batch another random start; a training that is resumed draws the same ones.
            attack = replace(attack, seed=int(torch.randint(2**31, ())))
        examples = craft_examples(attack, self.net, inputs, labels, unbroken=self.unbroken)
        self.attack_seconds += perf_counter() - start
        self.broken.update(examples.broken.float())
        self.log("train/broken", self.broken, on_step=False, on_epoch=True)
        if budget is not None:
            self.log("train/budget", float(budget), on_step=False, on_epoch=True, sync_dist=True)
        return examples.inputs

    def _share_of_epoch(self) -> float:
        batches = self.trainer.num_training_batches
        done = self.trainer.fit_loop.epoch_loop.batch_idx
        return done / batches if batches not in (0, float("inf")) else 0.0

    def on_train_epoch_end(self) -> None:
        """Log what the adversary has cost so far."""
        super().on_train_epoch_end()
        self.log("train/attack_seconds", self.attack_seconds, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adversary's cost, so that a resumed run reports all of it."""
        checkpoint["attack_seconds"] = self.attack_seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting where the checkpoint stopped."""
        self.attack_seconds = checkpoint.get("attack_seconds", 0.0)
