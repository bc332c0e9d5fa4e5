"""Keeps a gauge within its time."""

from collections.abc import Iterable, Iterator
from math import inf
from time import perf_counter
from typing import TypeVar

from sztrain.errors import require_positive

Item = TypeVar("Item")


class Pace:
    """Hands out batches until the time for them is up.

    Args:
        max_seconds: for all batches of one round; ``None``: no limit.
        max_share: the same as a share of the time since :meth:`start`; ``None``: no limit.

    Raises:
        InputError: a limit that is not above 0.

    Example:
        >>> list(Pace(max_seconds=1e-9).in_time(["first", "second"]))
        ['first']
    """

    def __init__(self, max_seconds: float | None = None, max_share: float | None = None) -> None:
        for name, value in (("max_seconds", max_seconds), ("max_share", max_share)):
            if value is not None:
                require_positive(name, value)
        self.max_seconds = max_seconds
        self.max_share = max_share
        self._started: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.max_seconds is not None or self.max_share is not None

    def start(self) -> None:
        """From here on runs the time of which ``max_share`` is a share."""
        self._started = perf_counter()

    def reset(self) -> None:
        """Nothing runs of which there could be a share."""
        self._started = None

    def in_time(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The first batch, and further ones while the slowest so far would still end in time.

        The time of a batch is that until the next one is asked for.
        """
        start, slowest = perf_counter(), 0.0
        limit = self._limit(start)
        for batch in batches:
            begun = perf_counter()
            if slowest > 0 and begun - start + slowest > limit:
                return
            yield batch
            slowest = max(slowest, perf_counter() - begun)

    def _limit(self, now: float) -> float:
        limit = inf if self.max_seconds is None else self.max_seconds
        if self.max_share is not None and self._started is not None:
            limit = min(limit, self.max_share * (now - self._started))
        return limit
