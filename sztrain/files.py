"""Files that are whole or not there."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from sztrain.errors import InputError


@contextmanager
def whole_file(path: str | Path, *, replace: bool = True) -> Iterator[Path]:
    """A place to write at; what was written there moves to ``path`` when all went well.

    Nobody ever sees a part of the file, and one that was there before stays until then. Its folder
    is made where it is missing.

    Args:
        path: of the file.
        replace: whether one that is there by then gives way; if not, the first of several
            processes has made the file.

    Raises:
        InputError: it cannot be written; a full disk, say.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole_file(folder / "new" / "table.csv") as draft:
        ...     _ = draft.write_text("1,2")
        >>> [file.name for file in (folder / "new").iterdir()]
        ['table.csv']
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            if replace:
                draft.replace(path)
            else:
                _move_where_free(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); "
            "make room or choose another folder"
        ) from error


def _move_where_free(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            draft.replace(path)


def write_whole(path: str | Path, content: str | bytes, *, replace: bool = True) -> None:
    """Write a file whole or not at all.

    Args:
        path: of the file.
        content: of it; text in UTF-8.
        replace: see :func:`whole_file`.

    Raises:
        InputError: it cannot be written; a full disk, say.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> write_whole(path, "1,2")
        >>> path.read_text()
        '1,2'
    """
    with whole_file(path, replace=replace) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def set_aside(path: Path) -> None:
    """Keep a file that is about to be begun anew, under the first free number.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.csv"
        >>> for text in ("first", "second"):
        ...     _ = path.write_text(text)
        ...     set_aside(path)
        >>> {file.name: file.read_text() for file in sorted(path.parent.iterdir())}
        {'metrics.1.csv': 'first', 'metrics.2.csv': 'second'}
    """
    if path.is_file():
        numbered = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in count(1))
        path.rename(next(kept for kept in numbered if not kept.exists()))
