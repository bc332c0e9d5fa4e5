"""MART with a sparse adversary."""

from typing import Any

from torch import Tensor, nn

from sztrain.errors import require_at_least
from sztrain.losses import at_least_float32, trades_kl, wrong_class_margin
from sztrain.training.adversarial import AdversarialTraining


class MART(AdversarialTraining):
    r"""Learn most from the samples that the net is unsure of even when they are clean.

    .. math::
        CE(f(x + \delta), y) - \log\bigl(1 - \max_{k \ne y} p_k(x + \delta)\bigr)
        + \beta \, KL(p(x) \,\|\, p(x + \delta)) \, (1 - p_y(x))

    The misclassification-aware loss of `Wang et al. 2020
    <https://openreview.net/forum?id=rklOg6EFwS>`_; δ comes from a sparse attack instead of
    an l-infinity ascent. There is no clean cross-entropy in it.

    Args:
        net: see :class:`~sztrain.training.base.RobustClassifier`.
        beta: β, the paper's λ, at least 0.
        **kwargs: see :class:`~sztrain.training.adversarial.AdversarialTraining`.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> from sztrain.models import digits_cnn
        >>> method = MART(digits_cnn(), num_classes=10, beta=5.0, budget=4)
    """

    def __init__(self, net: nn.Module, *, beta: float = 5.0, **kwargs: Any) -> None:
        super().__init__(net, **kwargs)
        require_at_least("beta", beta, 0)
        self.beta = beta

    def sample_losses(
        self, clean_logits: Tensor, adv_logits: Tensor, labels: Tensor, targets: Tensor
    ) -> Tensor:
        """Boosted cross-entropy and the divergence, weighted by the doubt about the clean image."""
        boosted = self.cross_entropies(adv_logits, targets) + wrong_class_margin(adv_logits, labels)
        predictions = at_least_float32(clean_logits).softmax(dim=1)
        doubt = 1 - predictions.gather(1, labels.unsqueeze(1)).squeeze(1)
        return boosted + self.beta * trades_kl(clean_logits, adv_logits) * doubt
