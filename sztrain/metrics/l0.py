r"""torchmetrics metrics over the l0 at which samples were broken.

Each has one state, the histogram of l0, summed over processes. Metrics of one
:class:`~torchmetrics.MetricCollection` share it (its compute groups merge equal states after the
first update), so logging many figures costs one update; see :func:`l0_metrics`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from sztrain.errors import require_count, require_in
from sztrain.metrics import functional
from sztrain.metrics.keys import measure_key
from sztrain.metrics.plotting import draw_robustness_curve
from sztrain.types import UNITS, Unit


class L0Histogram(Metric):
    """How many samples were broken at each l0; the state that all metrics here share.

    Args:
        num_units: largest l0 possible, d: C·H·W counting features, H·W counting pixels.
        kwargs: options of :class:`torchmetrics.Metric`.

    Raises:
        InputError: ``num_units`` is below 1, or no whole number.

    Example:
        >>> metric = L0Histogram(num_units=3)
        >>> metric.update(torch.tensor([0.0, 2.0, 2.0, torch.inf]))
        >>> metric.compute()
        tensor([1, 0, 2, 0, 1])
    """

    is_differentiable: bool = False
    full_state_update: bool = False
    histogram: Tensor

    def __init__(self, num_units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_count("num_units", num_units, 1)
        self.num_units = num_units
        counts = torch.zeros(num_units + 2, dtype=torch.int64)
        self.add_state("histogram", counts, dist_reduce_fx="sum")

    def update(self, l0: Tensor) -> None:
        """Count further samples.

        Args:
            l0: changes per sample, shape ``(N,)``: a whole number in 0..``num_units``, 0 for a
                sample misclassified from the start, inf for one that was never broken.

        Raises:
            InputError: ``l0`` is not one-dimensional, or holds a value that cannot be an l0.
        """
        # Not in place: in a collection the tensor may still belong to other metrics as well.
        self.histogram = self.histogram + functional.l0_histogram(l0, self.num_units)

    def compute(self) -> Tensor:
        """Counts, int64 ``(num_units + 2,)``; the last one is of inf."""
        return self.histogram


class MedianL0(L0Histogram):
    """Median l0 over all samples; inf if at least half of them resist.

    See :func:`sztrain.metrics.functional.median_l0`.

    Args:
        num_units: largest l0 possible, d.
        kwargs: options of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = MedianL0(num_units=64)
        >>> metric.update(torch.tensor([0.0, 3.0, 4.0, torch.inf]))
        >>> metric.compute()
        tensor(3.5000)
    """

    higher_is_better: bool = True

    def compute(self) -> Tensor:
        """Median, scalar tensor; raises InputError without samples."""
        return functional.median_l0(self.histogram)


class MeanL0(L0Histogram):
    """Mean l0 over the broken samples; inf if there are none.

    See :func:`sztrain.metrics.functional.mean_l0`.

    Args:
        num_units: largest l0 possible, d.
        kwargs: options of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = MeanL0(num_units=64)
        >>> metric.update(torch.tensor([0.0, 3.0, 6.0, torch.inf]))
        >>> metric.compute()
        tensor(3.)
    """

    higher_is_better: bool = True

    def compute(self) -> Tensor:
        """Mean, scalar tensor; raises InputError without samples."""
        return functional.mean_l0(self.histogram)


class _AtBudget(L0Histogram):
    """What is asked at one budget; ``None``: at any."""

    def __init__(self, num_units: int, budget: int | None = None, **kwargs: Any) -> None:
        super().__init__(num_units, **kwargs)
        if budget is not None:
            require_count("budget", budget, 0)
        self.budget = budget


class AttackSuccessRate(_AtBudget):
    """Share of all samples that are misclassified within a budget, in [0, 1].

    See :func:`sztrain.metrics.functional.attack_success_rate`.

    Args:
        num_units: largest l0 possible, d.
        budget: largest l0 that counts as success; ``None``: any finite one.
        kwargs: options of :class:`torchmetrics.Metric`.

    Raises:
        InputError: ``budget`` is negative, ``num_units`` below 1, or one no whole number.

    Example:
        >>> metric = AttackSuccessRate(num_units=64, budget=3)
        >>> metric.update(torch.tensor([0.0, 3.0, 6.0, torch.inf]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool = False

    def compute(self) -> Tensor:
        """Success rate, scalar tensor; raises InputError without samples."""
        return functional.attack_success_rate(self.histogram, self.budget)


class RobustAccuracy(_AtBudget):
    """Share of all samples that are correct and not broken within a budget, in [0, 1].

    See :func:`sztrain.metrics.functional.robust_accuracy`.

    Args:
        num_units: largest l0 possible, d.
        budget: largest l0 the attacker may spend; ``None``: any.
        kwargs: options of :class:`torchmetrics.Metric`.

    Raises:
        InputError: ``budget`` is negative, ``num_units`` below 1, or one no whole number.

    Example:
        >>> metric = RobustAccuracy(num_units=64, budget=3)
        >>> metric.update(torch.tensor([0.0, 3.0, 4.0, torch.inf]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool = True

    def compute(self) -> Tensor:
        """Robust accuracy, scalar tensor; raises InputError without samples."""
        return functional.robust_accuracy(self.histogram, self.budget)


class RobustnessCurve(L0Histogram):
    """Robust accuracy at every budget from 0 to d.

    See :func:`sztrain.metrics.functional.robustness_curve`.

    Args:
        num_units: largest l0 possible, d.
        unit: what l0 counts; the label of :meth:`plot` says it.
        kwargs: options of :class:`torchmetrics.Metric`.

    Raises:
        InputError: ``unit`` is unknown, or ``num_units`` below 1.

    Example:
        >>> metric = RobustnessCurve(num_units=3)
        >>> metric.update(torch.tensor([0.0, 2.0, 2.0, torch.inf]))
        >>> metric.compute()
        tensor([0.7500, 0.7500, 0.2500, 0.2500])
    """

    higher_is_better: bool = True

    def __init__(self, num_units: int, unit: Unit = "features", **kwargs: Any) -> None:
        super().__init__(num_units, **kwargs)
        require_in("unit", unit, UNITS)
        self.unit: Unit = unit

    def compute(self) -> Tensor:
        """Curve, shape ``(num_units + 1,)``; raises InputError without samples."""
        return functional.robustness_curve(self.histogram)

    def plot(
        self, val: Tensor | None = None, ax: Axes | None = None
    ) -> tuple[Figure | SubFigure, Axes]:
        """Draw the curve.

        Args:
            val: the curve, as :meth:`compute` returns it; ``None``: of the samples so far.
            ax: where to draw; ``None``: axes of a new figure.

        Returns:
            Figure and axes that were drawn on, as torchmetrics' plots do.

        Raises:
            InputError: there is no sample.
        """
        curve = (self.compute() if val is None else val).cpu().numpy()
        ax = Figure(layout="constrained").subplots() if ax is None else ax
        ax = draw_robustness_curve(ax, curve, self.unit, color="#0072B2", lw=2)
        return ax.figure, ax


def l0_metrics(
    num_units: int, budgets: Sequence[int] = (), unit: Unit = "features"
) -> MetricCollection:
    """All scalar figures of l0 robustness under the keys they are logged by.

    Keys: ``median_l0``, ``mean_l0``, ``asr_inf``, and ``asr@k`` and ``robust_acc@k`` for each
    budget k. Counting pixels, the measures that depend on the count carry ``_px``:
    ``median_l0_px``, ``mean_l0_px``, ``asr_px@k``, ``robust_acc_px@k``. One histogram is kept for
    all of them. Stages are told apart by ``.clone(prefix="val/")``.

    Args:
        num_units: largest l0 possible, d: C·H·W counting features, H·W counting pixels.
        budgets: budgets k, at least 0.
        unit: what l0 and the budgets count.

    Raises:
        InputError: a budget is negative, ``unit`` is unknown, or ``num_units`` below 1.

    Example:
        >>> metrics = l0_metrics(64, budgets=[3], unit="pixels").clone(prefix="val/")
        >>> metrics.update(torch.tensor([0.0, 3.0, 5.0, torch.inf]))
        >>> {key: value.item() for key, value in metrics.compute().items()}
        ... # doctest: +NORMALIZE_WHITESPACE
        {'val/asr_inf': 0.75, 'val/asr_px@3': 0.5, 'val/mean_l0_px': 2.6666667461395264,
         'val/median_l0_px': 4.0, 'val/robust_acc_px@3': 0.5}
    """
    metrics: dict[str, Metric | MetricCollection] = {
        measure_key("median_l0", unit): MedianL0(num_units),
        measure_key("mean_l0", unit): MeanL0(num_units),
        "asr_inf": AttackSuccessRate(num_units, budget=None),
    }
    for budget in budgets:
        metrics[measure_key("asr", unit, budget)] = AttackSuccessRate(num_units, budget)
        metrics[measure_key("robust_acc", unit, budget)] = RobustAccuracy(num_units, budget)
    # Groups are found, not listed: metrics added to a collection with listed groups stay silent.
    return MetricCollection(metrics, compute_groups=True)
