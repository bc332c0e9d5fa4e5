"""Architectures of timm."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from sztrain.errors import InputError, did_you_mean, first_line, require_count
from sztrain.models.normalize import normalized

_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")


def timm_net(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    pretrained: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Any architecture of timm.

    Args:
        name: timm's name of the architecture, with or without the tag of a training.
        num_classes: number of logits K.
        in_channels: channels C of the images.
        pretrained: download timm's weights; these expect normalised images (``mean``, ``std``).
        mean: one number a channel for normalisation; ``None``: no normalisation.
        std: one positive number a channel; given together with ``mean``.
        **kwargs: passed on to ``timm.create_model``; none that names a file, which timm would read
            by executing what it says.

    Shape:
        Images ``(N, C, H, W)`` in [0, 1], of the size that the architecture takes; logits
        ``(N, K)``.

    Raises:
        InputError: no such architecture (the message lists close names), arguments it does not
            take, or weights that cannot be downloaded.

    Reference:
        https://huggingface.co/docs/timm

    Example:
        >>> net = timm_net("resnet10t", num_classes=10)
        >>> net.num_classes
        10
    """
    require_count("num_classes", num_classes, 2)
    require_count("in_channels", in_channels, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside timm, nothing a user can act on
        import timm
    # The configuration of a training may also be its tag.
    named = [key for key in _FILES if key in kwargs and not _is_tag(key, kwargs[key])]
    if named:
        raise InputError(
            f"expected no {' or '.join(named)}: timm executes what a file that it names says; "
            "load weights with start_from=..., or sztrain.models.load_net"
        )
    if not timm.is_model(str(name)):
        close = did_you_mean(str(name), timm.list_models())
        raise InputError(f"timm has no architecture named {name!r}{close}")
    try:
        net = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **kwargs
        )
    except Exception as error:  # timm and its download clients have no common error class
        what = "load the weights of" if pretrained else "build"
        raise InputError(f"timm cannot {what} {name!r}: {first_line(error)}") from error
    return normalized(net, mean, std, in_channels)


def _is_tag(key: str, value: object) -> bool:
    return key == "pretrained_cfg" and isinstance(value, str)
