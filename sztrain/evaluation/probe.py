"""A second attack beside the first: what is left under both."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sztrain.errors import InputError
from sztrain.evaluation.runner import attack_batches
from sztrain.metrics import RobustAccuracy, measure_key
from sztrain.norms import num_units
from sztrain.types import Attack, Unit


def check_probe(probe: Attack, unit: Unit) -> None:
    """Refuse a probe whose answers cannot be laid beside those of the first attack.

    Args:
        probe: the second attack.
        unit: what the first one counts.

    Raises:
        InputError: it counts something else.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> check_probe(SigmaZero(budget=24), "features")
    """
    if probe.unit != unit:
        raise InputError(
            f"expected `probe` to count {unit}, as the attack beside it, got unit={probe.unit}"
        )


class ProbeTally:
    """Adds up what a second attack leaves of batches, and what both attacks together leave.

    A sample is broken within k changes if either attack breaks it within k.

    Args:
        probe: the second attack.
        budgets: budgets k for a probe that has none of its own; one that does is judged there.
        device: where the counts live; the process group's device where there are processes.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> both = ProbeTally(SigmaZero(num_steps=3, budget=2), budgets=[1])
        >>> both.add(net, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), l0=torch.zeros(2))
        >>> sorted(both.values())
        ['probe_seconds', 'robust_acc_probe@2', 'robust_acc_worst@2']
    """

    def __init__(
        self, probe: Attack, budgets: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self.probe = probe
        self.budgets = [probe.budget] if probe.budget is not None else list(budgets)
        self.device = device
        self.seconds = 0.0
        self._metrics: dict[str, RobustAccuracy] = {}

    def add(self, net: nn.Module, inputs: Tensor, labels: Tensor, l0: Tensor) -> None:
        """Probe a batch.

        Args:
            net: maps images to logits.
            inputs: shape ``(N, ...)``, those of the first attack.
            labels: int64 ``(N,)``.
            l0: what the first attack needed, float ``(N,)``, inf where it failed.

        Raises:
            InputError: what the probe refuses.
        """
        (probed,) = attack_batches(net, self.probe, [(inputs, labels)], self.device)
        found, size = probed.result.l0, num_units(inputs.shape[1:], self.probe.unit)
        for k in self.budgets:
            for name, value in (("probe", found), ("worst", found.minimum(l0.to(found.device)))):
                key = measure_key(f"robust_acc_{name}", self.probe.unit, k)
                if key not in self._metrics:
                    self._metrics[key] = RobustAccuracy(size, k).to(self.device)
                self._metrics[key].update(value)
        self.seconds += probed.seconds

    def values(self) -> dict[str, float]:
        """Figures over the samples of all processes; every process has to call it.

        Returns:
            ``robust_acc_probe@k`` and ``robust_acc_worst@k`` for each budget k,
            ``robust_acc_probe_px@k`` and so on where the attacks count pixels; and
            ``probe_seconds``, the wall time in this process.
        """
        values = {key: float(metric.compute()) for key, metric in self._metrics.items()}
        return values | {"probe_seconds": self.seconds}
