"""Random sparse noise: what the clean images of a batch are mixed with before the adversary."""

import torch
from torch import Tensor

from sztrain.errors import require_count
from sztrain.norms import num_units
from sztrain.types import Unit


def add_sparse_noise(inputs: Tensor, most: int, unit: Unit = "features") -> Tensor:
    r"""Set randomly chosen units of each image to random values.

    For each image a number :math:`n \sim U\{0, \dots, most\}` is drawn, then n of its units, then
    values :math:`U[0, 1]` for them. Numbers come from torch's global random state.

    Args:
        inputs: images, shape ``(N, C, H, W)`` in [0, 1].
        most: largest number of units, at least 0; an image with fewer has them all drawn.
        unit: what is counted; of a pixel all channels are set.

    Returns:
        A new tensor of the shape of ``inputs``, in [0, 1].

    Raises:
        InputError: ``most`` is negative or no whole number.

    Reference:
        For l0 what N-FGSM (`arXiv:2202.01181 <https://arxiv.org/abs/2202.01181>`_) does for
        l-infinity: noise beyond the budget, added to the clean image, from which the adversary
        starts and against which it is counted, so that nothing is clipped back.

    Example:
        >>> noisy = add_sparse_noise(torch.full((3, 1, 8, 8), 2.0), most=5)
        >>> bool(((noisy != 2).flatten(1).sum(dim=1) <= 5).all())
        True
    """
    require_count("most", most, 0)
    size = num_units(inputs.shape[1:], unit)
    numbers = torch.randint(most + 1, (len(inputs), 1), device=inputs.device)
    ranks = torch.rand(len(inputs), size, device=inputs.device).argsort(dim=1)
    chosen = (ranks < numbers).view_as(inputs if unit == "features" else inputs[:, :1])
    return torch.where(chosen, torch.rand_like(inputs), inputs)
