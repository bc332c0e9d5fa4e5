"""What stands between another library and a caller: his net, his warnings, his random state."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from sztrain.attacks.base import Logits
from sztrain.errors import UnavailableError, first_line

INSTALL = (
    "pip install -c constraints.txt -e '.[peers]' && "
    "pip install --no-deps adv-lib==0.2.8 torchattacks==3.5.1 && "
    "pip install --no-deps --force-reinstall 'robustbench>=1.1.1,<1.2'"
)
"""What a person has to type to have all libraries; torchattacks writes over robustbench."""


class CountedNet(nn.Module):
    """A module that stands for the net: libraries may set modes and devices, and reach only this.

    Logits that overflowed come out as the largest finite ones, gradients that did as 0: one NaN
    keeps the solver of :class:`~sztrain.attacks.BB` busy for ever.

    Args:
        logits_of: the net.
        like: a batch as the net takes it; what comes in is brought to its shape and dtype.

    Attributes:
        num_forwards: samples that passed forwards.
        num_backwards: samples that passed backwards.

    Example:
        >>> net = CountedNet(lambda inputs: inputs.sum(dim=(1, 2)), like=torch.zeros(1, 2, 2, 3))
        >>> inputs = torch.zeros(5, 12, requires_grad=True)
        >>> net(inputs).sum().backward()
        >>> net.num_forwards, net.num_backwards
        (5, 5)
    """

    def __init__(self, logits_of: Logits, like: Tensor) -> None:
        super().__init__()
        self.num_forwards = 0
        self.num_backwards = 0
        self._logits_of = logits_of
        self._shape, self._dtype = like.shape[1:], like.dtype
        # Libraries look for the device of a net at its first parameter.
        self.place = nn.Parameter(like.new_empty(0), requires_grad=False)
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, float32 ``(N, K)``."""
        self.num_forwards += len(inputs)
        # A copy: the first layer of the net may work in place.
        samples = inputs.to(self._dtype, copy=True).reshape(-1, *self._shape)
        if samples.requires_grad:
            samples.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return self._logits_of(samples).float().nan_to_num()

    def _count_backward(self, gradient: Tensor) -> Tensor:
        self.num_backwards += len(gradient)
        return gradient.nan_to_num(0, 0, 0)


def import_peer(name: str, *needed: str) -> ModuleType:
    """Import another library, without the deprecations that it warns of.

    Args:
        name: of the module.
        *needed: what it has to have, as other versions may not.

    Raises:
        UnavailableError: it cannot be imported, or is another version; the message says how to
            install it.

    Example:
        >>> import_peer("json", "dumps").dumps([])
        '[]'
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing that a user can act on
        try:
            module = importlib.import_module(name)
        except Exception as error:  # beside versions that it does not know it may raise anything
            reason = first_line(error)
            raise UnavailableError(
                f"{name} cannot be imported ({reason}); install what is missing: {INSTALL}"
            ) from error
    for attribute in needed:
        if not hasattr(module, attribute):
            raise UnavailableError(
                f"{name} has no {attribute}, so it is another version than is needed: {INSTALL}"
            )
    return module


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """No parameter of the net needs a gradient inside; outside all is as it was.

    Libraries keep graphs of passes that they never differentiate, and some fill ``.grad``.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> with frozen(net):
        ...     net.weight.requires_grad
        False
        >>> net.weight.requires_grad
        True
    """
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's and numpy's global generators, and give numpy's back as it was.

    Torch's are restored by :func:`~sztrain.attacks.base.run_attack`.

    Example:
        >>> with torch.random.fork_rng(devices=[]), seeded(7, torch.device("cpu")):
        ...     round(float(np.random.rand()), 3)
        0.076
    """
    kept = np.random.get_state()
    try:
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index].manual_seed(seed)
        yield
    finally:
        np.random.set_state(kept)


def shares(total: int, rows: Tensor) -> Tensor:
    """Divide a number of passes among ``rows`` as evenly as whole numbers can be.

    Example:
        >>> shares(7, torch.tensor([4, 5, 9])).tolist()
        [3, 2, 2]
    """
    first = torch.arange(len(rows), device=rows.device) < total % len(rows)
    return total // len(rows) + first.to(rows.dtype)
