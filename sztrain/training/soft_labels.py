"""Self-adaptive soft labels: what a net has come to believe of a sample joins its label."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sztrain.errors import InputError


class SoftLabels:
    r"""A target for each training sample that follows the predictions of the net.

    .. math:: t_i \leftarrow m \, t_i + (1 - m) \, p(x_i), \qquad w_i = \max_j t_{ij}

    starting from the one-hot label. A sample weighs :math:`w_i` in the loss: one of which the net
    has never been sure counts less.

    Args:
        start: share of the run in [0, 1] that is trained on the labels as they are.
        momentum: m in [0, 1].

    Attributes:
        targets: t, float ``(num_samples, K)``, 0 for what was not seen yet; ``None`` before
            :meth:`begin`.

    Raises:
        InputError: a value out of its range.

    Reference:
        Algorithm 1 of `arXiv:2002.10319 <https://arxiv.org/abs/2002.10319>`_.

    Example:
        >>> soft = SoftLabels(start=0.5, momentum=0.5)
        >>> soft.begin(num_samples=3, num_classes=2, num_steps=10)
        >>> soft.active(4), soft.active(5)
        (False, True)
        >>> labels, predictions = torch.tensor([1]), torch.tensor([[0.5, 0.5]])
        >>> soft.update(torch.tensor([2]), labels, predictions)
        tensor([[0.2500, 0.7500]])
    """

    def __init__(self, start: float, momentum: float = 0.9) -> None:
        for name, value in (("soft_labels_from", start), ("soft_labels_momentum", momentum)):
            if not 0 <= value <= 1:
                raise InputError(f"expected `{name}` to be in [0, 1], got {value}")
        self.start = start
        self.momentum = momentum
        self.targets: Tensor | None = None
        self._first_step = 0.0

    def begin(self, num_samples: int, num_classes: int, num_steps: float) -> None:
        """Make room for the targets of a run, or go on with those that are there.

        Args:
            num_samples: of the training.
            num_classes: K.
            num_steps: optimizer steps of the whole run.

        Raises:
            InputError: nobody knows where the run ends, or the targets are of other data.
        """
        if num_steps == float("inf"):
            raise InputError(
                "soft_labels_from is a share of the run, whose end nobody knows: "
                "set trainer.max_epochs or trainer.max_steps"
            )
        self._first_step = self.start * num_steps
        if self.targets is None:
            self.targets = torch.zeros(num_samples, num_classes)
        elif self.targets.shape != (num_samples, num_classes):
            raise InputError(
                f"the soft labels of the checkpoint are of shape {tuple(self.targets.shape)}, the "
                f"training needs {(num_samples, num_classes)}; go on with the same data"
            )

    def active(self, step: int) -> bool:
        """Whether the labels follow the net after so many steps of the run."""
        return step >= self._first_step

    def update(self, indices: Tensor, labels: Tensor, probabilities: Tensor) -> Tensor:
        """Let the targets of a batch follow the predictions.

        Args:
            indices: which samples they are, int64 ``(N,)``.
            labels: int64 ``(N,)``.
            probabilities: p, float ``(N, K)``.

        Returns:
            The new targets, float ``(N, K)``, rows that sum to 1.
        """
        assert self.targets is not None
        self.targets = self.targets.to(labels.device)
        known = self.targets[indices]
        first = one_hot(labels, known.shape[1]).to(known.dtype)
        known = torch.where(known.sum(dim=1, keepdim=True) > 0, known, first)
        new = torch.lerp(probabilities.to(known.dtype), known, self.momentum)
        self.targets[indices] = new
        return new
