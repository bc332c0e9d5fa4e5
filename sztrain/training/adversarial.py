"""What the methods with an adversary share: its examples, its budget, its cost, its success."""

from abc import abstractmethod
from collections.abc import Sequence, Sized
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from sztrain.attacks import AttackMix
from sztrain.attacks.checks import check_search, require_attack, require_untargeted
from sztrain.data import ImageDataModule
from sztrain.errors import InputError, require_at_least, require_count, require_in
from sztrain.evaluation.runner import wall_time
from sztrain.norms import check_budgets, per_sample
from sztrain.training.adversary import UNBROKEN, TrainingExamples, Unbroken, craft_examples
from sztrain.training.base import Batch, RobustClassifier
from sztrain.training.budgets import BudgetSchedule, TrainingBudget
from sztrain.training.noise import add_sparse_noise
from sztrain.training.sample_mean import SampleMean
from sztrain.training.soft_labels import SoftLabels
from sztrain.types import Attack


class AdversarialTraining(RobustClassifier):
    """A training with an adversary in its step; subclasses say by which loss.

    Logs ``train/broken`` (share of the samples the adversary broke within the budget),
    ``train/adv_acc`` (accuracy on the examples, in train mode as ``train/clean_acc``),
    ``train/budget`` and ``train/attack_seconds``. With ``noise``, ``train/clean_acc`` is the
    accuracy on the noisy images.

    Args:
        net: see :class:`~sztrain.training.base.RobustClassifier`, as all other keywords.
        attack: the adversary, any attack of :mod:`sztrain.attacks`; ``None``:
            :class:`~sztrain.attacks.AttackMix` with 20 steps.
        budget: largest l0 of a training example in the attack's unit; ``None``: any.
        budget_multiplier: the full training budget is so many times ``budget``, at least 1;
            published recipes take 6.
        budget_schedule: ``"ramp"``, ``"fixed"`` or ``"gauge"``, see
            :class:`~sztrain.training.budgets.TrainingBudget`.
        unbroken: see :func:`~sztrain.training.adversary.craft_examples`.
        lean_up_to: an adversary of at most so many steps leaves out the passes that training makes
            itself (its ``lean``), so that N steps cost at most N + 2 standard epochs for small N as
            well. Who is misclassified anyway, and what the last step breaks, then shows in the
            training's own passes.
        warmup_epochs: first epochs without attack.
        ramp_epochs: epochs after the warm-up in which the budget grows linearly to its full size;
            a budget that starts at full size ruins early learning.
        noise: the images of a batch are first mixed with random values at up to so many times the
            budget of random places, see :func:`~sztrain.training.noise.add_sparse_noise`; from
            there on they are the clean images.
        soft_labels_from: share of the run in [0, 1] after which the labels follow the net's
            predictions, see :class:`~sztrain.training.soft_labels.SoftLabels`; ``None``: never.
            Needs training batches of inputs, labels and indices, as :mod:`sztrain.data` gives.
        soft_labels_momentum: share of its target that a sample keeps each time, in [0, 1].
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
        budget_multiplier: float = 1.0,
        budget_schedule: BudgetSchedule = "ramp",
        unbroken: Unbroken = "last",
        lean_up_to: int = 3,
        warmup_epochs: float = 0,
        ramp_epochs: float = 0,
        noise: float = 0.0,
        soft_labels_from: float | None = None,
        soft_labels_momentum: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(net, **kwargs)
        self.training_budget = TrainingBudget(
            budget,
            multiplier=budget_multiplier,
            schedule=budget_schedule,
            warmup_epochs=warmup_epochs,
            ramp_epochs=ramp_epochs,
        )
        require_in("unbroken", unbroken, UNBROKEN)
        require_count("lean_up_to", lean_up_to, 0)
        require_at_least("noise", noise, 0)
        if noise > 0 and budget is None:
            raise InputError("expected `budget` to be a number, by which `noise` goes, got None")
        self.attack: Attack = (
            attack if attack is not None else AttackMix(num_steps=20, recheck=False)
        )
        require_attack("attack", self.attack)
        require_untargeted("attack", self.attack)
        if "budget" not in self.attack.__dataclass_fields__:
            raise InputError(
                "expected `attack` to take a `budget`, which training sets in each step, "
                f"got {type(self.attack).__name__}, whose budget cannot be chosen"
            )
        if budget is None:  # every batch is a search for the smallest that succeeds
            check_search(replace(self.attack, budget=None))
        self.unbroken: Unbroken = unbroken
        self.lean_up_to = lean_up_to
        self.noise = noise
        self.soft_labels = (
            None if soft_labels_from is None else SoftLabels(soft_labels_from, soft_labels_momentum)
        )
        self.attack_seconds = 0.0
        self.broken = SampleMean()
        self.adv_acc = MulticlassAccuracy(self.num_classes, average="micro")

    @property
    def learns_from_clean(self) -> bool:
        """Whether the loss depends on the clean images; if not, they cost no backward pass."""
        return True

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
        self, inputs: Tensor, labels: Tensor, indices: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The mean of the sample losses, on examples that are crafted first."""
        self.check_budget(inputs.shape[1:])  # now, not where the ramp gets there
        if self.soft_labels is not None and indices is None:
            raise InputError(
                "soft labels need training batches of inputs, labels and indices, got no indices; "
                "use a data module of sztrain.data, or soft_labels_from=null"
            )
        if self.noise > 0:
            budget = self.training_budget.at(self._epochs_done())
            assert budget is not None  # the constructor has seen to it
            inputs = add_sparse_noise(inputs, round(self.noise * budget), self.attack.unit)
        examples = self.craft(inputs, labels)
        if examples is None:
            adv_logits = clean_logits = self(inputs)
        else:
            with torch.set_grad_enabled(self.learns_from_clean):
                clean_logits = self(inputs)
            if not self.learns_from_clean:
                # Weights that autocast has cast without gradients must not serve the next pass.
                torch.clear_autocast_cache()
            adv_logits = self._adv_logits(examples, clean_logits.detach(), inputs, labels)
        # Not of the epoch in which the warm-up ends: it would stand for its last batches, and
        # train/clean_acc beside it for all.
        if examples is not None and self.training_budget.at(self.current_epoch) != 0:
            self.adv_acc.update(adv_logits.detach(), labels)
        soft = self.soft_labels
        if soft is None or indices is None or not soft.active(self.trainer.global_step):
            losses = self.sample_losses(clean_logits, adv_logits, labels, labels)
            self._check_losses(losses, labels)
            return losses.mean(), clean_logits
        targets = self._updated_targets(soft, clean_logits.detach(), labels, indices)
        weights = targets.amax(dim=1)
        losses = self.sample_losses(clean_logits, adv_logits, labels, targets)
        self._check_losses(losses, labels)
        return (weights * losses).sum() / weights.sum(), clean_logits

    def _adv_logits(
        self, examples: TrainingExamples, clean_logits: Tensor, inputs: Tensor, labels: Tensor
    ) -> Tensor:
        """The pass over the examples, and what it says that the attack has not asked."""
        adv_inputs, broken = examples.inputs, examples.broken
        if not examples.all_seen:
            misclassified = clean_logits.argmax(dim=1) != labels
            adv_inputs = torch.where(per_sample(misclassified, inputs), inputs, adv_inputs)
        adv_logits: Tensor = self(adv_inputs)
        if not examples.all_seen:
            broken = broken | (adv_logits.detach().argmax(dim=1) != labels)
        self.broken.update(broken.float())
        return adv_logits

    def _check_losses(self, losses: Tensor, labels: Tensor) -> None:
        """Refuse losses that would be broadcast against the weights of the samples."""
        if losses.shape != labels.shape:
            raise InputError(
                f"expected `sample_losses` of {type(self).__name__} to return one loss a sample, "
                f"of shape {tuple(labels.shape)}, got {tuple(losses.shape)}"
            )

    def _updated_targets(
        self, soft: SoftLabels, clean_logits: Tensor, labels: Tensor, indices: Tensor
    ) -> Tensor:
        batch = (indices, labels, clean_logits.float().softmax(dim=1))
        if self.trainer.world_size == 1:
            return soft.update(*batch)
        # A sample goes to another process in each epoch, so each of them keeps all targets.
        everyone: list[Tensor] = [cast(Tensor, self.all_gather(part)) for part in batch]
        targets = soft.update(*(part.flatten(0, 1) for part in everyone))
        return targets.view_as(everyone[2])[self.global_rank]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step of descent on the examples."""
        loss = super().training_step(batch, batch_idx)
        if self.adv_acc.update_called:
            self.log("train/adv_acc", self.adv_acc, on_step=False, on_epoch=True)
        if self.broken.update_called:
            self.log("train/broken", self.broken, on_step=False, on_epoch=True)
        return loss

    def check_budget(self, input_shape: Sequence[int]) -> None:
        """Refuse a full training budget that no sample has room for.

        Args:
            input_shape: shape of one sample, ``(C, H, W)``.

        Raises:
            InputError: the budget is larger than the number of units.
        """
        check_budgets("budget", [self.training_budget.full], tuple(input_shape), self.attack.unit)

    def craft(self, inputs: Tensor, labels: Tensor) -> TrainingExamples | None:
        """Examples to train on at this point of the training; ``None`` in the warm-up."""
        budget = self.training_budget.draw(self._epochs_done())
        if budget == 0:
            return None
        start = wall_time(inputs.device)
        options = self.attack.__dataclass_fields__
        orders: dict[str, Any] = {"budget": budget}
        if "seed" in options:
            # Each batch another random start; a training that is resumed draws the same ones.
            orders["seed"] = int(torch.randint(2**31, ()))
        few_steps = budget is not None and self.attack.num_steps <= self.lean_up_to
        if few_steps and "lean" in options:
            orders["lean"] = True
        attack = replace(self.attack, **orders)
        examples = craft_examples(attack, self.net, inputs, labels, unbroken=self.unbroken)
        self.attack_seconds += wall_time(inputs.device) - start
        if budget is not None:
            self.log("train/budget", float(budget), on_step=False, on_epoch=True, sync_dist=True)
        return examples

    def _epochs_done(self) -> float:
        batches = self.trainer.num_training_batches
        done = self.trainer.fit_loop.epoch_loop.batch_idx
        share = done / batches if batches not in (0, float("inf")) else 0.0
        return self.current_epoch + share

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Ask the data for the indices that soft labels go by."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ImageDataModule):
            data.indexed = self.soft_labels is not None

    def on_train_start(self) -> None:
        """Begin with the labels of the data, or with those of a checkpoint."""
        if self.soft_labels is not None:
            loader = self.trainer.train_dataloader
            dataset = getattr(loader, "dataset", None)
            if not isinstance(dataset, Sized):  # several loaders, or a stream
                found = loader if dataset is None else dataset
                raise InputError(
                    "soft labels need one training loader of samples that can be counted, got "
                    f"{type(found).__name__}; use a data module of sztrain.data, or "
                    "soft_labels_from=null"
                )
            num_steps = self.trainer.estimated_stepping_batches
            self.soft_labels.begin(len(dataset), self.num_classes, num_steps)

    def on_train_epoch_start(self) -> None:
        """Let the budget follow the gauge, where it does."""
        self.training_budget.curve = self._gauged_curve()

    def _gauged_curve(self) -> Tensor | None:
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]  # set in init
        return self.training_budget.gauged_curve(callbacks, self.attack.unit)

    def on_train_epoch_end(self) -> None:
        """Log what the adversary has cost so far."""
        super().on_train_epoch_end()
        self.log("train/attack_seconds", self.attack_seconds, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed run goes on with: costs, soft labels, what the gauge measured."""
        checkpoint["attack_seconds"] = self.attack_seconds
        curve = self._gauged_curve()
        if curve is not None:
            checkpoint["gauged_curve"] = curve
        if self.soft_labels is not None and self.soft_labels.targets is not None:
            checkpoint["soft_labels"] = self.soft_labels.targets

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint stopped."""
        self.attack_seconds = checkpoint.get("attack_seconds", 0.0)
        self.training_budget.curve = checkpoint.get("gauged_curve")
        if self.soft_labels is not None:
            self.soft_labels.targets = checkpoint.get("soft_labels")
