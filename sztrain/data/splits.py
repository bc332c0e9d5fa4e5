"""Cut one part of a data set from another, the same way on every machine and for every training."""

import torch
from torch import Tensor

from sztrain.errors import InputError


def require_fraction(name: str, value: float) -> None:
    """Refuse anything but a number strictly between 0 and 1.

    Example:
        >>> require_fraction("val_fraction", 0.1)

    Raises:
        InputError: ``value`` is no such number.
    """
    if not 0 < value < 1:  # written so that NaN is refused as well
        raise InputError(f"expected `{name}` to be above 0 and below 1, got {value}")


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Cut off a random part in which every class keeps its share, to within one sample.

    Args:
        labels: int64 ``(N,)``.
        fraction: size of the part, above 0 and below 1; rounded to whole samples, at least one.
        seed: which of the possible parts.

    Returns:
        Indices of what stays and of what is cut off, each int64 and ascending.

    Raises:
        InputError: there are fewer than two samples, or nothing would stay.

    Example:
        >>> stays, part = stratified_split(torch.tensor([0, 0, 0, 0, 1, 1]), 0.5, seed=0)
        >>> len(stays), len(part), int((part < 4).sum())
        (3, 3, 2)
    """
    num_samples = len(labels)
    size = max(1, round(fraction * num_samples))
    if size >= num_samples:
        raise InputError(
            f"cannot cut a fraction of {fraction} from {num_samples} samples: nothing would be "
            "left; give more samples or a smaller fraction"
        )
    shuffled = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    # Every (N/size)-th sample of the list sorted by class: each class gives its share.
    picked = torch.arange(size) * num_samples // size + num_samples // (2 * size)
    chosen = torch.zeros(num_samples, dtype=torch.bool)
    chosen[by_class[picked]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def first_of_seeded_order(num_samples: int, limit: int, seed: int) -> Tensor:
    """Indices of the first ``limit`` samples of a shuffled list: a larger limit only adds samples.

    Example:
        >>> small, large = (set(first_of_seeded_order(9, n, seed=0).tolist()) for n in (3, 5))
        >>> small < large
        True

    Raises:
        InputError: there are fewer than ``limit`` samples.
    """
    if limit > num_samples:
        raise InputError(
            f"limit_train={limit} asks for more than the {num_samples} training samples there are; "
            f"give at most {num_samples}, or null for all"
        )
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed))
    return order[:limit].sort().values
