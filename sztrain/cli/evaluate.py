"""Attack nets from a composed config and lay the results beside the paper's."""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from sztrain.attacks.base import require_attack
from sztrain.cli.build import build_data, make, plain, quieten
from sztrain.cli.checks import (
    check_attack,
    check_net,
    check_num_samples,
    set_num_threads,
)
from sztrain.cli.memory import keep_freed_memory
from sztrain.cli.report import print_results
from sztrain.data import ImageDataModule
from sztrain.errors import InputError, require_count
from sztrain.evaluation.figures import (
    adversarial_examples_figure,
    robustness_curve_figure,
    save_figure,
)
from sztrain.evaluation.measurement import Measurement, Tally
from sztrain.evaluation.recording import record_attack
from sztrain.evaluation.records import (
    Cost,
    Records,
    batch_spans,
    data_digest,
    net_digest,
    total_cost,
)
from sztrain.evaluation.tables import PAPER_BUDGETS, paper_row, write_csv
from sztrain.models import load_net
from sztrain.norms import check_budgets, num_units
from sztrain.types import Attack

_COLUMNS = [
    ("model", "net"),
    ("clean_acc", "clean"),
    ("asr_10", "ASR10"),
    ("asr_50", "ASR50"),
    ("asr_inf", "ASR∞"),
    ("median_l0", "median"),
    ("paper_median_l0", "paper"),
    ("mean_l0", "mean"),
    ("time_s", "t"),
    ("queries_k", "q"),
]


def evaluate(cfg: DictConfig) -> list[dict[str, Any]]:
    """Attack every net of ``cfg.net`` and write ``results.csv``, records and pictures.

    Args:
        cfg: composed from ``sztrain.configs``, config ``evaluate``.

    Returns:
        The rows of ``results.csv``.

    Raises:
        InputError: what a person has to mend; raised before the first attack.
    """
    quieten()
    keep_freed_memory()
    set_num_threads(cfg.num_threads)
    require_count("batch_size", cfg.batch_size, 1)
    attack: Attack = make(cfg.attack, "attack")
    require_attack("attack", attack)
    data = build_data(cfg.data)
    device = _device(cfg.device)
    nets = {name: load_net(name) for name in _names(cfg.net)}
    for name, net in nets.items():
        check_net(net, data, name)
    labels = _labels(list(nets))
    part = data.part(cfg.split)
    num_samples = check_num_samples("num_samples", cfg.num_samples, part, cfg.split)
    check_attack("attack", attack, data.image_shape)
    check_budgets("budgets", plain(cfg.budgets), data.image_shape, attack.unit)
    size = num_units(data.image_shape, attack.unit)
    budgets = sorted({k for k in (*PAPER_BUDGETS, *plain(cfg.budgets)) if k <= size})
    output_dir = Path(cfg.output_dir)
    team = _team(device, cfg.devices)
    if team.global_rank == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(cfg, output_dir / "config.yaml", resolve=True)
    jobs = {
        name: _Job(
            label=labels[name],
            net=net,
            attack=attack,
            data=data,
            samples=Subset(part, range(num_samples)),
            batch_size=cfg.batch_size,
            budgets=budgets,
            output_dir=output_dir,
        )
        for name, net in nets.items()
    }
    for job in jobs.values():
        _attack_net(job, team)
    team.barrier()
    if dist.is_initialized():  # from here on one process works alone
        dist.destroy_process_group()
    if team.global_rank > 0:
        return []
    rows, curves = [], {}
    for name, job in jobs.items():
        measurement, cost = _conclude(job)
        rows.append(
            paper_row(
                measurement,
                cost,
                model=name,
                dataset=data.name,
                attack=attack,
                batch_size=cfg.batch_size,
                device=_device_name(team.device),
            )
        )
        curves[labels[name]] = measurement.curve
        write_csv(rows, output_dir / "results.csv")
    figure = robustness_curve_figure(
        curves, attack.unit, budgets=plain(cfg.budgets), title=_judged_by(attack)
    )
    save_figure(figure, output_dir / "curves" / f"{attack.unit}.png")
    print_results(rows, _COLUMNS, f"{_judged_by(attack)} on {num_samples} images of {data.name}")
    return rows


def _judged_by(attack: Attack) -> str:
    return f"{type(attack).__name__} only, N={attack.num_steps}, {attack.unit}"


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


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One net under one attack."""

    label: str
    net: nn.Module
    attack: Attack
    data: ImageDataModule
    samples: "Subset[tuple[Tensor, Tensor]]"
    batch_size: int
    budgets: list[int]
    output_dir: Path

    def identity(self) -> dict[str, Any]:
        """Everything that the records depend on."""
        loader: DataLoader[Any] = DataLoader(
            self.samples, self.batch_size, num_workers=self.data.num_workers
        )
        return {
            "attack": {"name": type(self.attack).__name__, **vars(self.attack)},
            "net": net_digest(self.net),
            "data": data_digest(loader),
            "num_samples": len(self.samples),
            "batch_size": self.batch_size,
        }

    @cached_property
    def records(self) -> Records:
        """Where they are kept; made or found."""
        return Records(self.output_dir / "batches" / self.label, self.identity())

    @property
    def spans(self) -> list[range]:
        """The samples of every batch."""
        return batch_spans(len(self.samples), self.batch_size)

    def tally(self) -> Tally:
        """With nothing counted yet."""
        return Tally(self.data.image_shape, self.attack.unit, self.budgets)


def _team(device: torch.device, devices: int) -> Fabric:
    """The processes that share the work: this one, or one for each of several devices."""
    require_count("devices", devices, 1)
    if devices > 1 and device.index is not None:
        raise InputError(
            f"expected devices=1 with device={device}, got devices={devices}: "
            f"several devices are chosen with device={device.type}"
        )
    chosen: Any = devices if device.index is None or device.type == "cpu" else [device.index]
    strategy = "auto" if devices == 1 else "ddp"
    team = Fabric(accelerator=device.type, devices=chosen, strategy=strategy)
    team.launch()
    return team


def _attack_net(job: _Job, team: Fabric) -> None:
    """Attack this process's share of what has not been attacked yet."""
    records, tally = job.records, job.tally()
    share = job.spans[team.global_rank :: team.world_size]
    net = job.net.to(team.device)
    with Progress(disable=team.global_rank > 0) as progress:
        task = progress.add_task(job.label, total=sum(len(span) for span in share))

        def count(span: range) -> None:
            tally.count(torch.tensor([row.l0 for row in records.read(span)]), 0.0)
            text = f"{job.label}, median ℓ0 {tally.running_median:g}"
            progress.update(task, advance=len(span), description=text)

        waiting = [span for span in share if not records.has(span)]
        for span in share:
            if span not in waiting:
                count(span)
        workers = job.data.num_workers
        for span in record_attack(
            net, job.attack, job.samples, records, waiting, team.device, workers
        ):
            count(span)


def _conclude(job: _Job) -> tuple[Measurement, Cost]:
    """What the records say, and nothing else."""
    records, tally = job.records, job.tally()
    rows = [row for span in job.spans for row in records.read(span)]
    cost = total_cost(records.cost(span) for span in job.spans)
    tally.count(torch.tensor([row.l0 for row in rows]), cost.seconds)
    write_csv([asdict(row) for row in rows], job.output_dir / "records" / f"{job.label}.csv")
    if job.data.in_channels in (1, 3):
        figure = adversarial_examples_figure(**vars(records.read_examples()), unit=job.attack.unit)
        save_figure(figure, job.output_dir / "examples" / f"{job.label}.png")
    return tally.measurement(), cost
