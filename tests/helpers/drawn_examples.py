"""Attacked samples to draw, small enough to know every pixel."""

import torch

from sztrain.evaluation.examples import Examples


def examples(count=4, *, channels=1, side=6):
    """Samples broken at l0 = 3 and 1, one never broken, and one wrong from the start."""
    inputs = torch.full((count, channels, side, side), 0.5)
    adv_inputs = inputs.clone()
    adv_inputs[0, 0, 0, :3] = torch.tensor([1.0, 0.25, 0.0])
    adv_inputs[1:2, 0, 5, 5] = 0.75
    return Examples(
        inputs=inputs,
        adv_inputs=adv_inputs,
        labels=torch.tensor([5, 1, 2, 3])[:count],
        clean_predictions=torch.tensor([5, 1, 2, 8])[:count],
        adv_predictions=torch.tensor([3, 7, 2, 8])[:count],
        l0=torch.tensor([3.0, 1.0, torch.inf, 0.0])[:count],
    )
