"""What σ-zero does to one sample step by step, seen from outside: at the net."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sztrain.attacks import SigmaZero
from sztrain.attacks.base import is_adversarial
from sztrain.attacks.checks import validate_logits
from sztrain.errors import InputError, require_in
from sztrain.losses import at_least_float32, difference_of_logits, smooth_l0
from sztrain.norms import l0_norm, num_units
from sztrain.types import AttackResult, Unit

Keep = Literal["improvements", "all"]
KEEPS: tuple[Keep, ...] = ("improvements", "all")


@dataclass(frozen=True, kw_only=True)
class AttackTrace:
    r"""One run of σ-zero on one sample: what the net saw at each step, on the CPU.

    Step 0 is the clean sample and step i the iterate of iteration i of Algorithm 1, so a run that
    is not cut short has S = N steps. The l0 is that of the input which the net saw.

    Attributes:
        inputs: the clean sample, shape ``(1, ...)``.
        label: its class (the class to reach if the attack is targeted).
        attack: what attacked it.
        loss: :math:`\mathcal{L}` of Eq. 6 in logits, float ``(S + 1,)``: 0 where the iterate is
            adversarial, and the margin of the label plus 1 elsewhere.
        penalty: :math:`\hat\ell_0 / d` of Eq. 4, a share of all units, float ``(S + 1,)``.
        l0: changes, float ``(S + 1,)``.
        adversarial: whether the iterate is misclassified, bool ``(S + 1,)``.
        predictions: classes predicted, int64 ``(S + 1,)``.
        kept_steps: steps whose iterates were kept, int64 ``(M,)``, ascending.
        iterates: inputs of the net at ``kept_steps``, shape ``(M, ...)``.
        result: the attack's answer, on the device of the inputs.
    """

    inputs: Tensor
    label: int
    attack: SigmaZero
    loss: Tensor
    penalty: Tensor
    l0: Tensor
    adversarial: Tensor
    predictions: Tensor
    kept_steps: Tensor
    iterates: Tensor = field(repr=False)
    result: AttackResult = field(repr=False)

    @property
    def unit(self) -> Unit:
        """What ``l0`` and ``penalty`` count."""
        return self.attack.unit

    @property
    def num_steps(self) -> int:
        """S, the steps that were taken."""
        return len(self.loss) - 1

    @property
    def improvements(self) -> list[int]:
        """Steps at which an adversarial example was sparser than any before, ascending."""
        l0 = self.l0.masked_fill(~self.adversarial, torch.inf)
        before = torch.cat([l0.new_tensor([torch.inf]), l0.cummin(dim=0).values[:-1]])
        return (l0 < before).nonzero().flatten().tolist()

    @property
    def sparsest_step(self) -> int | None:
        """First step at the sparsest adversarial example; ``None`` if there is none."""
        return self.improvements[-1] if self.improvements else None

    def iterate(self, step: int) -> Tensor:
        """Input of the net at a step, shape ``(1, ...)``.

        Raises:
            InputError: it was not kept.
        """
        rows = (self.kept_steps == step).nonzero().flatten()
        if len(rows) == 0:
            kept = ", ".join(map(str, self.kept_steps.tolist())) or "none"
            raise InputError(
                f"expected one of the steps whose iterate was kept ({kept}), got {step}"
            )
        return self.iterates[rows]


def trace_attack(
    net: nn.Module,
    attack: SigmaZero,
    inputs: Tensor,
    labels: Tensor,
    keep: Keep = "improvements",
) -> AttackTrace:
    r"""Attack one sample and note what passes the net; the attack knows nothing of it.

    Of the passes, those of the search make the trace. The last one of a run with ``recheck``, by
    which the attack verifies its answer, is left out, and so are passes of a sample that is already
    over and only waits to leave the batch. An improvement is a sparser adversarial example than
    any before; of their iterates some tens are kept, while ``"all"`` keeps S + 1 samples.

    Args:
        net: maps inputs to logits.
        attack: σ-zero, in full precision and without a CUDA graph: what these do cannot be told
            apart, or not seen, at the net.
        inputs: the sample, shape ``(1, ...)`` in [0, 1].
        labels: its class, int64 ``(1,)``.
        keep: which iterates to keep.

    Raises:
        InputError: there is not exactly one sample, the attack uses ``autocast`` or
            ``cuda_graph``, ``keep`` is unknown, or what the attack refuses.

    Reference:
        Fig. 3 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_ shows ``loss`` and
        ``penalty``.

    Example:
        >>> net, inputs = nn.Linear(4, 2), torch.full((1, 4), 0.5)
        >>> trace = trace_attack(net, SigmaZero(num_steps=5), inputs, net(inputs).argmax(dim=1))
        >>> trace.num_steps, trace.l0.shape, trace.l0[0].item(), bool(trace.adversarial[0])
        (5, torch.Size([6]), 0.0, False)
    """
    require_in("keep", keep, KEEPS)
    if len(inputs) != 1:
        raise InputError(f"expected 1 sample to trace, got {len(inputs)}: pass inputs[:1]")
    for option in ("autocast", "cuda_graph"):
        if getattr(attack, option):
            raise InputError(f"expected an attack with {option}=False to trace, got {option}=True")
    recorder = _Recorder(attack, inputs, labels, keep)
    hooks = [
        net.register_forward_pre_hook(recorder.see),
        net.register_forward_hook(recorder.judge),
    ]
    try:
        result = attack(net, inputs, labels)
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.trace(result)


class _Recorder:
    """Hears of every pass at the net; its input first, since a net may work in place on it."""

    def __init__(self, attack: SigmaZero, inputs: Tensor, labels: Tensor, keep: Keep) -> None:
        self.attack, self.inputs, self.labels, self.keep = attack, inputs, labels, keep
        self.rows: list[tuple[Tensor, ...]] = []
        self.kept: dict[int, Tensor] = {}
        self.best = torch.inf

    @torch.no_grad()
    def see(self, _net: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.seen: Tensor = arguments[0].detach().clone()

    @torch.no_grad()
    def judge(self, _net: nn.Module, _arguments: tuple[Any, ...], logits: Tensor) -> None:
        attack, delta = self.attack, self.seen - self.inputs
        if not self.rows:
            validate_logits(logits, self.labels)  # before the attack comes to it
        logits = at_least_float32(logits)
        l0 = l0_norm(delta, attack.unit)
        adversarial = is_adversarial(logits, self.labels, attack.targeted)
        margin = difference_of_logits(logits, self.labels)
        loss = (-margin if attack.targeted else margin).clamp(min=0) + ~adversarial
        share = smooth_l0(delta, attack.sigma, attack.unit)
        share = share / num_units(delta.shape[1:], attack.unit)
        improved = bool(adversarial & (l0 < self.best))
        if improved:
            self.best = float(l0)
        if improved or self.keep == "all":
            self.kept[len(self.rows)] = self.seen.cpu()
        self.rows.append((loss, share, l0, adversarial, logits.argmax(dim=1)))

    def trace(self, result: AttackResult) -> AttackTrace:
        count = int(result.num_forwards) - int(self.attack.recheck)
        columns = [torch.cat(column).cpu() for column in zip(*self.rows[:count], strict=True)]
        kept = {step: iterate for step, iterate in self.kept.items() if step < count}
        clean = self.inputs.detach().cpu()
        loss, share, l0, adversarial, predictions = columns
        return AttackTrace(
            inputs=clean,
            label=int(self.labels),
            attack=self.attack,
            loss=loss,
            penalty=share,
            l0=l0,
            adversarial=adversarial,
            predictions=predictions,
            kept_steps=torch.tensor(list(kept), dtype=torch.int64),
            iterates=torch.cat([*kept.values(), clean[:0]]),
            result=result,
        )
