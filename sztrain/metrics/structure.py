r"""How the changed pixels of sparse examples lie: how many, in how many clusters and windows.

The measures by which `GSE <https://arxiv.org/abs/2311.17434>`_ compares attacks. Averages go over
the samples that an attack broke; those misclassified from the start have nothing to be measured.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from sztrain.errors import InputError
from sztrain.norms import l0_norm, magnitudes, num_changed_windows


def num_clusters(delta: Tensor) -> Tensor:
    """Number of clusters of changed pixels of each sample.

    Two changed pixels belong to one cluster where steps up, down, left and right lead from one to
    the other over changed pixels; a diagonal is no step. A pixel is changed where any channel is.

    Args:
        delta: differences of images, shape ``(N, C, H, W)``.

    Returns:
        float32 tensor of shape ``(N,)``, on the device of ``delta``.

    Raises:
        InputError: ``delta`` is no batch of images.

    Example:
        >>> delta = torch.zeros(2, 3, 4, 4)
        >>> delta[0, 0, 1, 1] = delta[0, 2, 1, 2] = delta[0, 1, 3, 3] = 0.5
        >>> num_clusters(delta)
        tensor([2., 0.])
    """
    _check_images(delta)
    changed = (magnitudes(delta, "pixels").squeeze(1) != 0).cpu().numpy()
    within_an_image = np.zeros((3, 3, 3), dtype=bool)
    within_an_image[1] = ndimage.generate_binary_structure(2, 1)
    labels, _ = ndimage.label(changed, within_an_image)
    found, first = np.unique(labels, return_index=True)
    samples = first[found > 0] // labels[0].size
    counts = np.bincount(samples, minlength=len(delta))
    return torch.as_tensor(counts, dtype=torch.float32, device=delta.device)


def average_changed_pixels(delta: Tensor, broken: Tensor) -> Tensor:
    """ACP: mean number of changed pixels over the broken samples.

    Args:
        delta: differences of images, shape ``(N, C, H, W)``.
        broken: the samples that count, bool ``(N,)``: classified correctly, then fooled.

    Returns:
        Scalar tensor; NaN if no sample counts.

    Raises:
        InputError: ``delta`` is no batch of images, or ``broken`` of another length.

    Example:
        >>> delta = torch.zeros(2, 3, 4, 4)
        >>> delta[0, :, 1, 1:3] = 0.5
        >>> average_changed_pixels(delta, torch.tensor([True, False]))
        tensor(2.)
    """
    return _mean_of_broken(lambda delta: l0_norm(delta, "pixels"), delta, broken)


def average_num_clusters(delta: Tensor, broken: Tensor) -> Tensor:
    """ANC: mean of :func:`num_clusters` over the broken samples.

    Args:
        delta: differences of images, shape ``(N, C, H, W)``.
        broken: the samples that count, bool ``(N,)``: classified correctly, then fooled.

    Returns:
        Scalar tensor; NaN if no sample counts.

    Raises:
        InputError: ``delta`` is no batch of images, or ``broken`` of another length.

    Example:
        >>> average_num_clusters(torch.eye(3).view(1, 1, 3, 3), torch.tensor([True]))
        tensor(3.)
    """
    return _mean_of_broken(num_clusters, delta, broken)


def average_changed_windows(delta: Tensor, broken: Tensor, size: int = 8) -> Tensor:
    r"""Mean of :math:`d_{2,0}`, :func:`~sztrain.norms.num_changed_windows`, over broken samples.

    Args:
        delta: differences of images, shape ``(N, C, H, W)``.
        broken: the samples that count, bool ``(N,)``: classified correctly, then fooled.
        size: pixels a side of a window.

    Returns:
        Scalar tensor; NaN if no sample counts.

    Raises:
        InputError: ``delta`` is no batch of images, ``broken`` of another length, or ``size`` no
            whole number from 1 to the smaller side of an image.

    Example:
        >>> delta = torch.zeros(1, 1, 9, 9)
        >>> delta[0, 0, 0, 4] = 1.0
        >>> average_changed_windows(delta, torch.tensor([True]))
        tensor(2.)
    """
    return _mean_of_broken(lambda delta: num_changed_windows(delta, size), delta, broken)


def _mean_of_broken(measure: Callable[[Tensor], Tensor], delta: Tensor, broken: Tensor) -> Tensor:
    _check_images(delta)
    if broken.shape != delta.shape[:1] or broken.dtype != torch.bool:
        raise InputError(
            f"expected `broken` to be bool of shape ({len(delta)},), "
            f"got {broken.dtype} of shape {tuple(broken.shape)}"
        )
    return measure(delta)[broken].mean()


def _check_images(delta: Tensor) -> None:
    if delta.ndim != 4 or delta.numel() == 0:
        raise InputError(
            "expected `delta` to be differences of images, of shape (N, C, H, W), "
            f"got shape {tuple(delta.shape)}"
        )
