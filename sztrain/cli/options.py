"""Types of the options at the top level of a config, which no constructor takes."""

from dataclasses import dataclass, fields

from omegaconf import DictConfig

from sztrain.cli.arguments import check_arguments
from sztrain.cli.build import plain


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Those of ``configs/train.yaml``; see there."""

    seed: int
    num_threads: int | None
    start_from: str | None
    ckpt_path: str | None
    monitor: str | None
    output_dir: str


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Those of ``configs/evaluate.yaml``; see there."""

    split: str
    first_sample: int
    num_samples: int | None
    batch_size: int | None
    budgets: list[int]
    num_threads: int | None
    device: str
    channels_last: bool
    devices: int
    num_nodes: int
    seed: int
    output_dir: str


def check_options(cfg: DictConfig, kind: type[TrainOptions] | type[EvaluateOptions]) -> None:
    """Refuse values of another type than they shall have.

    Args:
        cfg: the composed config.
        kind: says which options there are, and their types.

    Raises:
        InputError: names the first value that does not fit, and what would.

    Example:
        >>> check_options(DictConfig({"device": None}), EvaluateOptions)
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: expected `device` to be text, got None
    """
    values = {field.name: plain(cfg[field.name]) for field in fields(kind) if field.name in cfg}
    check_arguments({"_target_": f"{__name__}.{kind.__name__}", **values}, "")
