"""The sparsest adversarial example of a linear net, in closed form."""

import torch


def fewest_changes(weight, bias, x, label, unit):
    """Smallest l0 that changes the class of one sample: the largest gains first, greedily."""
    fewest = torch.inf
    for other in range(len(bias)):
        if other == label:
            continue
        slope = (weight[label] - weight[other]).view_as(x)
        margin = (slope * x).sum() + bias[label] - bias[other]
        gains = torch.maximum(slope * x, -slope * (1 - x))  # down to 0, or up to 1
        gains = gains.sum(dim=0) if unit == "pixels" else gains
        reached = gains.flatten().sort(descending=True).values.cumsum(dim=0) > margin
        if reached.any():
            fewest = min(fewest, 1 + int((~reached).sum()))
    return fewest
