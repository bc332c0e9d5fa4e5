r"""The 1/2-quasinorm of GSE, :math:`\lambda \|w\|_{1/2}^{1/2} = \sum_i \lambda_i |w_i|^{1/2}`."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_BLUR_SIZE, _BLUR_STD = 5, 1.5


def half_prox(values: Tensor, trade_off: Tensor | float) -> Tensor:
    r"""Proximal operator of the 1/2-quasinorm, entry by entry.

    .. math::
        \operatorname*{arg\,min}_w\ (w - u)^2 + \lambda |w|^{1/2} = \begin{cases}
        \frac{2}{3} u \left(1 + \cos(\frac{2\pi}{3} - \frac{2}{3} \varphi)\right)
        & |u| > \frac{\sqrt[3]{54}}{4} \lambda^{2/3} \\ 0 & \text{otherwise} \end{cases}
        \qquad \varphi = \arccos\left(\frac{\lambda}{8} \left(\frac{|u|}{3}\right)^{-3/2}\right)

    There is no ½ on the square. The result jumps: just above the threshold it is two thirds of it.

    Args:
        values: u, any shape; no half precision.
        trade_off: λ, at least 0, broadcast against ``values``.

    Returns:
        The shape of ``values``.

    Reference:
        Xu, Chang, Xu, Zhang: L1/2 regularization: a thresholding representation theory and a fast
        solver, IEEE TNNLS 23(7), 2012.

    Example:
        >>> half_prox(torch.tensor([-3.0, 0.0, 1.5, 1.51]), 2.0)
        tensor([-2.6955,  0.0000,  0.0000,  1.0133])
    """
    trade_off = torch.as_tensor(trade_off, dtype=values.dtype, device=values.device)
    sizes = values.abs()
    threshold = 54 ** (1 / 3) / 4 * trade_off ** (2 / 3)
    scaled = 3 / sizes
    # At the threshold this is 1/√2; what lies below it is not used.
    cosine = (trade_off / 8 * scaled * scaled.sqrt()).clamp_(max=1)
    angle = 2 * math.pi / 3 - 2 / 3 * cosine.acos_()
    shrunk = 2 / 3 * values * (1 + angle.cos_())
    return torch.where(sizes > threshold, shrunk, 0)


def largest_trade_off(gradient: Tensor, sigma: float) -> Tensor:
    r"""Smallest λ with which the first step of size σ moves nothing.

    .. math:: \lambda_{\max} = \frac{8}{\sqrt{54}} \sqrt{\sigma}\, \|g\|_\infty^{3/2}

    which makes σ‖g‖ the threshold of :func:`half_prox` for σλ. The authors' code bisects for it.

    Args:
        gradient: g at the clean input, shape ``(N, ...)``.
        sigma: σ.

    Returns:
        Shape ``(N,)``.

    Example:
        >>> gradient, sigma = torch.tensor([[2.0, -4.0]]), 0.25
        >>> largest = largest_trade_off(gradient, sigma)
        >>> half_prox(sigma * gradient, sigma * 1.001 * largest)
        tensor([[0., 0.]])
        >>> half_prox(sigma * gradient, sigma * 0.999 * largest).count_nonzero().item()
        1
    """
    return 8 / math.sqrt(54) * math.sqrt(sigma) * gradient.abs().flatten(1).amax(dim=1) ** 1.5


def adjusted_trade_off(trade_off: Tensor, moved: Tensor, q: float) -> Tensor:
    r"""AdjustLambda: make pixels cheaper around those that moved, and dearer elsewhere.

    .. math::
        \lambda_p \leftarrow \begin{cases} \lambda_p / (1 + b_p) & b_p > 0 \\
        \lambda_p / q & b_p = 0 \end{cases}

    where b is 1 at the pixels that moved and 0 elsewhere, blurred by a Gaussian of five pixels a
    side and a standard deviation of 1.5, with the image reflected at its border.

    Args:
        trade_off: λ, shape ``(N, 1, H, W)``.
        moved: the perturbation, shape ``(N, C, H, W)``.
        q: in (0, 1].

    Returns:
        Shape ``(N, 1, H, W)``.

    Example:
        >>> moved = torch.zeros(1, 3, 9, 9)
        >>> moved[0, 1, 4, 4] = 0.1
        >>> adjusted_trade_off(torch.ones(1, 1, 9, 9), moved, q=0.5)[0, 0, 4, 3:]
        tensor([0.9361, 0.9214, 0.9361, 0.9661, 2.0000, 2.0000])
    """
    changed = moved.abs().amax(dim=1, keepdim=True).sign_()
    offsets = torch.arange(_BLUR_SIZE, dtype=moved.dtype, device=moved.device) - _BLUR_SIZE // 2
    weights = torch.exp(-offsets.square() / (2 * _BLUR_STD**2))
    weights = weights / weights.sum()
    padded = F.pad(changed, [_BLUR_SIZE // 2] * 4, mode="reflect")
    blurred = F.conv2d(padded, weights.outer(weights)[None, None])
    return trade_off / torch.where(blurred > 0, 1 + blurred, q)
