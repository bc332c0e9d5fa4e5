"""Files that are whole or not there."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sztrain.errors import InputError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A place to write at; what was written there moves to ``path`` when all went well.

    Nobody ever sees a part of the file, and one that was there before stays until then. Its folder
    is made where it is missing.

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
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); "
            "make room or choose another folder"
        ) from error


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: it cannot be written; a full disk, say.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> write_whole(path, "1,2")
        >>> path.read_text()
        '1,2'
    """
    with whole_file(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
