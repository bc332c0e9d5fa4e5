"""How the changes of each sample lie: how many, on how many pixels, in how many clusters."""

from collections.abc import Iterable

from torch import Tensor

from sztrain.evaluation.record import CHANGES, Record
from sztrain.metrics.structure import num_clusters
from sztrain.norms import l0_norm


def count_changes(delta: Tensor) -> dict[str, list[int]]:
    """Changed features, changed pixels and clusters of each sample; nothing where no images are.

    Args:
        delta: differences, shape ``(N, ...)``; of images ``(N, C, H, W)``.

    Returns:
        N counts for each of :data:`~sztrain.evaluation.record.CHANGES`.

    Example:
        >>> import torch
        >>> delta = torch.zeros(1, 3, 4, 4)
        >>> delta[0, :2, 1, 1] = delta[0, 0, 3, 3] = 0.5
        >>> count_changes(delta)
        {'features': [3], 'pixels': [2], 'clusters': [2]}
        >>> count_changes(torch.zeros(1, 7))
        {}
    """
    if delta.ndim != 4:
        return {}
    counts = (l0_norm(delta, "features"), l0_norm(delta, "pixels"), num_clusters(delta))
    return dict(zip(CHANGES, (count.int().tolist() for count in counts), strict=True))


def mean_changes(records: Iterable[Record]) -> dict[str, float | None]:
    """Mean of each count over the samples that were broken by a change.

    Samples misclassified from the start and samples never broken have nothing to be counted.

    Returns:
        A mean for each of :data:`~sztrain.evaluation.record.CHANGES`; ``None`` where there was
        nothing to average, or where some of the records have no such columns.

    Reference:
        Over pixels and clusters these are ACP and ANC of `arXiv:2311.17434
        <https://arxiv.org/abs/2311.17434>`_.
    """
    records = list(records)
    if any(record.features is None for record in records):
        return dict.fromkeys(CHANGES)
    changed = [record for record in records if record.features]
    means: dict[str, float | None] = {}
    for name in CHANGES:
        counts = [getattr(record, name) for record in changed]
        means[name] = sum(counts) / len(counts) if counts else None
    return means
