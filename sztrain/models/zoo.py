"""Nets with weights, by name or by file."""

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from http.client import HTTPException
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from sztrain.errors import InputError, did_you_mean, warn
from sztrain.files import write_whole
from sztrain.models._checks import require_path
from sztrain.models.checkpoint import (
    assemble,
    build_net,
    checkpoints_in,
    net_from_checkpoint,
    read_checkpoint,
)
from sztrain.models.net_file import read_net_file
from sztrain.models.paper_nets import PAPER_CARDS, NetCard
from sztrain.models.state_dicts import (
    bare_weights,
    cannot_download,
    download,
    read_bytes,
    read_plain,
    weights_dir,
)

__all__ = ["CARDS", "NetCard", "describe_net", "load_net"]

_SHIPPED_CARDS = (
    NetCard(
        name="digits_standard",
        data="digits",
        file="digits_standard.safetensors",
        description="digits_cnn trained by this project on clean images",
        method="standard",
    ),
    NetCard(
        name="digits_sparse_at",
        data="digits",
        file="digits_sparse_at.safetensors",
        description="digits_cnn trained by this project against sparse attacks",
        method="sparse_at",
    ),
    NetCard(
        name="mnist_sparse_at",
        data="mnist",
        file="mnist_sparse_at.safetensors",
        description="small_cnn trained by this project against sparse attacks",
        method="sparse_at",
    ),
    NetCard(
        name="mnist_trades",
        data="mnist",
        file="mnist_trades.safetensors",
        description="mnist_sparse_at fine-tuned by this project against sparse attacks",
        method="trades",
    ),
    NetCard(
        name="mnist_trades_ema",
        data="mnist",
        file="mnist_trades_ema.safetensors",
        description="mnist_trades fine-tuned by this project once more, averaged weights",
        method="trades",
    ),
)

CARDS: Mapping[str, NetCard] = MappingProxyType(
    {card.name: card for card in (*PAPER_CARDS, *_SHIPPED_CARDS)}
)
"""Every net that has a name, by that name: those of :mod:`sztrain.models.paper_nets` and ours."""


def load_net(name_or_path: str | Path) -> nn.Module:
    """Load a net with its weights.

    The weights of a published net lie at the ``file`` of its card below
    :func:`~sztrain.models.weights_dir` and are downloaded to that place where they are missing.
    What is published with a checksum is checked against it, always. C5 and C10 are not: the
    checksum of the first file that loads is noted beside it, in ``<file>.sha256``, and every later
    one is checked against that. (RobustBench publishes none, and its nets are not pinned.) Nothing
    in a file is executed.

    Args:
        name_or_path: a name of :data:`CARDS`, or a ``.ckpt`` (a training's checkpoint) or
            ``.safetensors`` file (:func:`~sztrain.models.save_net`).

    Returns:
        The net in evaluation mode, on the CPU.

    Raises:
        UnavailableError: the weights of a published net are not here and cannot be downloaded.
        InputError: no name, or no such name or file; a file that is damaged, has another checksum
            than published or noted, or holds weights of another architecture or not finite.

    Example:
        >>> load_net("digits_sparse")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected a net's name (M1, M2, C1, C2, C3, C4, C5, C6, C7, C8, \
C9, C10, I1, I2, I3, I4, I5, I6, digits_standard, digits_sparse_at, mnist_sparse_at, mnist_trades, \
mnist_trades_ema) or a .ckpt or .safetensors file, got digits_sparse; did you mean \
digits_sparse_at or digits_standard or mnist_sparse_at?
    """
    kind = _kind(name_or_path)
    if kind == ".ckpt":
        return net_from_checkpoint(name_or_path)
    if kind == ".safetensors":
        return assemble(*read_net_file(Path(name_or_path)), str(name_or_path))
    card = CARDS[str(name_or_path)]
    if not card.spec:
        return assemble(*_read_shipped(card), card.name)
    return _load_file(card) if card.url else build_net(card.spec)


def describe_net(name_or_path: str | Path) -> dict[str, object]:
    """What is known about a net: on which data it works, how it was built and trained.

    Args:
        name_or_path: as for :func:`load_net`.

    Returns:
        ``net`` (its specification), ``data`` (``data["name"]`` is the config group's name of the
        data set), ``unit`` and ``method``, as plain containers.

    Raises:
        InputError: no such name or file, or a damaged one.

    Example:
        >>> describe_net("C9")["data"]
        {'name': 'cifar10'}
    """
    kind = _kind(name_or_path)
    if kind == ".ckpt":
        hyper_parameters = read_checkpoint(name_or_path)["hyper_parameters"]
        assert isinstance(hyper_parameters, dict)
        return hyper_parameters
    if kind == ".safetensors":
        return read_net_file(Path(name_or_path))[0]
    card = CARDS[str(name_or_path)]
    if not card.spec:
        return _read_shipped(card)[0]
    return {
        "net": deepcopy(dict(card.spec)),
        "data": {"name": card.data},
        "unit": card.unit,
        "method": {"name": card.method},
    }


def _kind(name_or_path: str | Path) -> str:
    """``card``, ``.ckpt`` or ``.safetensors``."""
    require_path("a net, or of its .ckpt or .safetensors file,", name_or_path)
    if str(name_or_path) in CARDS:
        return "card"
    path = Path(name_or_path)
    suffix = path.suffix
    if suffix not in (".ckpt", ".safetensors"):
        found = f"{name_or_path}{did_you_mean(str(name_or_path), CARDS)}"
        if path.is_dir():
            found = f"the folder {path}{checkpoints_in(path)}"
        raise InputError(
            f"expected a net's name ({', '.join(CARDS)}) or a .ckpt or .safetensors file, got "
            f"{found}"
        )
    return suffix


def _read_shipped(card: NetCard) -> tuple[dict[str, object], dict[str, Tensor]]:
    with as_file(files("sztrain.models") / "weights" / card.file) as path:
        return read_net_file(path)


def _load_file(card: NetCard) -> nn.Module:
    """Load a net from the one file it is published in; keep the file if it is new and good."""
    folder = weights_dir()
    path = folder / card.file
    is_new = not path.is_file()
    if is_new:
        try:
            content, source = download(card.url), card.url
        except (OSError, HTTPException) as error:
            raise cannot_download(card.name, card.url, path, folder, error) from error
    else:
        content, source = read_bytes(path), str(path)
    pin = path.with_name(f"{path.name}.sha256")
    digest = hashlib.sha256(content).hexdigest()
    _check_digest(card, digest, source, pin, mend="" if is_new else "; remove it to load it anew")
    weights = bare_weights(read_plain(BytesIO(content), source), source)
    net = assemble({"net": card.spec}, weights, source)
    if is_new:
        _keep(path, content)
    if card.sha256 is None and not pin.is_file():
        _keep(pin, f"{digest}  {path.name}\n".encode())  # as sha256sum writes and checks it
    return net


def _check_digest(card: NetCard, digest: str, source: str, pin: Path, mend: str) -> None:
    if card.sha256 is not None and not digest.startswith(card.sha256):
        raise InputError(
            f"{source} is not the published file of {card.name}: its sha256 is {digest}, "
            f"expected {card.sha256}{mend}"
        )
    if card.sha256 is None and pin.is_file():
        noted = pin.read_text(encoding="utf-8", errors="replace").split()
        if noted[:1] != [digest]:
            raise InputError(
                f"{source} is not the file of {card.name} that was first used here: its sha256 is "
                f"{digest}, expected {' '.join(noted[:1])}; delete {pin} if the new one is right"
            )


def _keep(path: Path, content: bytes) -> None:
    """Write a file for the next time; this time goes on without it."""
    try:
        write_whole(path, content)
    except InputError as error:
        warn(str(error))
