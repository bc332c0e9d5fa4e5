"""Ctrl-C where it must not come through at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait until libraries are imported.

    It reaches into their compiled parts otherwise, which abort the process, or leave a module half
    imported that then fails in ways of its own.

    Example:
        >>> try:
        ...     with interrupts_held_back():
        ...         signal.raise_signal(signal.SIGINT)
        ...         print("imported")
        ... except KeyboardInterrupt:
        ...     print("interrupted")
        imported
        interrupted
    """
    if threading.current_thread() is not threading.main_thread():  # signals are not its business
        yield
        return
    pressed = False

    def note(*_: Any) -> None:
        nonlocal pressed
        pressed = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
