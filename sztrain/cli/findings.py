"""What the records of a job say."""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sztrain.cli.jobs import Job
from sztrain.evaluation.changes import mean_changes
from sztrain.evaluation.examples import Examples
from sztrain.evaluation.measurement import Measurement
from sztrain.evaluation.record import Cost, common_cells, total_cost
from sztrain.evaluation.setting import Setting
from sztrain.evaluation.tables import write_csv


@dataclass(frozen=True, kw_only=True)
class Finding(Setting):
    """What a job's records say; without its net, which would stay in memory.

    Attributes:
        label: name of the job's files.
        net_label: the net as it stands in pictures and names of files.
        attack_name: what its suite calls the attack; empty where there is none.
        l0: of every sample, float ``(N,)``.
        num_samples: samples attacked.
        batch_size: samples attacked at once.
        measurement: robustness of the net.
        cost: what the attack took in all.
        broken_by: how many samples each member of the attack has broken, if it has members.
        changes: how the changes lie, see :func:`sztrain.evaluation.changes.mean_changes`.
        examples: some samples to look at, where they are grey or colour images.
    """

    label: str
    net_label: str
    attack_name: str
    l0: Tensor
    num_samples: int
    batch_size: int
    measurement: Measurement
    cost: Cost
    broken_by: dict[str, int]
    changes: dict[str, float | None]
    examples: Examples | None

    @property
    def curve(self) -> Tensor:
        """Robust accuracy at 0, 1, ... changes, as far as the attack has tried any."""
        budget = self.attack.budget
        return self.measurement.curve[: None if budget is None else budget + 1]

    @property
    def source(self) -> str:
        """Which data its samples are of, and where they begin unless it is at the first."""
        split = "" if self.split == "test" else f"the {self.split} split of "
        start = f" from {self.first_sample} on" if self.first_sample else ""
        return f"{split}{self.dataset}{start}"


def conclude(job: Job) -> Finding:
    """Write the records of all batches into one file, and tell what they say.

    Raises:
        InputError: records that are missing or damaged.
    """
    tally, cost = job.tally(), total_cost(job.records.cost(span) for span in job.spans)
    rows = [row for span in job.spans for row in job.records.read(span)]
    l0 = torch.tensor([row.l0 for row in rows])
    tally.count(l0, cost.seconds)
    first = job.selection.first_sample
    in_split = [replace(row, index=first + row.index) for row in rows]
    write_csv(common_cells(in_split), job.output_dir / "records" / f"{job.label}.csv")
    drawable = job.selection.data.in_channels in (1, 3)
    examples = job.records.read_examples() if drawable else None
    return Finding(
        label=job.label,
        model=job.model,
        net_label=job.net_label,
        dataset=job.selection.data.name,
        split=job.selection.split,
        attack=job.attack,
        attack_name=job.attack_name,
        steps=job.steps,
        l0=l0,
        first_sample=first,
        num_samples=len(rows),
        batch_size=job.batch_size,
        measurement=tally.measurement(),
        cost=cost,
        broken_by=dict(Counter(row.broken_by for row in rows if row.broken_by)),
        changes=mean_changes(rows),
        examples=examples,
    )
