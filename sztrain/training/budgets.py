"""How large the training budget is at each point of a training."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from sztrain.errors import InputError, require_at_least, require_count, require_in
from sztrain.types import Unit

BudgetSchedule = Literal["ramp", "fixed", "gauge"]
BUDGET_SCHEDULES: tuple[BudgetSchedule, ...] = ("ramp", "fixed", "gauge")


class TrainingBudget:
    """The largest l0 of a training example, from the first batch to the last.

    Args:
        budget: what the net shall resist; ``None``: examples of any l0.
        multiplier: the full training budget is so many times ``budget``, at least 1.
        schedule: ``"ramp"``: it grows linearly over ``ramp_epochs``. ``"fixed"``: full size at
            once. ``"gauge"``: below the ramp each batch draws a sample of those that the gauge
            measured last, and takes ``multiplier`` times the l0 that broke it.
        warmup_epochs: first epochs without attack.
        ramp_epochs: epochs after the warm-up until full size.

    Attributes:
        curve: robust accuracy at each budget 0..d as measured before this epoch, or ``None``.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> budget = TrainingBudget(4, multiplier=2, ramp_epochs=4)
        >>> [budget.at(epoch) for epoch in (0, 1, 2, 3.9, 4, 9)]
        [1, 2, 4, 8, 8, 8]
    """

    def __init__(
        self,
        budget: int | None,
        *,
        multiplier: float = 1.0,
        schedule: BudgetSchedule = "ramp",
        warmup_epochs: float = 0,
        ramp_epochs: float = 0,
    ) -> None:
        if budget is not None:
            require_count("budget", budget, 1)
        require_at_least("budget_multiplier", multiplier, 1)
        require_in("budget_schedule", schedule, BUDGET_SCHEDULES)
        require_at_least("warmup_epochs", warmup_epochs, 0)
        require_at_least("ramp_epochs", ramp_epochs, 0)
        if budget is None and (multiplier > 1 or schedule == "gauge"):
            raise InputError(
                "expected `budget` to be a whole number, by which budget_multiplier and "
                "budget_schedule=gauge go, got None"
            )
        self.full = None if budget is None else round(multiplier * budget)
        self.multiplier = multiplier
        self.schedule = schedule
        self.warmup_epochs = warmup_epochs
        self.ramp_epochs = 0 if schedule == "fixed" else ramp_epochs
        self.curve: Tensor | None = None

    def at(self, epoch: float) -> int | None:
        """The largest budget ``epoch`` epochs into the training; 0 during the warm-up."""
        if epoch < self.warmup_epochs:
            return 0
        if self.full is None or self.ramp_epochs == 0:
            return self.full
        share = min((epoch - self.warmup_epochs) / self.ramp_epochs, 1.0)
        return max(1, round(share * self.full))

    def draw(self, epoch: float) -> int | None:
        """The budget of one batch; with a ``curve`` it depends on torch's global random state."""
        most = self.at(epoch)
        if self.curve is None or most is None or most == 0:
            return most
        l0 = l0_at(self.curve, float(torch.rand(())))
        return most if l0 is None else min(max(1, round(self.multiplier * l0)), most)

    def gauged_curve(self, callbacks: Iterable[Any], unit: Unit) -> Tensor | None:
        """The curve to follow from the next epoch on, where the schedule is by a gauge.

        Changes nothing, so that a checkpoint in the middle of an epoch leaves no trace in it.

        Args:
            callbacks: of the Trainer; a gauge is one with ``measurements`` and an ``attack``.
            unit: what the budgets count.

        Returns:
            What the gauge measured last; before it has, the present curve; ``None`` where the
            schedule is another.

        Raises:
            InputError: there is no gauge, or it counts something else.
        """
        if self.schedule != "gauge":
            return None
        gauges = [callback for callback in callbacks if hasattr(callback, "measurements")]
        if not gauges:
            raise InputError(
                "budget_schedule=gauge goes by what a gauge measured, and found none among the "
                "callbacks; add SparseRobustness or use budget_schedule=ramp"
            )
        fitting = [gauge for gauge in gauges if gauge.attack.unit == unit]
        if not fitting:
            raise InputError(
                f"budget_schedule=gauge needs a gauge that counts {unit} as the adversary does, "
                f"got one that counts {gauges[0].attack.unit}"
            )
        measurement = fitting[0].measurements.get("val")
        return self.curve if measurement is None else measurement.curve


def l0_at(curve: Tensor, level: float) -> int | None:
    """The l0 within which a share ``level`` of the samples is broken; ``None``: none suffices.

    Args:
        curve: robust accuracy at each budget 0..d, float ``(d + 1,)``.
        level: in [0, 1]; drawn from U[0, 1], the l0 has the distribution of the samples.

    Example:
        >>> curve = torch.tensor([0.75, 0.75, 0.25, 0.25])  # l0 = 0 for one of four, 2 for two
        >>> [l0_at(curve, level) for level in (0.2, 0.3, 0.7, 0.8)]
        [0, 2, 2, None]
    """
    enough = (1 - curve >= level).nonzero()
    return int(enough[0]) if len(enough) > 0 else None
