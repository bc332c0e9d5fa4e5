"""The command line, the only place that knows Hydra: `train.py` and `evaluate.py`."""

from sztrain.cli.entry import evaluate_main, train_main

__all__ = ["evaluate_main", "train_main"]
