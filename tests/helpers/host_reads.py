"""What an attack reads back from its device."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class HostReads(TorchDispatchMode):
    """Counts what makes a host wait for its accelerator: reading a value, or a size that is one."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "item")

    def __init__(self):
        super().__init__()
        self.num_reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name.split("::")[1]
        boolean_index = name == "index" and any(
            t is not None and t.dtype == torch.bool for t in args[1]
        )
        self.num_reads += name in self.NAMES or boolean_index
        return func(*args, **kwargs or {})
