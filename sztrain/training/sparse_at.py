"""Adversarial training against sparse attacks: cross-entropy on examples and on clean images."""

from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from sztrain.errors import InputError
from sztrain.training.adversarial import AdversarialTraining


class SparseAT(AdversarialTraining):
    r"""Train on the adversary's examples, with a share of clean images.

    .. math:: (1-c) \, CE(f(x + \delta), y) + c \, CE(f(x), y)

    The outer minimisation of `arXiv:1706.06083 <https://arxiv.org/abs/1706.06083>`_ (Eq. 2.1), its
    inner maximisation answered by a sparse attack under a budget.

    Args:
        net: see :class:`~sztrain.training.base.RobustClassifier`.
        clean_share: c in [0, 1]. With 0 the clean images pass without a gradient, for
            ``train/clean_acc``; the running statistics of BatchNorm are of both all the same.
        **kwargs: see :class:`~sztrain.training.adversarial.AdversarialTraining`.

    Raises:
        InputError: a value out of its range.

    Example:
        >>> from sztrain.attacks import SigmaZero
        >>> from sztrain.models import digits_cnn
        >>> method = SparseAT(digits_cnn(), num_classes=10, attack=SigmaZero(num_steps=5), budget=4)
    """

    def __init__(self, net: nn.Module, *, clean_share: float = 0.5, **kwargs: Any) -> None:
        super().__init__(net, **kwargs)
        if not 0 <= clean_share <= 1:
            raise InputError(f"expected `clean_share` to be in [0, 1], got {clean_share}")
        self.clean_share = clean_share

    @property
    @override
    def learns_from_clean(self) -> bool:
        return self.clean_share > 0

    def sample_losses(
        self,
        clean_logits: Tensor,
        adv_logits: Tensor,
        labels: Tensor,  # noqa: ARG002
        targets: Tensor,
    ) -> Tensor:
        """Cross-entropies of adversarial and clean images, weighted by the clean share."""
        clean_loss = self.cross_entropies(clean_logits, targets)
        adv_loss = self.cross_entropies(adv_logits, targets)
        return (1 - self.clean_share) * adv_loss + self.clean_share * clean_loss
