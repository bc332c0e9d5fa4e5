"""Standard training: cross-entropy on clean images, the baseline of every comparison."""

from torch import Tensor

from sztrain.training.base import RobustClassifier


class StandardTraining(RobustClassifier):
    """Train on clean images; arguments as :class:`~sztrain.training.base.RobustClassifier`.

    Example:
        >>> from sztrain.models import digits_cnn
        >>> method = StandardTraining(digits_cnn(), num_classes=10)
    """

    def batch_loss(
        self,
        inputs: Tensor,
        labels: Tensor,
        indices: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the clean images."""
        logits = self(inputs)
        return self.cross_entropies(logits, labels).mean(), logits
