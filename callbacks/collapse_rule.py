"""When an adversarial training has collapsed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

from sztrain.errors import InputError, require_at_least


@dataclass(frozen=True, kw_only=True)
class CollapseRule:
    """When a training has collapsed: one of four signs is enough.

    Args:
        margin: by how much the training accuracy on the adversary's examples may exceed that on
            clean images. It hardly does in a sound training, since examples are made to be harder;
            dropout and few samples let the two differ by chance.
        max_drop: by how much clean validation accuracy may fall below its best so far.
        max_gap: by how much the training accuracy on the examples may exceed the worst-case robust
            accuracy on validation samples, once the training budget has reached that of the latter
            (and only where both count the same unit).
        max_loss: share of the best worst-case robust accuracy so far that may be lost, once that
            was above ``max_drop``; from 1 on this sign is never seen.

    With 1, each of them is never seen.

    Raises:
        InputError: a value below 0, or infinite.

    Reference:
        The first two signs are those that `arXiv:2502.21041 <https://arxiv.org/abs/2502.21041>`_
        finds where one-step training against l0 attacks fails.

    Example:
        >>> now = {"train/clean_acc": 0.7, "train/adv_acc": 0.9, "val/clean_acc": 0.8}
        >>> CollapseRule().signs(now, best_clean=0.8, best_robust=0.0)
        ['training accuracy on adversaries (0.900) is above clean accuracy (0.700)']
    """

    margin: float = 0.05
    max_drop: float = 0.15
    max_gap: float = 0.5
    max_loss: float = 0.6

    def __post_init__(self) -> None:
        for field in fields(self):
            require_at_least(field.name, getattr(self, field.name), 0)

    def signs(
        self,
        metrics: Mapping[str, float],
        best_clean: float,
        best_robust: float,
        monitor: str | None = None,
    ) -> list[str]:
        """What speaks for a collapse, in words; nothing where it is sound.

        Args:
            metrics: of the epoch, by the keys of the logs.
            best_clean: largest ``val/clean_acc`` so far.
            best_robust: largest worst-case robust accuracy so far.
            monitor: key of the latter, such as ``val/robust_acc_worst@24``.

        Raises:
            InputError: there is no accuracy on clean images to compare with, or the budget of
                ``monitor`` is no number.
        """
        found = []
        if "train/clean_acc" not in metrics:
            raise InputError(
                "a collapse shows in train/adv_acc beside train/clean_acc, and only the former is "
                "logged; log the latter for each epoch as well, or leave out CollapseGuard"
            )
        adv, clean = metrics["train/adv_acc"], metrics["train/clean_acc"]
        if adv > clean + self.margin:
            found.append(
                f"training accuracy on adversaries ({adv:.3f}) is above clean accuracy "
                f"({clean:.3f})"
            )
        val_clean = metrics.get("val/clean_acc", best_clean)
        if val_clean < best_clean - self.max_drop:
            found.append(f"clean accuracy swings, from {best_clean:.3f} to {val_clean:.3f}")
        budget = None if monitor is None else budget_of(monitor)
        robust = None if monitor is None else metrics.get(monitor)
        if budget is None or robust is None:
            return found
        if metrics.get("train/budget", 0) >= budget and adv > robust + self.max_gap:
            found.append(
                f"training accuracy on adversaries is {adv:.3f}, {monitor} only {robust:.3f}"
            )
        if best_robust > self.max_drop and robust < (1 - self.max_loss) * best_robust:
            found.append(f"{monitor} fell from {best_robust:.3f} to {robust:.3f}")
        return found

    def unseen(self, logged: Collection[str], monitor: str | None = None) -> dict[str, list[str]]:
        """The thresholds that no epoch is held against, since nothing logs what they go by.

        Args:
            logged: keys of the logs of an epoch.
            monitor: see :meth:`signs`; ``None``, or a key without a budget: none is missed.

        Returns:
            The keys that are missing, by threshold.

        Example:
            >>> CollapseRule().unseen({"train/adv_acc", "train/clean_acc"})
            {'max_drop': ['val/clean_acc']}
        """
        needed = {"margin": ["train/clean_acc"], "max_drop": ["val/clean_acc"]}
        if monitor is not None and budget_of(monitor) is not None:
            needed |= {"max_gap": ["train/budget", monitor], "max_loss": [monitor]}
        missing = {
            name: [key for key in ("train/adv_acc", *keys) if key not in logged]
            for name, keys in needed.items()
            if getattr(self, name) < 1  # else it is never exceeded
        }
        return {name: keys for name, keys in missing.items() if keys}


def budget_of(monitor: str) -> int | None:
    """The budget in the key of a robust accuracy; ``None``: it is a key of something else.

    Raises:
        InputError: what follows the @ is no number.

    Example:
        >>> budget_of("val/robust_acc_worst@24")
        24
    """
    _, at, budget = monitor.partition("@")
    if not at:
        return None
    if not budget.isdecimal():
        raise InputError(
            f"expected `monitor` to end in a budget, as val/robust_acc_worst@24 does, got {monitor}"
        )
    return int(budget)
