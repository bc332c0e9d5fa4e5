"""The one place where wandb-workspaces is imported."""

import importlib
import warnings
from typing import Any

from sztrain.errors import UnavailableError

_MISSING = (
    "dashboards need wandb-workspaces, which cannot be imported; "
    "install it with: pip install -c constraints.txt -e '.[dashboards]'"
)


def reports() -> Any:
    """Its module of reports and panels.

    Raises:
        UnavailableError: it is not installed.
    """
    return _module("wandb_workspaces.reports.v2")


def workspaces() -> Any:
    """Its module of workspaces.

    Raises:
        UnavailableError: it is not installed.
    """
    return _module("wandb_workspaces.workspaces")


def _module(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its own use of pydantic
            return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(_MISSING) from error
