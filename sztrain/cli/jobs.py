"""One net under one attack: its share of the work, its records, and what they say."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from sztrain.data import ImageDataModule
from sztrain.errors import InputError, require_count
from sztrain.evaluation.figures import adversarial_examples_figure, save_figure
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
from sztrain.evaluation.tables import PAPER_BUDGETS, write_csv
from sztrain.norms import num_units
from sztrain.types import Attack


@dataclass(frozen=True, kw_only=True)
class Job:
    """A net to attack, and all that its records depend on.

    Attributes:
        label: name of its files.
        model: name of the net.
        net: the net.
        attack: the attack.
        data: where the samples come from.
        samples: the samples.
        batch_size: samples attacked at once.
        budgets: budgets at which success and robust accuracy are wanted.
        output_dir: folder of the evaluation.
    """

    label: str
    model: str
    net: nn.Module
    attack: Attack
    data: ImageDataModule
    samples: "Subset[tuple[Tensor, Tensor]]"
    batch_size: int
    budgets: list[int]
    output_dir: Path

    @cached_property
    def records(self) -> Records:
        """Where the records are kept; made or found.

        Raises:
            InputError: there are records of something else.
        """
        loader: DataLoader[Any] = DataLoader(
            self.samples, self.batch_size, num_workers=self.data.num_workers
        )
        identity = {
            "attack": {"name": type(self.attack).__name__, **vars(self.attack)},
            "net": net_digest(self.net),
            "data": data_digest(loader),
            "num_samples": len(self.samples),
            "batch_size": self.batch_size,
        }
        return Records(self.output_dir / "batches" / self.label, identity)

    @property
    def spans(self) -> list[range]:
        """The samples of every batch."""
        return batch_spans(len(self.samples), self.batch_size)

    def tally(self) -> Tally:
        """With nothing counted yet; at the paper's budgets, too, and of this process alone."""
        size = num_units(self.data.image_shape, self.attack.unit)
        budgets = sorted(k for k in {*PAPER_BUDGETS, *self.budgets} if k <= size)
        return Tally(self.data.image_shape, self.attack.unit, budgets, alone=True)


def gather_team(device: torch.device, devices: int) -> Fabric:
    """The processes that share the work: this one, or one for each of several devices.

    Raises:
        InputError: no number of devices, or several with one of them named.
    """
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


def attack_share(job: Job, team: Fabric) -> None:
    """Attack this process's share of what has not been attacked yet.

    Raises:
        InputError: what the attack refuses, records that are damaged, or a full disk.
    """
    tally = job.tally()
    share = job.spans[team.global_rank :: team.world_size]
    done = [span for span in share if job.records.has(span)]
    waiting = [span for span in share if span not in done]
    net = job.net.to(team.device)
    with Progress(disable=team.global_rank > 0) as progress:
        task = progress.add_task(job.label, total=sum(len(span) for span in share))

        def count(span: range) -> None:
            tally.count(torch.tensor([row.l0 for row in job.records.read(span)]), 0.0)
            text = f"{job.label}, median ℓ0 {tally.running_median:g}"
            progress.update(task, advance=len(span), description=text)

        for span in done:
            count(span)
        for span in record_attack(
            net, job.attack, job.samples, job.records, waiting, team.device, job.data.num_workers
        ):
            count(span)


def conclude(job: Job) -> tuple[Measurement, Cost]:
    """Write what the records say, and return it.

    Raises:
        InputError: records that are missing or damaged.
    """
    tally, cost = job.tally(), total_cost(job.records.cost(span) for span in job.spans)
    rows = [row for span in job.spans for row in job.records.read(span)]
    tally.count(torch.tensor([row.l0 for row in rows]), cost.seconds)
    write_csv([asdict(row) for row in rows], job.output_dir / "records" / f"{job.label}.csv")
    if job.data.in_channels in (1, 3):
        examples = job.records.read_examples()
        figure = adversarial_examples_figure(**vars(examples), unit=job.attack.unit)
        save_figure(figure, job.output_dir / "examples" / f"{job.label}.png")
    return tally.measurement(), cost
