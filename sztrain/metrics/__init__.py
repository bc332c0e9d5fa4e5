"""torchmetrics metrics over the l0 at which samples were broken."""

from sztrain.metrics.keys import measure_key
from sztrain.metrics.l0 import (
    AttackSuccessRate,
    L0Histogram,
    MeanL0,
    MedianL0,
    RobustAccuracy,
    RobustnessCurve,
    l0_metrics,
)

__all__ = [
    "AttackSuccessRate",
    "L0Histogram",
    "MeanL0",
    "MedianL0",
    "RobustAccuracy",
    "RobustnessCurve",
    "l0_metrics",
    "measure_key",
]
