"""Lightning callbacks: the gauge for anyone's training, and what `train.py` adds to its own."""

from sztrain.callbacks.best_checkpoint import BestCheckpoint
from sztrain.callbacks.collapse_guard import CollapseGuard
from sztrain.callbacks.collapse_rule import CollapseRule
from sztrain.callbacks.epoch_lines import EpochLines
from sztrain.callbacks.epoch_seed import EpochSeed
from sztrain.callbacks.robustness_dashboard import RobustnessDashboard
from sztrain.callbacks.sparse_robustness import SparseRobustness

__all__ = [
    "BestCheckpoint",
    "CollapseGuard",
    "CollapseRule",
    "EpochLines",
    "EpochSeed",
    "RobustnessDashboard",
    "SparseRobustness",
]
