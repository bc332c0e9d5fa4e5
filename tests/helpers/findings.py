"""What jobs might have found, without a job."""

import torch

from sztrain.attacks import SigmaZero
from sztrain.cli.findings import Finding
from sztrain.evaluation.measurement import Tally
from sztrain.evaluation.record import Cost


def finding(model="M1", dataset="mnist", attack=None, l0=(1.0, 2.0, 3.0), net_label=None):
    """Three samples of 4 features that were broken at ``l0``."""
    attack = SigmaZero(num_steps=10) if attack is None else attack
    tally = Tally((1, 2, 2), attack.unit, [2])
    tally.count(torch.tensor(l0), 1.0)
    return Finding(
        label=f"{model}-{attack.num_steps}",
        model=model,
        net_label=model if net_label is None else net_label,
        dataset=dataset,
        split="test",
        attack=attack,
        attack_name="sigma_zero",
        steps=attack.num_steps,
        l0=torch.tensor(l0),
        first_sample=0,
        num_samples=len(l0),
        batch_size=3,
        measurement=tally.measurement(),
        cost=Cost(num_samples=3, seconds=1.0, num_forwards=3, num_backwards=3, peak_memory=1),
        broken_by={},
        changes={},
        examples=None,
    )
