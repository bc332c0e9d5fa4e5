"""One net under one attack: its share of the work, its records, and what they say."""

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from sztrain.data import ImageDataModule, Split, in_one_line
from sztrain.errors import warn
from sztrain.evaluation.identity import attack_identity, data_digest, net_digest
from sztrain.evaluation.measurement import Tally
from sztrain.evaluation.recording import device_name, record_attack
from sztrain.evaluation.records import Records, batch_spans
from sztrain.evaluation.rows import PAPER_BUDGETS
from sztrain.models import describe_net
from sztrain.norms import num_units
from sztrain.progress import attack_progress
from sztrain.types import Attack


@dataclass(frozen=True)
class Selection:
    """Samples to attack, and the data that they come from."""

    data: ImageDataModule
    samples: "Subset[tuple[Tensor, Tensor]]"
    split: Split = "test"

    @property
    def first_sample(self) -> int:
        """Where in the split the samples begin."""
        return self.samples.indices[0]

    @cached_property
    def digest(self) -> str:
        """Checksum of images and labels; all samples are read for it, once."""
        loader: DataLoader[Any] = DataLoader(
            self.samples, batch_size=256, num_workers=self.data.num_workers
        )
        return data_digest(in_one_line(loader))


@dataclass(frozen=True, kw_only=True)
class Job:
    """A net to attack, and all that its records depend on.

    Attributes:
        label: name of its files.
        model: name of the net.
        net_label: the net as it stands in pictures and names of files; see :func:`file_labels`.
        net: the net.
        attack: the attack.
        steps: N of the table that its row belongs to; some attacks take several steps for each.
        selection: the samples.
        batch_size: samples attacked at once.
        budgets: budgets at which success and robust accuracy are wanted.
        output_dir: folder of the evaluation.
        attack_name: what its suite calls the attack; empty where there is none.
        channels_last: whether the net is in ``torch.channels_last``.
        explained: whether to draw what the changes do.
        keeps_adv_inputs: whether to keep the adversarial examples of all samples.
    """

    label: str
    model: str
    net_label: str
    net: nn.Module
    attack: Attack
    steps: int
    selection: Selection
    batch_size: int
    budgets: list[int]
    output_dir: Path
    attack_name: str = ""
    channels_last: bool = False
    explained: bool = False
    keeps_adv_inputs: bool = False

    @cached_property
    def records(self) -> Records:
        """Where the records are kept; made or found.

        Raises:
            InputError: there are records of something else.
        """
        identity = {
            "attack": attack_identity(self.attack),
            "architecture": describe_net(self.model)["net"],
            "net": net_digest(self.net),
            "channels_last": self.channels_last,
            "dataset": self.selection.data.name,
            "split": self.selection.split,
            "first_sample": self.selection.first_sample,
            "data": self.selection.digest,
            "num_samples": len(self.selection.samples),
            "batch_size": self.batch_size,
        }
        folder = self.output_dir / "batches" / self.label
        return Records(folder, identity, keeps_adv_inputs=self.keeps_adv_inputs)

    @property
    def spans(self) -> list[range]:
        """The samples of every batch."""
        return batch_spans(len(self.selection.samples), self.batch_size)

    def tally(self) -> Tally:
        """With nothing counted yet; at the paper's budgets, too, and of this process alone."""
        shape = self.selection.data.image_shape
        size = num_units(shape, self.attack.unit)
        budgets = sorted(k for k in {*PAPER_BUDGETS, *self.budgets} if k <= size)
        return Tally(shape, self.attack.unit, budgets, alone=True)


def attack_share(job: Job, team: Fabric, position: str) -> None:
    """Attack this process's share of what has not been attacked yet.

    Args:
        job: what to attack.
        team: the processes that share the work.
        position: which of all jobs it is, for the progress bar.

    Raises:
        InputError: what the attack refuses, records that are damaged, or a full disk.
    """
    tally = job.tally()
    share = job.spans[team.global_rank :: team.world_size]
    done = [span for span in share if job.records.has(span)]
    attacked = set(done)
    waiting = [span for span in share if span not in attacked]
    if waiting and team.global_rank == 0:
        _warn_of_others(job, done, device_name(team.device))
    net = job.net.to(team.device)
    is_done = all(map(job.records.has, job.spans))
    with attack_progress(
        f"{position} {job.label}",
        _size(share),
        shown=team.global_rank == 0,
        done=_size(done),
        share=f" of the first of {team.world_size} processes" if team.world_size > 1 else "",
    ) as advance:

        def count(span: range, num_new: int) -> None:
            tally.count(torch.tensor([row.l0 for row in job.records.read(span)]), 0.0)
            advance(num_new, f"median ℓ0 {tally.running_median:g}".replace("inf", "∞"))

        for span in done:
            job.records.check(span)
            count(span, 0)
        recorded = record_attack(
            net,
            job.attack,
            job.selection.samples,
            job.records,
            waiting,
            team.device,
            job.selection.data.num_workers,
        )
        for span in in_one_line(recorded):
            count(span, len(span))
    if team.global_rank == 0 and is_done:
        Console().print(
            f"{position} {job.label}: nothing was run anew", highlight=False, markup=False
        )


def _warn_of_others(job: Job, done: list[range], device: str) -> None:
    """Say that batches of several devices or versions come together, whose rounding differs."""
    costs = [job.records.cost(span) for span in done]
    ours = f"{device} with torch {torch.__version__}, sztrain {version('sztrain')}"
    theirs = {
        f"{cost.device} with torch {cost.torch}, sztrain {cost.sztrain or version('sztrain')}"
        for cost in costs
        if cost.torch
    }
    others = sorted(theirs - {ours})
    if others:
        warn(
            f"{job.label}: batches in {job.records.folder} were attacked on {'; '.join(others)}; "
            f"the others will be on {ours}; remove that folder to attack all of them alike"
        )


def _size(spans: list[range]) -> int:
    return sum(len(span) for span in spans)
