"""Figures that the σ-zero paper prints, to set beside what was measured.

They are those of the results tables of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_
(Tables I-XI: 2 networks for MNIST, 10 for CIFAR-10, 6 for ImageNet). Success rates are in percent,
l0 counts features, times are seconds a sample on an A100 with 40 GB, queries are thousands of
forward and backward passes a sample. Samples misclassified from the start count as success with an
l0 of 0. The rows hold the digits that the tables print; where a cell is odd in print or was hard to
read, ``notes`` says so.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One minimal-norm result: Tables I-III (1000 steps) and V-VII (100 steps).

    Attributes:
        table: number of the table, in Roman numerals.
        dataset: ``mnist``, ``cifar10`` or ``imagenet``.
        model: name of the network in the paper: M1-M2, C1-C10, I1-I6.
        steps: N of the table. Sparse-RS ran with 4N; PGD-l0 and Sparse-RS search over the budget.
        attack: name as printed, in ASCII: ``sigma-zero``, ``PGD-l0``, ``FMN``, ...
        asr_10: percent of all samples misclassified within 10 features.
        asr_50: the same within 50 features.
        asr_inf: the same within any number.
        median_l0: median over all samples, features; inf if fewer than half were broken, ``None``
            in the two rows where it cannot be read.
        time_s: seconds a sample.
        queries_k: forward and backward passes a sample, in thousands.
        vram_gb: largest GPU memory in GB; ``None`` where only a bound is printed.
        vram_text: the memory as printed, such as ``>40``.
        notes: remarks on the row, often empty.
    """

    table: str
    dataset: str
    model: str
    steps: int
    attack: str
    asr_10: float
    asr_50: float
    asr_inf: float
    median_l0: float | None
    time_s: float
    queries_k: float
    vram_gb: float | None
    vram_text: str
    notes: str


@dataclass(frozen=True, kw_only=True)
class PublishedBudgetRow:
    """One fixed-budget result: Tables VIII-IX (1000 steps) and X-XI (100 steps).

    Attributes:
        table: number of the table, in Roman numerals.
        dataset: ``mnist``, ``cifar10`` or ``imagenet``.
        model: name of the network in the paper: M1-M2, C1-C10, I1-I6.
        steps: N of the table. Sparse-RS ran with 2000 queries where it is 1000.
        attack: ``PGD-l0``, ``Sparse-RS`` or ``sigma-zero`` (one minimal-norm run for all budgets).
        budget: largest l0 that counts as success, features.
        asr: percent of all samples misclassified within the budget.
        time_s: seconds a sample, printed once for all budgets.
        queries_k: forward and backward passes a sample, in thousands, once for all budgets.
        vram_gb: largest GPU memory in GB, once for all budgets.
        notes: remarks on the row, often empty.
    """

    table: str
    dataset: str
    model: str
    steps: int
    attack: str
    budget: int
    asr: float
    time_s: float
    queries_k: float
    vram_gb: float
    notes: str


@dataclass(frozen=True, kw_only=True)
class PublishedNet:
    """One network of the paper: Table IV and section III-A, beside what its authors' code loads.

    Attributes:
        model: name in the paper: M1-M2, C1-C10, I1-I6.
        dataset: ``mnist``, ``cifar10`` or ``imagenet``.
        robustbench_ref: name in Table IV; empty where the table lacks the network.
        threat_model: norm the network is trained against, as printed.
        clean_acc: clean accuracy in percent as printed: two values for C4, none where not printed.
        robust_acc: accuracy in percent under AutoAttack as printed, alike.
        source: where it stands in the paper, and the work cited there.
        authors_code_ref: what the authors' code loads under this name.
        rb_arch: architecture that RobustBench gives for what the code loads.
        rb_clean_acc: clean accuracy that RobustBench gives for it, percent.
        rb_robust_acc: robust accuracy that RobustBench gives for it, with a remark in one case.
        clean_acc_inferred: not printed: 100 - ASR_10 of PDPGD at 100 steps, which breaks nothing
            within 10 features that was not misclassified from the start.
        notes: disagreements between Table IV, section III-A and the code.
    """

    model: str
    dataset: str
    robustbench_ref: str
    threat_model: str
    clean_acc: tuple[float, ...]
    robust_acc: tuple[float, ...]
    source: str
    authors_code_ref: str
    rb_arch: str
    rb_clean_acc: float | None
    rb_robust_acc: str
    clean_acc_inferred: float | None
    notes: str


@cache
def minimum_norm_rows() -> tuple[PublishedRow, ...]:
    """All minimal-norm results, in the order of the tables.

    Example:
        >>> len(minimum_norm_rows())
        300
    """
    return tuple(
        PublishedRow(
            table=cells["table"],
            dataset=cells["dataset"],
            model=cells["model"],
            steps=int(cells["steps"]),
            attack=cells["attack"],
            asr_10=float(cells["asr_10"]),
            asr_50=float(cells["asr_50"]),
            asr_inf=float(cells["asr_inf"]),
            median_l0=_optional(cells["median_l0"]),
            time_s=float(cells["time_s"]),
            queries_k=float(cells["queries_k"]),
            vram_gb=None if cells["vram_gb"].startswith(">") else float(cells["vram_gb"]),
            vram_text=cells["vram_gb"],
            notes=cells["notes"],
        )
        for cells in _read("minimum_norm.csv")
    )


@cache
def fixed_budget_rows() -> tuple[PublishedBudgetRow, ...]:
    """All fixed-budget results, one row a budget, in the order of the tables.

    Example:
        >>> sorted({row.budget for row in fixed_budget_rows() if row.dataset == "mnist"})
        [24, 50, 100]
    """
    return tuple(
        PublishedBudgetRow(
            table=cells["table"],
            dataset=cells["dataset"],
            model=cells["model"],
            steps=int(cells["steps"]),
            attack=cells["attack"],
            budget=int(cells["budget"]),
            asr=float(cells["asr"]),
            time_s=float(cells["time_s"]),
            queries_k=float(cells["queries_k"]),
            vram_gb=float(cells["vram_gb"]),
            notes=cells["notes"],
        )
        for cells in _read("fixed_budget.csv")
    )


@cache
def net_rows() -> tuple[PublishedNet, ...]:
    """The networks of the paper.

    Example:
        >>> [row.clean_acc for row in net_rows() if row.model in ("C1", "C4", "M1")]
        [(), (94.78,), (87.03, 90.83)]
    """
    return tuple(
        PublishedNet(
            model=cells["model"],
            dataset=cells["dataset"],
            robustbench_ref=cells["robustbench_ref"],
            threat_model=cells["threat_model"],
            clean_acc=_several(cells["clean_acc"]),
            robust_acc=_several(cells["robust_acc"]),
            source=cells["source"],
            authors_code_ref=cells["authors_code_ref"],
            rb_arch=cells["rb_arch"],
            rb_clean_acc=_optional(cells["rb_clean_acc"]),
            rb_robust_acc=cells["rb_robust_acc"],
            clean_acc_inferred=_optional(cells["clean_acc_inferred"]),
            notes=cells["notes"],
        )
        for cells in _read("models.csv")
    )


def find_row(model: str, attack: str, steps: int) -> PublishedRow | None:
    """The minimal-norm result of one attack on one network, if the paper prints it.

    Args:
        model: name in the paper, such as ``M1``.
        attack: name as in :class:`PublishedRow`, such as ``sigma-zero``.
        steps: 100 or 1000.

    Example:
        >>> row = find_row("M1", "sigma-zero", 1000)
        >>> row.median_l0, row.asr_10
        (16.0, 19.6)
        >>> find_row("M1", "sigma-zero", 77) is None
        True
    """
    wanted = (model, attack, steps)
    rows = (row for row in minimum_norm_rows() if (row.model, row.attack, row.steps) == wanted)
    return next(rows, None)


def find_budget_row(
    dataset: str, model: str, attack: str, steps: int, budget: int
) -> PublishedBudgetRow | None:
    """The fixed-budget result of one attack on one network, if the paper prints it.

    Args:
        dataset: ``mnist``, ``cifar10`` or ``imagenet``.
        model: name in the paper, such as ``M1``.
        attack: name as in :class:`PublishedBudgetRow`, such as ``sigma-zero``.
        steps: 100 or 1000.
        budget: features.

    Example:
        >>> find_budget_row("mnist", "M1", "sigma-zero", 1000, 24).asr
        83.79
        >>> find_budget_row("mnist", "M1", "sigma-zero", 1000, 25) is None
        True
    """
    wanted = (dataset, model, attack, steps, budget)
    rows = (
        row
        for row in fixed_budget_rows()
        if (row.dataset, row.model, row.attack, row.steps, row.budget) == wanted
    )
    return next(rows, None)


def _read(name: str) -> Iterator[dict[str, str]]:
    # Relative to the package, not to a package of its own: the folder holds data only.
    text = files("sztrain.evaluation").joinpath("published", name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())


def _optional(cell: str) -> float | None:
    return float(cell) if cell else None


def _several(cell: str) -> tuple[float, ...]:
    return tuple(float(value) for value in cell.split("|")) if cell else ()
