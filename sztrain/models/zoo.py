"""Nets with weights, by name or by file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from sztrain.errors import InputError
from sztrain.models._checks import did_you_mean
from sztrain.models.checkpoint import assemble, net_from_checkpoint, read_checkpoint
from sztrain.models.net_file import read_net_file
from sztrain.models.state_dicts import WEIGHTS_DIR_VARIABLE, read_plain, tensors_of, weights_dir
from sztrain.types import Unit


@dataclass(frozen=True, kw_only=True)
class NetCard:
    """What is known about a published net.

    Attributes:
        name: what :func:`load_net` takes.
        data: config group name of its data set.
        file: its weights: in the weights folder, or in the package for a shipped net.
        sha256: checksum of the file; ``None`` for a shipped net, which is installed with the code.
        spec: how :func:`~sztrain.models.build_net` builds it; empty for a shipped net, whose file
            says so itself.
        description: what it is and where it was published.
        unit: what its training counted; ``features`` where that says nothing.
        method: how it was trained.

    Example:
        >>> NetCard(name="x", data="digits", file="x.safetensors", description="an example").sha256
    """

    name: str
    data: str
    file: str
    description: str
    sha256: str | None = None
    spec: Mapping[str, object] = field(default_factory=dict)
    unit: Unit = "features"
    method: str = ""


_MNIST_SPEC = {"_target_": "sztrain.models.small_cnn", "num_classes": 10, "in_channels": 1}
_PUBLISHED = "github.com/Cinofix/sigma-zero-adversarial-attack"

CARDS: Mapping[str, NetCard] = MappingProxyType(
    {
        card.name: card
        for card in (
            NetCard(
                name="M1",
                data="mnist",
                file="mnist_smallcnn_robust_ddn.pth",
                sha256="9569512d635778cccfa07bf1f31b921af43789bc3cc84e109bc822febd933126",
                spec=MappingProxyType(_MNIST_SPEC),
                description=f"CNN-DDN, arXiv:2402.01879, Sect. III-A; {_PUBLISHED}",
                method="ddn",
            ),
            NetCard(
                name="M2",
                data="mnist",
                file="mnist_smallcnn_robust_trades.pth",
                sha256="5b99888064f692047d5592b38df2dde126aa1b991a26c6aad683ce709634bea0",
                spec=MappingProxyType(_MNIST_SPEC),
                description=f"CNN-Trades, arXiv:2402.01879, Sect. III-A; {_PUBLISHED}",
                method="trades",
            ),
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
        )
    }
)
"""Every net that has a name, by that name."""


def load_net(name_or_path: str | Path) -> nn.Module:
    """Load a net with its weights.

    Args:
        name_or_path: a name of :data:`CARDS`, or a ``.ckpt`` (a training's checkpoint) or
            ``.safetensors`` file (:func:`~sztrain.models.save_net`).

    Returns:
        The net in evaluation mode, on the CPU.

    Raises:
        InputError: no such name or file; a file that is damaged, has another checksum than
            published, or holds weights of another architecture or not finite.

    Example:
        >>> load_net("digits_sparse")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected a net's name (M1, M2, digits_standard, \
digits_sparse_at) or a .ckpt or .safetensors file, got digits_sparse; did you mean \
digits_sparse_at, digits_standard?
    """
    kind = _kind(name_or_path)
    if kind == ".ckpt":
        return net_from_checkpoint(name_or_path)
    if kind == ".safetensors":
        return assemble(*read_net_file(Path(name_or_path)), str(name_or_path))
    card = CARDS[str(name_or_path)]
    if card.sha256 is None:
        return assemble(*_read_shipped(card), card.name)
    return assemble({"net": card.spec}, _read_published(card), card.file)


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
        >>> describe_net("M1")["data"]
        {'name': 'mnist'}
    """
    kind = _kind(name_or_path)
    if kind == ".ckpt":
        hyper_parameters = read_checkpoint(name_or_path)["hyper_parameters"]
        assert isinstance(hyper_parameters, dict)
        return hyper_parameters
    if kind == ".safetensors":
        return read_net_file(Path(name_or_path))[0]
    card = CARDS[str(name_or_path)]
    if card.sha256 is None:
        return _read_shipped(card)[0]
    return {
        "net": dict(card.spec),
        "data": {"name": card.data},
        "unit": card.unit,
        "method": {"name": card.method},
    }


def _kind(name_or_path: str | Path) -> str:
    """``card``, ``.ckpt`` or ``.safetensors``."""
    if str(name_or_path) in CARDS:
        return "card"
    suffix = Path(name_or_path).suffix
    if suffix not in (".ckpt", ".safetensors"):
        raise InputError(
            f"expected a net's name ({', '.join(CARDS)}) or a .ckpt or .safetensors file, got "
            f"{name_or_path}{did_you_mean(str(name_or_path), CARDS)}"
        )
    return suffix


def _read_shipped(card: NetCard) -> tuple[dict[str, object], dict[str, Tensor]]:
    with as_file(files("sztrain.models") / "weights" / card.file) as path:
        return read_net_file(path)


def _read_published(card: NetCard) -> dict[str, Tensor]:
    path = weights_dir() / card.file
    if not path.is_file():
        raise InputError(
            f"the weights of {card.name} are not at {path}; set {WEIGHTS_DIR_VARIABLE} to the "
            f"folder that has {card.file} ({card.description})"
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise InputError(
            f"{path} is not the published file of {card.name}: its sha256 is {found}, "
            f"expected {card.sha256}"
        )
    return tensors_of(read_plain(BytesIO(content), str(path)), str(path))
