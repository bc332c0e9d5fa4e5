"""The processes that share an evaluation."""

from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from sztrain.errors import InputError, require_count

# Input values that an accelerator passes through a net at once where nobody names a batch size.
_VALUES_AT_ONCE = 2**20
_LARGEST_BATCH = {"cpu": 128}
_LARGEST_ELSEWHERE = 1024
_SMALLEST_BATCH = 16

# Who is done first waits for the others, for hours where these have the samples that hold out.
_LONGEST_WAIT = timedelta(days=365)


def gather_team(device: torch.device, devices: int, num_nodes: int = 1) -> Fabric:
    """The processes that share the work: this one, or one for each of several devices.

    Args:
        device: where they work.
        devices: how many there are on each machine.
        num_nodes: machines; the same command runs on each, as Lightning's DDP asks for.

    Raises:
        InputError: no number of devices or machines, or several devices with one of them named.
    """
    require_count("devices", devices, 1)
    require_count("num_nodes", num_nodes, 1)
    if devices > 1 and device.index is not None:
        raise InputError(
            f"expected devices=1 with device={device}, got devices={devices}: "
            f"several devices are chosen with device={device.type}"
        )
    chosen: Any = devices if device.index is None or device.type == "cpu" else [device.index]
    alone = devices == num_nodes == 1
    strategy: Any = "auto" if alone else DDPStrategy(timeout=_LONGEST_WAIT)
    team = Fabric(accelerator=device.type, devices=chosen, num_nodes=num_nodes, strategy=strategy)
    team.launch()
    return team


def wait_for_all(team: Fabric) -> None:
    """Go on when every process of the team has come here.

    Raises:
        InputError: one of them has stopped.
    """
    try:
        team.barrier()
    except RuntimeError as error:  # torch's word for a connection that is closed
        raise InputError(
            "another process of this evaluation has stopped, and says why; "
            "the same command goes on where it was"
        ) from error


def find_device(name: str) -> torch.device:
    """The device that ``name`` means; ``auto``: CUDA where there is one, else the CPU.

    Raises:
        InputError: this machine has no such device.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name).item()  # which "meta" could not give back
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"expected device to be auto or a device this machine has, got {name}"
        ) from error


def automatic_batch_size(device: torch.device, image_shape: tuple[int, ...]) -> int:
    """Samples to attack at once where nobody says so: a power of two, smaller for larger images.

    An attack halves it further where the memory does not suffice.

    Example:
        >>> cpu, gpu = torch.device("cpu"), torch.device("cuda")
        >>> automatic_batch_size(cpu, (1, 28, 28)), automatic_batch_size(gpu, (3, 32, 32))
        (128, 256)
    """
    fitting = _VALUES_AT_ONCE // torch.Size(image_shape).numel()
    largest = _LARGEST_BATCH.get(device.type, _LARGEST_ELSEWHERE)
    power = 1 << max(fitting, 1).bit_length() - 1
    return max(_SMALLEST_BATCH, min(largest, power))
