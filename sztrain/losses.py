r"""Losses of attacks and of training, one value a sample: sums over a batch are the caller's."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sztrain.errors import require_in
from sztrain.types import UNITS, Unit


def difference_of_logits(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Margin of the true class, :math:`f_y - \max_{k \ne y} f_k`: negative when misclassified.

    Args:
        logits: shape ``(N, K)`` with at least two classes.
        labels: int64 ``(N,)``.

    Returns:
        Shape ``(N,)``. A tie gives 0; of several rivals the first one takes the gradient.

    Reference:
        First term of Eq. 6 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_, unclipped.

    Example:
        >>> difference_of_logits(torch.tensor([[1.0, 4.0, 3.0]]), torch.tensor([1]))
        tensor([1.])
    """
    others = logits.detach().scatter(1, labels.unsqueeze(1), -torch.inf)
    pairs = torch.stack((labels, others.argmax(dim=1)), dim=1)
    true_logits, rivals = logits.gather(1, pairs).unbind(dim=1)
    return true_logits - rivals


def smooth_l0(delta: Tensor, sigma: float, unit: Unit = "features") -> Tensor:
    r"""Differentiable approximation of the l0 norm.

    .. math:: \hat\ell_0(\delta, \sigma) = \sum_{i=1}^d \frac{\delta_i^2}{\delta_i^2 + \sigma}

    Counting pixels, :math:`\delta_i^2` is the squared change of pixel i summed over its channels.

    Args:
        delta: differences, shape ``(N, ...)``; for pixels ``(N, C, H, W)``.
        sigma: smoothness, > 0.
        unit: what to count.

    Returns:
        Shape ``(N,)``, from 0 to the number of units d.

    Raises:
        InputError: ``unit`` is unknown.

    Reference:
        Eq. 7 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_.

    Example:
        >>> smooth_l0(torch.tensor([[0.0, 1.0, -1.0]]), sigma=1.0)
        tensor([1.])
    """
    square = _square_changes(delta, unit)
    return (square / (square + sigma)).flatten(1).sum(dim=1)


def smooth_l0_gradient(delta: Tensor, sigma: float | Tensor, unit: Unit = "features") -> Tensor:
    r"""Gradient in δ of :func:`smooth_l0`.

    .. math::
        \frac{\partial\hat\ell_0}{\partial\delta_i} =
        \frac{2 \sigma \delta_i}{(\delta_i^2 + \sigma)^2}

    Args:
        delta: differences, shape ``(N, ...)``; for pixels ``(N, C, H, W)``.
        sigma: smoothness, > 0; one for all, or one a sample, broadcast against ``delta``.
        unit: what to count.

    Returns:
        The shape of ``delta``.

    Raises:
        InputError: ``unit`` is unknown.

    Reference:
        Eq. 7 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_, differentiated by hand:
        backpropagation would pass over δ twice as often.

    Example:
        >>> smooth_l0_gradient(torch.tensor([[0.0, 1.0, -1.0]]), sigma=1.0)
        tensor([[ 0.0000,  0.5000, -0.5000]])
    """
    smoothed = _square_changes(delta, unit).add_(sigma)
    return (delta / smoothed).div_(smoothed).mul_(2 * sigma)


def _square_changes(delta: Tensor, unit: Unit) -> Tensor:
    require_in("unit", unit, UNITS)
    square = delta.square()
    return square.sum(dim=1, keepdim=True) if unit == "pixels" else square


def at_least_float32(logits: Tensor) -> Tensor:
    """The logits in single precision where they are in half, else as they are.

    What is left of nearly equal terms needs it: bfloat16 has eight bits, and a divergence of 1e-3
    would be rounding noise.

    Example:
        >>> at_least_float32(torch.zeros(1, 2, dtype=torch.bfloat16)).dtype
        torch.float32
        >>> at_least_float32(torch.zeros(1, 2, dtype=torch.float64)).dtype
        torch.float64
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def trades_kl(clean_logits: Tensor, adv_logits: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence :math:`KL(p_{clean} \,\|\, p_{adv})`, the regulariser of TRADES.

    Args:
        clean_logits: shape ``(N, K)``.
        adv_logits: shape ``(N, K)``.

    Returns:
        Shape ``(N,)``, at least 0, in single precision at least.

    Reference:
        Eq. 5 of `arXiv:1901.08573 <https://arxiv.org/abs/1901.08573>`_.

    Example:
        >>> trades_kl(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]))
        tensor([0.])
    """
    clean_logits, adv_logits = at_least_float32(clean_logits), at_least_float32(adv_logits)
    return F.kl_div(
        F.log_softmax(adv_logits, dim=1),
        F.log_softmax(clean_logits, dim=1),
        reduction="none",
        log_target=True,
    ).sum(dim=1)


def wrong_class_margin(logits: Tensor, labels: Tensor) -> Tensor:
    r"""How sure the net is of some wrong class, :math:`-\log(1 - \max_{k \ne y} p_k)`.

    Args:
        logits: shape ``(N, K)`` with at least two classes.
        labels: int64 ``(N,)``.

    Returns:
        Shape ``(N,)``, at least 0, in single precision at least; finite where ``1 - p`` would
        round to 0.

    Reference:
        Second term of the boosted cross-entropy of MART, `Wang et al. 2020
        <https://openreview.net/forum?id=rklOg6EFwS>`_.

    Example:
        >>> wrong_class_margin(torch.tensor([[0.0, 100.0]]), torch.tensor([0]))
        tensor([100.])
    """
    logits = at_least_float32(logits)
    rivals = logits.detach().scatter(1, labels.unsqueeze(1), -torch.inf).argmax(dim=1)
    # 1 - p_k is the share of all classes but k: no difference of numbers near 1 is taken.
    others = logits.scatter(1, rivals.unsqueeze(1), -torch.inf)
    return logits.logsumexp(dim=1) - others.logsumexp(dim=1)
