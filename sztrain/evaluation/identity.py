"""What records are of: checksums of nets and data, and the file beside the records that says it."""

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sztrain.errors import InputError
from sztrain.files import write_whole
from sztrain.types import Attack

_KNOWN_PACKAGES = {"sztrain", *sys.stdlib_module_names}

_CODE = ".code."  # before the name of a module, in the keys of an attack

LATER_KEYS = ("dataset", "split", "first_sample")
"""Which name the samples, whose checksum is older: records without them are as good."""


def claim_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write what the records of a folder are of, or make sure that they are of the same.

    Args:
        folder: of the records.
        identity: what they depend on; has to go into JSON.

    Raises:
        InputError: it holds records of something else, or of nobody knows what.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> claim_folder(folder, {"num_steps": 10})
        >>> try:
        ...     claim_folder(folder, {"num_steps": 100})
        ... except InputError as error:
        ...     print(str(error).removeprefix(str(folder)))
         has records of another run: num_steps is 10 there and 100 here; choose another folder or \
remove that one
    """
    path = folder / "identity.json"
    wanted = json.loads(json.dumps(identity))
    # Looked for first: where another process has records, its identity is there by now.
    has_records = any(folder.glob("*.csv"))
    if not path.is_file():
        if has_records:
            raise InputError(
                f"{folder} has records of which {path.name} is missing, so nobody knows "
                "what they are of; choose another folder or remove that one"
            )
        write_whole(path, json.dumps(wanted, indent=1) + "\n", replace=False)
    # Also of a folder that was new: another process may have been first.
    _require_same(_read_identity(path), wanted, folder)


def attack_identity(attack: Attack) -> dict[str, Any]:
    """An attack as plain containers: its name and its options, those of attacks inside it as well.

    Example:
        >>> from sztrain.attacks import SparseRS
        >>> identity = attack_identity(SparseRS(num_steps=10))
        >>> identity["name"], identity["num_steps"]
        ('SparseRS', 10)
    """
    kind = type(attack)
    options = {field.name: getattr(attack, field.name) for field in fields(attack)}
    own = getattr(attack, "__dict__", {})  # what it has set beside its options
    about = {"name": kind.__name__, **_origin(kind)}
    plain = {name: _plain(value) for name, value in {**options, **own}.items()}
    return about | {f"{name}=" if name in about else name: value for name, value in plain.items()}


def attack_key(attack: Attack) -> str:
    """The identity as text, to group by: an attack of a person's own may have no hash.

    Example:
        >>> from sztrain.attacks import SparseRS
        >>> attack_key(SparseRS(num_steps=10)) == attack_key(SparseRS(num_steps=10))
        True
    """
    return json.dumps(attack_identity(attack))


def _origin(kind: type) -> dict[str, Any]:
    """Where an attack of a person's own comes from, and its code: ours goes by the version.

    The code is that of the modules in which it and the classes that it derives from stand.
    """
    modules = dict.fromkeys(base.__module__ for base in kind.__mro__)
    own = [name for name in modules if name.partition(".")[0] not in _KNOWN_PACKAGES]
    if not own:
        return {}
    code = {}
    for name in own:
        with suppress(KeyError, OSError, TypeError, SyntaxError):  # typed into a prompt, say
            code[name] = _code_digest(inspect.getsource(sys.modules[name]))
    return {"module": kind.__module__, "code": code}


def _code_digest(source: str) -> str:
    """Checksum of what a module does: comments, docstrings and how it is laid out do not count."""
    return hashlib.sha256(_syntax(ast.parse(source)).encode()).hexdigest()[:8]


def _syntax(node: Any) -> str:
    """A syntax tree as text, the same in every version of Python, as ``ast.dump`` is not."""
    if isinstance(node, list):
        return f"[{','.join(_syntax(item) for item in node if not _is_idle(item))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    # Newer versions have further fields, empty where an older one can read the code.
    told = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({','.join(f'{name}={_syntax(part)}' for name, part in told)})"


def _is_idle(statement: Any) -> bool:
    """Whether it is a constant that stands alone, as docstrings do."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _plain(value: Any) -> Any:
    if isinstance(value, Attack) and not isinstance(value, type):
        return attack_identity(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def net_digest(net: nn.Module) -> str:
    """Checksum of a net's weights and buffers, those that its state dict leaves out included.

    What is computed with them it cannot tell: two nets may differ in an activation alone.

    Example:
        >>> net_digest(nn.Linear(2, 2)) == net_digest(nn.Linear(2, 2))
        False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted({**net.state_dict(), **dict(net.named_buffers())}.items()):
        digest.update(name.encode())
        _update(digest, tensor)
    return digest.hexdigest()


def data_digest(batches: Iterable[tuple[Tensor, Tensor]]) -> str:
    """Checksum of samples and their labels, whatever batches they come in.

    Example:
        >>> x, y = torch.rand(4, 2), torch.arange(4)
        >>> data_digest([(x, y)]) == data_digest([(x[:1], y[:1]), (x[1:], y[1:])])
        True
    """
    samples, classes = hashlib.sha256(), hashlib.sha256()
    for inputs, labels in batches:
        _update(samples, inputs)
        _update(classes, labels)
    return hashlib.sha256(samples.digest() + classes.digest()).hexdigest()


def _update(digest: "hashlib._Hash", tensor: Tensor) -> None:
    digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(damaged(path, f"it cannot be read ({error})")) from error
    if not isinstance(values, dict):
        raise InputError(damaged(path, "it is no JSON object"))
    return values


def damaged(path: Path, what: str) -> str:
    """What to say of a damaged file of the records."""
    return f"{path} is damaged: {what}; remove it, and the same command makes it again"


def _read_identity(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(
            f"{path} is damaged, so nobody knows what the records beside it are of; "
            f"choose another folder or remove {path.parent}"
        ) from error


def _require_same(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    there, here = dict(_flat(found)), dict(_flat(wanted))
    later = {key for key in LATER_KEYS if key not in there}
    keys = (there.keys() | here.keys()) - later
    for key in sorted(keys, key=lambda key: (_is_checksum(key), key)):
        if there.get(key) != here.get(key):
            differs = f"{key} is {there.get(key)} there and {here.get(key)} here"
            file = getattr(sys.modules.get(key.partition(_CODE)[2]), "__file__", None)
            if file:
                differs = f"the code of the attack in {file} has changed since"
            raise InputError(
                f"{folder} has records of another run: {differs}; choose another folder or remove "
                "that one"
            )


def _is_checksum(key: str) -> bool:
    """Whether it may differ for a reason that another key names, which is to be told first."""
    return key in ("net", "data") or _CODE in key


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
