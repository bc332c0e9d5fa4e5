"""Sparse attacks: each a frozen set of hyper-parameters, called on a net and a batch."""

from sztrain.attacks.sigma_zero import SigmaZero

__all__ = ["SigmaZero"]
