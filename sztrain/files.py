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

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole_file(folder / "new" / "table.csv") as draft:
        ...     _ = draft.write_text("1,2")
        >>> [file.name for file in (folder / "new").iterdir()]
        ['table.csv']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


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
    try:
        with whole_file(path) as draft:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); make room or choose another folder"
        ) from error
