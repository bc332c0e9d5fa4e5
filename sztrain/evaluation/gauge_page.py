"""All that one measurement of a gauge has to show, whatever logger shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.evaluation.measurement import Measurement

Points = Sequence[tuple[int, float]]
"""Pairs of a budget and the robust accuracy there, from budget 0 on."""


@dataclass(frozen=True, kw_only=True)
class GaugePage:
    """One measurement among those before it.

    Attributes:
        keys: under which it is logged.
        measurement: what the gauge found.
        curves: robustness curves by epoch, this measurement's included.
        epoch: in which it was taken.
        step: of the training, under which its figures are logged.
        judged_by: the attack that the measurement rests on.
    """

    keys: GaugeKeys
    measurement: Measurement
    curves: Mapping[int, Points]
    epoch: int
    step: int
    judged_by: str

    @property
    def broken_l0(self) -> list[float]:
        """The l0 of all samples that were broken, in ascending order."""
        breakdown = self.measurement.breakdown
        if breakdown is None:
            return []
        return sorted(value for value in breakdown.l0.tolist() if value < float("inf"))


def thinned(points: Points, count: int) -> Points:
    """At most ``count`` of the points, evenly spaced, both ends among them.

    Args:
        points: at least one.
        count: at least 2.

    Example:
        >>> thinned([(0, 1.0), (1, 0.9), (2, 0.5), (3, 0.4), (4, 0.0)], 3)
        [(0, 1.0), (2, 0.5), (4, 0.0)]
    """
    if len(points) <= count:
        return points
    last = len(points) - 1
    return [points[round(index * last / (count - 1))] for index in range(count)]
