"""A fixed, seeded subset of the samples that pass by."""

from typing import Any

import torch
from torch import Tensor

_PRIORITIES: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}


class SampleStore:
    """Keeps ``num_samples`` of all samples it is shown, on the CPU.

    With a seed, every sample draws a random priority in its turn and the smallest stay, so the
    subset is uniform over all samples and depends on their order and the seed alone; it needs no
    knowledge of how many will come and does not touch the global random state.

    Args:
        num_samples: how many to keep; ``None``: all.
        seed: of the choice; ``None``: the first samples that come.

    Example:
        >>> store = SampleStore(num_samples=2)
        >>> for batch in torch.arange(6.0).view(3, 2, 1):
        ...     store.add(batch, torch.zeros(2, dtype=torch.int64))
        >>> len(store.labels)
        2
    """

    def __init__(self, num_samples: int | None, seed: int | None = 0) -> None:
        self.num_samples = num_samples
        self._generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
        self._num_seen = 0
        self._priorities = torch.empty(0, **_PRIORITIES)
        self._inputs: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, inputs: Tensor, labels: Tensor) -> None:
        """Show a batch: inputs ``(N, ...)`` and labels ``(N,)``."""
        if self._generator is None:
            priorities = torch.arange(len(inputs), **_PRIORITIES) + self._num_seen
        else:
            priorities = torch.rand(len(inputs), generator=self._generator, **_PRIORITIES)
        self._num_seen += len(inputs)
        known = self._priorities
        self._priorities = torch.cat([known, priorities])
        full = self.num_samples is not None and len(known) == self.num_samples
        if full and not bool((priorities < known.max()).any()):
            self._priorities = known
            return
        # Clones: the caller may reuse or change its batch, and inference tensors cannot stay.
        with torch.inference_mode(False):
            self._inputs.append(inputs.detach().to("cpu", copy=True))
            self._labels.append(labels.detach().to("cpu", copy=True))
            self._shrink()

    def _shrink(self) -> None:
        if self.num_samples is None or len(self._priorities) <= self.num_samples:
            return
        keep = self._priorities.argsort(stable=True)[: self.num_samples].sort().values
        self._inputs = [torch.cat(self._inputs)[keep]]
        self._labels = [torch.cat(self._labels)[keep]]
        self._priorities = self._priorities[keep]

    @property
    def inputs(self) -> Tensor:
        """The samples kept, in the order they came, shape ``(M, ...)``."""
        self._inputs = [torch.cat(self._inputs)]
        return self._inputs[0]

    @property
    def labels(self) -> Tensor:
        """Their labels, int64 ``(M,)``; empty before the first batch."""
        none = torch.empty(0, dtype=torch.int64, device="cpu")
        return torch.cat(self._labels) if self._labels else none

    def batches(self, batch_size: int, *, by_priority: bool = False) -> list[tuple[Tensor, Tensor]]:
        """The samples kept, in batches of at most ``batch_size``.

        In the order they came; or ``by_priority``, so that the first few batches are again a
        uniform choice of all samples, the same each time.
        """
        if not self._labels:
            return []
        inputs, labels = self.inputs, self.labels
        if by_priority:
            order = self._priorities.argsort(stable=True)
            inputs, labels = inputs[order], labels[order]
        return list(
            zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
        )
