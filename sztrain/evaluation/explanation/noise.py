"""What each of the changes of an example does to a net."""

import torch
from torch import Tensor, nn

from sztrain.attacks.checks import validate_logits
from sztrain.errors import InputError, require_count
from sztrain.evaluation.explanation._looks import as_attacked, logit_gradients_of, require_pairs
from sztrain.metrics.saliency import NoiseLabels, noise_labels


def noise_scores(
    net: nn.Module,
    inputs: Tensor,
    adv_inputs: Tensor,
    labels: Tensor,
    targets: Tensor,
    num_points: int = 32,
) -> tuple[Tensor, Tensor]:
    r"""How much each pixel obscures the true class y and leads to the reached class t.

    .. math::
        o_p = -I_y(p), \quad l_p = I_t(p), \quad
        I_c(p) = \sum_{\text{channels}} \delta_p \frac{1}{M} \sum_{m=1}^M
        \frac{\partial \tilde Z_c}{\partial x_p}\left(x + \tfrac{m - 1/2}{M} \delta\right)

    with the centred logits :math:`\tilde Z_c = Z_c - \frac1K \sum_k Z_k`. What the net's logits
    change by is divided among the pixels: :math:`\sum_p o_p = \tilde Z_y(x) - \tilde Z_y(x_{adv})`
    and :math:`\sum_p l_p = \tilde Z_t(x_{adv}) - \tilde Z_t(x)`, but for the error of M points.

    Args:
        net: maps images to logits ``(N, K)``.
        inputs: x, images in [0, 1], shape ``(N, C, H, W)``.
        adv_inputs: same shape.
        labels: y, int64 ``(N,)``.
        targets: t, int64 ``(N,)``.
        num_points: M, points on the way; a forward and two backward passes each.

    Returns:
        o and l, each of shape ``(N, H, W)``; zero where nothing was changed.

    Raises:
        InputError: what are no images, shapes that differ, or classes of a wrong kind.

    Reference:
        Obscuring and leading noise: `arXiv:2506.17250 <https://arxiv.org/abs/2506.17250>`_, without
        a formula; this one is ours, after the integrated gradients of `arXiv:1703.01365
        <https://arxiv.org/abs/1703.01365>`_.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        >>> _ = net[1].weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
        >>> inputs, adv_inputs = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.5, 0.75]]]])
        >>> label, target = torch.tensor([0]), torch.tensor([1])
        >>> obscuring, leading = noise_scores(net, inputs, adv_inputs, label, target)
        >>> obscuring.tolist(), leading.tolist()
        ([[[0.5, 0.75]]], [[[0.5, 0.75]]])
    """
    require_count("num_points", num_points, 1)
    require_pairs(inputs, adv_inputs)
    with as_attacked(net, inputs, labels):
        inputs, delta = inputs.detach().clone(), (adv_inputs - inputs).detach()
        sums = [torch.zeros_like(inputs), torch.zeros_like(inputs)]
        for point in range(num_points):
            moved = inputs + (point + 0.5) / num_points * delta
            for total, gradient in zip(
                sums, logit_gradients_of(net, moved, [labels, targets], centred=True), strict=True
            ):
                total.add_(gradient)
        of_label, of_target = ((total * delta).sum(dim=1) / num_points for total in sums)
    return -of_label, of_target


def label_noise(
    net: nn.Module,
    inputs: Tensor,
    adv_inputs: Tensor,
    labels: Tensor,
    num_points: int = 32,
) -> NoiseLabels:
    """Label every changed pixel: it obscures the true class, leads to the reached one, or neither.

    Args:
        net: maps images to logits ``(N, K)``.
        inputs: images in [0, 1], shape ``(N, C, H, W)``.
        adv_inputs: same shape.
        labels: true classes, int64 ``(N,)``; the reached ones are what the net predicts.
        num_points: see :func:`noise_scores`.

    Returns:
        Three masks of shape ``(N, H, W)``, each changed pixel in one of them.

    Raises:
        InputError: what are no images, shapes that differ, or classes of a wrong kind.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        >>> inputs = torch.rand(2, 1, 4, 4)
        >>> kinds = label_noise(net, inputs, inputs.round(), torch.tensor([0, 1]))
        >>> [kind.shape for kind in kinds]
        [torch.Size([2, 4, 4]), torch.Size([2, 4, 4]), torch.Size([2, 4, 4])]
    """
    require_pairs(inputs, adv_inputs)
    targets = _predictions(net, adv_inputs, labels)
    scores = noise_scores(net, inputs, adv_inputs, labels, targets, num_points)
    return noise_labels(adv_inputs - inputs, *scores)


def fooled_without(
    net: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, mask: Tensor
) -> Tensor:
    """Whether the net is still fooled when the pixels of a mask are put back as they were.

    The test of what :func:`label_noise` says: of pixels that do nothing, nobody should take notice.

    Args:
        net: maps images to logits ``(N, K)``.
        inputs: images in [0, 1], shape ``(N, C, H, W)``.
        adv_inputs: same shape.
        labels: true classes, int64 ``(N,)``.
        mask: pixels to put back, bool ``(N, H, W)``.

    Returns:
        bool ``(N,)``.

    Raises:
        InputError: what are no images, shapes that differ, a mask or labels of a wrong kind.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        >>> inputs, mask = torch.rand(2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
        >>> labels = net(inputs).argmax(dim=1)
        >>> fooled_without(net, inputs, inputs.round(), labels, mask)
        tensor([False, False])
    """
    require_pairs(inputs, adv_inputs)
    expected = (len(inputs), *inputs.shape[2:])
    if mask.shape != expected or mask.dtype != torch.bool:
        raise InputError(
            f"expected `mask` to be bool of shape {expected}, got {mask.dtype} of shape "
            f"{tuple(mask.shape)}"
        )
    restored = torch.where(mask.unsqueeze(1), inputs, adv_inputs)
    return _predictions(net, restored, labels) != labels


def _predictions(net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    with as_attacked(net, inputs, labels), torch.no_grad():
        logits: Tensor = net(inputs.clone())
    validate_logits(logits, labels)
    return logits.argmax(dim=1)
