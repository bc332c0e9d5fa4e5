"""Train, gauge and judge classifiers against sparse attacks, with σ-zero in the loop."""

__version__ = "0.1.0"
