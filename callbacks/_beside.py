"""How a gauge passes someone's module so that the training does not notice."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.parameter import is_lazy


@contextmanager
def beside_the_training(pl_module: pl.LightningModule, stage: str) -> Iterator[None]:
    """Inside, what passes a module leaves nothing behind that the training would go by.

    Random states, buffers and logs stay as they are, and so does what `torch.compile` knows.

    Args:
        pl_module: someone's module.
        stage: ``val``, or ``test``, where the training is over.

    Example:
        >>> module = pl.LightningModule()
        >>> module.register_buffer("seen", torch.zeros(1))
        >>> with beside_the_training(module, "val"):
        ...     _ = module.seen.add_(torch.rand(1) + 1)
        >>> module.seen
        tensor([0.])
    """
    with (
        # A net may draw random numbers even in eval mode: the training must not miss them.
        isolate_rng(),
        # Each size of a batch that a compiled module meets has a say in how it is compiled from
        # then on; at a verdict the training is over.
        torch.compiler.set_stance("force_eager") if stage == "val" else nullcontext(),
        _logging_nothing(pl_module),
        _keeping_buffers(pl_module),
    ):
        yield


@contextmanager
def _keeping_buffers(pl_module: pl.LightningModule) -> Iterator[None]:
    """Put buffers back that were changed inside, by observers of quantisation, say."""
    with torch.inference_mode(False), torch.no_grad():
        before = [
            (module, name, buffer, buffer.clone())
            for module in pl_module.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if _can_change(buffer)
        ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, value in before:
                kept = buffer if buffer.shape == value.shape else value
                # Nothing is written that is there already: some memory may only be read.
                if not torch.equal(kept, value):
                    kept.copy_(value)
                if getattr(module, name) is not kept:
                    setattr(module, name, kept)


def _can_change(buffer: Tensor) -> bool:
    """Whether a buffer can be written to as a whole, and is not sparse or still without values."""
    if is_lazy(buffer) or buffer.is_nested or buffer.layout != torch.strided:
        return False
    sizes = zip(buffer.shape, buffer.stride(), strict=True)
    return all(stride > 0 or size <= 1 for size, stride in sizes)  # else it was expanded


@contextmanager
def _logging_nothing(pl_module: pl.LightningModule) -> Iterator[None]:
    """Inside, a ``forward`` that logs logs nothing: its figures are not of adversarial images."""

    def ignore(*args: Any, **kwargs: Any) -> None:
        pass

    own = vars(pl_module)
    before = {name: own.get(name) for name in ("log", "log_dict")}
    own.update(dict.fromkeys(before, ignore))
    try:
        yield
    finally:
        for name, method in before.items():
            del own[name]
            if method is not None:
                own[name] = method
