"""Attack nets from a composed config and lay the results beside the paper's."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Subset

from sztrain.attacks.base import require_attack
from sztrain.cli.build import build_data, make, plain, quieten
from sztrain.cli.checks import (
    check_attack,
    check_net,
    check_num_samples,
    set_num_threads,
)
from sztrain.cli.jobs import Job, attack_share, gather_team
from sztrain.cli.memory import keep_freed_memory
from sztrain.cli.results import Report
from sztrain.cli.suites import Suite, read_suite, suite_attack, suite_samples
from sztrain.errors import InputError, UnavailableError, require_count
from sztrain.evaluation.tables import missing_row
from sztrain.models import load_net
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
    set_num_threads(cfg.num_threads)
    device = _device(cfg.device)
    suite = None if cfg.get("suite") is None else read_suite(cfg, _overrides())
    # What is wrong with one of several nets shall show before hours are spent on the others.
    jobs = _net_jobs(cfg) if suite is None else _suite_jobs(suite, cfg)
    team = gather_team(device, cfg.devices)
    output_dir = Path(cfg.output_dir)
    if team.global_rank == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, output_dir / "config.yaml", resolve=True)
    report = Report(output_dir, plain(cfg.budgets), suite)
    for job in jobs:
        if isinstance(job, Job):
            attack_share(job, team)
            team.barrier()
        if team.global_rank == 0:
            report.add(job, _device_name(team.device))
    if team.global_rank == 0:
        report.finish()
    return report.rows


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _net_jobs(cfg: DictConfig) -> list[Job]:
    """Every net of the config node ``net`` under the attack of the node ``attack``."""
    require_count("batch_size", cfg.batch_size, 1)
    attack: Attack = make(cfg.attack, "attack")
    require_attack("attack", attack)
    data = build_data(cfg.data)
    nets = {name: load_net(name) for name in _names(cfg.net)}
    for name, net in nets.items():
        check_net(net, data, name)
    labels = _labels(list(nets))
    part = data.part(cfg.split)
    num_samples = check_num_samples("num_samples", cfg.num_samples, part, cfg.split)
    check_attack("attack", attack, data.image_shape)
    check_budgets("budgets", plain(cfg.budgets), data.image_shape, attack.unit)
    return [
        Job(
            label=labels[name],
            model=name,
            net=net,
            attack=attack,
            data=data,
            samples=Subset(part, range(num_samples)),
            batch_size=cfg.batch_size,
            budgets=plain(cfg.budgets),
            output_dir=Path(cfg.output_dir),
        )
        for name, net in nets.items()
    ]


def _suite_jobs(suite: Suite, cfg: DictConfig) -> Iterator[Job | dict[str, Any]]:
    """The jobs of a suite, one net in memory at a time; a row where a net cannot be had."""
    attacks = [
        (name, suite_attack(name, steps)) for steps in suite.num_steps for name in suite.attacks
    ]
    for model in suite.models:
        try:
            net, data, samples = suite_samples(model, suite, cfg.seed)
        except UnavailableError as error:
            for _, attack in attacks:
                yield missing_row(model, attack, str(error))
            continue
        for name, attack in attacks:
            yield Job(
                label=f"{model}-{name}-{attack.num_steps}",
                model=model,
                net=net,
                attack=attack,
                data=data,
                samples=samples,
                batch_size=suite.batch_size,
                budgets=suite.fixed_budgets,
                output_dir=Path(cfg.output_dir),
            )


def _names(net: Any) -> list[str]:
    names = [str(name) for name in (plain(net) if OmegaConf.is_list(net) else [net])]
    if net is None or not names:
        raise InputError("expected net to name at least one net, got none; such as net=M1")
    return names


def _labels(names: list[str]) -> dict[str, str]:
    """Each net as it stands in pictures and file names: short where that tells them apart."""
    short = {n: Path(n).stem if n.endswith((".ckpt", ".safetensors")) else n for n in names}
    often = Counter(short.values())
    return {
        name: label if often[label] == 1 else re.sub(r"\W+", "_", name).strip("_")[-100:]
        for name, label in short.items()
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"expected device to be auto or a device this machine has, got {name}"
        ) from error


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
