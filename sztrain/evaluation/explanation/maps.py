"""Where a net looks: gradients and class activation maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sztrain.attacks.checks import validate_logits
from sztrain.errors import InputError, UnavailableError
from sztrain.evaluation.explanation._looks import as_attacked, logit_gradients_of, require_images


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
    with as_attacked(net, inputs, classes):
        (gradient,) = logit_gradients_of(net, inputs, [classes], centred=False)
    return gradient


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
            "class activation maps need captum, which is not installed: "
            "pip install -c constraints.txt -e '.[explain]' brings it"
        ) from error
    require_images(inputs)
    module = _layer(net, layer)
    with as_attacked(net, inputs, classes):
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
    # The floor is 0 already: where all of an image speaks for the class, all of it shows.
    high = maps.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > 0, maps / high, 0)


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
