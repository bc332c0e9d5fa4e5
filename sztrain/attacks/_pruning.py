"""Dropping the changes that an adversarial example can do without."""

import torch
from torch import Tensor

from sztrain.attacks.base import Found, Logits, is_adversarial
from sztrain.norms import magnitudes
from sztrain.types import Unit


@torch.no_grad()
def prune(
    logits_of: Logits,
    found: Found,
    inputs: Tensor,
    labels: Tensor,
    *,
    num_steps: int,
    unit: Unit,
    budget: int | None,
    targeted: bool = False,
) -> None:
    """Undo changes of the best examples, the smallest first, where they stay adversarial without.

    Each change is tried once, at the cost of a forward pass. Examples that are sparse enough, of
    one change or within the budget, are left alone.

    Args:
        logits_of: the net.
        found: what a search found; changed in place.
        inputs: shape ``(N, ...)``.
        labels: int64 ``(N,)``.
        num_steps: most changes of a sample to try.
        unit: what one change is: of a feature, or of a pixel with all its channels.
        budget: l0 that is sparse enough; ``None``: 1.
        targeted: whether ``labels`` are the classes to reach.
    """
    enough = budget or 1
    rows = (found.best_l0.isfinite() & (found.best_l0 > enough)).nonzero().squeeze(1)
    if num_steps == 0 or len(rows) == 0:
        return
    inputs, labels = inputs[rows], labels[rows]
    best, l0 = found.best_inputs[rows], found.best_l0[rows]
    sizes = magnitudes(best - inputs, unit).flatten(1)
    order = sizes.masked_fill(sizes == 0, torch.inf).argsort(dim=1, stable=True)
    num_changed = (sizes > 0).sum(dim=1)
    for step in range(min(num_steps, int(num_changed.max()))):
        tried = ((step < num_changed) & (l0 > enough)).nonzero().squeeze(1)
        if len(tried) == 0:
            break
        without = _undone(best[tried], inputs[tried], order[tried, step], unit)
        found.num_forwards[rows[tried]] += 1
        kept = is_adversarial(logits_of(without.clone()), labels[tried], targeted)
        best[tried[kept]] = without[kept]
        l0[tried[kept]] -= 1
    found.best_inputs[rows] = best
    found.best_l0[rows] = l0


def _undone(moved: Tensor, inputs: Tensor, position: Tensor, unit: Unit) -> Tensor:
    """``moved`` with the unit at ``position`` of each sample as it is in ``inputs``."""
    channels = inputs.shape[1] if unit == "pixels" else 1
    moved, clean = (x.reshape(len(x), channels, -1) for x in (moved, inputs))
    index = position.view(-1, 1, 1).expand(-1, channels, 1)
    return moved.scatter(2, index, clean.gather(2, index)).view_as(inputs)
