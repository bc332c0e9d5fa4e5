"""Files of nets that are passed on: weights as safetensors, hyper-parameters in the header."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from sztrain.errors import InputError, first_line
from sztrain.files import write_whole
from sztrain.models._checks import require_path
from sztrain.models.checkpoint import assemble, check_hyper_parameters

METADATA_KEY = "sztrain"
"""Key of the safetensors header under which the hyper-parameters stand as JSON."""


def save_net(net: nn.Module, hyper_parameters: Mapping[str, object], path: str | Path) -> None:
    """Write a net to a safetensors file that :func:`~sztrain.models.load_net` reads.

    What is written is checked first: the hyper-parameters rebuild this very architecture.

    Args:
        net: the net.
        hyper_parameters: plain containers: ``net`` (its specification), ``data`` (with the
            ``name`` of its config group), ``unit``, ``method``.
        path: the file to write, ending in ``.safetensors``.

    Raises:
        InputError: no net, another file ending, hyper-parameters that are incomplete, not plain or
            of another net, weights that are not finite; the file cannot be written.

    Example:
        >>> save_net(nn.Linear(2, 2), {}, "net.ckpt")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected a file name that ends in .safetensors, got net.ckpt
    """
    from safetensors.torch import save

    require_path("a .safetensors file", path)
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"expected a file name that ends in .safetensors, got {path}")
    if not isinstance(net, nn.Module):
        raise InputError(f"expected `net` to be a torch.nn.Module, got a {type(net).__name__}")
    checked = check_hyper_parameters(hyper_parameters, "save_net")
    try:
        header = json.dumps(checked, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"save_net: hyper-parameters are no plain containers: {first_line(error)}"
        ) from error
    # Copies: safetensors refuses tensors that share memory or are not contiguous.
    tensors = {key: value.detach().cpu().clone() for key, value in net.state_dict().items()}
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    assemble(json.loads(header), tensors, "save_net")
    write_whole(path, save(tensors, metadata={METADATA_KEY: header}))


def read_net_file(path: Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Read a file that :func:`save_net` wrote.

    Args:
        path: the file.

    Returns:
        Hyper-parameters, and weights on the CPU.

    Raises:
        InputError: the file is missing, damaged, or has no sztrain hyper-parameters.

    Example:
        >>> read_net_file(Path("none.safetensors"))
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: there is no file none.safetensors
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = (file.metadata() or {}).get(METADATA_KEY, "null")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        values = json.loads(header)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{path} is damaged or no safetensors file: {first_line(error)}"
        ) from error
    return check_hyper_parameters(values, str(path)), tensors
