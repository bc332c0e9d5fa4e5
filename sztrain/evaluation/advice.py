"""What someone would trip over who attacks a net of their own: said once, with the mend."""

import torch
from torch import Tensor, nn

from sztrain.attacks.checks import validate_logits
from sztrain.attacks.modes import attack_mode
from sztrain.errors import InputError, warn
from sztrain.evaluation.runner import AttackedBatch
from sztrain.losses import difference_of_logits
from sztrain.types import Attack

LOOKED_AT = 16
"""Samples of a batch whose gradients are looked at."""

SUM_TOLERANCE = 0.01
"""Of probabilities, which half precision rounds."""


class Advice:
    """Warns of each trap once.

    Args:
        speaker: with whose name each warning begins; empty: with nobody's.
        speaks: whether this process does; the others look on.

    Example:
        >>> import warnings
        >>> net, attacked = nn.Softmax(dim=1), torch.tensor([[0.5, 0.5]])
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     Advice("judge").on_outputs(net, attacked, torch.tensor([1]))
        >>> str(caught[0].message).split(",")[0]
        'judge: forward returns probabilities'
    """

    logits_mend = "return logits"
    gradient_mend = (
        "mend forward, or go by an attack without gradients as well, such as "
        "SparseRS(num_steps=1000, budget=...)"
    )

    def __init__(self, speaker: str = "", *, speaks: bool = True) -> None:
        self.speaker = speaker
        self.speaks = speaks
        self._said: set[str] = set()
        self._has_seen_outputs = False

    def on_outputs(self, net: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Look at what a net answers, once; also refuse what no attack could work with.

        Args:
            net: maps images to logits.
            images: shape ``(N, ...)``, on the net's device.
            labels: int64 ``(N,)``.

        Raises:
            InputError: no finite logits ``(N, K)``, or labels that are not among the K classes.
        """
        if self._has_seen_outputs:
            return
        self._has_seen_outputs = True
        with attack_mode(net, images.device), torch.no_grad():
            logits = net(images.clone())  # the first layer of the net may work in place
        validate_logits(logits, labels)
        inside = bool(((logits >= 0) & (logits <= 1)).all())
        if inside and bool(((logits.float().sum(dim=1) - 1).abs() < SUM_TOLERANCE).all()):
            self._say(
                "forward returns probabilities, whose gradients vanish where the net is sure, so "
                f"that it looks more robust than it is; {self.logits_mend}"
            )

    def on_attacked(self, net: nn.Module, attack: Attack, attacked: AttackedBatch) -> None:
        """Look for what makes a net look more robust than it is under an attack."""
        if "errors" not in self._said:
            self._look_at_errors(attack, attacked)
        if "gradient" not in self._said:
            self._look_at_gradients(net, attacked)

    def _look_at_errors(self, attack: Attack, attacked: AttackedBatch) -> None:
        """Whether an attack changes what is wrong as it is; a few on the edge may differ."""
        wrong = attacked.clean_predictions != attacked.labels
        left_alone = attacked.result.l0[wrong] == 0
        if 2 * int(left_alone.sum()) < int(wrong.sum()):
            self._say(
                f"{type(attack).__name__} changes samples that the net misclassifies as they are, "
                "or gives them up, so clean and robust accuracy come out too high; expected the "
                "clean sample with success and an l0 of 0",
                key="errors",
            )

    def _look_at_gradients(self, net: nn.Module, attacked: AttackedBatch) -> None:
        """Whether they are zero where an attack by gradients failed on most samples."""
        result = attacked.result
        correct = attacked.clean_predictions == attacked.labels
        failed = correct & ~result.success
        if not bool(result.num_backwards.any()) or 2 * int(failed.sum()) <= int(correct.sum()):
            return
        # An attack passes a batch through the net in slices; all of it at once may find no room.
        seen = correct.nonzero().flatten()[:LOOKED_AT]
        gradients = _gradients(net, attacked.inputs[seen], attacked.labels[seen])
        if gradients is None:  # the attack has others, of a stand-in for the net
            return
        share = float((gradients.flatten(1) == 0).all(dim=1).float().mean())
        if share > 0.5:
            self._say(
                f"the gradient is exactly zero for {share:.0%} of the samples that the net gets "
                "right, so an attack by gradients finds nothing there, however fragile the net is "
                f"(saturated, rounded or clipped values mask it); {self.gradient_mend}",
                key="gradient",
            )

    def _say(self, text: str, key: str | None = None) -> None:
        key = text if key is None else key
        if self.speaks and key not in self._said:
            prefix = f"{self.speaker}: " if self.speaker else ""
            warn(f"{prefix}{text}")
        self._said.add(key)


def passes_gradient(net: nn.Module, images: Tensor, labels: Tensor) -> bool:
    """Whether a net can be differentiated in its inputs.

    Example:
        >>> images, labels = torch.rand(2, 3), torch.tensor([0, 1])
        >>> passes_gradient(nn.Linear(3, 2), images, labels)
        True
        >>> class Detached(nn.Module):
        ...     def forward(self, inputs):
        ...         return inputs.detach()
        >>> passes_gradient(Detached(), images, labels)
        False
    """
    return _gradients(net, images, labels) is not None


def _gradients(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor | None:
    """Of the difference of logits in the images; ``None`` where the net passes none back."""
    with attack_mode(net, images.device):
        # Copies: tensors made in inference mode cannot be saved for a backward pass.
        images, labels = images.clone().requires_grad_(), labels.clone()
        try:
            # The first layer of the net may work in place.
            margins = difference_of_logits(net(images.clone()).float(), labels)
            (gradient,) = torch.autograd.grad(margins.sum(), images)
        except (InputError, RuntimeError):  # the latter is torch's own
            return None
    return gradient
