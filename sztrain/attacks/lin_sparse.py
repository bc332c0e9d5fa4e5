r"""Lin et al.: a sparse attack by weighing a dense one.

Lin, Lou, Wang, Jalaian, Yuan: "Towards Interpretable Adversarial Examples via Sparse Adversarial
Attack", `arXiv:2506.17250 <https://arxiv.org/abs/2506.17250>`_, after the authors' code.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sztrain.attacks._pruning import prune
from sztrain.attacks._search import Search, Seen
from sztrain.attacks.base import Found, Logits, run_attack
from sztrain.attacks.checks import validate_attack
from sztrain.attacks.gradients import finite_gradient
from sztrain.attacks.rows import Outcome, steps_between_syncs
from sztrain.errors import (
    InputError,
    require_at_least,
    require_count,
    require_in,
    require_positive,
    require_seed,
)
from sztrain.norms import clamp_to_box_
from sztrain.types import AttackResult, Unit

Amplitude = Literal["half", "full"]
AMPLITUDES: tuple[Amplitude, ...] = ("half", "full")


@dataclass(frozen=True, kw_only=True)
class LinSparse:
    r"""The sparse attack of Lin et al. (`arXiv:2506.17250 <https://arxiv.org/abs/2506.17250>`_).

    A minimal-norm attack, untargeted. Stage 1 finds a dense perturbation Δ within ±ε and the wrong
    class :math:`y_a` that it leads to; stage 2 gives each feature a weight W, most of them zero:

    .. math::
        x_{adv} = x + W \odot \Delta, \qquad
        W \leftarrow \Omega \odot \tanh \max(W - s \nabla_W J(x_{adv}, y_a) - \tau/\varepsilon, 0)

    *What is the authors'* (their code; a machine-written summary of sigmoid masks does not fit it):
    both stages, the start :math:`W \sim N(0, 1)`, the shifted ReLU as the mask ("where"), Ω·tanh as
    the magnitude ("how much"), and all defaults. Their loss also adds :math:`\|W\|_0`, which has
    no gradient and moves nothing: what makes W sparse is the cut τ/ε, a proximal step for
    :math:`\|W\|_1`. *What is inferred here*: the class to go to where stage 1 fails (the likeliest
    wrong one; the code would walk to the true one), the box [0, 1] in stage 1 (the code has
    [-1, 1]), ``amplitude="full"``, and pruning.

    The support comes and goes from step to step; the answer is the sparsest example met, a dense
    one of stage 1 where stage 2 found none. An l0 of about the number of features means just that.

    Args:
        num_steps: T, forward and backward pairs of stage 2 (200 in the authors' sparse demo, 100 in
            that of explanations); a sample leaves sooner once a single change breaks it.
        dense_steps: forward and backward pairs of stage 1, in addition.
        epsilon: ε, how far stage 1 moves a feature (6/255; 10/255 for explanations).
        tau: τ, the amplitude below which a feature is cut off, below 0.5 with half the amplitude
            and below 1 with the full one (0.45; 0.2 for explanations); larger is sparser.
        step: s, the step size of stage 2; the authors' product lr·β·λ.
        amplitude: the most a feature may move in stage 2: ``"half"``, :math:`\min(x, 1 - x)`, the
            authors' (black and white features stay as they are); or ``"full"``, all the room in the
            direction of Δ, without which MNIST cannot be attacked.
        prune_steps: after the search, try so many changes of each example, the smallest first, and
            drop those it can do without; a forward pass each.
        seed: of the first W, the same for each sample, so that no answer depends on the batch.
        unit: what is counted, single values (``"features"``) or positions (``"pixels"``).
        budget: largest l0 that counts as success, and the early stop; ``None``: none.
        recheck: work in full precision, whatever the caller's autocast, and verify the claims with
            one forward pass.
        batch_size: how many samples are under attack at a time; ``None``: what is fastest on a
            CPU, everything at once elsewhere. Halved where the memory does not suffice.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> _ = net.weight.data.copy_(torch.tensor([[9.0, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0]]))
        >>> _ = net.bias.data.copy_(torch.tensor([0.0, 4.0]))
        >>> LinSparse(num_steps=20)(net, torch.full((1, 4), 0.5), torch.tensor([0])).l0.item()
        1.0
    """

    num_steps: int = 200
    dense_steps: int = 10
    epsilon: float = 6 / 255
    tau: float = 0.45
    step: float = 1000.0
    amplitude: Amplitude = "half"
    prune_steps: int = 0
    seed: int = 0
    unit: Unit = "features"
    budget: int | None = None
    recheck: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        validate_attack(self.unit, self.num_steps, self.budget, self.batch_size)
        require_count("dense_steps", self.dense_steps, 1)
        require_count("prune_steps", self.prune_steps, 0)
        require_seed("seed", self.seed)
        require_in("amplitude", self.amplitude, AMPLITUDES)
        if not 0 < self.epsilon <= 1:
            raise InputError(f"expected `epsilon` to be in (0, 1], got {self.epsilon}")
        require_at_least("tau", self.tau, 0)
        require_positive("step", self.step)

    def __call__(self, net: nn.Module, inputs: Tensor, labels: Tensor) -> AttackResult:
        """Attack ``inputs``, shape ``(N, ...)`` in [0, 1], with int64 ``labels``, shape ``(N,)``.

        Raises:
            InputError: inputs outside [0, 1], labels outside the classes, non-finite logits, a
                budget above the number of units, or pixels asked of something without channels.
        """
        return run_attack(
            partial(lin_sparse, attack=self),
            net,
            inputs,
            labels,
            unit=self.unit,
            budget=self.budget,
            recheck=self.recheck,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True, kw_only=True)
class _Search(Search):
    ascent: Tensor
    """Sum of the gradients of stage 1."""
    dense: Tensor
    """Δ, what stage 1 ends with."""
    goal: Tensor
    """The class that stage 2 goes to, ``(N,)``."""
    room: Tensor
    """Ω, the largest weight."""
    weights: Tensor
    """W."""


def lin_sparse(logits_of: Logits, inputs: Tensor, labels: Tensor, attack: LinSparse) -> Found:
    """Both stages: a forward and a backward pass a step, one forward for where each stage ends.

    Args:
        logits_of: the net.
        inputs: x, shape ``(N, ...)`` in [0, 1].
        labels: y, int64 ``(N,)``.
        attack: the hyper-parameters.

    Returns:
        The claims, which :func:`~sztrain.attacks.base.run_attack` verifies.
    """
    search, outcome = _start(inputs, labels, attack), Outcome(inputs)
    for step in range(attack.dense_steps):
        seen = search.look(logits_of, attack.unit)
        _ascend(attack, search, seen)
        if step == 0:  # whoever is misclassified from the start: the minimum is δ = 0
            search.open.logical_and_(search.best_l0 > 0)
            search = outcome.without_closed(search)
        if len(search.index) == 0:
            return outcome.found
    dense = search.look(logits_of, attack.unit, with_gradient=False)
    _aim(attack, search, dense)

    interval = steps_between_syncs(inputs.device)
    for step in range(attack.num_steps + 1):
        last = step == attack.num_steps
        seen = search.look(logits_of, attack.unit, with_gradient=not last)
        if not last:
            _weigh(attack, search, seen)
        search.open.logical_and_(search.best_l0 > (attack.budget or 1))
        if step % interval == 0:
            search = outcome.without_closed(search)
        if len(search.index) == 0:
            break
    outcome.collect(search)
    prune(
        logits_of,
        outcome.found,
        inputs,
        labels,
        num_steps=attack.prune_steps,
        unit=attack.unit,
        budget=attack.budget,
    )
    return outcome.found


def _start(inputs: Tensor, labels: Tensor, attack: LinSparse) -> _Search:
    generator = torch.Generator("cpu").manual_seed(attack.seed)
    noise = torch.randn(inputs.shape[1:], generator=generator, dtype=torch.float32, device="cpu")
    return _Search.at_zero(
        inputs,
        labels,
        ascent=torch.zeros_like(inputs),
        dense=torch.zeros_like(inputs),
        goal=labels.clone(),
        room=torch.zeros_like(inputs),
        weights=noise.to(inputs).expand_as(inputs).clone(),
    )


def _ascend(attack: LinSparse, search: _Search, seen: Seen) -> None:
    """A step of stage 1: from x again, along the sign of all gradients so far."""
    search.ascent.add_(_cross_entropy_gradient(seen, search.labels))
    search.delta.copy_(search.ascent).sign_().mul_(attack.epsilon)
    clamp_to_box_(search.delta, search.inputs)


def _aim(attack: LinSparse, search: _Search, seen: Seen) -> None:
    """What stage 1 hands over to stage 2: Δ, Ω and the class to go to; and the first iterate."""
    others = seen.logits.scatter(1, search.labels.unsqueeze(1), -torch.inf)
    search.goal.copy_(others.argmax(dim=1))
    inputs = search.inputs
    if attack.amplitude == "half":
        search.dense.copy_(search.delta)
        room = torch.minimum(inputs, 1 - inputs)
    else:
        torch.sign(search.delta, out=search.dense).mul_(attack.epsilon)
        room = torch.where(search.dense > 0, 1 - inputs, inputs)
    torch.div(room, attack.epsilon, out=search.room)
    _apply_weights(search)


def _weigh(attack: LinSparse, search: _Search, seen: Seen) -> None:
    """A step of stage 2."""
    gradient = _cross_entropy_gradient(seen, search.goal)
    search.weights.addcmul_(gradient, search.dense, value=-attack.step)
    search.weights.copy_(activated(search.weights, attack.tau / attack.epsilon, search.room))
    _apply_weights(search)


def activated(weights: Tensor, cut: float, room: Tensor) -> Tensor:
    r"""Which features move, and how far: :math:`\Omega \odot \tanh \max(V - \theta, 0)`.

    Args:
        weights: V, any shape.
        cut: θ, up to which a weight becomes exactly zero.
        room: Ω, what a large weight becomes, the shape of ``weights``.

    Example:
        >>> activated(torch.tensor([-5.0, 1.0, 1.5, 99.0]), 1.0, torch.full((4,), 2.0))
        tensor([0.0000, 0.0000, 0.9242, 2.0000])
    """
    return (weights - cut).clamp_(min=0).tanh_().mul_(room)


def _apply_weights(search: _Search) -> None:
    torch.mul(search.weights, search.dense, out=search.delta)
    # Only the first weights, drawn at random, can lead out of the box.
    clamp_to_box_(search.delta, search.inputs)


def _cross_entropy_gradient(seen: Seen, classes: Tensor) -> Tensor:
    # A sum, so that no sample's step depends on how many others there are.
    loss = F.cross_entropy(seen.logits, classes, reduction="sum")
    return finite_gradient(loss, seen.delta)
