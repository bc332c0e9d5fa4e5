"""How a net is looked at to be explained, and what it is shown."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sztrain.attacks.checks import validate_batch, validate_logits
from sztrain.attacks.modes import attack_mode
from sztrain.errors import InputError


@contextmanager
def as_attacked(net: nn.Module, inputs: Tensor, classes: Tensor) -> Iterator[None]:
    """A batch that can be attacked, and the net as an attack sees it, in full precision."""
    validate_batch(inputs, classes)
    device = inputs.device
    with attack_mode(net, device), torch.autocast(device.type, enabled=False):
        yield


def logit_gradients_of(
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


def require_images(inputs: Tensor) -> None:
    """Refuse what is no batch of images."""
    if inputs.ndim != 4:
        raise InputError(
            f"expected `inputs` to be images of shape (N, C, H, W), got {tuple(inputs.shape)}"
        )


def require_pairs(inputs: Tensor, adv_inputs: Tensor) -> None:
    """Refuse what is no batch of images with another of the same shape."""
    require_images(inputs)
    if adv_inputs.shape != inputs.shape:
        raise InputError(
            f"expected `adv_inputs` to have the shape of `inputs`, {tuple(inputs.shape)}, "
            f"got {tuple(adv_inputs.shape)}"
        )
