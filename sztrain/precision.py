"""Half precision where the hardware has none."""

import torch

from sztrain.errors import warn


def warn_of_slow_bfloat16(device: torch.device) -> None:
    """Warn on a CPU whose convolutions in bfloat16 are emulated, and many times slower for it.

    Args:
        device: where the net will work in bfloat16.

    Example:
        >>> warn_of_slow_bfloat16(torch.device("cuda"))
    """
    if device.type != "cpu":
        return
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (has_onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        warn(
            "this CPU has no instructions for convolutions in bfloat16, which take about ten "
            "times as long as those in single precision: use full precision here "
            "(trainer.precision=32-true, attack.autocast=false)"
        )
