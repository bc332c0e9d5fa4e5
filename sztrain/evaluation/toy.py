"""A problem with two features, on which an attack can be watched."""

import torch
from torch import Tensor, nn

from sztrain.attacks import SigmaZero

CENTRE, RADIUS, START = (0.85, 0.72), 0.42, (0.22, 0.35)
SHARPNESS = 10.0


class Disc(nn.Module):
    """Class 1 inside of a circle and class 0 around it; inputs ``(N, 2)``, logits ``(N, 2)``.

    Example:
        >>> Disc()(torch.tensor([CENTRE, START])).argmax(dim=1)
        tensor([1, 0])
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Squared distance from the centre, and squared radius."""
        distance = (inputs - inputs.new_tensor(CENTRE)).square().sum(dim=1)
        return SHARPNESS * torch.stack([distance, torch.full_like(distance, RADIUS**2)], dim=1)


def toy_problem() -> tuple[Disc, SigmaZero, Tensor, Tensor]:
    """A net, an attack and one sample whose class can be changed by its first feature alone.

    The steepest way moves both features, so σ-zero has to take one of them back. Its step size and
    threshold are smaller than the paper's, whose first step would leave the picture.

    Returns:
        What :func:`~sztrain.evaluation.trace.trace_attack` takes: net, attack, inputs ``(1, 2)``
        and labels ``(1,)``.

    Reference:
        Fig. 1, left, of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_ shows such a run.

    Example:
        >>> net, attack, inputs, labels = toy_problem()
        >>> attack(net, inputs, labels).l0
        tensor([1.])
    """
    attack = SigmaZero(num_steps=40, eta=0.05, tau=0.02)
    return Disc(), attack, torch.tensor([START]), torch.tensor([0])
