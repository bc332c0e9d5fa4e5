"""What Hydra knows of the run that it started; of a config composed by hand, nothing."""

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode


def is_sweep() -> bool:
    """Whether this is one of the runs of a sweep.

    Example:
        >>> is_sweep()
        False
    """
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def own_overrides() -> list[str]:
    """What the command line, or the sweep, chose for this run.

    Example:
        >>> own_overrides()
        []
    """
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def choice_of(group: str) -> str | None:
    """The option that was taken of a config group, if any.

    Example:
        >>> choice_of("suite")
    """
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None
