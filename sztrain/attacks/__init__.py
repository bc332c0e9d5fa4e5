"""Sparse attacks: each a frozen set of hyper-parameters, called on a net and a batch.

Beside them stands what an attack of one's own is made with, from :class:`Found` to
:func:`run_attack`; docs/attacks.md has one.
"""

from sztrain.attacks.aslo import ASLO
from sztrain.attacks.attack_mix import AttackMix
from sztrain.attacks.base import Found, Logits, is_adversarial, run_attack
from sztrain.attacks.budgeted_sigma_zero import BudgetedSigmaZero
from sztrain.attacks.checks import validate_attack
from sztrain.attacks.gse import GSE
from sztrain.attacks.lin_sparse import LinSparse
from sztrain.attacks.peers import (
    BB,
    EAD,
    FMN,
    PDPGD,
    VFGA,
    AdvLibSigmaZero,
    BBadv,
    SparseFool,
)
from sztrain.attacks.pgd_l0 import PGDL0
from sztrain.attacks.sigma_zero import SigmaZero
from sztrain.attacks.sparse_autoattack import SparseAutoAttack
from sztrain.attacks.sparse_pgd import SparsePGD
from sztrain.attacks.sparse_rs import SparseRS

__all__ = [
    "ASLO",
    "BB",
    "EAD",
    "FMN",
    "GSE",
    "PDPGD",
    "PGDL0",
    "VFGA",
    "AdvLibSigmaZero",
    "AttackMix",
    "BBadv",
    "BudgetedSigmaZero",
    "Found",
    "LinSparse",
    "Logits",
    "SigmaZero",
    "SparseAutoAttack",
    "SparseFool",
    "SparsePGD",
    "SparseRS",
    "is_adversarial",
    "run_attack",
    "validate_attack",
]
