"""The space that attacks work in, images in [0, 1], and the one that someone's loader yields."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from sztrain.errors import InputError

ROUNDING = 1e-4
"""How far undoing a normalisation in float32 may leave [0, 1]; half precision has its own."""


@dataclass(frozen=True, kw_only=True)
class ImageSpace:
    r"""How the values of a loader, :math:`x`, and images in [0, 1] belong together.

    .. math:: x = \frac{(h - l) \cdot \text{image} + l - \mu}{s}

    Args:
        mean: μ, one number, or one a channel, in the units of ``box``; ``None``: 0.
        std: s, alike and positive; ``None``: 1.
        box: (l, h), the range of the values before they were normalised.

    Raises:
        InputError: a deviation that is not positive, or a box that is none.

    Example:
        >>> space = ImageSpace(box=(-1.0, 1.0))
        >>> space.to_images(torch.tensor([[-1.0, 0.0, 1.0]]))
        tensor([[0.0000, 0.5000, 1.0000]])
        >>> space.from_images(torch.tensor([[0.0, 0.5, 1.0]]), torch.float32)
        tensor([[-1.,  0.,  1.]])
    """

    mean: Sequence[float] | float | None = None
    std: Sequence[float] | float | None = None
    box: Sequence[float] = (0.0, 1.0)
    _affines: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        box = tuple(self.box)
        if len(box) != 2 or not -inf < box[0] < box[1] < inf:
            raise InputError(
                f"expected `box` to be (low, high), finite and with low < high, got {self.box}"
            )
        mean, std = _numbers(self.mean, 0.0), _numbers(self.std, 1.0)
        if not (bool(mean.isfinite().all()) and bool(std.isfinite().all() and (std > 0).all())):
            raise InputError(
                "expected `mean` to be finite and `std` positive, one number or one a channel, "
                f"got mean={self.mean} and std={self.std}"
            )

    def to_images(self, inputs: Tensor) -> Tensor:
        """Images of what a loader yields, float32 (float64 where that is), shape ``(N, C, ...)``.

        Rounding in the loader's precision may leave [0, 1] a little; it is clipped.

        Raises:
            InputError: values that are no images, or a number of channels that is not the one of
                ``mean`` and ``std``.
        """
        images = inputs if inputs.dtype == torch.float64 else inputs.float()
        if not self._is_identity:
            scale, shift = self._affine(images)
            images = (images - shift) / scale
        if images.numel() == 0:
            return images
        precision = torch.finfo(inputs.dtype).eps if inputs.is_floating_point() else 0.0
        tolerance = max(ROUNDING, precision)
        lowest, highest = (float(bound) for bound in images.detach().aminmax())
        if not (lowest >= -tolerance and highest <= 1 + tolerance):
            raise InputError(self._refusal(lowest, highest))
        return images.clamp(0, 1)

    def from_images(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """What the loader would have yielded for ``images``, in its ``dtype``; differentiable."""
        if not self._is_identity:
            scale, shift = self._affine(images)
            images = images * scale + shift
        return images.to(dtype)

    @property
    def _is_identity(self) -> bool:
        return self.mean is None and self.std is None and tuple(self.box) == (0, 1)

    def _affine(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift from images to inputs, in shapes that meet the channels of ``like``."""
        key = (like.shape[1], like.dtype, like.device)
        if key not in self._affines:
            # Once: a copy from the host in each step of an attack cannot be part of a CUDA graph.
            with torch.inference_mode(mode=False):  # or no attack could derive what they scale
                self._affines[key] = self._make_affine(like)
        scale, shift = self._affines[key]
        shape = (-1, *[1] * (like.ndim - 2))
        return scale.view(shape), shift.view(shape)

    def _make_affine(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.box
        mean, std = _numbers(self.mean, 0.0), _numbers(self.std, 1.0)
        for numbers in (mean, std):
            if len(numbers) not in (1, like.shape[1]):
                raise InputError(
                    f"expected `mean` and `std` to have one number for each of {like.shape[1]} "
                    f"channels, got {len(numbers)}"
                )
        return ((high - low) / std).to(like), ((low - mean) / std).to(like)

    def _refusal(self, lowest: float, highest: float) -> str:
        found = f"got values from {lowest:.4g} to {highest:.4g}"
        if not self._is_identity:
            return (
                f"expected inputs in [0, 1] once mean={self.mean}, std={self.std} and "
                f"box={tuple(self.box)} are undone, {found}; give those of the validation loader"
            )
        return (
            f"expected inputs in [0, 1], {found}; tell SparseRobustness how the loader normalises "
            "(mean=, std=) or scales them (box=), or normalise inside the net, with "
            "sztrain.models.Normalize"
        )


def _numbers(given: Sequence[float] | float | None, default: float) -> Tensor:
    numbers = default if given is None else given
    return torch.as_tensor(numbers, dtype=torch.float64, device="cpu").reshape(-1)
