"""The gauge's bar, below Lightning's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sztrain.progress import SpacedLines


@contextmanager
def attack_bar(
    trainer: pl.Trainer, description: str, total: int
) -> Iterator[Callable[[int, str], None]]:
    """A bar where Lightning shows one, or lines where that has no terminal.

    Args:
        trainer: whose bar it is to join.
        description: what stands before it.
        total: number of samples.

    Returns:
        A function to call with the number of samples done and what to say of them so far.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),  # a batch may take minutes, in which nothing else moves
        TimeRemainingColumn(),
        TextColumn("{task.fields[found]}"),
        transient=True,
    )
    shown = trainer.progress_bar_callback is not None and trainer.is_global_zero
    progress.disable = not (shown and progress.console.is_terminal)
    lines = SpacedLines(progress.console)
    with progress:
        task = progress.add_task(description, total=total, found="")
        done = 0

        def advance(num_samples: int, found: str) -> None:
            nonlocal done
            done += num_samples
            progress.update(task, advance=num_samples, found=found)
            if shown:
                lines.tell(f"{description}: {done} of {total} samples, {found}")

        yield advance
