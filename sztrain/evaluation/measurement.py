"""What attacking a set of samples says about a net."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from sztrain.attacks.checks import (
    require_judge,
    require_net,
    require_untargeted,
    validate_batch,
)
from sztrain.errors import InputError, require_count, require_several, warn
from sztrain.evaluation.advice import LOOKED_AT, Advice
from sztrain.evaluation.batches import BatchHook, inputs_and_labels
from sztrain.evaluation.breakdown import Breakdown, BreakdownMetric
from sztrain.evaluation.examples import Examples, examples_of
from sztrain.evaluation.runner import AttackedBatch, attack_batches
from sztrain.metrics import L0Histogram, l0_metrics
from sztrain.metrics.functional import median_l0, robustness_curve
from sztrain.metrics.intervals import median_interval
from sztrain.norms import check_budgets, num_units
from sztrain.types import Attack, Unit


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Robustness of a net under one attack, over the samples of all processes.

    Attributes:
        values: the metrics of :func:`sztrain.metrics.l0_metrics` by key.
        curve: robust accuracy at every budget 0..d, float ``(d + 1,)``.
        unit: what was counted.
        num_samples: how many samples were attacked.
        median_interval: of the median l0 of what the samples were drawn from, with a confidence of
            95 %, see :func:`sztrain.metrics.intervals.median_interval`.
        attack_seconds: wall time of the attack in this process.
        examples: a few of this process's samples.
        breakdown: the samples one by one; ``None`` where no more than their l0 is known.
    """

    values: dict[str, float]
    curve: Tensor
    unit: Unit
    num_samples: int
    attack_seconds: float
    examples: Examples | None = field(repr=False)
    median_interval: tuple[float, float] = (0.0, inf)
    breakdown: Breakdown | None = field(default=None, repr=False)

    @property
    def drawable(self) -> Examples | None:
        """The examples, if they are grey or colour images."""
        shown = self.examples
        if shown is None or shown.inputs.ndim != 4 or shown.inputs.shape[1] not in (1, 3):
            return None
        return shown


class Tally:
    """Adds up attacked batches.

    Args:
        input_shape: shape of one sample.
        unit: what the attack counts.
        budgets: budgets at which success rate and robust accuracy are wanted.
        device: where the counts live; the process group's device where there are processes.
        num_examples: how many samples to keep to look at.
        alone: count for this process only, whatever others there are.

    Raises:
        InputError: a budget below 0, or pixels of samples that are no images.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        unit: Unit,
        budgets: Sequence[int],
        device: torch.device | str = "cpu",
        num_examples: int = 0,
        *,
        alone: bool = False,
    ) -> None:
        size = num_units(torch.Size(input_shape), unit)
        self.metrics = l0_metrics(size, budgets, unit).to(device)
        self.histogram = L0Histogram(size).to(device)
        image_size = (input_shape[-2], input_shape[-1]) if len(input_shape) == 3 else None
        self._breakdown = BreakdownMetric(image_size).to(device)
        if alone:
            for metric in (*self.metrics.values(), self.histogram, self._breakdown):
                metric.distributed_available_fn = _never
        self.unit: Unit = unit
        self.seconds = 0.0
        self.num_examples = num_examples
        self._kept: list[Examples] = []
        self._known_one_by_one = True

    def add(self, net: nn.Module, batch: AttackedBatch) -> None:
        """Count one batch and keep examples of it while more are wanted."""
        self._count(batch.result.l0, batch.seconds)
        self._breakdown.update(batch)
        wanted = self.num_examples - sum(len(kept.labels) for kept in self._kept)
        if wanted > 0:
            self._kept.append(examples_of(net, batch, wanted))

    def count(self, l0: Tensor, seconds: float) -> None:
        """Count samples of which no more than the l0 is known, float ``(N,)``."""
        self._known_one_by_one = False
        self._count(l0, seconds)

    def _count(self, l0: Tensor, seconds: float) -> None:
        self.metrics.update(l0)
        self.histogram.update(l0)
        self.seconds += seconds

    @property
    def running_median(self) -> float:
        """Median l0 of this process's samples so far."""
        return float(median_l0(self.histogram.histogram))

    def measurement(self) -> Measurement:
        """The figures over the samples of all processes; every process has to call it."""
        histogram = self.histogram.compute()
        return Measurement(
            values={key: float(value) for key, value in self.metrics.compute().items()},
            curve=robustness_curve(histogram).cpu(),
            unit=self.unit,
            num_samples=int(histogram.sum()),
            attack_seconds=self.seconds,
            examples=Examples.joined(self._kept),
            median_interval=median_interval(histogram),
            breakdown=self._breakdown.breakdown() if self._known_one_by_one else None,
        )


def measure_robustness(
    net: nn.Module,
    attack: Attack,
    batches: Iterable[Any],
    *,
    budgets: Sequence[int] = (10, 50),
    device: torch.device | str | None = None,
    num_examples: int = 0,
    batch_to_inputs: BatchHook | None = None,
) -> Measurement:
    """Attack all samples of a loader, and say how robust the net is.

    For a net of one's own; ``evaluate.py`` keeps records as well, and goes on after a stop. Warns
    where the net returns probabilities, where gradients vanish, where an attack of one's own
    changes what the net misclassifies anyway, and where figures are wanted below the attack's own
    budget, at which it did not try: each makes the net look more robust than it is.

    Where ``torch.distributed`` runs, the figures are over the samples of all processes: every one
    has to call it, on ``batches`` of its own.

    Args:
        net: any module that maps images in [0, 1] to logits, on ``device``.
        attack: the attack; without a ``budget`` it looks for the smallest l0 of each sample, with
            one its figures say nothing but what is left there.
        batches: a ``DataLoader``, say, whose batches begin with inputs ``(N, ...)`` in [0, 1] and
            labels ``(N,)``, or name them (image, x, ...; label, y, ...); all samples of one shape.
        budgets: at which success rate and robust accuracy are wanted.
        device: where the batches go; ``None``: where the net's weights are.
        num_examples: how many attacked samples to keep to look at.
        batch_to_inputs: takes inputs and labels out of batches of another make.

    Raises:
        InputError: what the attack refuses, no net or one that returns no logits, no batch or one
            without inputs and labels, a budget that no sample has room for or that the attack did
            not try.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> batches = [(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))]
        >>> measured = measure_robustness(net, SigmaZero(num_steps=3), batches, budgets=[1])
        >>> sorted(measured.values)
        ['asr@1', 'asr_inf', 'mean_l0', 'median_l0', 'robust_acc@1']
    """
    require_net("net", net)
    require_judge("attack", attack)
    require_untargeted("attack", attack)
    require_several("budgets", budgets, "(10, 50)")
    budgets = tuple(budgets)  # read several times, which some can be but once
    for budget in budgets:
        require_count("budgets", budget, 1)
    if attack.budget is not None and max(budgets, default=0) > attack.budget:
        raise InputError(
            f"expected `budgets` to be at most {attack.budget}, beyond which the attack tries "
            f"nothing (its budget), got {max(budgets)}"
        )
    _warn_of_untried(budgets, attack)
    if device is None:
        weights = next(net.parameters(), None)
        device = "cpu" if weights is None else weights.device
    tally, advice = None, Advice("measure_robustness")
    pairs = _pairs(batches, batch_to_inputs, budgets, attack.unit)
    for batch in attack_batches(net, attack, _with_a_look(pairs, net, advice, device), device):
        if tally is None:
            shape = batch.inputs.shape[1:]
            tally = Tally(shape, attack.unit, budgets, device, num_examples)
        tally.add(net, batch)
        advice.on_attacked(net, attack, batch)
    if tally is None:
        raise InputError("expected `batches` to hold samples, got none")
    return tally.measurement()


def _warn_of_untried(budgets: Sequence[int], attack: Attack) -> None:
    """Say that an attack spends its budget, and tells nothing of smaller ones."""
    below = sorted(k for k in budgets if attack.budget is not None and k < attack.budget)
    if below:
        listed = ", ".join(map(str, below))
        warn(
            f"measure_robustness: {type(attack).__name__} with budget={attack.budget} may spend "
            f"all of it on any sample, so at {listed} the net looks more robust than it is; ask "
            f"for budgets=[{attack.budget}], or give the attack another budget, or none"
        )


def _pairs(
    batches: Iterable[Any], hook: BatchHook | None, budgets: Sequence[int], unit: Unit
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels that can be attacked, and whose samples have room for the budgets."""
    shape = None
    for batch in batches:
        inputs, labels = inputs_and_labels(batch, hook)
        validate_batch(inputs, labels)
        if shape is None:
            shape = inputs.shape[1:]
            check_budgets("budgets", budgets, shape, unit)
        elif inputs.shape[1:] != shape:
            raise InputError(
                f"expected samples of one shape, which share their number of {unit}, got "
                f"{tuple(shape)} and later {tuple(inputs.shape[1:])}"
            )
        yield inputs, labels


def _with_a_look(
    pairs: Iterable[tuple[Tensor, Tensor]],
    net: nn.Module,
    advice: Advice,
    device: torch.device | str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same, once the net has answered some of them with logits."""
    for inputs, labels in pairs:
        advice.on_outputs(net, inputs[:LOOKED_AT].to(device), labels[:LOOKED_AT].to(device))
        yield inputs, labels


def _never() -> bool:
    return False
