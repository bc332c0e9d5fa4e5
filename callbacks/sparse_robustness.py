"""Sparse robustness: gauges median l0 beside a training."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from typing_extensions import override

from sztrain.attacks import SigmaZero, SparseAutoAttack
from sztrain.attacks.base import require_attack, validate_batch
from sztrain.attacks.fixed_budget import FixedBudgetAttack
from sztrain.callbacks.sample_store import SampleStore
from sztrain.errors import InputError, require_count
from sztrain.evaluation.measurement import Measurement, Tally
from sztrain.evaluation.runner import attack_batches
from sztrain.evaluation.worst_case import check_probe, probe_worst_case
from sztrain.norms import check_budgets
from sztrain.types import Attack


class SparseRobustness(Callback):
    """Attacks a fixed subset of the validation samples as training goes on, and logs how it fared.

    Works in any Lightning module whose ``forward`` maps images in [0, 1] to logits and whose
    validation batches are pairs of inputs and labels, under ``pytorch_lightning`` and
    ``lightning.pytorch`` alike. The training goes on exactly as it would have without it.

    Logs ``val/median_l0``, ``val/mean_l0`` (over broken samples), ``val/asr_inf``,
    ``val/attack_seconds`` and, for each budget k, ``val/asr@k`` and ``val/robust_acc@k``; an
    attack that counts pixels appends ``_px`` to the measure (``val/median_l0_px``). With a
    ``probe``, a second attack on the same samples, ``val/robust_acc_probe@k`` and
    ``val/robust_acc_worst@k``, what is left under both: a net that was trained against one attack
    may resist it and fall to another at once, so this is what to choose checkpoints by. With a
    ``verdict``, the same keys under ``test/`` when the Trainer tests. All can be monitored. The
    median is inf while at least half of the samples resist: an ``EarlyStopping`` that monitors it
    needs ``check_finite=False``. Medians are whole or half numbers and tie; ``val/mean_l0`` ranks
    finer.

    Args:
        attack: the gauge's attack; ``None``: σ-zero with 100 steps. It should take more steps than
            an adversary in training, which the net learns to resist first.
        num_samples: how many validation samples, over all processes.
        budgets: budgets k, in the attack's unit.
        every_n_epochs: gauge in every n-th epoch, the first and the last among them; in between
            the monitors see the last figures, the loggers nothing.
        batch_size: samples attacked at once.
        seed: of the choice of validation samples.
        probe: a second attack on the gauge's samples, such as ``SparseRS(num_steps=300,
            budget=24)``, which uses no gradient; judged at its own budget if it has one, else at
            ``budgets``. ``None``: none.
        verdict: attack on the test samples, when the Trainer tests; ``None``: none.
        verdict_samples: how many test samples, the first over all processes; ``None``: all.
        num_examples: how many attacked samples ``measurements`` keeps to look at.

    Attributes:
        measurements: last :class:`~sztrain.evaluation.Measurement` by stage, ``val`` or ``test``.

    Raises:
        InputError: a value out of its range; in the sanity check or the first validation, images
            outside [0, 1] or a budget beyond the size of a sample.

    Example:
        >>> gauge = SparseRobustness(num_samples=512, budgets=(10, 50))
        >>> trainer = pl.Trainer(callbacks=[gauge], logger=False, accelerator="cpu")
    """

    def __init__(
        self,
        *,
        attack: Attack | None = None,
        num_samples: int = 512,
        budgets: Sequence[int] = (10, 50),
        every_n_epochs: int = 1,
        batch_size: int = 128,
        seed: int = 0,
        probe: Attack | None = None,
        verdict: Attack | None = None,
        verdict_samples: int | None = None,
        num_examples: int = 8,
    ) -> None:
        for name, value in (
            ("num_samples", num_samples),
            ("every_n_epochs", every_n_epochs),
            ("batch_size", batch_size),
            ("verdict_samples", 1 if verdict_samples is None else verdict_samples),
            *(("budgets", budget) for budget in budgets),
        ):
            require_count(name, value, 1)
        self.attack = attack if attack is not None else SigmaZero(num_steps=100)
        for name, attacker in (("attack", self.attack), ("probe", probe), ("verdict", verdict)):
            if attacker is not None:
                require_attack(name, attacker)
        if probe is not None:
            check_probe(probe, self.attack.unit)
        self.num_samples = num_samples
        self.budgets = tuple(budgets)
        self.every_n_epochs = every_n_epochs
        self.batch_size = batch_size
        self.seed = seed
        self.probe = probe
        self.verdict = verdict
        self.verdict_samples = verdict_samples
        self.num_examples = num_examples
        self.measurements: dict[str, Measurement] = {}
        self._stores: dict[str, SampleStore] = {}
        self._complete: set[str] = set()
        self._gauged_in: int | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # A new run may bring new data: what was collected before is of no use to it.
        self._stores, self._complete, self._gauged_in = {}, set(), None

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx == 0 and "val" not in self._complete:
            self._check(batch, self.attack)
            if self.probe is not None:
                shape = _inputs_and_labels(batch)[0].shape[1:]
                check_probe(self.probe, self.attack.unit, shape)
            if not trainer.sanity_checking:
                self._collect(trainer, "val", batch, self.num_samples)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._complete.add("val")
        # In between nothing is logged: Lightning shows its monitors the last figures by itself.
        if self._is_due(trainer):
            self._gauged_in = trainer.current_epoch
            self._log(pl_module, self._measure(trainer, pl_module, "val", self.attack))

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.verdict is not None and dataloader_idx == 0:
            self._check(batch, self.verdict)
            self._collect(trainer, "test", batch, self.verdict_samples)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.verdict is not None:
            self._log(pl_module, self._measure(trainer, pl_module, "test", self.verdict))

    def _is_due(self, trainer: pl.Trainer) -> bool:
        epoch, every = trainer.current_epoch, self.every_n_epochs
        if self._gauged_in in (None, epoch) or epoch + 1 == trainer.max_epochs:
            return True
        # Not `epoch % every == 0`: there may be no validation in that very epoch.
        return epoch // every > self._gauged_in // every

    def _check(self, batch: Any, attack: Attack) -> None:
        """Refuse before hours are spent what could not be attacked after them."""
        inputs, labels = _inputs_and_labels(batch)
        validate_batch(inputs, labels)
        check_budgets("budgets", self.budgets, inputs.shape[1:], attack.unit)

    def _collect(
        self, trainer: pl.Trainer, stage: str, batch: Any, num_samples: int | None
    ) -> None:
        if stage not in self._stores:
            share = None if num_samples is None else ceil(num_samples / trainer.world_size)
            # The first test samples, as published figures take them.
            self._stores[stage] = SampleStore(share, self.seed if stage == "val" else None)
        self._stores[stage].add(*_inputs_and_labels(batch))

    def _measure(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str, attack: Attack
    ) -> dict[str, float]:
        probe = self.probe if stage == "val" else None
        if getattr(trainer, "fast_dev_run", False):
            attack, probe = shortened(attack), None if probe is None else shortened(probe)
        store = self._stores[stage]
        batches = store.batches(self.batch_size)
        tally = Tally(
            store.inputs.shape[1:], attack.unit, self.budgets, pl_module.device, self.num_examples
        )
        # A net may draw random numbers even in eval mode: the training must not miss them.
        with isolate_rng(), _progress(trainer) as progress:
            task = progress.add_task(f"{stage} attack", total=len(store.labels), median="")
            found = []
            for attacked in attack_batches(pl_module, attack, batches, pl_module.device):
                tally.add(pl_module, attacked)
                found.append(attacked.result.l0)
                median = f"median ℓ0 {tally.running_median:g} {attack.unit}"
                progress.update(task, advance=len(attacked.labels), median=median)
            both = {}
            if probe is not None:
                task = progress.add_task(f"{stage} probe", total=len(store.labels), median="")
                both = probe_worst_case(
                    pl_module,
                    probe,
                    batches,
                    found,
                    self.budgets,
                    pl_module.device,
                    partial(progress.advance, task),
                )
        self.measurements[stage] = tally.measurement()
        values = self.measurements[stage].values | {"attack_seconds": tally.seconds} | both
        return {f"{stage}/{key}": value for key, value in values.items()}

    def _log(self, pl_module: pl.LightningModule, values: dict[str, float]) -> None:
        for key, value in values.items():
            pl_module.log(key, value, prog_bar="median" in key, sync_dist=True)


def shortened(attack: Attack) -> Attack:
    """The attack as a smoke test runs it: one step, and none that searches for a budget.

    Example:
        >>> shortened(SigmaZero(num_steps=1000)).num_steps
        1
    """
    if isinstance(attack, SparseAutoAttack):
        return replace(attack, num_steps=1, num_queries=1, budget=attack.budget or 1)
    if isinstance(attack, FixedBudgetAttack):
        return replace(attack, num_steps=1, budget=attack.budget or 1)
    return replace(attack, num_steps=1)


def _inputs_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    if (
        isinstance(batch, tuple | list)
        and len(batch) >= 2
        and all(isinstance(part, Tensor) for part in batch[:2])
    ):
        return batch[0], batch[1]
    raise InputError(
        "expected batches that are pairs of inputs and labels, "
        f"got {type(batch).__name__}; return (inputs, labels) from the validation loader"
    )


def _progress(trainer: pl.Trainer) -> Progress:
    """A bar below Lightning's own, where Lightning shows one."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[median]}"),
        transient=True,
    )
    shown = trainer.progress_bar_callback is not None and trainer.is_global_zero
    progress.disable = not (shown and progress.console.is_terminal)
    return progress
