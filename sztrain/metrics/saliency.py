r"""Whether changes lie where a net looks, and what they do there: as functions of given maps.

Where the maps come from is not decided here; :mod:`sztrain.evaluation.explanation` makes them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sztrain.errors import InputError, require_count
from sztrain.norms import magnitudes


def adversarial_saliency_map(
    target_gradient: Tensor, label_gradient: Tensor, *, gated: bool = False
) -> Tensor:
    r"""ASM: where a change takes an image from its class y to a class t.

    .. math:: A = \frac{\partial Z_t}{\partial x} \odot
        \left| \frac{\partial Z_y}{\partial x} \right|

    Args:
        target_gradient: :math:`\partial Z_t / \partial x` at the clean image, ``(N, C, H, W)``.
        label_gradient: :math:`\partial Z_y / \partial x` there, same shape.
        gated: zero where :math:`\partial Z_t / \partial x < 0` or
            :math:`\partial Z_y / \partial x > 0`, as such maps are usually defined; the code of
            GSE's authors has this switched off.

    Returns:
        The shape of the gradients.

    Raises:
        InputError: the shapes differ.

    Reference:
        Measure of interpretability in `arXiv:2311.17434 <https://arxiv.org/abs/2311.17434>`_.

    Example:
        >>> adversarial_saliency_map(torch.tensor([2.0, -1.0]), torch.tensor([-3.0, -1.0]))
        tensor([ 6., -1.])
    """
    _check_same_shape("target_gradient", target_gradient, "label_gradient", label_gradient)
    saliency = target_gradient * label_gradient.abs()
    if gated:
        saliency = saliency.masked_fill((target_gradient < 0) | (label_gradient > 0), 0)
    return saliency


def interpretability_score(delta: Tensor, saliency: Tensor, percentile: int) -> Tensor:
    r"""IS: share of a perturbation's 2-norm that lies where its saliency map is high.

    .. math:: \mathrm{IS}_P(\delta) = \frac{\|B \odot \delta\|_2}{\|\delta\|_2}, \qquad
        B = 1[A > \nu_P]

    with the P-th percentile :math:`\nu_P` (nearest rank) of what is not zero in the sample's own
    map. 1: all of it lies on salient entries. Changes of one size that know nothing of the map
    come to about :math:`\sqrt{1 - P/100}`.

    Args:
        delta: differences of images, shape ``(N, C, H, W)``.
        saliency: A, of the shape of ``delta`` (an adversarial saliency map) or ``(N, 1, H, W)`` (a
            class activation map, for all channels).
        percentile: P, a whole number from 0 to 100.

    Returns:
        Shape ``(N,)``, in [0, 1]; NaN where δ = 0: average with :func:`torch.nanmean`.

    Raises:
        InputError: shapes that do not fit, or ``percentile`` out of its range.

    Reference:
        Measure of interpretability in `arXiv:2311.17434 <https://arxiv.org/abs/2311.17434>`_, there
        with adversarial saliency maps and P from 50 to 90. (With a batch of several images the
        authors' code mixes up the classes of the gradients.)

    Example:
        >>> saliency = torch.arange(4.0).view(1, 1, 2, 2)  # of 1, 2, 3 the median is 2
        >>> delta = torch.tensor([[[[4.0, 0.0], [0.0, 3.0]]]])
        >>> interpretability_score(delta, saliency, percentile=50)
        tensor([0.6000])
    """
    _check_percentile(percentile)
    if delta.ndim != 4 or saliency.shape not in (
        delta.shape,
        (len(delta), 1, *delta.shape[2:]),
    ):
        raise InputError(
            "expected `saliency` to have the shape of `delta`, (N, C, H, W), or (N, 1, H, W), "
            f"got {tuple(saliency.shape)} with `delta` of shape {tuple(delta.shape)}"
        )
    values = saliency.flatten(1)
    ordered = values.masked_fill(values == 0, torch.inf).sort(dim=1).values
    num_values = values.count_nonzero(dim=1)
    rank = (percentile * num_values + 99) // 100  # rounded up
    bound = ordered.gather(1, (rank - 1).clamp(min=0).unsqueeze(1))
    salient = saliency > bound.view(-1, 1, 1, 1)
    inside, whole = (
        torch.linalg.vector_norm(part.flatten(1), dim=1) for part in (delta * salient, delta)
    )
    score: Tensor = inside / whole
    return score


class RegionShares(NamedTuple):
    """How much of a perturbation lies in a region, for each sample; NaN where δ = 0."""

    pixels: Tensor
    """Share of the changed pixels, ``(N,)``."""
    change: Tensor
    """Share of the sum of all absolute changes, ``(N,)``."""


def region_shares(delta: Tensor, maps: Tensor, threshold: float = 0.5) -> RegionShares:
    """How much of a perturbation lies where a class activation map is high.

    With the map of the true class on the clean image this is the obscured region of Lin et al.,
    with that of the reached class on the adversarial image the leading one.

    Args:
        delta: differences of images, shape ``(N, C, H, W)``.
        maps: class activation maps in [0, 1], shape ``(N, 1, H, W)``.
        threshold: smallest value that belongs to the region.

    Returns:
        Both shares, each of shape ``(N,)``.

    Raises:
        InputError: shapes that do not fit.

    Example:
        >>> delta = torch.tensor([[[[0.75, 0.0], [0.25, 0.0]]]])
        >>> maps = torch.tensor([[[[0.9, 0.9], [0.1, 0.1]]]])
        >>> region_shares(delta, maps)
        RegionShares(pixels=tensor([0.5000]), change=tensor([0.7500]))
    """
    _check_same_shape("maps", maps, "one channel of `delta`", delta[:, :1])
    region = (maps >= threshold).float()
    changed = magnitudes(delta, "pixels").sign()
    change = delta.abs().sum(dim=1, keepdim=True)

    def share(weights: Tensor) -> Tensor:
        return (weights * region).flatten(1).sum(dim=1) / weights.flatten(1).sum(dim=1)

    return RegionShares(pixels=share(changed), change=share(change))


class NoiseLabels(NamedTuple):
    """What each changed pixel does; every one is of exactly one kind. Masks, bool ``(N, H, W)``."""

    obscuring: Tensor
    """It hides the true class."""
    leading: Tensor
    """It leads to the reached class."""
    neutral: Tensor
    """It does neither."""

    def shares(self) -> Tensor:
        """Shares of the three kinds among a sample's changed pixels, ``(N, 3)``; NaN if none."""
        counts = torch.stack([mask.flatten(1).sum(dim=1) for mask in self], dim=1)
        return counts / counts.sum(dim=1, keepdim=True)


def noise_labels(delta: Tensor, obscuring: Tensor, leading: Tensor) -> NoiseLabels:
    """Label every changed pixel by what it is rather: obscuring or leading.

    A pixel that neither takes evidence from the true class nor adds any to the reached one is
    neutral; else it is of the kind of its larger score, obscuring where both are equal.

    Args:
        delta: differences of images, shape ``(N, C, H, W)``.
        obscuring: how much each pixel lowered the true class, shape ``(N, H, W)``.
        leading: how much it raised the reached class, same shape.

    Returns:
        The three masks.

    Raises:
        InputError: shapes that do not fit.

    Reference:
        The two kinds are from `arXiv:2506.17250 <https://arxiv.org/abs/2506.17250>`_, which shows
        them in pictures alone; this rule for single pixels is ours.

    Example:
        >>> delta = torch.tensor([[[[0.5, 0.5, 0.5, 0.0]]]])
        >>> obscuring, leading = torch.tensor([[[2.0, 0.5, -1.0, 3.0]], [[1.0, 0.8, 0.0, 3.0]]])
        >>> labels = noise_labels(delta, obscuring[None], leading[None])
        >>> labels.obscuring.int().tolist(), labels.leading.int().tolist()
        ([[[1, 0, 0, 0]]], [[[0, 1, 0, 0]]])
        >>> labels.shares()
        tensor([[0.3333, 0.3333, 0.3333]])
    """
    changed = magnitudes(delta, "pixels").squeeze(1) != 0
    for name, scores in (("obscuring", obscuring), ("leading", leading)):
        _check_same_shape(name, scores, "a pixel mask of `delta`", changed)
    some = changed & (torch.maximum(obscuring, leading) > 0)
    rather_obscuring = obscuring >= leading
    return NoiseLabels(some & rather_obscuring, some & ~rather_obscuring, changed & ~some)


def _check_percentile(percentile: int) -> None:
    require_count("percentile", percentile, 0)
    if percentile > 100:
        raise InputError(f"expected `percentile` to be at most 100, got {percentile}")


def _check_same_shape(name: str, values: Tensor, other: str, reference: Tensor) -> None:
    if values.shape != reference.shape:
        raise InputError(
            f"expected `{name}` to have the shape of {other}, {tuple(reference.shape)}, "
            f"got {tuple(values.shape)}"
        )
