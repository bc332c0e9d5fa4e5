"""How sure a median is that was taken over some of many samples."""

import torch
from torch import Tensor

from sztrain.errors import InputError, require_count
from sztrain.metrics.functional import l0_at_rank


def median_ranks(num_samples: int, confidence: float = 0.95) -> tuple[int, int] | None:
    r"""Which two of N sorted samples enclose the median of what they were drawn from.

    .. math::
        l = \max\{r : P(B < r) \le \tfrac{1 - c}{2}\},\quad u = N + 1 - l,\quad
        B \sim \mathrm{Bin}(N, \tfrac12)

    The number of samples below the median is binomial at most, so :math:`[d_{(l)}, d_{(u)}]` holds
    it with a probability of at least c, whatever the distribution, with ties or without, and
    more so where the samples are a large part of all that there are.

    Args:
        num_samples: N.
        confidence: c.

    Returns:
        (l, u), counted from 1; ``None`` where so few samples cannot be so sure: below 6 for 0.95.

    Raises:
        InputError: a value out of its range.

    Reference:
        David, Nagaraja: Order Statistics, 3rd edition, section 7.1.

    Example:
        >>> median_ranks(512)
        (234, 279)
        >>> median_ranks(5) is None
        True
    """
    require_count("num_samples", num_samples, 1)
    if not 0 < confidence < 1:
        raise InputError(f"expected `confidence` to be between 0 and 1, got {confidence}")
    size = torch.tensor(float(num_samples), dtype=torch.float64)
    counts = torch.arange(num_samples + 1, dtype=torch.float64)
    log_ways = torch.lgamma(size + 1) - torch.lgamma(counts + 1) - torch.lgamma(size - counts + 1)
    at_most = (log_ways - size * torch.log(torch.tensor(2.0, dtype=torch.float64))).exp().cumsum(0)
    rank = int((at_most <= (1 - confidence) / 2).sum())
    return (rank, num_samples + 1 - rank) if rank else None


def median_interval(histogram: Tensor, confidence: float = 0.95) -> tuple[float, float]:
    r"""Confidence interval of the median l0, from exact order statistics.

    Args:
        histogram: counts from :func:`~sztrain.metrics.functional.l0_histogram`, ``(d + 2,)``.
        confidence: least probability that the interval holds the median of what the samples were
            drawn from at random.

    Returns:
        Its ends, in the unit that was counted: two of the l0 found, either may be inf; (0, inf)
        where there are too few samples to say anything.

    Raises:
        InputError: there is no sample, or ``confidence`` is not between 0 and 1.

    Reference:
        See :func:`median_ranks`.

    Example:
        >>> from sztrain.metrics.functional import l0_histogram
        >>> median_interval(l0_histogram(torch.arange(1.0, 101.0), 100))
        (40.0, 61.0)
    """
    ranks = median_ranks(int(histogram.sum()), confidence)
    if ranks is None:
        return 0.0, float("inf")
    low, high = l0_at_rank(histogram, torch.tensor(ranks, device=histogram.device) - 1).tolist()
    return low, high
