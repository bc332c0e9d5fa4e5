"""What ``load`` of a data module returned, checked before anything is trained or judged on it."""

from collections.abc import Callable

import torch
from torch import Tensor

from sztrain.data.samples import Samples
from sztrain.errors import InputError, UnavailableError, first_line

Shape = tuple[int, int, int]
"""``(C, H, W)``."""


def load_two(owner: str, load: Callable[[], object]) -> tuple[Samples, Samples]:
    """Load training samples and test samples, and refuse anything else.

    Args:
        owner: name of the data module, for the message.
        load: its method, which may be a person's own.

    Raises:
        InputError: not two, or something else than samples.
        UnavailableError: a file is missing.

    Example:
        >>> load_two("Shapes", lambda: None)
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected `load` of Shapes to return two samples, those of the \
training and those of the test (sztrain.data.TensorSamples, say), got None
    """
    try:
        loaded = load()
    except FileNotFoundError as error:
        raise UnavailableError(
            f"the data of {owner} is not on disk: {first_line(error)}; check `data.root` (or "
            "SZTRAIN_DATA_DIR)"
        ) from error
    parts = loaded if isinstance(loaded, tuple | list) else ()
    if len(parts) == 2 and all(isinstance(part, Samples) for part in parts):
        return parts[0], parts[1]
    raise InputError(
        f"expected `load` of {owner} to return two samples, those of the training and those of the "
        f"test (sztrain.data.TensorSamples, say), got {_kind(loaded)}"
    )


def _kind(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if not isinstance(value, tuple | list):
        return f"a {type(value).__name__}"
    kinds = ", ".join(type(item).__name__ for item in value[:4])
    return f"a {type(value).__name__} of {len(value)} ({kinds}{', ...' * (len(value) > 4)})"


def check_form(what: str, samples: Samples) -> None:
    """Refuse samples that are not of the form that :class:`~sztrain.data.Samples` promises.

    The first of them is read, so that what is wrong with all of them shows now.

    Args:
        what: which samples, for the message.
        samples: of a class of a person's own, maybe.

    Raises:
        InputError: no samples, labels that are not int64 ``(N,)``, a shape that is none, or images
            of another one, not float32, or outside [0, 1].

    Example:
        >>> from sztrain.data import TensorSamples
        >>> images, labels = torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])
        >>> check_form("toys", TensorSamples(images=images, labels=labels, scale=1))
    """
    labels: object = getattr(samples, "labels", None)
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.dtype != torch.int64:
        raise InputError(
            f"expected the labels of {what} to be int64 of shape (N,), got {_kind(labels)}"
        )
    if len(labels) == 0:
        raise InputError(f"{what} has no samples; check `data.root`")
    shape = samples.image_shape
    if not _is_shape(shape):
        raise InputError(f"expected `image_shape` of {what} to be (C, H, W), got {shape!r}")
    image: object = samples.read(torch.tensor([0]))
    fits = isinstance(image, Tensor) and image.shape == (1, *shape)
    if not isinstance(image, Tensor) or not fits or image.dtype != torch.float32:
        raise InputError(
            f"expected `read` of {what} to give float32 of shape {(1, *shape)} for one sample, got "
            f"{_kind(image)}"
        )
    low, high = (float(bound) for bound in image.aminmax())
    if not (low >= 0 and high <= 1):  # written so that NaN is refused as well
        raise InputError(
            f"expected `read` of {what} to give values in [0, 1], got {low:g} to {high:g}; "
            "give them unnormalised"
        )


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) == 3
        and all(isinstance(size, int) and size > 0 for size in shape)
    )


def check_shape(owner: str, found: Shape, in_channels: int, expected: Shape | None) -> None:
    """Refuse images of another shape than the net is made for.

    Args:
        owner: name of the data module, for the message.
        found: shape ``(C, H, W)`` of the images of one part.
        in_channels: channels that the net takes.
        expected: shape that the data module states or that another part has; ``None``: any.

    Raises:
        InputError: other channels, or another size.

    Example:
        >>> check_shape("Shapes", (1, 8, 8), in_channels=1, expected=(1, 28, 28))
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected all images of Shapes to be of shape (1, 28, 28), as \
its `fixed_shape` or another part, got (1, 8, 8)
    """
    if found[0] != in_channels:
        raise InputError(
            f"the images of {owner} have {found[0]} channels but in_channels={in_channels}; set "
            "`data.in_channels` to match"
        )
    if expected is not None and found != expected:
        raise InputError(
            f"expected all images of {owner} to be of shape {expected}, as its `fixed_shape` or "
            f"another part, got {found}"
        )


def require_classes(owner: str, num_classes: int) -> None:
    """Refuse data of one class, of which there is nothing to learn.

    Args:
        owner: name of the data module, for the message.
        num_classes: how many classes it has.

    Raises:
        InputError: fewer than two.

    Example:
        >>> require_classes("Shapes", 3)
    """
    if num_classes < 2:
        raise InputError(
            f"expected {owner} to have samples of at least 2 classes, got {num_classes}; add the "
            "others, or check `data.root`"
        )
