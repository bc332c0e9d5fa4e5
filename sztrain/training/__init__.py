"""Methods of training: Lightning modules around any net, with any attack as the adversary."""

from sztrain.training.adversarial import AdversarialTraining
from sztrain.training.adversary import TrainingExamples, craft_examples
from sztrain.training.base import RobustClassifier
from sztrain.training.checkpoint_io import AtomicCheckpointIO
from sztrain.training.mart import MART
from sztrain.training.sparse_at import SparseAT
from sztrain.training.standard import StandardTraining
from sztrain.training.trades import TRADES

__all__ = [
    "MART",
    "TRADES",
    "AdversarialTraining",
    "AtomicCheckpointIO",
    "RobustClassifier",
    "SparseAT",
    "StandardTraining",
    "TrainingExamples",
    "craft_examples",
]
