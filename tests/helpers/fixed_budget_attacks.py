"""Every fixed-budget attack, in its variants, and the module that its run stands in."""

from sztrain.attacks import (
    PGDL0,
    BudgetedSigmaZero,
    SparsePGD,
    SparseRS,
    budgeted_sigma_zero,
    pgd_l0,
    sparse_pgd,
    sparse_rs,
)

ATTACKS = [
    PGDL0(),
    PGDL0(early_stop=True),
    SparsePGD(),
    SparsePGD(projected=True),
    SparseRS(),
    BudgetedSigmaZero(),
]
MODULES = {
    PGDL0: pgd_l0,
    SparsePGD: sparse_pgd,
    SparseRS: sparse_rs,
    BudgetedSigmaZero: budgeted_sigma_zero,
}
