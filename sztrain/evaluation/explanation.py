r"""What sparse changes say of a net: gradients, class activation maps, and what each change does.

Every function leaves the net as it found it and looks at it in eval mode, in full precision.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sztrain.attacks.base import attack_mode, validate_batch, validate_logits
from sztrain.errors import InputError, UnavailableError, require_count
from sztrain.metrics.saliency import NoiseLabels, noise_labels


def logit_gradients(net: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    r"""Gradient of one logit of each sample in its input, :math:`\partial Z_c / \partial x`.

    Args:
        net: maps inputs to logits ``(N, K)``.
        inputs: shape ``(N, ...)`` in [0, 1].
        classes: c, int64 ``(N,)``.

    Returns:
        The shape of ``inputs``.

    Raises:
        InputError: inputs or classes of a wrong kind.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> gradients = logit_gradients(net, torch.rand(2, 2), torch.tensor([2, 0]))
        >>> torch.equal(gradients, net.weight[[2, 0]])
        True
    """
    with _as_attacked(net, inputs, classes):
        (gradient,) = _gradients(net, inputs, [classes], centred=False)
    return gradient


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
    _check_pairs(inputs, adv_inputs)
    with _as_attacked(net, inputs, labels):
        inputs, delta = inputs.detach().clone(), (adv_inputs - inputs).detach()
        sums = [torch.zeros_like(inputs), torch.zeros_like(inputs)]
        for point in range(num_points):
            moved = inputs + (point + 0.5) / num_points * delta
            for total, gradient in zip(
                sums, _gradients(net, moved, [labels, targets], centred=True), strict=True
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
        InputError: what are no images, shapes that differ, or labels of a wrong kind.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        >>> inputs, mask = torch.rand(2, 1, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
        >>> labels = net(inputs).argmax(dim=1)
        >>> fooled_without(net, inputs, inputs.round(), labels, mask)
        tensor([False, False])
    """
    _check_pairs(inputs, adv_inputs)
    restored = torch.where(mask.unsqueeze(1), inputs, adv_inputs)
    return _predictions(net, restored, labels) != labels


def class_activation_maps(
    net: nn.Module, inputs: Tensor, classes: Tensor, layer: str | None = None
) -> Tensor:
    r"""Grad-CAM: where a net finds evidence for a class.

    .. math:: \operatorname{ReLU}\left(\sum_k a_k A_k\right), \qquad
        a_k = \operatorname*{mean}_{ij} \frac{\partial Z_c}{\partial A_k(i, j)}

    for the maps :math:`A_k` of a layer, enlarged to the size of the image (bilinear) and scaled to
    [0, 1], each by itself; all zero where nothing speaks for the class.

    Args:
        net: maps images to logits ``(N, K)``.
        inputs: images in [0, 1], shape ``(N, C, H, W)``.
        classes: c, int64 ``(N,)``.
        layer: name of the submodule whose output is taken, of shape ``(N, k, h, w)``; ``None``: the
            last convolution.

    Returns:
        Shape ``(N, 1, H, W)``.

    Raises:
        UnavailableError: the package captum is not installed.
        InputError: no such layer, or one without maps.

    Reference:
        Selvaraju et al., `arXiv:1610.02391 <https://arxiv.org/abs/1610.02391>`_, Eqs. 1 and 2, as
        computed by captum.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
        >>> class_activation_maps(net, torch.rand(2, 1, 4, 4), torch.tensor([0, 1])).shape
        torch.Size([2, 1, 4, 4])
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise UnavailableError(
            "class activation maps need the package captum: pip install captum"
        ) from error
    _check_images("inputs", inputs)
    module = _layer(net, layer)
    with _as_attacked(net, inputs, classes):
        with torch.no_grad():
            validate_logits(net(inputs.clone()), classes)
        leaf = inputs.detach().clone().requires_grad_()
        maps = LayerGradCam(net, module).attribute(
            leaf.clone(), target=classes.clone(), relu_attributions=True
        )
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            raise InputError(
                f"expected the output of layer {layer} to be maps of shape (N, k, h, w), "
                "name a convolution or what follows it"
            )
        maps = F.interpolate(
            maps.detach(), size=inputs.shape[2:], mode="bilinear", align_corners=False
        )
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0)


def _layer(net: nn.Module, name: str | None) -> nn.Module:
    if name is None:
        convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            raise InputError("expected a net with a convolution, found none; name a `layer`")
        return convolutions[-1]
    named: dict[str, nn.Module] = dict(net.named_modules())
    if name not in named:
        raise InputError(
            f"expected `layer` to be one of {', '.join(key for key in named if key)}, got {name}"
        )
    return named[name]


@contextmanager
def _as_attacked(net: nn.Module, inputs: Tensor, classes: Tensor) -> Iterator[None]:
    validate_batch(inputs, classes)
    device = inputs.device
    with attack_mode(net, device), torch.autocast(device.type, enabled=False):
        yield


def _gradients(
    net: nn.Module, inputs: Tensor, classes: list[Tensor], *, centred: bool
) -> Iterator[Tensor]:
    """Gradient in the inputs of the logit of each of ``classes``, one after the other."""
    leaf = inputs.detach().clone().requires_grad_()
    logits = net(leaf.clone())  # a copy: the first layer of the net may work in place
    if centred:
        logits = logits - logits.mean(dim=1, keepdim=True)
    for i, index in enumerate(classes, start=1):
        validate_logits(logits, index)
        chosen = logits.gather(1, index.clone().unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(chosen, leaf, retain_graph=i < len(classes))
        yield gradient


def _predictions(net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    with _as_attacked(net, inputs, labels), torch.no_grad():
        predictions: Tensor = net(inputs.clone()).argmax(dim=1)
    return predictions


def _check_images(name: str, images: Tensor) -> None:
    if images.ndim != 4:
        raise InputError(
            f"expected `{name}` to be images of shape (N, C, H, W), got {tuple(images.shape)}"
        )


def _check_pairs(inputs: Tensor, adv_inputs: Tensor) -> None:
    _check_images("inputs", inputs)
    if adv_inputs.shape != inputs.shape:
        raise InputError(
            f"expected `adv_inputs` to have the shape of `inputs`, {tuple(inputs.shape)}, "
            f"got {tuple(adv_inputs.shape)}"
        )
