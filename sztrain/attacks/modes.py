"""In which state a net is attacked."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside, every flag as it was outside.

    Example:
        >>> net = nn.Sequential(nn.Dropout())
        >>> with eval_mode(net):
        ...     net[0].training
        False
        >>> net[0].training
        True
    """
    # Flags are set one by one: a module's own train() may refuse (a frozen BatchNorm, say).
    # A frozen TorchScript module has none.
    flags = {m: m.training for m in net.modules() if hasattr(m, "training")}
    try:
        for module in flags:
            module.training = False
        yield
    finally:
        for module, training in flags.items():
            module.training = training


@contextmanager
def attack_mode(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode and gradients inside; the net's flags and the random state as before outside.

    Args:
        net: what is attacked.
        device: where it is, whose random state is kept as well.

    Example:
        >>> net = nn.Sequential(nn.Dropout())
        >>> with torch.inference_mode(), attack_mode(net, torch.device("cpu")):
        ...     net[0].training, torch.is_grad_enabled()
        (False, True)
    """
    accelerated = device.type != "cpu"
    with ExitStack() as stack:
        stack.enter_context(
            torch.random.fork_rng(
                devices=[device] if accelerated else [],
                device_type=device.type if accelerated else "cuda",
            )
        )
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(eval_mode(net))
        # Weights that autocast cast without gradients must not serve a later training pass.
        stack.callback(torch.clear_autocast_cache)
        yield
