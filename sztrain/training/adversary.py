"""What training does with an attack's answer: the examples to learn from, under a budget."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sztrain.attacks.answers import check_answer
from sztrain.norms import per_sample, project_l0
from sztrain.types import Attack

Unbroken = Literal["best", "last"]
UNBROKEN: tuple[Unbroken, ...] = ("best", "last")


@dataclass(frozen=True, kw_only=True)
class TrainingExamples:
    """Adversarial examples to train on.

    Attributes:
        inputs: shape of the clean inputs, never further from them than the budget.
        broken: whether the attack has seen the net err on them within the budget, bool ``(N,)``.
        all_seen: whether it has passed all of them, and the clean inputs, through the net; a lean
            one has not.
    """

    inputs: Tensor
    broken: Tensor
    all_seen: bool = True


def craft_examples(
    attack: Attack,
    net: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    unbroken: Unbroken = "last",
) -> TrainingExamples:
    """Attack a batch and choose for each sample what training shall see.

    A sample that the attack breaks within its budget trains on that example; for one that is
    misclassified from the start this is its clean input. A sample that was not broken trains on a
    projection onto the budget (its largest changes): of the sparsest adversarial example that was
    found beyond the budget, or of the last iterate.

    Args:
        attack: the adversary; its ``budget`` is the budget of training, ``None``: none.
        net: the net in training.
        inputs: clean images, shape ``(N, C, H, W)`` in [0, 1].
        labels: int64 ``(N,)``.
        unbroken: what is projected for a sample that was not broken: ``"best"``, the sparsest
            adversarial example where there is one and else the last iterate; ``"last"``, always
            the last iterate.

    Raises:
        InputError: what the attack refuses, or an answer that is none.
    """
    result = attack(net, inputs, labels)
    check_answer(attack, result, inputs)
    start = result.last_inputs
    if unbroken == "best":
        found = (result.best_inputs != inputs).flatten(1).any(dim=1)
        start = torch.where(per_sample(found, inputs), result.best_inputs, start)
    delta = start - inputs
    if attack.budget is not None:
        delta = project_l0(delta, attack.budget, attack.unit)
    examples = torch.where(per_sample(result.success, inputs), result.adv_inputs, inputs + delta)
    all_seen = not getattr(attack, "lean", False)
    return TrainingExamples(inputs=examples, broken=result.success, all_seen=all_seen)
