"""Progress where there is no terminal for a bar, as in a batch job's log file."""

import time

from rich.console import Console


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
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
