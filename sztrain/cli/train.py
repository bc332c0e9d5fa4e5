"""One training run from a composed config: check, train, judge, report."""

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import nn

from sztrain.attacks.peers import check_library
from sztrain.callbacks import CollapseGuard, SparseRobustness
from sztrain.cli.build import (
    build_callbacks,
    build_data,
    build_method,
    build_net,
    build_trainer,
    named,
    quieten,
)
from sztrain.cli.checks import (
    check_attack,
    check_judge,
    check_monitor,
    check_seed,
    check_wandb,
    set_num_threads,
)
from sztrain.cli.continuation import (
    check_checkpoint,
    check_continuation,
    check_epochs,
    check_optimizer,
)
from sztrain.cli.hydra_job import choice_of, is_sweep, own_overrides
from sztrain.cli.memory import keep_freed_memory
from sztrain.cli.net_checks import check_net, check_parts
from sztrain.cli.one_checkpoint import how_to_go_on, hydra_word
from sztrain.cli.options import TrainOptions, check_options
from sztrain.cli.presets import drop_unfit_presets
from sztrain.cli.verdict import judge
from sztrain.cli.wandb_run import ended_run
from sztrain.data import ImageDataModule
from sztrain.errors import InputError, require_count, warn
from sztrain.files import set_aside
from sztrain.models import describe_net, load_net
from sztrain.models.state_dicts import load_strictly
from sztrain.norms import check_budgets
from sztrain.training import AdversarialTraining, RobustClassifier

_TABLES = ("metrics.csv", "robustness_curves.csv", "class_l0.csv", "l0_histogram.csv")
_KNOWN = {"sztrain", "pytorch_lightning"}  # whose callbacks log under names that are known
_COUNTS = {"epoch", "step"}  # which Lightning's checkpoints can be kept by
_OF_THE_VERDICT = ("summary.json", "robustness_curve.png", "adversarial_examples.png")


def train(cfg: DictConfig) -> float | None:
    """Train a net as the config says and judge the best checkpoint on the test split.

    Leaves in ``cfg.output_dir`` what README.md lists under "What a run leaves behind".

    Args:
        cfg: composed from ``sztrain.configs``, config ``train``.

    Returns:
        The best value of the monitored metric, for sweepers; ``None`` if there is none.

    Raises:
        InputError: what a person has to mend; raised before the training starts.
        KeyboardInterrupt: the training was interrupted; ``last.ckpt`` is of the last whole epoch.
    """
    quieten()
    keep_freed_memory()
    check_options(cfg, TrainOptions)
    drop_unfit_presets(cfg, own_overrides())
    check_seed(cfg.seed)
    check_monitor(cfg.monitor)
    if not isinstance(cfg.verdict, DictConfig):
        found = "null" if cfg.verdict is None else cfg.verdict
        raise InputError(
            f"expected `verdict` to have options, got {found}; callbacks.gauge.verdict=null trains "
            "without a verdict"
        )
    if cfg.verdict.last_samples is not None:
        require_count("verdict.last_samples", cfg.verdict.last_samples, 0)
    set_num_threads(cfg.num_threads)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    check_wandb(cfg.get("logger"))
    data = build_data(cfg.data, choice_of("data"))
    method, run_id, steps_before = _method(cfg, data)
    callbacks = build_callbacks(cfg.callbacks)
    _check_gauge(callbacks.get("gauge"), data)
    _check_monitors(callbacks)
    _check_unused(callbacks, cfg.ckpt_path)
    trainer = build_trainer(cfg, list(callbacks.values()), run_id)
    output_dir = Path(cfg.output_dir)
    if trainer.is_global_zero:
        output_dir.mkdir(parents=True, exist_ok=True)
        for name in _OF_THE_VERDICT:  # where there is none, an older one's would be taken for it
            (output_dir / name).unlink(missing_ok=True)
        for name in _TABLES:  # begun anew by a training that goes on in its own folder
            set_aside(output_dir / name)
        OmegaConf.save(cfg, output_dir / "config.yaml", resolve=True)
    kept = {path: _written(path) for path in _whole_epochs(callbacks, cfg.ckpt_path)}
    resumable = partial(_resumable, kept, cfg.ckpt_path)
    uses_wandb = any(isinstance(logger, WandbLogger) for logger in trainer.loggers)
    with ended_run(used=uses_wandb), _as_command_line_errors(trainer, resumable):
        trainer.fit(method, datamodule=data, ckpt_path=cfg.ckpt_path, weights_only=True)
        _warn_of_no_training(trainer, steps_before)
        score = _best_score(trainer, callbacks.get("best"))
        judge(trainer, method, data, callbacks, output_dir, cfg.verdict.last_samples)
    return score


def _warn_of_no_training(trainer: pl.Trainer, steps_before: int) -> None:
    """Say that there was nothing left to train, or nothing to train at all."""
    if trainer.global_step == steps_before:
        warn(
            f"nothing was trained: {trainer.current_epoch} epochs lie behind the net, and the "
            f"training ends by trainer.max_epochs={trainer.max_epochs} "
            f"trainer.max_steps={trainer.max_steps}"
        )


def _best_score(trainer: pl.Trainer, best: Callback | None) -> float | None:
    """The best value of the monitored metric, told to the loggers for sweeps of theirs."""
    found = best.best_model_score if isinstance(best, ModelCheckpoint) else None
    if found is None:
        return None
    score = float(found)
    for logger in trainer.loggers:
        logger.log_metrics({"best_score": score}, step=trainer.global_step)
    return score


def _method(cfg: DictConfig, data: ImageDataModule) -> tuple[RobustClassifier, str, int]:
    """The method, the id of its W&B run and its steps so far, checked against the checkpoint."""
    # A published net arrives in eval mode, in which Lightning would leave it.
    net = build_net(cfg.model).train()
    if cfg.start_from is not None and cfg.ckpt_path is None:
        _take_weights(net, cfg.start_from, cfg.model["_target_"])
    checkpoint = None if cfg.ckpt_path is None else check_checkpoint(cfg.ckpt_path, net)
    begun_as = cfg.ckpt_path or cfg.start_from
    if begun_as is not None:
        check_parts(begun_as, data, "val")  # cut in the same way, the test part is the same as well
    check_net(net, data, cfg.ckpt_path or "the net")
    described = checkpoint["hyper_parameters"]["method"] if checkpoint is not None else None
    known_id = described.get("run_id") if isinstance(described, dict) else None
    run_id = str(known_id or secrets.token_hex(4))
    method = build_method(cfg, net, data, run_id)
    if checkpoint is not None:
        check_optimizer(checkpoint, method.optimizer(net.parameters()), cfg.ckpt_path)
        check_epochs(checkpoint, OmegaConf.select(cfg, "trainer.max_epochs"), cfg.ckpt_path)
        check_continuation(checkpoint["hyper_parameters"], method.hparams, cfg.ckpt_path)
    if isinstance(method, AdversarialTraining):
        if method.attack.budget is not None:
            raise InputError(
                "method.attack.budget has no effect: training sets the budget of its adversary in "
                f"each step; use method.budget={method.attack.budget}"
            )
        with named("method"):
            method.check_budget(data.image_shape)
        check_library(method.attack)
    return method, run_id, 0 if checkpoint is None else checkpoint["global_step"]


def _take_weights(net: nn.Module, name: str, made_by: str) -> None:
    """Give a net the weights of another, or say which model they are of."""
    weights = load_net(name).state_dict()
    try:
        load_strictly(net, weights, name)
    except InputError as error:
        spec = describe_net(name)["net"]
        assert isinstance(spec, dict)
        maker = str(spec["_target_"])
        if maker == made_by:
            raise
        model = maker.rpartition(".")[2].removesuffix("_net")
        its_name = f" model.name={spec['name']}" if "name" in spec else ""
        raise InputError(f"{error}; it needs model={model}{its_name}") from error


def _check_gauge(gauge: Callback | None, data: ImageDataModule) -> None:
    if not isinstance(gauge, SparseRobustness):
        return
    image = data.part("val")[0][0]
    with named("callbacks.gauge"):  # the sanity check would say so, once the loggers have begun
        gauge.image_space.to_images(image.unsqueeze(0))
    attacks = {"attack": gauge.attack, "probe": gauge.probe, "verdict": gauge.verdict}
    for name, attack in attacks.items():
        if attack is not None:
            check_judge(f"callbacks.gauge.{name}", attack)
            check_attack(f"callbacks.gauge.{name}", attack, data.image_shape)
            check_budgets("callbacks.gauge.budgets", gauge.budgets, data.image_shape, attack.unit)


def _check_monitors(callbacks: dict[str, Callback]) -> None:
    """Refuse to choose by a figure that nothing will log, now and not after an epoch.

    What the training itself logs is up to its method.
    """
    makers = {type(callback).__module__.split(".")[0] for callback in callbacks.values()}
    if not makers <= _KNOWN:
        return  # a callback of one's own may log what it likes
    gauge = callbacks.get("gauge")
    known = {"val/loss", "val/clean_acc"}
    if isinstance(gauge, SparseRobustness):
        known |= gauge.keys().figures
    for name, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None)
        is_judged = monitor is None or str(monitor).startswith("train/") or monitor in _COUNTS
        if not is_judged and monitor not in known:
            raise InputError(
                f"callbacks.{name}.monitor: nothing logs {monitor}; expected one of "
                f"{', '.join(sorted(known))}, or one of the training's, such as train/loss"
            )


@contextmanager
def _as_command_line_errors(trainer: pl.Trainer, resumable: Callable[[], str]) -> Iterator[None]:
    """Give Lightning's ways to stop the form that the command line reports in one line."""
    try:
        yield
    except MisconfigurationException as error:
        raise InputError(str(error)) from error
    except SystemExit as error:  # how Lightning leaves after Ctrl-C
        if not trainer.interrupted or isinstance(error, SIGTERMException):
            raise
        path = resumable()
        hints = [] if not path else [_how_to_go_on(path)]
        raise KeyboardInterrupt(*hints) from error


def _how_to_go_on(path: str) -> str:
    if not is_sweep():
        return f"the same command goes on with {hydra_word('ckpt_path', path)}"
    # The command of a sweep would begin all of its runs anew, and each with these weights.
    folder = HydraConfig.get().runtime.output_dir
    return how_to_go_on(path, args=sys.argv[1:], own=own_overrides(), folder=folder)


def _check_unused(callbacks: dict[str, Callback], ckpt_path: str | None) -> None:
    """Refuse to overwrite the checkpoints of another run than the one that goes on."""
    savers = [saver for saver in callbacks.values() if isinstance(saver, ModelCheckpoint)]
    folders = {Path(saver.dirpath) for saver in savers if saver.dirpath is not None}
    parent = None if ckpt_path is None else Path(ckpt_path).resolve().parent
    for folder in folders:
        found = list(folder.glob("*.ckpt"))
        if parent != folder.resolve() and found:
            latest = max(found, key=lambda path: (path.name == "last.ckpt", _written(path) or 0))
            raise InputError(
                f"{folder} holds the checkpoints of another run, which would be overwritten: "
                "choose another folder (hydra.run.dir, or hydra.sweep.dir with -m), or go on from "
                f"one of them, such as {hydra_word('ckpt_path', latest)}"
            )


def _whole_epochs(callbacks: dict[str, Callback], ckpt_path: str | None) -> Iterator[Path]:
    """Where a run keeps whole epochs, from which it can go on; the better ones first."""
    last, guard = callbacks.get("last"), callbacks.get("guard")
    if isinstance(last, ModelCheckpoint):
        yield Path(last.format_checkpoint_name({}))
    # The guard keeps its epoch first, and may have been interrupted before the others did. Of a
    # run that goes on it may be the one that was taken along.
    if ckpt_path is None and isinstance(guard, CollapseGuard) and guard.sound is not None:
        yield guard.sound


def _written(path: Path) -> int | None:
    """When a file was written, in nanoseconds; ``None`` where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def _resumable(kept: dict[Path, int | None], ckpt_path: str | None) -> str:
    """What of this run can be gone on from; empty where nothing can.

    Args:
        kept: its checkpoints, and when each was written before the run.
        ckpt_path: what the run went on from.
    """
    written = (str(path) for path, before in kept.items() if _written(path) != before)
    return next(written, ckpt_path or "")
