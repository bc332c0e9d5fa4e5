"""One training run from a composed config: check, train, judge, report."""

import secrets
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint, Timer

from sztrain.callbacks import SparseRobustness
from sztrain.cli.build import (
    build_data,
    build_net,
    check_checkpoint,
    check_net,
    check_wandb,
    hyper_parameters,
    plain,
    quieten,
)
from sztrain.cli.report import print_verdict
from sztrain.data import ImageDataModule
from sztrain.evaluation.summary import training_summary, write_json
from sztrain.models import read_checkpoint
from sztrain.training import AdversarialTraining, RobustClassifier


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
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    check_wandb(cfg.logger)
    data = build_data(cfg.data)
    run_id = secrets.token_hex(4)
    net = build_net(cfg.model)
    if cfg.ckpt_path is not None:
        check_checkpoint(cfg.ckpt_path, net)
        run_id = _run_id(cfg.ckpt_path) or run_id
    check_net(net, data, "the net")
    # Partial: Hydra would take apart the hyper-parameters, which name targets of their own.
    make_method = instantiate(plain(cfg.method), _partial_=True)
    method: RobustClassifier = make_method(
        net=net,
        num_classes=data.num_classes,
        optimizer=instantiate(plain(cfg.optimizer)),
        scheduler=instantiate(plain(cfg.scheduler)),
        hyper_parameters=hyper_parameters(cfg, run_id),
    )
    if isinstance(method, AdversarialTraining):
        method.check_budget(data.image_shape)
    callbacks = {key: instantiate(plain(node)) for key, node in cfg.callbacks.items()}
    trainer = _trainer(cfg, run_id, list(callbacks.values()))
    output_dir = Path(cfg.output_dir)
    if trainer.is_global_zero:
        output_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, output_dir / "config.yaml", resolve=True)
    _fit(trainer, method, data, cfg.ckpt_path)
    best = callbacks.get("best")
    _judge(trainer, method, data, best, callbacks.get("gauge"), callbacks.get("timer"), output_dir)
    return _monitored(best)


def _run_id(ckpt_path: str) -> str | None:
    """The W&B run that the checkpoint's training wrote to."""
    described: Any = read_checkpoint(ckpt_path)["hyper_parameters"]
    run_id: str | None = described["method"].get("run_id")
    return run_id


def _trainer(cfg: DictConfig, run_id: str, callbacks: list[pl.Callback]) -> pl.Trainer:
    loggers = plain(cfg.logger) or {}
    if "wandb" in loggers and loggers["wandb"].get("id") is None:
        loggers["wandb"] |= {"id": run_id, "resume": "allow"}
    trainer: pl.Trainer = instantiate(
        plain(cfg.trainer),
        callbacks=callbacks,
        logger=[instantiate(node) for node in loggers.values()],
        _convert_="all",
    )
    return trainer


def _fit(
    trainer: pl.Trainer, method: RobustClassifier, data: ImageDataModule, ckpt_path: str | None
) -> None:
    try:
        trainer.fit(method, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except SystemExit as error:  # how Lightning leaves after Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise


def _judge(
    trainer: pl.Trainer,
    method: RobustClassifier,
    data: ImageDataModule,
    best: ModelCheckpoint | None,
    gauge: SparseRobustness | None,
    timer: Timer | None,
    output_dir: Path,
) -> None:
    """Take the verdict on the best checkpoint and write it down."""
    epochs = trainer.current_epoch
    checkpoint = best.best_model_path if best is not None else ""
    tested = trainer.test(
        method, datamodule=data, ckpt_path=checkpoint or None, weights_only=True, verbose=False
    )
    if gauge is None or "test" not in gauge.measurements or gauge.verdict is None:
        return
    summary = training_summary(
        gauge.measurements["test"],
        budgets=gauge.budgets,
        attack=gauge.verdict,
        clean_accuracy=tested[0]["test/clean_acc"],
        method=type(method).__name__,
        train_seconds=timer.time_elapsed("train") if timer is not None else None,
        attack_seconds=getattr(method, "attack_seconds", 0.0),
        epochs=epochs,
        checkpoint=checkpoint or None,
    )
    if trainer.is_global_zero:
        write_json(summary, output_dir / "summary.json")
        print_verdict(summary, output_dir)


def _monitored(best: ModelCheckpoint | None) -> float | None:
    score = best.best_model_score if best is not None else None
    return None if score is None else float(score)
