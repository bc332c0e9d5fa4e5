"""Attack nets from a composed config and lay the results beside the paper's."""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Subset

from sztrain.cli.build import build_data, make, plain, quieten
from sztrain.cli.checks import (
    check_attack,
    check_judge,
    check_samples,
    check_wandb,
    set_num_threads,
)
from sztrain.cli.file_labels import file_labels
from sztrain.cli.hydra_job import choice_of, is_sweep, own_overrides
from sztrain.cli.jobs import Job, Selection, attack_share
from sztrain.cli.memory import keep_freed_memory
from sztrain.cli.net_checks import check_known_net, check_parts, options_brought_by
from sztrain.cli.one_at_a_time import one_at_a_time
from sztrain.cli.options import EvaluateOptions, check_options
from sztrain.cli.report import Report
from sztrain.cli.suite_jobs import suite_jobs
from sztrain.cli.suites import read_suite, without_unused
from sztrain.cli.team import (
    automatic_batch_size,
    find_device,
    gather_team,
    wait_for_all,
)
from sztrain.cli.wandb_run import evaluation_run
from sztrain.errors import InputError, require_count
from sztrain.models import load_net
from sztrain.models.layout import to_channels_last
from sztrain.norms import check_budgets
from sztrain.types import Attack


def evaluate(cfg: DictConfig) -> list[dict[str, Any]]:
    """Attack nets and write records, tables and pictures.

    Args:
        cfg: composed from ``sztrain.configs``, config ``evaluate``; with a suite that says what
            runs, else every net of ``cfg.net`` under ``cfg.attack``.

    Returns:
        The rows of ``results.csv``.

    Raises:
        InputError: what a person has to mend; without a suite raised before the first attack.
    """
    quieten()
    keep_freed_memory()
    check_options(cfg, EvaluateOptions)
    device = find_device(cfg.device)
    suite = None if cfg.get("suite") is None else read_suite(cfg, own_overrides())
    # One thread a process for a suite: its records shall not depend on how many cores there are.
    named = any(override.lstrip("+").startswith("num_threads=") for override in own_overrides())
    set_num_threads(1 if suite is not None and not named else cfg.num_threads)
    output_dir = Path(cfg.output_dir)
    loggers = plain(cfg.get("logger")) or {}
    if loggers and "wandb" not in loggers:
        raise InputError(
            f"expected logger=wandb or none, got {', '.join(loggers)}: tables are CSV in any case"
        )
    check_wandb(cfg.get("logger"))
    # What is wrong with one of several nets shall show before hours are spent on the others.
    jobs: Iterable[Job | dict[str, Any]] = (
        _net_jobs(cfg, device)
        if suite is None
        else suite_jobs(
            suite,
            device=device,
            channels_last=cfg.channels_last,
            seed=cfg.seed,
            output_dir=output_dir,
        )
    )
    num_jobs = len(_names(cfg.net)) if suite is None else len(suite.models) * suite.num_runs
    team = gather_team(device, cfg.devices, cfg.num_nodes)
    first = team.global_rank == 0
    wandb_node = loggers.get("wandb") if first else None
    values = plain(cfg) if suite is None else without_unused(plain(cfg))
    with (
        one_at_a_time(output_dir) if first else nullcontext(),
        evaluation_run(wandb_node, values, output_dir) as run,
    ):
        wait_for_all(team)  # the first of them may have been refused
        config = OmegaConf.to_yaml(OmegaConf.create(values))
        report = Report(output_dir, config, plain(cfg.budgets), suite, run)
        try:
            for number, job in enumerate(jobs, start=1):
                if isinstance(job, Job):
                    attack_share(job, team, f"{number}/{num_jobs}")
                    wait_for_all(team)
                if first:
                    report.add(job)
            if first:
                report.finish(_title(cfg))
        except KeyboardInterrupt as error:
            # The folder of a sweep is named by its time: the same command begins another.
            hints = [] if is_sweep() else ["the same command goes on"]
            raise KeyboardInterrupt(*hints) from error
    return report.rows


def _title(cfg: DictConfig) -> str:
    return choice_of("suite") or ", ".join(_names(cfg.net))


def _net_jobs(cfg: DictConfig, device: torch.device) -> list[Job]:
    """Every net of the config node ``net`` under the attack of the node ``attack``."""
    if cfg.batch_size is not None:
        require_count("batch_size", cfg.batch_size, 1)
    attack: Attack = make(cfg.attack, "attack")
    check_judge("attack", attack)
    with options_brought_by(_names(cfg.net), "~data.{option} leaves it out"):
        data = build_data(cfg.data)
    nets = {name: load_net(name) for name in _names(cfg.net)}
    if cfg.channels_last:
        for net in nets.values():
            to_channels_last(net)
    for name, net in nets.items():
        check_known_net(net, data, name)
        check_parts(name, data, cfg.split)
    labels = file_labels(nets)
    part = data.part(cfg.split)
    chosen = check_samples(cfg.first_sample, cfg.num_samples, part, cfg.split)
    check_attack("attack", attack, data.image_shape)
    check_budgets("budgets", plain(cfg.budgets), data.image_shape, attack.unit)
    selection = Selection(data, Subset(part, chosen), cfg.split)
    return [
        Job(
            label=labels[name],
            model=name,
            net_label=labels[name],
            net=net,
            attack=attack,
            steps=attack.num_steps,
            selection=selection,
            batch_size=cfg.batch_size or automatic_batch_size(device, data.image_shape),
            budgets=plain(cfg.budgets),
            output_dir=Path(cfg.output_dir),
            channels_last=cfg.channels_last,
        )
        for name, net in nets.items()
    ]


def _names(net: Any) -> list[str]:
    names = [str(name) for name in (plain(net) if OmegaConf.is_list(net) else [net])]
    if net is None or not names:
        raise InputError("expected net to name at least one net, got none; such as net=M1")
    if len(set(names)) < len(names):
        raise InputError(f"expected net to name no net twice, got {', '.join(names)}")
    return names
