"""TRADES with a sparse adversary."""

from typing import Any

from torch import Tensor, nn

from sztrain.errors import require_at_least
from sztrain.losses import trades_kl
from sztrain.training.adversarial import AdversarialTraining


class TRADES(AdversarialTraining):
    r"""Trade clean accuracy against stability under the adversary.

    .. math:: CE(f(x), y) + \beta \, KL(f(x) \,\|\, f(x + \delta))

    The loss of `arXiv:1901.08573 <https://arxiv.org/abs/1901.08573>`_, Eq. 5 (its
    :math:`1/\lambda` is β); δ comes from a sparse attack on the labels instead of an l-infinity
    ascent of the divergence.

    Args:
        net: see :class:`~sztrain.training.base.RobustClassifier`.
        beta: β, at least 0.
        **kwargs: see :class:`~sztrain.training.adversarial.AdversarialTraining`.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> from sztrain.models import digits_cnn
        >>> method = TRADES(digits_cnn(), num_classes=10, beta=6.0, budget=4)
    """

    def __init__(self, net: nn.Module, *, beta: float = 6.0, **kwargs: Any) -> None:
        super().__init__(net, **kwargs)
        require_at_least("beta", beta, 0)
        self.beta = beta

    def sample_losses(
        self,
        clean_logits: Tensor,
        adv_logits: Tensor,
        labels: Tensor,  # noqa: ARG002
        targets: Tensor,
    ) -> Tensor:
        """Clean cross-entropy and β times the divergence that the adversary causes."""
        divergence = trades_kl(clean_logits, adv_logits)
        return self.cross_entropies(clean_logits, targets) + self.beta * divergence
