"""Sparse robustness: gauges median l0 beside a training."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from sztrain.attacks import SigmaZero
from sztrain.attacks.answers import check_answer
from sztrain.attacks.checks import (
    check_search,
    require_judge,
    require_untargeted,
    validate_batch,
)
from sztrain.attacks.peers import check_library
from sztrain.callbacks._adapters import (
    AttackedNet,
    ForwardHook,
    LogitsHook,
    require_forward,
)
from sztrain.callbacks._advice import GaugeAdvice
from sztrain.callbacks._beside import beside_the_training
from sztrain.callbacks._epochs import GaugedEpochs
from sztrain.callbacks._gauged_samples import GaugedSamples
from sztrain.callbacks._image_space import ImageSpace
from sztrain.callbacks._pace import Pace
from sztrain.callbacks.smoke_test import is_smoke_test, shortened
from sztrain.errors import InputError, require_count, require_several
from sztrain.evaluation.advice import passes_gradient
from sztrain.evaluation.batches import BatchHook, inputs_and_labels
from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.evaluation.measurement import Measurement, Tally
from sztrain.evaluation.probe import ProbeTally, check_probe
from sztrain.evaluation.runner import attack_batches
from sztrain.metrics import measure_key
from sztrain.norms import check_budgets
from sztrain.progress import attack_progress
from sztrain.types import Attack


class SparseRobustness(Callback):
    """Attacks a fixed subset of the validation samples as training goes on, and logs how it fared.

    Works in any Lightning module with a ``forward``, under ``pytorch_lightning`` and
    ``lightning.pytorch`` alike; ``docs/gauge.md`` tells how to fit it to data and outputs of
    another make. The training goes on exactly as it would have without it. Attacked are the weights
    that the Trainer validates: those of ``WeightAveraging`` and its like, but of
    ``StochasticWeightAveraging`` only where it validates its average, that is in the epoch that it
    adds for BatchNorm, and in ``trainer.validate`` after the training. All that counts happens on
    images in [0, 1], with ``mean``, ``std`` and ``box`` undone, and in full precision where the
    Trainer mixes precisions.

    Logs ``val/median_l0``, the ends of its 95 % confidence interval ``val/median_l0_low`` and
    ``val/median_l0_high`` (exact order statistics) and ``val/num_samples``, on which it rests;
    ``val/mean_l0`` (over broken samples), ``val/asr_inf``, ``val/attack_seconds``,
    ``val/gauge_clean_acc`` (clean accuracy on the very samples that are attacked) and, for each
    budget k, ``val/asr@k`` and ``val/robust_acc@k``; an attack that counts pixels appends ``_px``
    to the measure (``val/median_l0_px``). With a ``probe``, a second attack on the same samples,
    ``val/robust_acc_probe@k``, ``val/robust_acc_worst@k``, what is left under both, and
    ``val/probe_seconds``: a net that was trained against one attack may resist it and fall to
    another at once, so this is what to choose checkpoints by. With a ``verdict``, the same keys
    under ``test/`` when the Trainer tests. All can be monitored. The median is inf while at least
    half of the samples resist: an ``EarlyStopping`` that monitors it needs ``check_finite=False``.
    Medians are whole or half numbers and tie; ``val/mean_l0`` ranks finer.

    Warns, once a run, where ``forward`` returns probabilities, where gradients vanish, where an
    attack of one's own changes what is misclassified anyway, where all samples are of one class,
    and where a median rests on fewer than 100 samples.

    Args:
        attack: the gauge's attack, without a budget; ``None``: σ-zero with 100 steps. It should
            take more steps than an adversary in training, which the net learns to resist first.
        num_samples: how many validation samples, over all processes.
        budgets: budgets k, in the attack's unit.
        every_n_epochs: gauge in every n-th epoch, the first and the last among them; in between
            the monitors see the last figures, the loggers nothing. A training that is resumed keeps
            to the same epochs.
        batch_size: samples attacked at once.
        seed: of the choice of validation samples.
        probe: a second attack on the gauge's samples, such as ``SparseRS(num_steps=300,
            budget=24)``, which uses no gradient; judged at its own budget if it has one, else at
            ``budgets``. ``None``: none.
        verdict: attack on the test samples, without a budget, when the Trainer tests; ``None``:
            none.
        verdict_samples: how many test samples, the first over all processes; ``None``: all.
        num_examples: how many attacked samples ``measurements`` keeps to look at.
        mean: with which the validation loader normalises, one number or one a channel, in the units
            of ``box``; ``None``: it does not.
        std: with which it normalises, alike.
        box: range of the values before they were normalised; ``(0, 255)``, say.
        batch_to_inputs: takes inputs and labels out of a batch; ``None``: by position from a tuple
            or list, by name from anything else.
        forward: calls the module, given module and inputs; ``None``: ``module(inputs)``.
        logits: takes the logits out of what that returns; ``None``: the tensor itself, the first
            of a tuple or list, ``logits`` or ``out`` of anything else.
        max_seconds: after which no further batch of validation samples is begun, in each process;
            ``None``: no limit. With a limit, how many samples are attacked is not reproducible;
            their order is fixed, and random, so that any number of them is a fair sample.
        name: of this gauge, where there are several: it logs ``val/<name>/median_l0`` and so on.
        max_share: the same as a share of the time that training and validation took since the last
            gauging; ``None``: no limit.

    Attributes:
        measurements: last :class:`~sztrain.evaluation.measurement.Measurement` by stage, ``val``
            or ``test``.

    Raises:
        InputError: a value out of its range, an attack with a budget or targets; when the Trainer
            starts, a module without ``forward`` or an attack with too few steps to search for a
            budget; in the sanity check or the first validation, batches without inputs and labels,
            images outside [0, 1], a budget beyond the size of a sample, or a ``forward`` that
            returns no logits.

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
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
        box: Sequence[float] = (0.0, 1.0),
        batch_to_inputs: BatchHook | None = None,
        forward: ForwardHook | None = None,
        logits: LogitsHook | None = None,
        max_seconds: float | None = None,
        max_share: float | None = None,
        name: str = "",
    ) -> None:
        require_several("budgets", budgets, "(10, 50)")
        budgets = tuple(budgets)  # once: they may be counted out by an iterator
        if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]*", name):
            raise InputError(f"expected `name` to be a word, part of the keys, got {name!r}")
        hooks = {"batch_to_inputs": batch_to_inputs, "forward": forward, "logits": logits}
        for argument, hook in hooks.items():
            if hook is not None and not callable(hook):
                raise InputError(f"expected `{argument}` to be a function, got {hook!r}")
        self.name = name
        for argument, value, minimum in (
            ("num_samples", num_samples, 1),
            ("batch_size", batch_size, 1),
            ("verdict_samples", 1 if verdict_samples is None else verdict_samples, 1),
            ("seed", seed, 0),
            ("num_examples", num_examples, 0),
            *(("budgets", budget, 1) for budget in budgets),
        ):
            require_count(argument, value, minimum)
        self.attack = attack if attack is not None else SigmaZero(num_steps=100)
        self.probe = probe
        self.verdict = verdict
        for argument, attacker in self._attacks().items():
            require_judge(argument, attacker)
            require_untargeted(argument, attacker)
            if argument != "probe" and attacker.budget is not None:
                raise InputError(
                    f"expected `{argument}` to have no budget, got budget={attacker.budget}, where "
                    "its search would end; budgets to measure at go into `budgets`"
                )
        if probe is not None:
            check_probe(probe, self.attack.unit)
        self.num_samples = num_samples
        self.budgets = tuple(map(int, budgets))
        self.batch_size = batch_size
        self.seed = seed
        self.verdict_samples = verdict_samples
        self.num_examples = num_examples
        self.image_space = ImageSpace(mean=mean, std=std, box=box)
        self.batch_to_inputs = batch_to_inputs
        self.forward = forward
        self.logits = logits
        self.measurements: dict[str, Measurement] = {}
        self._samples = GaugedSamples()
        self._input_dtype = torch.float32
        self._pace = Pace(max_seconds, max_share)
        self._advice = GaugeAdvice()
        self._epochs = GaugedEpochs(every_n_epochs)

    def repeats(self, key: str, epoch: int) -> bool:
        """Whether monitors see under ``key`` what was measured before this epoch.

        Example:
            >>> SparseRobustness().repeats("val/clean_acc", epoch=3)  # not a figure of the gauge's
            False
        """
        return self._epochs.repeats(key, epoch)

    def keys(self, stage: str = "val") -> GaugeKeys:
        """Under which keys it logs.

        Args:
            stage: ``val``, or ``test``, where there is a verdict and no probe.

        Example:
            >>> SparseRobustness(budgets=(10,)).keys().robust_accs
            ['val/robust_acc@10']
        """
        probe_budgets: tuple[int, ...] = ()
        if stage == "val" and self.probe is not None:
            probe_budgets = self.budgets if self.probe.budget is None else (self.probe.budget,)
        return GaugeKeys(
            stage=stage,
            name=self.name,
            unit=self.judging(stage).unit,
            budgets=self.budgets,
            probe_budgets=probe_budgets,
        )

    def judging(self, stage: str) -> Attack:
        """The attack that finds the l0 in a stage: in ``test`` that of the verdict.

        Example:
            >>> type(SparseRobustness().judging("val")).__name__
            'SigmaZero'
        """
        return self.verdict if stage == "test" and self.verdict is not None else self.attack

    @property
    @override
    def state_key(self) -> str:
        # The state of a gauge that logs under other keys holds nothing for the monitors of this.
        probe = None if self.probe is None else self.probe.budget or self.budgets
        return self._generate_state_key(
            unit=self.attack.unit,
            budgets=self.budgets,
            probe_budgets=probe,
            **({"name": self.name} if self.name else {}),
        )

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._epochs.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epochs.load_state_dict(state_dict)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # A new run may bring new data: what was collected before is of no use to it.
        self._samples.reset()
        self._epochs.reset()
        self._pace.reset()
        if stage == "fit":  # a test of the same net that follows need not be told again
            self._advice = GaugeAdvice()
            self.measurements = {}
        self._advice.speaks = trainer.is_global_zero
        require_forward(pl_module, self.forward)
        for name, attack in self._attacks().items():
            check_library(attack)  # now, not after an epoch
            if not is_smoke_test(trainer):  # which shortens them
                check_search(attack, name)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # in __init__
        gauges = [callback for callback in callbacks if isinstance(callback, SparseRobustness)]
        if sum(gauge.name == self.name for gauge in gauges) > 1:
            raise InputError(
                f"several gauges log under the same keys, such as {self.keys().median_l0}; give "
                "each but one a name of its own: SparseRobustness(name=...)"
            )
        # First, since others put the weights of the training back at the end of the validation.
        # A list of its own: the Trainer is going through the one that there is.
        trainer.callbacks = [  # type: ignore[attr-defined]
            *gauges,
            *(callback for callback in callbacks if callback not in gauges),
        ]

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._advice.on_trainer(trainer, self.keys(), self._epochs.every)
        self._pace.start()

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        resumed = {} if trainer.sanity_checking else self._epochs.take_resumed(trainer)
        if resumed:  # the loggers have been told before the training stopped
            self._log(pl_module, resumed, logger=False)

    @override
    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # Before the module's own step, which may change the batch.
        if dataloader_idx == 0 and self._samples.wants("val"):
            self._collect(trainer, "val", batch, self.num_samples)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            with beside_the_training(pl_module, "val"):
                self._check_outputs(pl_module, "val")
                self._try_attacks(pl_module)
            self._samples.forget("val")  # the first of the loader; the validation brings them again
            return
        self._samples.complete("val")
        # In between nothing is logged: Lightning shows its monitors the last figures by itself.
        if self._epochs.are_due(trainer):
            values = self._measure(trainer, pl_module, "val", self.attack)
            self._epochs.record(trainer.current_epoch, values)
            self._log(pl_module, values)
            self._pace.start()

    @override
    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.verdict is not None and dataloader_idx == 0:
            self._collect(trainer, "test", batch, self.verdict_samples)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.verdict is not None:
            self._log(pl_module, self._measure(trainer, pl_module, "test", self.verdict))

    def _collect(
        self, trainer: pl.Trainer, stage: str, batch: Any, num_samples: int | None
    ) -> None:
        """Keep samples, and refuse before hours are spent what could not be attacked after them."""
        inputs, labels = inputs_and_labels(batch, self.batch_to_inputs)
        images = self.image_space.to_images(inputs)
        validate_batch(images, labels)
        for name, attack in self._attacks().items():
            if stage == "val" or name == "verdict":
                check_budgets("budgets", self.budgets, images.shape[1:], attack.unit)
                check_budgets(f"{name}.budget", [attack.budget], images.shape[1:], attack.unit)
        self._input_dtype = inputs.dtype if inputs.is_floating_point() else images.dtype
        self._samples.add(trainer, stage, images, labels, num_samples, seed=self.seed)

    def _attacks(self) -> dict[str, Attack]:
        """Those there are, by the names of their arguments."""
        attacks = {"attack": self.attack, "probe": self.probe, "verdict": self.verdict}
        return {name: attack for name, attack in attacks.items() if attack is not None}

    def _attacked(self, pl_module: pl.LightningModule) -> AttackedNet:
        return AttackedNet(
            pl_module, self.image_space, self._input_dtype, self.forward, self.logits
        )

    def _check_outputs(self, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse, or warn of, outputs that cannot be attacked."""
        net, device = self._attacked(pl_module), pl_module.device
        for images, labels in self._samples.batches(stage, self.batch_size)[:1]:
            self._advice.on_outputs(net, images.to(device), labels.to(device))

    def _try_attacks(self, pl_module: pl.LightningModule) -> None:
        """Refuse before an epoch is spent what an attack cannot work with, or its answer."""
        net, device = self._attacked(pl_module), pl_module.device
        for images, labels in self._samples.batches("val", 2)[:1]:
            images, labels = images.to(device), labels.to(device)
            passes = passes_gradient(net, images, labels)
            for attack in self._attacks().values():
                if not passes or not type(attack).__module__.startswith("sztrain."):
                    check_answer(attack, shortened(attack)(net, images, labels), images)

    def _measure(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str, attack: Attack
    ) -> dict[str, float]:
        probe = self.probe if stage == "val" else None
        smoke_test = is_smoke_test(trainer)
        if smoke_test:
            attack, probe = shortened(attack), None if probe is None else shortened(probe)
        labels, shape = self._samples.labels(stage), self._samples.shape(stage)
        net, device = self._attacked(pl_module), pl_module.device
        tally = Tally(shape, attack.unit, self.budgets, device, self.num_examples)
        both = None if probe is None else ProbeTally(probe, self.budgets, device)
        with (
            beside_the_training(pl_module, stage),
            attack_progress(
                f"{stage} attack",
                len(labels),
                shown=trainer.progress_bar_callback is not None and trainer.is_global_zero,
                kept=False,
            ) as advance,
        ):
            self._check_outputs(pl_module, stage)
            if not smoke_test:
                self._advice.on_labels(_extremes(pl_module, labels))
            for attacked in attack_batches(net, attack, self._batches(stage), device):
                tally.add(net, attacked)
                if both is not None:
                    both.add(net, attacked.inputs, attacked.labels, attacked.result.l0)
                if not smoke_test:
                    self._advice.on_attacked(net, attack, attacked)
                median = f"{tally.running_median:g}".replace("inf", "∞")
                advance(len(attacked.labels), f"median ℓ0 {median} {attack.unit}")
        self.measurements[stage] = tally.measurement()
        if not smoke_test:
            self._advice.on_measurement(self.measurements[stage])
        values = _figures(self.measurements[stage]) | (both.values() if both is not None else {})
        return {self.keys(stage).key(key): value for key, value in values.items()}

    def _batches(self, stage: str) -> Iterable[tuple[Tensor, Tensor]]:
        """The samples to attack; those of a validation as long as there is time."""
        limited = stage == "val" and self._pace.is_limited
        batches = self._samples.batches(stage, self.batch_size, by_priority=limited)
        return self._pace.in_time(batches) if limited else batches

    def _log(
        self,
        pl_module: pl.LightningModule,
        values: dict[str, float],
        *,
        logger: bool | None = None,
    ) -> None:
        for key, value in values.items():
            shown = key.endswith(("/median_l0", "/median_l0_px"))
            pl_module.log(key, value, prog_bar=shown, logger=logger, sync_dist=True)


def _figures(measurement: Measurement) -> dict[str, float]:
    """What is logged of a measurement."""
    low, high = measurement.median_interval
    median = measure_key("median_l0", measurement.unit)
    return measurement.values | {
        f"{median}_low": low,
        f"{median}_high": high,
        "num_samples": float(measurement.num_samples),
        "attack_seconds": measurement.attack_seconds,
        "gauge_clean_acc": float(measurement.curve[0]),
    }


def _extremes(pl_module: pl.LightningModule, labels: Tensor) -> Tensor:
    """The smallest and the largest label of every process."""
    gathered = pl_module.all_gather(torch.stack(labels.aminmax()).to(pl_module.device))
    return torch.as_tensor(gathered).flatten()
