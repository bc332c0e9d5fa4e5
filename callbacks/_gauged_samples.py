"""The samples that a gauge attacks."""

import pytorch_lightning as pl
import torch
from torch import Tensor

from sztrain.callbacks.sample_store import SampleStore
from sztrain.errors import InputError


class GaugedSamples:
    """Collects the samples of each stage, in every process its share of them.

    Those of a validation are a random choice; those of a test the first, as published figures take
    them.

    Example:
        >>> samples = GaugedSamples()
        >>> trainer = pl.Trainer(logger=False, accelerator="cpu")
        >>> samples.add(trainer, "val", torch.rand(5, 1, 2, 2), torch.arange(5), num_samples=2)
        >>> len(samples.labels("val")), samples.shape("val")
        (2, torch.Size([1, 2, 2]))
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new run may bring new data."""
        self._stores: dict[str, SampleStore] = {}
        self._complete: set[str] = set()

    def forget(self, stage: str) -> None:
        """Forget the samples of a stage."""
        self._stores.pop(stage, None)

    def wants(self, stage: str) -> bool:
        """Whether there may be more samples to come."""
        return stage not in self._complete

    def complete(self, stage: str) -> None:
        """All samples of the stage have been seen."""
        self._complete.add(stage)

    def add(
        self,
        trainer: pl.Trainer,
        stage: str,
        images: Tensor,
        labels: Tensor,
        num_samples: int | None,
        seed: int = 0,
    ) -> None:
        """Show a batch.

        Args:
            trainer: tells which of how many processes this is.
            stage: ``val`` or ``test``.
            images: shape ``(N, ...)``.
            labels: int64 ``(N,)``.
            num_samples: how many to keep of the stage, over all processes; ``None``: all.
            seed: of the choice.
        """
        if stage not in self._stores:
            share = None
            if num_samples is not None:  # Lightning deals samples out in turn
                rest = num_samples % trainer.world_size
                share = num_samples // trainer.world_size + (trainer.global_rank < rest)
            # Another choice in each process, or they would attack runs of neighbours.
            own_seed = seed + trainer.global_rank if stage == "val" else None
            self._stores[stage] = SampleStore(share, own_seed)
        self._stores[stage].add(images, labels)

    def labels(self, stage: str) -> Tensor:
        """Labels of all samples kept, int64 ``(M,)``.

        Raises:
            InputError: there are none.
        """
        return self._store(stage).labels

    def shape(self, stage: str) -> torch.Size:
        """Shape of one sample.

        Raises:
            InputError: there are none.
        """
        return self._store(stage).inputs.shape[1:]

    def batches(
        self, stage: str, batch_size: int, *, by_priority: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """All samples kept, if there are any; see :meth:`SampleStore.batches`."""
        if stage not in self._stores:
            return []
        return self._stores[stage].batches(batch_size, by_priority=by_priority)

    def _store(self, stage: str) -> SampleStore:
        if stage not in self._stores:
            raise InputError(
                f"the {stage} loader of this process gave no samples to attack; give it at least "
                "one batch, or use fewer processes"
            )
        return self._stores[stage]
