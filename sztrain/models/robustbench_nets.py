"""Published defences of RobustBench."""

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, cast

from torch import nn

from sztrain.errors import InputError, UnavailableError, did_you_mean, first_line, require_in
from sztrain.files import write_whole
from sztrain.models.state_dicts import (
    cannot_download,
    check_finite,
    download,
    read_plain,
    require_answer,
    weights_dir,
)

ROBUSTBENCH_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
"""RobustBench's data sets, and how many classes each has."""

_CONSTANTS = ("mean", "std", "mu", "sigma")
"""Of a normalisation: the architecture knows them, published files often do not hold them."""

_GOOGLE_DRIVE = "https://drive.google.com/uc?id="


def robustbench_net(
    name: str,
    dataset: str = "cifar10",
    threat_model: str = "Linf",
    model_dir: str | Path | None = None,
    pretrained: bool = True,
) -> nn.Module:
    """A published defence from RobustBench; with its weights, in evaluation mode.

    Its weights are read from ``<model_dir>/<dataset>/<threat_model>/<name>.pt`` (an ensemble's from
    ``<name>.pt_m0.pt``, ``<name>.pt_m1.pt``, ...) and downloaded to that place where they are
    missing. It normalises inside where it needs to.

    Args:
        name: RobustBench's name of the defence.
        dataset: ``cifar10``, ``cifar100`` or ``imagenet``.
        threat_model: ``Linf``, ``L2`` or ``corruptions``: what it was trained to resist.
        model_dir: folder of weights; ``None``: ``$SZTRAIN_WEIGHTS_DIR``, else
            ``~/.cache/sztrain/weights``.
        pretrained: ``False``: the architecture alone with random weights; nothing is read or
            downloaded.

    Shape:
        Images ``(N, 3, H, W)`` in [0, 1]; logits ``(N, K)`` with K of ``dataset``.

    Raises:
        UnavailableError: the weights are not there and cannot be downloaded.
        InputError: no such defence (the message lists close names), or weights that are damaged,
            do not fit or are not finite.

    Reference:
        `arXiv:2010.09670 <https://arxiv.org/abs/2010.09670>`_, https://robustbench.github.io

    Example:
        >>> robustbench_net("Standard", dataset="mnist")
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected `dataset` to be one of cifar10, cifar100, imagenet, \
got mnist
    """
    entry = _find(name, dataset, threat_model)
    if not pretrained:
        return _architecture(entry, name, dataset, threat_model)
    folder = weights_dir() if model_dir is None else Path(model_dir).expanduser()
    net = _load(entry, name, dataset, threat_model, folder)
    check_finite(net, name)
    return net.eval()


def _import_robustbench() -> ModuleType:
    """Import RobustBench, which as published (1.1.1) does not import on a fresh machine.

    It imports ``autoattack``, but the package that it declares as its dependency, ``pyautoattack``,
    installs the very same code under the name ``pyautoattack``. So that name is made known here.
    (The other fault, ``pkg_resources``, is mended by requiring ``setuptools<81``.)
    """
    _require_own_files("robustbench", "robustbench/utils.py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside it, nothing a user can act on
        try:
            if "autoattack" not in sys.modules and importlib.util.find_spec("autoattack") is None:
                import pyautoattack
                import pyautoattack.state

                sys.modules["autoattack"] = pyautoattack
                sys.modules["autoattack.state"] = pyautoattack.state
            import robustbench.model_zoo
            import robustbench.utils
        except ImportError as error:
            raise InputError(
                f"robustbench cannot be imported: {first_line(error)}; "
                "it needs the packages pyautoattack and setuptools<81"
            ) from error
    return cast(ModuleType, robustbench)


def _require_own_files(package: str, file: str) -> None:
    """Refuse a package that another one has written over, as torchattacks does with robustbench."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return  # the import says it
    own = next((path for path in files if path.as_posix() == file), None)
    if own is None or own.size is None:
        return  # installed in a way that keeps no list
    found = Path(str(own.locate()))
    if found.is_file() and found.stat().st_size != own.size:
        raise UnavailableError(
            f"{found} is not {package}'s own (torchattacks, installed after it, writes an old copy "
            f"over it); run pip install --no-deps --force-reinstall "
            f"{package}=={metadata.version(package)}"
        )


def _find(name: str, dataset: str, threat_model: str) -> dict[str, Any]:
    """RobustBench's entry of a net: how to build it and where its weights are published."""
    require_in("dataset", dataset, tuple(ROBUSTBENCH_CLASSES))
    zoo = {data.value: nets for data, nets in _import_robustbench().model_zoo.model_dicts.items()}
    by_threat_model = {threat.value: nets for threat, nets in zoo[dataset].items()}
    require_in("threat_model", threat_model, tuple(by_threat_model))
    nets = by_threat_model[threat_model]
    if name not in nets:
        raise InputError(
            f"RobustBench has no net {name!r} for dataset={dataset} and "
            f"threat_model={threat_model}{did_you_mean(str(name), nets)}"
        )
    return cast(dict[str, Any], nets[name])


def _timm_name(name: str, dataset: str, threat_model: str) -> str | None:
    """The name under which RobustBench registers a net with timm; ``None`` for most nets."""
    import timm

    registered = f"{name}_{dataset}_{threat_model}".lower().replace("-", "_")
    return registered if timm.is_model(registered) else None


def _is_torchvision(name: str, dataset: str) -> bool:
    """Whether RobustBench takes both the net and its weights from torchvision."""
    return dataset == "imagenet" and name == "Standard_R50"


def _timm_registered(registered: str, dataset: str, weights: Path | None) -> nn.Module:
    import timm

    net = timm.create_model(
        registered,
        num_classes=ROBUSTBENCH_CLASSES[dataset],
        pretrained=weights is not None,
        # Not `checkpoint_path`: that would load after RobustBench has wrapped and changed the net,
        # and the published weights are those of the net before.
        pretrained_cfg_overlay=None if weights is None else {"file": str(weights)},
    )
    return cast(nn.Module, net)


def _architecture(entry: dict[str, Any], name: str, dataset: str, threat_model: str) -> nn.Module:
    registered = _timm_name(name, dataset, threat_model)
    if registered is not None:
        return _timm_registered(registered, dataset, weights=None)
    if _is_torchvision(name, dataset):
        return _bare_torchvision()
    try:
        return cast(nn.Module, entry["model"]())
    except Exception as error:  # some need a GPU, and no two say so in the same way
        raise InputError(f"RobustBench cannot build {name} here: {first_line(error)}") from error


def _bare_torchvision() -> nn.Module:
    """RobustBench's ``Standard_R50``; its own entry builds it together with weights alone."""
    from torchvision.models import resnet50

    zoo = _import_robustbench().model_zoo
    normalize_model = zoo.architectures.utils_architectures.normalize_model
    return cast(nn.Module, normalize_model(resnet50(), zoo.imagenet.mu, zoo.imagenet.sigma))


def _published(entry: dict[str, Any], name: str, registered: str | None) -> dict[str, str]:
    """Where the files of a net are published, by the names that RobustBench gives them."""
    if registered is not None:
        import timm

        return {f"{name}.pt": timm.get_pretrained_cfg(registered).url}
    ids = entry["gdrive_id"]
    if isinstance(ids, list):  # an ensemble has one file for each member
        return {f"{name}.pt_m{index}.pt": _GOOGLE_DRIVE + each for index, each in enumerate(ids)}
    return {f"{name}.pt": f"{_GOOGLE_DRIVE}{ids}"}


def _load(
    entry: dict[str, Any], name: str, dataset: str, threat_model: str, folder: Path
) -> nn.Module:
    if _is_torchvision(name, dataset):
        return _load_torchvision(entry, name)
    registered = _timm_name(name, dataset, threat_model)
    place = folder / dataset / threat_model
    urls = {place / file: url for file, url in _published(entry, name, registered).items()}
    absent = [path for path in urls if not path.is_file()]
    for path in absent:
        _fetch(name, urls[path], path, folder)
    try:
        if registered is not None:
            # RobustBench's own loader would download these, whatever lies in the folder.
            path = next(iter(urls))
            read_plain(path, str(path))  # timm would execute whatever the file says
            return _timm_registered(registered, dataset, path)
        with _whole_weights():
            net = _import_robustbench().utils.load_model(
                name, model_dir=folder, dataset=dataset, threat_model=threat_model
            )
    except Exception as error:  # neither it nor timm nor torch has a common error class
        for path in absent:
            path.unlink(missing_ok=True)  # so that the next try fetches it anew
        raise InputError(
            f"{' or '.join(map(str, urls))} is damaged or holds another net than {name}: "
            f"{first_line(error)}"
        ) from error
    return cast(nn.Module, net)


@contextmanager
def _whole_weights() -> Iterator[None]:
    """Refuse weights that leave parts of a net as they were drawn.

    RobustBench loads some nets without ``strict``, for the sake of the constants of their
    normalisation, and then says nothing of whatever else is missing.
    """
    load = nn.Module.load_state_dict

    def load_whole(net: nn.Module, *args: Any, **kwargs: Any) -> Any:
        found = load(net, *args, **kwargs)
        missing = [key for key in found.missing_keys if key.split(".")[-1] not in _CONSTANTS]
        if missing:
            raise InputError(f"{len(missing)} entries are missing, the first is {missing[0]}")
        return found

    nn.Module.load_state_dict = load_whole  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def _load_torchvision(entry: dict[str, Any], name: str) -> nn.Module:
    try:
        return cast(nn.Module, entry["model"]())
    except Exception as error:
        kind = UnavailableError if isinstance(error, OSError) else InputError
        message = f"torchvision's weights for {name} cannot be loaded: {first_line(error)}"
        raise kind(message) from error


def _fetch(name: str, url: str, path: Path, folder: Path) -> None:
    """Download one file of a net to its place, or leave nothing there.

    Raises:
        UnavailableError: it cannot be downloaded.
    """
    try:
        if not url.startswith(_GOOGLE_DRIVE):
            write_whole(path, download(url))
            return
        require_answer(_GOOGLE_DRIVE)
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".") as part, redirect_stdout(StringIO()):
            whole = Path(part) / path.name
            drive_id = url.removeprefix(_GOOGLE_DRIVE)
            _import_robustbench().utils.download_gdrive_new(drive_id, whole)
            whole.replace(path)
    except Exception as error:  # the download clients have no common error class
        raise cannot_download(name, url, path, folder, error) from error
