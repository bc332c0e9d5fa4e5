"""How far an attack is: a bar on a terminal, and lines in a log file, where a bar cannot move."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import rich
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column


@contextmanager
def attack_progress(
    label: str,
    total: int,
    *,
    shown: bool,
    kept: bool = True,
    done: int = 0,
    share: str = "",
) -> Iterator[Callable[[int, str], None]]:
    """Shows how many samples have been attacked, and what was found so far.

    Args:
        label: what is attacked.
        total: number of samples.
        shown: whether anything is.
        kept: whether the bar stays at the end; in a log file a line says what it would.
        done: how many were done before; they say nothing about the time that is left.
        share: which samples these are, where they are not all.

    Returns:
        A function to call with the number of samples done and what to say of all so far.

    Example:
        >>> with attack_progress("M1", 512, shown=False) as advance:
        ...     advance(128, "median ℓ0 15")
    """
    console = rich.get_console()
    progress = Progress(
        # On a narrow screen over two lines: its end tells one attack from the next.
        TextColumn(
            "{task.description}", table_column=Column(overflow="fold", ratio=1), markup=False
        ),
        BarColumn(bar_width=10, table_column=Column(min_width=10)),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
        # In the minutes of a batch nothing else moves.
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("left", table_column=Column(no_wrap=True, min_width=4)),
        console=console,
        expand=True,  # to the width of the screen
        transient=not kept,
        disable=not shown or not console.is_terminal,
        speed_estimate_period=3600,  # seconds; a batch may take minutes
    )
    lines, start, description = SpacedLines(console), time.monotonic(), label
    with progress:
        task = progress.add_task(label, total=total, completed=done)

        def advance(num_samples: int, found: str) -> None:
            nonlocal done, description
            done += num_samples
            description = f"{label}, {found}"
            progress.update(task, advance=num_samples, description=description)
            if shown and not (kept and done == total):
                lines.tell(f"{description}: {done} of {total} samples{share}")

        yield advance
    if shown and kept and not console.is_terminal:
        taken = timedelta(seconds=int(time.monotonic() - start))
        print_line(console, f"{description}: {done} of {total} samples{share} in {taken}")


def print_line(console: Console, text: str) -> None:
    """Print a text as it is, in one line."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class SpacedLines:
    r"""Prints what a bar would show as a line now and then; nothing on a terminal.

    Args:
        console: where to.
        every: seconds from one line to the next, at least, and to the first: what is done sooner
            needs none.

    Example:
        >>> import io
        >>> lines = SpacedLines(Console(file=io.StringIO()), every=0)
        >>> lines.tell("128 of 512 samples")
        >>> lines.console.file.getvalue()
        '128 of 512 samples\n'
    """

    def __init__(self, console: Console, every: float = 60.0) -> None:
        self.console = console
        self.every = every
        self._due = time.monotonic() + every

    def tell(self, text: str) -> None:
        """Print a line, if one is due."""
        now = time.monotonic()
        if self.console.is_terminal or now < self._due:
            return
        self._due = now + self.every
        print_line(self.console, text)
