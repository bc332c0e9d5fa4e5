"""The mean over the samples of an epoch, in whatever precision a net is trained."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torchmetrics import MeanMetric


class SampleMean(MeanMetric):
    """A mean whose sums stay in single precision at least.

    Lightning converts a module to half precision together with its metrics, and in bfloat16 a sum
    of 256 samples does not grow any more.

    Args:
        nan_strategy: see ``torchmetrics.MeanMetric``.
        **kwargs: passed on.

    Example:
        >>> mean = SampleMean().to(torch.bfloat16)
        >>> for value in 300 * (1.0, 0.0):
        ...     mean.update(value)
        >>> mean.compute()
        tensor(0.5000)
    """

    @property
    def dtype(self) -> torch.dtype:
        """Of the sums."""
        return torch.promote_types(super().dtype, torch.float32)

    def _apply(
        self, fn: Callable[..., torch.Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        super()._apply(fn, exclude_state)
        if self.mean_value.dtype != self.dtype:
            self.set_dtype(self.dtype)
        return self
