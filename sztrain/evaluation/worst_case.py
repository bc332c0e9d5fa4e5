"""A second attack beside the first: what is left under both."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from sztrain.errors import InputError
from sztrain.evaluation.runner import attack_batches
from sztrain.metrics import RobustAccuracy
from sztrain.norms import check_budgets, num_units
from sztrain.types import Attack, Unit


def check_probe(probe: Attack, unit: Unit, shape: torch.Size | None = None) -> None:
    """Refuse a probe whose answers cannot be laid beside those of the first attack.

    Args:
        probe: the second attack.
        unit: what the first one counts.
        shape: of a sample, where it is known already.

    Raises:
        InputError: it counts something else, or its budget is beyond the size of a sample.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> check_probe(SigmaZero(budget=24), "features", torch.Size([1, 28, 28]))
    """
    if probe.unit != unit:
        raise InputError(
            f"expected `probe` to count {unit}, as the attack beside it, got unit={probe.unit}"
        )
    if shape is not None:
        check_budgets("probe.budget", [probe.budget], shape, unit)


def probe_worst_case(
    net: nn.Module,
    probe: Attack,
    batches: Iterable[tuple[Tensor, Tensor]],
    l0: Sequence[Tensor],
    budgets: Sequence[int],
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], object] | None = None,
) -> dict[str, float]:
    """Robust accuracy under a second attack, and under both attacks together.

    A sample is broken within k changes if either attack breaks it within k.

    Args:
        net: maps images to logits, on ``device``.
        probe: the second attack.
        batches: pairs of inputs ``(N, ...)`` and labels ``(N,)``, those of the first attack.
        l0: what the first attack needed for each batch, float ``(N,)``, inf where it failed.
        budgets: budgets k for a probe that has none of its own; one that does is judged there.
        device: where the batches go.
        on_batch: told after each batch how many samples it had.

    Returns:
        ``robust_acc_probe@k`` and ``robust_acc_worst@k`` for each budget k, over the samples of all
        processes, ``robust_acc_probe_px@k`` and so on where the attacks count pixels; and
        ``probe_seconds``, the wall time in this process.

    Raises:
        InputError: what the probe refuses.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> batches = [(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))]
        >>> probe = SigmaZero(num_steps=3, budget=2)
        >>> sorted(probe_worst_case(net, probe, batches, [torch.zeros(2)], [1]))
        ['probe_seconds', 'robust_acc_probe@2', 'robust_acc_worst@2']
    """
    kept = [probe.budget] if probe.budget is not None else list(budgets)
    suffix = "_px" if probe.unit == "pixels" else ""
    metrics: dict[str, RobustAccuracy] = {}
    seconds = 0.0
    attacked_batches = attack_batches(net, probe, batches, device)
    for attacked, first in zip(attacked_batches, l0, strict=True):
        size = num_units(attacked.inputs.shape[1:], probe.unit)
        found = attacked.result.l0
        for k in kept:
            for name, value in (("probe", found), ("worst", found.minimum(first.to(device)))):
                key = f"robust_acc_{name}{suffix}@{k}"
                if key not in metrics:
                    metrics[key] = RobustAccuracy(size, k).to(device)
                metrics[key].update(value)
        seconds += attacked.seconds
        if on_batch is not None:
            on_batch(len(found))
    values = {key: float(metric.compute()) for key, metric in metrics.items()}
    return values | {"probe_seconds": seconds}
