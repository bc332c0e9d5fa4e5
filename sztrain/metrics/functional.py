r"""Figures of l0 robustness as pure functions of one histogram.

Of N samples, sample i is broken at :math:`d_i \in \{0, \dots, d\} \cup \{\infty\}` changes:
0 where it is misclassified from the start, ∞ where it was never broken. The histogram counts how
often each value occurs; its last bin is ∞. Sums of histograms are histograms of unions, so every
figure here is exact over any number of batches and processes.
"""

import torch
from torch import Tensor

from sztrain.errors import InputError, require_count


def l0_histogram(l0: Tensor, num_units: int) -> Tensor:
    """Count how many samples were broken at each l0.

    Args:
        l0: changes per sample, shape ``(N,)``, whole numbers in 0..``num_units``, or inf; of any
            number type.
        num_units: largest l0 possible, d: C·H·W counting features, H·W counting pixels.

    Returns:
        Counts, int64 ``(d + 2,)``; the last one is of inf.

    Raises:
        InputError: ``l0`` is not one-dimensional, or holds a value that cannot be an l0.

    Example:
        >>> l0_histogram(torch.tensor([0.0, 2.0, 2.0, torch.inf]), num_units=3)
        tensor([1, 0, 2, 0, 1])
    """
    if not l0.is_floating_point():
        l0 = l0.long()  # a type of few bits cannot be compared with a large d
    _check_l0(l0, num_units)
    never = l0.isinf()
    bins = l0.masked_fill(never, 0).long().masked_fill(never, num_units + 1)
    return torch.bincount(bins, minlength=num_units + 2)


def median_l0(histogram: Tensor) -> Tensor:
    r"""Median number of changes that break a sample, over all samples.

    .. math:: \operatorname{med}_i\ d_i

    With an even count the two middle values are averaged; if either is ∞, so is the median. (The
    quantile functions of torch give NaN there, and its median the lower of the two.)

    Args:
        histogram: counts from :func:`l0_histogram`, shape ``(d + 2,)``.

    Returns:
        Scalar tensor, in the unit that was counted.

    Raises:
        InputError: there is no sample.

    Reference:
        Column :math:`\tilde\ell_0` of the tables of `arXiv:2402.01879
        <https://arxiv.org/abs/2402.01879>`_.

    Example:
        >>> median_l0(l0_histogram(torch.tensor([1.0, 2.0, 5.0, torch.inf]), 8))
        tensor(3.5000)
        >>> median_l0(l0_histogram(torch.tensor([1.0, torch.inf]), 8))
        tensor(inf)
    """
    total = _num_samples(histogram)
    ranks = torch.stack([(total - 1) // 2, total // 2])
    return l0_at_rank(histogram, ranks).mean()


def l0_at_rank(histogram: Tensor, ranks: Tensor) -> Tensor:
    """The l0 of samples by their place in the order of all, the smallest first.

    Args:
        histogram: counts from :func:`l0_histogram`, shape ``(d + 2,)``.
        ranks: places, counted from 0 and below the number of samples, int64 of any shape.

    Returns:
        float32 tensor of the shape of ``ranks``, in the unit that was counted.

    Example:
        >>> histogram = l0_histogram(torch.tensor([torch.inf, 2.0, 0.0, 2.0]), 8)
        >>> l0_at_rank(histogram, torch.arange(4))
        tensor([0., 2., 2., inf])
    """
    # The sample of rank r lies in the first bin up to which more than r samples are counted.
    bins = torch.searchsorted(histogram.cumsum(0), ranks, right=True)
    return bins.float().masked_fill(bins == len(histogram) - 1, torch.inf)


def mean_l0(histogram: Tensor) -> Tensor:
    r"""Mean number of changes over the broken samples, those misclassified from the start included.

    .. math:: \frac{\sum_{i:\, d_i < \infty} d_i}{|\{i : d_i < \infty\}|}

    It says nothing about samples that were never broken: read it beside the ASR at ∞.

    Args:
        histogram: counts from :func:`l0_histogram`, shape ``(d + 2,)``.

    Returns:
        Scalar tensor, in the unit that was counted; inf if no sample was broken.

    Raises:
        InputError: there is no sample.

    Example:
        >>> mean_l0(l0_histogram(torch.tensor([0.0, 3.0, torch.inf]), 8))
        tensor(1.5000)
        >>> mean_l0(l0_histogram(torch.tensor([torch.inf]), 8))
        tensor(inf)
    """
    _num_samples(histogram)
    finite = histogram[:-1]
    values = torch.arange(len(finite), device=histogram.device)
    mean = (finite * values).sum() / finite.sum()
    return mean.nan_to_num(nan=torch.inf)


def attack_success_rate(histogram: Tensor, budget: int | None) -> Tensor:
    r"""Share of all samples that are misclassified within the budget.

    .. math:: \mathrm{ASR}_k = \frac{|\{i : d_i \le k\}|}{N}

    Samples misclassified from the start count as fooled, as in the tables of the paper.

    Args:
        histogram: counts from :func:`l0_histogram`, shape ``(d + 2,)``.
        budget: largest l0 that counts, k; ``None``: any finite one.

    Returns:
        Scalar tensor in [0, 1].

    Raises:
        InputError: there is no sample, or ``budget`` is negative or no whole number.

    Reference:
        Columns :math:`\mathrm{ASR}_k` of the tables of `arXiv:2402.01879
        <https://arxiv.org/abs/2402.01879>`_, which print percent.

    Example:
        >>> histogram = l0_histogram(torch.tensor([0.0, 3.0, 7.0, torch.inf]), 8)
        >>> attack_success_rate(histogram, 3), attack_success_rate(histogram, None)
        (tensor(0.5000), tensor(0.7500))
    """
    total = _num_samples(histogram)
    broken = histogram[:-1]  # the slice first, so that no budget reaches the bin of inf
    if budget is not None:
        require_count("budget", budget, 0)
        broken = broken[: budget + 1]
    return broken.sum() / total


def robust_accuracy(histogram: Tensor, budget: int | None) -> Tensor:
    r"""Share of all samples that are classified correctly and not broken within the budget.

    .. math:: \mathrm{RA}_k = \frac{|\{i : d_i > k\}|}{N} = 1 - \mathrm{ASR}_k

    At a budget of 0 this is the clean accuracy.

    Args:
        histogram: counts from :func:`l0_histogram`, shape ``(d + 2,)``.
        budget: largest l0 the attacker may spend, k; ``None``: any.

    Returns:
        Scalar tensor in [0, 1].

    Raises:
        InputError: there is no sample, or ``budget`` is negative or no whole number.

    Example:
        >>> histogram = l0_histogram(torch.tensor([0.0, 3.0, 7.0, torch.inf]), 8)
        >>> robust_accuracy(histogram, 0), robust_accuracy(histogram, 7)
        (tensor(0.7500), tensor(0.2500))
    """
    total = _num_samples(histogram)
    if budget is None:
        return histogram[-1] / total
    require_count("budget", budget, 0)
    # A budget beyond d allows no more than d does; samples never broken stay correct.
    return histogram[min(budget + 1, len(histogram) - 1) :].sum() / total


def robustness_curve(histogram: Tensor) -> Tensor:
    """Robust accuracy at every budget from 0 to d.

    Args:
        histogram: counts from :func:`l0_histogram`, shape ``(d + 2,)``.

    Returns:
        Shape ``(d + 1,)``, values in [0, 1] that never rise: from the clean accuracy down to the
        share of samples that were never broken.

    Raises:
        InputError: there is no sample.

    Example:
        >>> robustness_curve(l0_histogram(torch.tensor([0.0, 2.0, 2.0, torch.inf]), 3))
        tensor([0.7500, 0.7500, 0.2500, 0.2500])
    """
    total = _num_samples(histogram)
    return (total - histogram[:-1].cumsum(0)) / total


def _num_samples(histogram: Tensor) -> Tensor:
    total = histogram.sum()
    if total == 0:
        raise InputError("expected the l0 of at least 1 sample, got none: call update first")
    return total


def _check_l0(l0: Tensor, num_units: int) -> None:
    if l0.ndim != 1:
        raise InputError(f"expected `l0` to be of shape (N,), got {tuple(l0.shape)}")
    # NaN fails every one of these comparisons.
    whole = (l0 >= 0) & (l0 <= num_units) & (l0 == l0.round())
    possible = whole | (l0 == torch.inf)
    if not possible.all():
        index = int((~possible).nonzero()[0])
        raise InputError(
            f"expected `l0` to hold whole numbers in 0..{num_units}, or inf, "
            f"got {l0[index].item()} at sample {index}"
        )
