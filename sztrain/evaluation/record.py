"""What an attack did to a sample, and what a batch cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

CHANGES = ("features", "pixels", "clusters")
"""Columns that count what was changed."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What an attack did to one sample: a row of ``records/<net>.csv``.

    Attributes:
        index: of the sample among those attacked; in the file of all of them, in its split.
        label: true class.
        clean_prediction: class predicted for the clean sample.
        l0: changes of the sparsest adversarial example; inf where there was none.
        success: whether the sample was broken.
        num_forwards: forward passes, as the attack counts them.
        num_backwards: backward passes, alike.
        broken_by: of an attack with several members, whose example it is, empty where none was
            needed or found; ``None``: the attack has no members, and the rows no such column.
        features: changed features of the example; 0 where none was needed or found; ``None``, and
            no such column: the samples are no images, or the record is of an earlier version.
        pixels: changed pixels, alike.
        clusters: clusters of changed pixels, alike.
    """

    index: int
    label: int
    clean_prediction: int
    l0: float
    success: bool
    num_forwards: int
    num_backwards: int
    broken_by: str | None = None
    features: int | None = None
    pixels: int | None = None
    clusters: int | None = None

    @classmethod
    def of_cells(cls, cells: Mapping[str, str]) -> "Record":
        """From its columns, as they were written.

        Raises:
            KeyError: a column is missing.
            ValueError: a cell is none that its column can have.

        Example:
            >>> row = Record(
            ...     index=0, label=7, clean_prediction=7, l0=2.0, success=True,
            ...     num_forwards=5, num_backwards=4,
            ... )
            >>> Record.of_cells({key: str(value) for key, value in row.cells().items()}) == row
            True
        """
        return cls(
            index=int(cells["index"]),
            label=int(cells["label"]),
            clean_prediction=int(cells["clean_prediction"]),
            l0=float(cells["l0"]),
            success={"True": True, "False": False}[cells["success"]],
            num_forwards=int(cells["num_forwards"]),
            num_backwards=int(cells["num_backwards"]),
            broken_by=cells.get("broken_by"),
            **{name: int(cells[name]) for name in CHANGES if name in cells},
        )

    @property
    def is_possible(self) -> bool:
        """Whether what it says of its sample goes together."""
        counts = (self.label, self.clean_prediction, self.num_forwards, self.num_backwards)
        if min(counts) < 0:
            return False
        if not self.success:
            return self.l0 == math.inf and not self.features
        whole = self.l0 >= 0 and self.l0.is_integer()
        return whole and (self.features is None or self.l0 in (self.features, self.pixels))

    def cells(self) -> dict[str, Any]:
        """Its columns and values."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a batch cost: not the same in every run, so it stands beside the records.

    Attributes:
        num_samples: size of the batch.
        seconds: wall time of the attack.
        num_forwards: samples that passed the net forwards, counted at the net.
        num_backwards: samples that passed it backwards, alike.
        peak_memory: bytes; allocated on a GPU, resident in the process on a CPU; 0: not known, as
            the process had needed more before.
        device: what it ran on: ``cpu``, or a GPU's name.
        torch: version of torch; empty: not known.
        sztrain: version of sztrain, alike.
    """

    num_samples: int
    seconds: float
    num_forwards: int
    num_backwards: int
    peak_memory: int
    device: str = "cpu"
    torch: str = ""
    sztrain: str = ""

    @property
    def is_possible(self) -> bool:
        """Whether every value is one that its field can have: JSON holds what it is given."""
        words = ("device", "torch", "sztrain")
        numbers = set(vars(self)) - set(words)
        return all(isinstance(getattr(self, name), str) for name in words) and all(
            type(getattr(self, name)) in (int, float) and 0 <= getattr(self, name) < math.inf
            for name in numbers
        )

    @property
    def seconds_per_sample(self) -> float:
        """Wall time of the attack for one sample."""
        return self.seconds / self.num_samples

    @property
    def passes_per_sample(self) -> float:
        """Forward and backward passes that one sample took."""
        return (self.num_forwards + self.num_backwards) / self.num_samples


def common_cells(rows: Sequence[Record]) -> list[dict[str, Any]]:
    """Columns and values of records, without columns that some of them lack.

    Batches of an earlier version lack those that came later.

    Example:
        >>> from dataclasses import replace
        >>> old = Record(
        ...     index=0, label=7, clean_prediction=7, l0=2.0, success=True,
        ...     num_forwards=5, num_backwards=4,
        ... )
        >>> new = replace(old, index=1, pixels=2)
        >>> "pixels" in common_cells([new])[0], "pixels" in common_cells([old, new])[1]
        (True, False)
    """
    cells = [row.cells() for row in rows]
    common = [key for key in cells[0] if all(key in other for other in cells)]
    return [{key: row[key] for key in common} for row in cells]


def total_cost(costs: Iterable[Cost]) -> Cost:
    """The sum of what batches cost, with the largest peak, all devices and versions.

    Example:
        >>> batch = Cost(num_samples=2, seconds=1, num_forwards=5, num_backwards=4, peak_memory=9)
        >>> both = total_cost([batch, batch])
        >>> both.num_samples, both.num_forwards, both.peak_memory, both.device
        (4, 10, 9, 'cpu')
    """
    costs = list(costs)
    return Cost(
        num_samples=sum(cost.num_samples for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        num_forwards=sum(cost.num_forwards for cost in costs),
        num_backwards=sum(cost.num_backwards for cost in costs),
        peak_memory=max((cost.peak_memory for cost in costs), default=0),
        device=", ".join(sorted({cost.device for cost in costs})),
        torch=", ".join(sorted({cost.torch for cost in costs if cost.torch})),
        sztrain=", ".join(sorted({cost.sztrain for cost in costs if cost.sztrain})),
    )
