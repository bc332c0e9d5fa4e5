"""One process, or team of processes, in a folder at a time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sztrain.errors import InputError

_FILE = ".lock"


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep others from doing the same work in a folder twice.

    Args:
        folder: made if it is not there.

    Raises:
        InputError: another process is at work there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with one_at_a_time(folder):
        ...     pass
        >>> list(folder.iterdir())
        []
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process is at work in {folder}: wait until it has ended, or choose another "
            "folder (hydra.run.dir); several processes share the work with devices=, and where "
            f"there is none, remove {folder / _FILE}"
        ) from None
    except NotImplementedError:  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # before it is free: whoever waits finds another file
            (folder / _FILE).unlink(missing_ok=True)
        lock.release()
