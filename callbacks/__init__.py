"""Lightning callbacks: the gauge for anyone's training, and what `train.py` adds to its own."""

from sztrain.callbacks.adversarial_images import AdversarialImages
from sztrain.callbacks.best_checkpoint import BestCheckpoint
from sztrain.callbacks.collapse_guard import CollapseGuard, CollapseRule
from sztrain.callbacks.epoch_seed import EpochSeed
from sztrain.callbacks.sparse_robustness import SparseRobustness

__all__ = [
    "AdversarialImages",
    "BestCheckpoint",
    "CollapseGuard",
    "CollapseRule",
    "EpochSeed",
    "SparseRobustness",
]
