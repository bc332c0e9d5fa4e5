"""Where weights lie, how they get there, and what is checked before they enter a net."""

import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn

from sztrain.errors import InputError, UnavailableError, first_line

WEIGHTS_DIR_VARIABLE = "SZTRAIN_WEIGHTS_DIR"
"""Environment variable that names the folder of published weights."""

SILENCE = 10.0
"""Seconds without an answer after which a download is given up."""

_NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net")
_WRAPPED_AS = ("module.", "model.", "net.", "_orig_mod.", "0.", "1.")


def weights_dir() -> Path:
    """Folder of published weights: ``$SZTRAIN_WEIGHTS_DIR``, else ``~/.cache/sztrain/weights``.

    Raises:
        InputError: what the variable names is a file.

    Example:
        >>> isinstance(weights_dir(), Path)
        True
    """
    named = os.environ.get(WEIGHTS_DIR_VARIABLE)
    if not named:
        return Path.home() / ".cache" / "sztrain" / "weights"
    folder = Path(named).expanduser()
    if folder.is_file():
        raise InputError(
            f"expected {WEIGHTS_DIR_VARIABLE} to name the folder of the weights, got the file "
            f"{folder}, which lies in {folder.parent}"
        )
    return folder


def download(url: str) -> bytes:
    """Fetch a file into memory, whole or not at all, and without a word.

    Raises:
        OSError: nothing answers for :data:`SILENCE` seconds, or there is no such file.
        http.client.HTTPException: the answer breaks off.

    Example:
        >>> download("file:///no/such/file")
        Traceback (most recent call last):
        ...
        urllib.error.URLError: <urlopen error [Errno 2] No such file or directory: '/no/such/file'>
    """
    request = Request(url, headers={"User-Agent": "sztrain"})  # some hosts refuse urllib's name
    with urlopen(request, timeout=SILENCE) as answer:
        content: bytes = answer.read()
    return content


def require_answer(url: str) -> None:
    """Ask whether a host can be reached, for download clients that would wait for minutes.

    Raises:
        OSError: nothing answers for :data:`SILENCE` seconds.
        http.client.HTTPException: what answers is no web server.

    Example:
        >>> require_answer(Path(__file__).as_uri())
    """
    try:
        urlopen(Request(url, method="HEAD"), timeout=SILENCE).close()
    except HTTPError as error:
        error.close()  # a refusal is an answer, too


def cannot_download(
    name: str, url: str, path: Path, folder: Path, error: Exception
) -> UnavailableError:
    """The one line for weights that are not here and cannot be fetched.

    Args:
        name: the net.
        url: where its weights are published.
        path: where they belong.
        folder: the folder of published weights.
        error: why they cannot be fetched.

    Example:
        >>> place = Path("weights")
        >>> error = OSError("no route to host")
        >>> print(cannot_download("C9", "https://x.org/c9.pt", place / "c9.pt", place, error))
        the weights of C9 cannot be downloaded from https://x.org/c9.pt (no route to host); put \
them at weights/c9.pt, or set SZTRAIN_WEIGHTS_DIR to the folder that has c9.pt
    """
    # "<urlopen error [Errno -2] Name or service not known>" hides its reason in brackets.
    inner = error.reason if isinstance(error, URLError) else None
    reason = first_line(inner if isinstance(inner, Exception) else error)
    return UnavailableError(
        f"the weights of {name} cannot be downloaded from {url} ({reason}); put them at {path}, "
        f"or set {WEIGHTS_DIR_VARIABLE} to the folder that has {path.relative_to(folder)}"
    )


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        InputError: it is not there, or may not be read.

    Example:
        >>> read_bytes(Path("none.pth"))
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: none.pth cannot be read (No such file or directory)
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error


def read_plain(file: Path | BytesIO, source: str) -> object:
    """Read what ``torch.save`` wrote, on the CPU, executing nothing.

    Args:
        file: the file, or its content.
        source: what it is, for the message.

    Returns:
        Plain containers and tensors.

    Raises:
        InputError: the file cannot be read, is damaged, or holds objects of other kinds.

    Example:
        >>> read_plain(BytesIO(b"text"), "net.pth")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: net.pth is damaged, or no file of plain containers and tensors
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"{source} cannot be read ({error.strerror})") from error
    except Exception as error:  # damaged bytes break the unpickler in any way, IndexError included
        raise InputError(
            f"{source} is damaged, or no file of plain containers and tensors"
        ) from error


def check_finite(
    net: nn.Module, source: str, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Refuse parameters that hold NaN or an infinity, and buffers that hold NaN.

    Some defences keep infinities in buffers on purpose, such as the threshold of a detector.

    Args:
        net: the net.
        source: what its weights come from, for the message.
        state_dict: the weights that it will get; ``None``: those that it has.

    Raises:
        InputError: names the first entry that is not finite, and how many there are.

    Example:
        >>> check_finite(nn.Linear(2, 1), "net.ckpt")
    """
    weights = net.state_dict() if state_dict is None else state_dict
    parameters = {key for key, _ in net.named_parameters(remove_duplicate=False)}
    broken = [
        key
        for key, tensor in weights.items()
        if bool(tensor.isnan().any()) or (key in parameters and not bool(tensor.isfinite().all()))
    ]
    if broken:
        raise InputError(
            f"{source} holds weights that are NaN or infinite in {len(broken)} of {len(weights)} "
            f"entries, first in {broken[0]}; the training that wrote them diverged"
        )


def load_strictly(net: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Load finite weights that fit ``net`` key for key and shape for shape; refuse all others.

    Args:
        net: the net to fill, in place.
        state_dict: its weights.
        source: what they come from, for the message.

    Raises:
        InputError: a key is missing or unexpected, a shape differs, or a weight is not finite.

    Example:
        >>> load_strictly(nn.Linear(2, 3, bias=False), {"weight": torch.zeros(3, 2)}, "x.ckpt")
        >>> load_strictly(nn.Linear(2, 3, bias=False), {"weight": torch.zeros(3, 4)}, "x.ckpt")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: x.ckpt holds the weights of another architecture than the \
net: 0 keys missing, 0 unexpected, 1 of another shape; first: weight has shape (3, 4), \
expected (3, 2)
    """
    expected = net.state_dict()
    missing = [key for key in expected if key not in state_dict]
    unexpected = [key for key in state_dict if key not in expected]
    reshaped = [
        key
        for key, tensor in expected.items()
        if key in state_dict and state_dict[key].shape != tensor.shape
    ]
    if missing or unexpected or reshaped:
        if missing:
            first = f"{missing[0]} is missing"
        elif unexpected:
            first = f"{unexpected[0]} is not part of the net"
        else:
            found, right = state_dict[reshaped[0]].shape, expected[reshaped[0]].shape
            first = f"{reshaped[0]} has shape {tuple(found)}, expected {tuple(right)}"
        raise InputError(
            f"{source} holds the weights of another architecture than the net: {len(missing)} "
            f"keys missing, {len(unexpected)} unexpected, {len(reshaped)} of another shape; "
            f"first: {first}"
        )
    check_finite(net, source, state_dict)
    net.load_state_dict(dict(state_dict))


def tensors_of(value: object, source: str) -> dict[str, Tensor]:
    """Refuse whatever is no state dict: a mapping from names to tensors.

    Raises:
        InputError: ``value`` is no mapping, or holds something else than tensors.

    Example:
        >>> list(tensors_of({"weight": torch.zeros(2)}, "net.pth"))
        ['weight']
    """
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"{source} holds no state dict, but {type(value).__name__}")
    for key, tensor in value.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise InputError(
                f"{source} holds no state dict: {key!r} is of type {type(tensor).__name__}, "
                "expected a tensor"
            )
    return dict(value)


def bare_weights(value: object, source: str) -> dict[str, Tensor]:
    """The state dict of a net in what was saved around it.

    Published files hold it as it is or under a name such as ``state_dict``, and with the names of
    the modules that the net stood in, such as ``module.``, in front of all its keys.

    Args:
        value: what the file holds.
        source: the file, for the message.

    Returns:
        Weights under the names that the net itself gives them.

    Raises:
        InputError: see :func:`tensors_of`.

    Example:
        >>> saved = {"module.fc.weight": torch.zeros(2), "module.fc.bias": torch.zeros(2)}
        >>> list(bare_weights({"epoch": 3, "state_dict": saved}, "net.ckpt"))
        ['fc.weight', 'fc.bias']
    """
    if isinstance(value, Mapping):
        nested = (value[key] for key in _NESTED_UNDER if isinstance(value.get(key), Mapping))
        value = next(nested, value)
    tensors = tensors_of(value, source)
    while wrapper := next((name for name in _WRAPPED_AS if _all_start(tensors, name)), ""):
        tensors = {key.removeprefix(wrapper): tensor for key, tensor in tensors.items()}
    return tensors


def _all_start(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    return all(key.startswith(prefix) for key in tensors)
