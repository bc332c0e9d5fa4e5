"""Tell apart files that are missing, damaged, official, or simply other data in the same layout."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from filelock import FileLock

from sztrain.errors import InputError, UnavailableError, warn


@dataclass(frozen=True)
class Official:
    """What is known about a published file.

    Args:
        md5: hexadecimal checksum.
        size: bytes; ``None``: not known.
    """

    md5: str
    size: int | None


def check_files(folder: Path, officials: Mapping[str, Official], *, title: str) -> None:
    """Refuse a data set of which a file is missing, or damaged although it has the official size.

    Other sizes are let through with a warning: they are other data in the same layout (a subset,
    say), and the reader checks their structure.

    Args:
        folder: where the files lie.
        officials: the published files by name.
        title: name of the data set for messages.

    Raises:
        InputError: a file is missing or damaged.

    Example:
        >>> check_files(Path("nowhere"), {"batch": Official("0" * 32, 1)}, title="CIFAR-10")
        Traceback (most recent call last):
        ...
        sztrain.errors.UnavailableError: CIFAR-10 is not on disk: expected batch in nowhere; set \
data.download=true, or data.root (or SZTRAIN_DATA_DIR) to the folder above it
    """
    missing = [name for name in officials if not (folder / name).is_file()]
    if missing:
        raise UnavailableError(
            f"{title} is not on disk: expected {', '.join(missing)} in {folder}; set "
            "data.download=true, or data.root (or SZTRAIN_DATA_DIR) to the folder above it"
        )
    for name, official in officials.items():
        path = folder / name
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 == official.md5:
            continue
        if path.stat().st_size == official.size:
            raise InputError(
                f"{path} is damaged: its md5 is {md5}, that of {title} is {official.md5}; "
                "delete it and set data.download=true"
            )
        warn(f"{path} is not the file of {title} that was published")


def download_into(root: Path, fetch: Callable[[], object], *, title: str) -> None:
    """Run a download and report its failure in one line.

    Args:
        root: folder of the files.
        fetch: downloads what is not there yet.
        title: name of the data set for messages.

    Raises:
        UnavailableError: the download failed.

    Example:
        >>> import tempfile
        >>> download_into(Path(tempfile.mkdtemp()), lambda: None, title="MNIST")
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Of several processes the first fetches; the others then find the files.
        with FileLock(root / ".download.lock"):
            fetch()
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        reason = shorten(str(error), 200, placeholder=" ...")
        raise UnavailableError(
            f"{title} could not be downloaded into {root} ({reason}); check the network, or put "
            "the files there and set data.download=false"
        ) from error


def damaged(path: Path, reason: object) -> InputError:
    """The error for a file that is there but cannot be understood.

    Example:
        >>> print(damaged(Path("x.bin"), "it ends early"))
        x.bin is damaged: it ends early; delete it and fetch it again (data.download=true)
    """
    line = " ".join(str(reason).split())[:200]
    return InputError(
        f"{path} is damaged: {line}; delete it and fetch it again (data.download=true)"
    )
