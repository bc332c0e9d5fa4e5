"""Nets from plain specifications, and nets back from the checkpoints of a training."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from sztrain.errors import InputError, did_you_mean, first_line
from sztrain.models._checks import require_path
from sztrain.models.digits_cnn import digits_cnn
from sztrain.models.preact_resnet import preact_resnet18
from sztrain.models.resnet import resnet18
from sztrain.models.robustbench_nets import robustbench_net
from sztrain.models.small_cnn import small_cnn
from sztrain.models.state_dicts import load_strictly, read_plain, tensors_of
from sztrain.models.timm_nets import timm_net
from sztrain.models.wide_resnet import wrn28
from sztrain.types import UNITS

NET_FACTORIES: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "digits_cnn": digits_cnn,
        "small_cnn": small_cnn,
        "preact_resnet18": preact_resnet18,
        "resnet18": resnet18,
        "wrn28": wrn28,
        "timm_net": timm_net,
        "robustbench_net": robustbench_net,
    }
)
"""Everything that a checkpoint or a config may name as a net: nothing else is ever called."""

HYPER_PARAMETERS = ("net", "data", "unit", "method")
"""What a checkpoint tells about itself: net's specification, data set, unit of l0, training."""

_PREFIX = "sztrain.models."
_PRETRAINED = ("timm_net", "robustbench_net")


def build_net(spec: Mapping[str, object]) -> nn.Module:
    """Build a net from the plain dictionary that a config or a checkpoint holds.

    Args:
        spec: ``_target_`` is ``sztrain.models.`` and a name of :data:`NET_FACTORIES`; the other
            entries are the arguments of that factory.

    Returns:
        The net, on the CPU, with whatever weights its factory gives.

    Raises:
        InputError: ``_target_`` is missing or not on the list; an argument is missing, unknown or
            out of its domain.

    Example:
        >>> net = build_net({"_target_": "sztrain.models.digits_cnn", "num_classes": 10})
        >>> type(net).__name__
        'DigitsCNN'
    """
    name = _factory_name(spec)
    arguments = {str(key): value for key, value in spec.items() if key != "_target_"}
    signature = inspect.signature(NET_FACTORIES[name])
    try:
        signature.bind(**arguments)
    except TypeError as error:
        listed = ", ".join(str(parameter) for parameter in signature.parameters)
        raise InputError(f"{name}: {first_line(error)}; it takes {listed}") from error
    return NET_FACTORIES[name](**arguments)


def _factory_name(spec: Mapping[str, object]) -> str:
    target = str(spec.get("_target_", ""))
    name = target.removeprefix(_PREFIX)
    if not target.startswith(_PREFIX) or name not in NET_FACTORIES:
        hint = did_you_mean(name, NET_FACTORIES)
        if not hint and "." in target and not target.startswith("sztrain."):
            hint = "; a net of your own is trained and judged from Python, see README.md"
        raise InputError(
            f"expected `_target_` of a net to be {_PREFIX}<name> with a name of "
            f"{', '.join(NET_FACTORIES)}, got {target or 'none'}{hint}"
        )
    return name


def check_hyper_parameters(values: object, source: str) -> dict[str, object]:
    """Refuse hyper-parameters that sztrain did not write; return the four that it did.

    Args:
        values: what a file holds in their place.
        source: the file, for the message.

    Returns:
        ``net`` (a specification), ``data`` (with the name of the data set), ``unit``, ``method``.

    Raises:
        InputError: one of the four is missing or of another form.

    Example:
        >>> net = {"_target_": "sztrain.models.small_cnn"}
        >>> data = {"name": "mnist"}
        >>> values = {"net": net, "data": data, "unit": "features", "method": "trades", "lr": 0.1}
        >>> list(check_hyper_parameters(values, "net.ckpt"))
        ['net', 'data', 'unit', 'method']
    """
    found = values if isinstance(values, Mapping) else {}
    missing = [key for key in HYPER_PARAMETERS if key not in found]
    if missing:
        raise InputError(
            f"{source} has no sztrain hyper-parameters: {', '.join(missing)} missing; "
            "expected a file written by train.py, or by a method with `hyper_parameters`"
        )
    net, data, unit = found["net"], found["data"], found["unit"]
    if not isinstance(net, Mapping):
        raise InputError(f"{source}: expected hyper-parameter `net` to be a mapping, got {net!r}")
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise InputError(
            f"{source}: expected hyper-parameter `data` to be a mapping with a `name`, got {data!r}"
        )
    if unit not in UNITS:
        raise InputError(
            f"{source}: expected hyper-parameter `unit` to be one of {', '.join(UNITS)}, "
            f"got {unit!r}"
        )
    return {key: found[key] for key in HYPER_PARAMETERS}


def assemble(
    hyper_parameters: Mapping[str, object], state_dict: Mapping[str, Tensor], source: str
) -> nn.Module:
    """Build the net that hyper-parameters specify and give it its weights, without a download.

    Args:
        hyper_parameters: as :func:`check_hyper_parameters` returns them.
        state_dict: all weights of the net.
        source: where both come from, for messages.

    Returns:
        The net in evaluation mode, on the CPU.

    Raises:
        InputError: the specification cannot be built, or the weights do not fit or are not finite.

    Example:
        >>> spec = {"_target_": "sztrain.models.digits_cnn"}
        >>> net = assemble({"net": spec}, digits_cnn().state_dict(), "net.ckpt")
        >>> net.training
        False
    """
    spec = hyper_parameters["net"]
    assert isinstance(spec, Mapping)
    try:
        name = _factory_name(spec)
        # Weights come from the file: what the net once started from need not be fetched again.
        net = build_net({**spec, "pretrained": False} if name in _PRETRAINED else spec)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    load_strictly(net, state_dict, source)
    return net.eval()


def read_checkpoint(path: str | Path) -> dict[str, object]:
    """Read a Lightning checkpoint of sztrain; nothing in it is executed.

    Args:
        path: the file, usually ``<run>/checkpoints/best.ckpt``.

    Returns:
        The whole checkpoint on the CPU; ``hyper_parameters`` are checked and cut to the four of
        :data:`HYPER_PARAMETERS`, ``state_dict`` holds tensors only.

    Raises:
        InputError: the file is missing, damaged, no checkpoint, or not one of sztrain.

    Example:
        >>> read_checkpoint("none.ckpt")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: there is no checkpoint none.ckpt
    """
    require_path("a checkpoint", path)
    path = Path(path)
    if path.is_dir():
        raise InputError(f"expected a checkpoint, got the folder {path}{checkpoints_in(path)}")
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    checkpoint = read_plain(path, str(path))
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"{path} is no Lightning checkpoint: it has no entry `state_dict`")
    checkpoint["hyper_parameters"] = check_hyper_parameters(
        checkpoint.get("hyper_parameters"), str(path)
    )
    checkpoint["state_dict"] = tensors_of(checkpoint["state_dict"], str(path))
    return checkpoint


def checkpoints_in(folder: Path) -> str:
    """End of an error message: the checkpoints of a run whose folder was named in their place.

    Example:
        >>> import tempfile
        >>> checkpoints_in(Path(tempfile.mkdtemp()))
        ', which holds none'
    """
    places = (folder, folder / "checkpoints")
    found = [str(path) for place in places for path in sorted(place.glob("*.ckpt"))]
    return f", which holds {', '.join(found)}" if found else ", which holds none"


def net_from_checkpoint(path: str | Path) -> nn.Module:
    """Rebuild the net that a training of sztrain saved.

    Its weights are the entries ``net.*`` of the state dict (``net._orig_mod.*`` where the net was
    compiled); other entries, such as those of metrics or a second net, are not read. Nothing is
    downloaded, whatever the net started from.

    Args:
        path: the checkpoint.

    Returns:
        The net in evaluation mode, on the CPU.

    Raises:
        InputError: see :func:`read_checkpoint`; the net is not on the list, cannot be built, or its
            weights are of another architecture or not finite.

    Example:
        >>> net_from_checkpoint("none.ckpt")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: there is no checkpoint none.ckpt
    """
    checkpoint = read_checkpoint(path)
    hyper_parameters = checkpoint["hyper_parameters"]
    state_dict = checkpoint["state_dict"]
    assert isinstance(hyper_parameters, dict)
    assert isinstance(state_dict, dict)
    weights = {
        key.removeprefix("net.").removeprefix("_orig_mod."): tensor
        for key, tensor in state_dict.items()
        if key.startswith("net.")
    }
    return assemble(hyper_parameters, weights, str(path))
