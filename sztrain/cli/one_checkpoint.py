"""A checkpoint goes on as one training."""

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from sztrain.errors import InputError


def refuse_shared_checkpoint(args: list[str]) -> None:
    """Refuse a sweep whose runs would all go on from one checkpoint.

    Args:
        args: command-line arguments of ``train.py``.

    Raises:
        InputError: they would.

    Example:
        >>> refuse_shared_checkpoint(["-m", "seed=0,1", "ckpt_path=a.ckpt"])
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: several runs cannot go on from one checkpoint (a.ckpt): go on \
without -m, with the options of the run that it is of, or begin with its weights, start_from=a.ckpt
        >>> refuse_shared_checkpoint(["-m", "seed=0", "ckpt_path=a.ckpt"])
    """
    known = get_args_parser().parse_known_args(args)[0]
    if not known.multirun:
        return
    try:
        overrides = OverridesParser.create().parse_overrides(known.overrides)
    except HydraException:
        return  # Hydra itself says what is wrong with it
    checkpoints = [each for each in overrides if each.key_or_group == "ckpt_path"]
    if not checkpoints or checkpoints[-1].is_sweep_override() or not checkpoints[-1].value():
        return
    if any(each.is_sweep_override() or each.key_or_group == "sweep" for each in overrides):
        path = checkpoints[-1].value()
        raise InputError(
            f"several runs cannot go on from one checkpoint ({path}): go on without -m, with the "
            f"options of the run that it is of, or begin with its weights, start_from={path}"
        )
