"""Collapse guard: notices when a net learns to fool its adversary instead of resisting it."""

from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_warn
from typing_extensions import override

from sztrain.callbacks._fresh import FreshFigures
from sztrain.callbacks._kinds import is_a
from sztrain.callbacks._moved_files import bring_along
from sztrain.callbacks.alarms import raise_alarm
from sztrain.callbacks.collapse_rule import CollapseRule, budget_of
from sztrain.callbacks.smoke_test import is_smoke_test
from sztrain.errors import InputError, SztrainWarning, require_count, require_in
from sztrain.types import Attack

Action = Literal["warn", "stop", "more_steps"]
ACTIONS: tuple[Action, ...] = ("warn", "stop", "more_steps")


class CollapseGuard(Callback):
    """Watches an adversarial training for signs of collapse after each epoch.

    Goes by what is logged before the hooks at the end of the epoch, by ``training_step`` say:
    ``train/adv_acc``, ``train/clean_acc`` and ``val/clean_acc``, and by the worst-case robust
    accuracy that a :class:`~sztrain.callbacks.SparseRobustness` with a ``probe`` measures on
    held-out samples with more steps than the training takes. Logs ``train/collapse_signs``, how
    many there are, and raises an alarm: a warning on the screen and an alert in W&B, once until an
    epoch is sound again. An epoch without an adversary is not looked at, and neither is a smoke
    test (``fast_dev_run``). No figure is judged twice: in an epoch that is not validated, or not
    gauged, the training's own figures may show a collapse, but only an epoch with all figures is
    called sound. What it goes by and nothing logs is warned of after the first validated epoch.

    Args:
        rule: when it is a collapse; ``None``: the defaults of :class:`CollapseRule`.
        monitor: key of the worst-case robust accuracy; ``None``, or one without a budget, such as
            ``val/clean_acc``: none is looked at.
        dirpath: where ``sound.ckpt`` is kept, the last epoch without a sign; ``None``: nowhere.
        action: ``"warn"``; ``"stop"`` as well; ``"more_steps"``: go back to the weights of
            ``sound.ckpt`` and on with ``step_factor`` times the adversary's steps, and stop where
            these have reached ``max_steps``. Soft labels stay as they are.
        step_factor: at least 2.
        max_steps: most steps of the adversary.

    Raises:
        InputError: a value out of its range, a ``monitor`` whose budget is no number, a ``dirpath``
            that is remote, or ``more_steps`` without one; by the training: ``more_steps`` with a
            method that has no attack or with a callback that averages the weights, or a method
            that logs ``train/adv_acc`` alone.

    Example:
        >>> guard = CollapseGuard(monitor="val/robust_acc_worst@24", action="stop")
        >>> trainer = pl.Trainer(callbacks=[guard], logger=False, accelerator="cpu")
    """

    def __init__(
        self,
        *,
        rule: CollapseRule | None = None,
        monitor: str | None = None,
        dirpath: str | Path | None = None,
        action: Action = "warn",
        step_factor: int = 2,
        max_steps: int = 40,
    ) -> None:
        require_in("action", action, ACTIONS)
        require_count("step_factor", step_factor, 2)
        require_count("max_steps", max_steps, 1)
        if action == "more_steps" and dirpath is None:
            raise InputError(
                "action=more_steps goes back to the last sound checkpoint, and there is no "
                "`dirpath` to keep it in; name one, or use action=stop"
            )
        if dirpath is not None and "://" in str(dirpath):
            raise InputError(
                f"expected `dirpath` to be a folder of this machine, got {dirpath}; upload "
                "sound.ckpt from there, or leave `dirpath` out"
            )
        if dirpath is not None and Path(dirpath).exists() and not Path(dirpath).is_dir():
            raise InputError(f"expected `dirpath` to be a folder, got the file {dirpath}")
        if monitor is not None:
            budget_of(monitor)
        if rule is not None and not isinstance(rule, CollapseRule):
            raise InputError(
                f"expected `rule` to be a CollapseRule(...), got {rule!r} ({type(rule).__name__})"
            )
        self.rule = rule if rule is not None else CollapseRule()
        self.monitor = monitor
        self.sound = None if dirpath is None else Path(dirpath) / "sound.ckpt"
        self.action: Action = action
        self.step_factor = step_factor
        self.max_steps = max_steps
        self._state = _State(monitor=monitor)
        self._fresh = FreshFigures()
        self._step: int | None = None  # at which a training goes on
        self._has_told = False

    @override
    def state_dict(self) -> dict[str, Any]:
        return asdict(self._state)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.current_epoch == 0:  # else the same Trainer goes on
            self._state = _State(monitor=self.monitor)
            self._fresh = FreshFigures()
            self._has_told = False

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._step = checkpoint["global_step"] if trainer.state.fn == "fit" else None

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        known = {field.name for field in fields(_State)}  # older checkpoints have others
        self._state = _State(**{key: state_dict[key] for key in known & set(state_dict)})
        if self._state.monitor != self.monitor:  # a best of another figure is none of this
            self._state.best_robust, self._state.monitor = 0.0, self.monitor
        before = self._state.sound
        if before is not None:  # its folder may be that of another run, or have another name now
            folder = None if self.sound is None else self.sound.parent
            found = None if folder is None else bring_along(before, folder, self._step)
            self._state.sound = None if found is None else str(found)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.action == "more_steps" and not isinstance(_attack(pl_module), Attack):
            raise InputError(
                "action=more_steps needs a method with an adversary, such as SparseAT, "
                f"got {type(pl_module).__name__}; use action=warn"
            )
        if self.action == "more_steps" and _averages_weights(trainer):
            raise InputError(
                "action=more_steps cannot go back where a callback averages the weights, which "
                "keeps those of the moment; use action=stop, or train without the average"
            )
        if self._state.num_steps is not None:
            _attack_with(pl_module, self._state.num_steps)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._fresh.on_validation_end(trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Those of the first process, where others see other figures: all have to decide alike.
        metrics: dict[str, float] = trainer.strategy.broadcast(
            {
                key: float(value)
                for key, value in trainer.callback_metrics.items()
                if not self._fresh.is_stale(key, trainer)
            }
        )
        if is_smoke_test(trainer):
            return
        self._tell_unseen(trainer, pl_module)
        if self._counts_otherwise(pl_module):
            metrics.pop("train/budget", None)
        if "train/adv_acc" not in metrics:
            return
        state = self._state
        signs = self.rule.signs(metrics, state.best_clean, state.best_robust, self.monitor)
        pl_module.log("train/collapse_signs", float(len(signs)), sync_dist=True)
        state.best_clean = max(state.best_clean, metrics.get("val/clean_acc", 0.0))
        state.best_robust = max(state.best_robust, metrics.get(self.monitor or "", 0.0))
        if signs:
            self._act(trainer, pl_module, "; ".join(signs))
            return
        is_stale = self._fresh.is_stale(self.monitor or "", trainer)
        if is_stale or not self._fresh.is_validated(trainer):
            return
        state.alarmed = False
        # A training that has diverged is about to end: what it ends with is not to go on from.
        if self.sound is not None and isfinite(metrics.get("train/loss", 0.0)):
            is_first = state.sound is None
            state.sound = str(self.sound)
            trainer.save_checkpoint(self.sound, weights_only=False)
            if is_first and self.action == "more_steps":
                self._read(state.sound, trainer)  # what cannot be read is known before it is needed

    def _tell_unseen(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say once what the rule goes by and nothing logs."""
        logged = set(trainer.callback_metrics)
        has_no_adversary = "train/clean_acc" in logged and "train/adv_acc" not in logged
        if self._has_told or has_no_adversary or not self._fresh.is_validated(trainer):
            return
        self._has_told = True
        if self._counts_otherwise(pl_module):
            logged.add("train/budget")  # by which it does not go
        unseen = self.rule.unseen(logged, self.monitor)
        if unseen:
            keys = dict.fromkeys(key for missing in unseen.values() for key in missing)
            off = ", ".join(f"{name}=1" for name in unseen)
            rank_zero_warn(
                f"CollapseGuard: nothing logs {', '.join(keys)}, so that no epoch is held against "
                f"{', '.join(unseen)}; log what is missing (self.log in a step), or give "
                f"rule=CollapseRule({off})",
                category=SztrainWarning,
            )

    def _counts_otherwise(self, pl_module: pl.LightningModule) -> bool:
        """Whether the budget of the training and that of the monitor are in different units."""
        unit = getattr(_attack(pl_module), "unit", None)
        is_in_pixels = "_px@" in (self.monitor or "")
        return unit is not None and (unit == "pixels") != is_in_pixels

    def _act(self, trainer: pl.Trainer, pl_module: pl.LightningModule, text: str) -> None:
        text = f"epoch {trainer.current_epoch}: {text}"
        if self._state.sound is not None:
            text += f"; the last sound epoch is in {self._state.sound}"
        if self.action == "more_steps" and self._more_steps(trainer, pl_module):
            place = "" if self._state.sound is None else " from there"
            text += f"; going on{place} with {self._state.num_steps} steps"
        elif self.action != "warn":
            trainer.should_stop = True
            text += "; stopping"
        elif self._state.alarmed:
            return
        self._state.alarmed = True
        raise_alarm(trainer, "The training collapses", text)

    def _more_steps(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Go back and give the adversary more steps, unless it has all of them already."""
        num_steps = min(_attack(pl_module).num_steps * self.step_factor, self.max_steps)
        if num_steps <= _attack(pl_module).num_steps:
            return False
        if self._state.sound is not None:
            checkpoint = self._read(self._state.sound, trainer)
            trainer.strategy.load_model_state_dict(checkpoint)
            for optimizer, saved in zip(
                trainer.optimizers, checkpoint["optimizer_states"], strict=True
            ):
                # The schedule goes on: only the moments are those of the sound epoch.
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
        _attack_with(pl_module, num_steps)
        self._state.num_steps = num_steps
        return True

    def _read(self, path: str, trainer: pl.Trainer) -> dict[str, Any]:
        """A sound checkpoint; nothing in it is executed."""
        try:
            return trainer.strategy.load_checkpoint(path, weights_only=True)
        except UnpicklingError as error:
            raise InputError(
                f"action=more_steps cannot go back to {path}, which holds objects, such as an "
                "attack that save_hyperparameters() has kept; leave them out "
                "(save_hyperparameters(ignore=[...])), or use action=stop"
            ) from error


@dataclass
class _State:
    best_clean: float = 0.0
    best_robust: float = 0.0
    monitor: str | None = None  # whose best that is
    sound: str | None = None  # the last sound checkpoint
    num_steps: int | None = None
    alarmed: bool = False


def _attack(pl_module: pl.LightningModule) -> Any:
    return getattr(pl_module, "attack", None)


def _averages_weights(trainer: pl.Trainer) -> bool:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # in __init__
    return any(is_a(callback, "WeightAveraging") for callback in callbacks)


def _attack_with(pl_module: Any, num_steps: int) -> None:
    pl_module.attack = replace(pl_module.attack, num_steps=num_steps)
