"""The examples that a suite found on each net, tried on its other nets."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sztrain.cli.jobs import Job
from sztrain.evaluation.attack_names import describe_options, paper_name
from sztrain.evaluation.identity import attack_key
from sztrain.evaluation.record import Record
from sztrain.evaluation.records import Records
from sztrain.evaluation.transfer import count_transfer
from sztrain.models import load_net
from sztrain.models.layout import to_channels_last
from sztrain.types import Attack


@dataclass(frozen=True, kw_only=True)
class KeptExamples:
    """What is left of a job once it is done; without its net, which would stay in memory.

    Attributes:
        model: name of the net that was attacked.
        dataset: name of the data set.
        digest: checksum of the samples.
        attack: the attack.
        steps: N of the table.
        records: where its records and examples lie.
        spans: the samples of every batch.
        device: where it ran.
        channels_last: whether the net was in ``torch.channels_last``.
    """

    model: str
    dataset: str
    digest: str
    attack: Attack
    steps: int
    records: Records
    spans: Sequence[range]
    device: torch.device
    channels_last: bool = False

    @classmethod
    def of(cls, job: Job) -> "KeptExamples":
        """What a job that is done leaves."""
        return cls(
            model=job.model,
            dataset=job.selection.data.name,
            digest=job.selection.digest,
            attack=job.attack,
            steps=job.steps,
            records=job.records,
            spans=job.spans,
            device=next(job.net.parameters()).device,
            channels_last=job.channels_last,
        )

    @property
    def run(self) -> tuple[int, str]:
        """What it has in common with the same attack on other nets."""
        return self.steps, attack_key(self.attack)

    def batches(self) -> Iterator[tuple[Tensor, list[Record]]]:
        """Examples and records of one batch after the other."""
        for span in self.spans:
            yield self.records.read_adv_inputs(span), self.records.read(span)

    def clean_predictions(self) -> dict[int, int]:
        """What the net predicts for each clean sample, by its index."""
        rows = (row for span in self.spans for row in self.records.read(span))
        return {row.index: row.clean_prediction for row in rows}


def transfer_rows(
    kept: Sequence[KeptExamples], named: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The rows of ``transfer.csv``: every attack's examples from one net, tried on another.

    Only nets that were attacked on the very same samples are compared. They are loaded once more,
    one at a time.

    Args:
        kept: what all jobs have left.
        named: options to name at their defaults, too, as those of a grid.

    Raises:
        InputError: examples or records that are damaged.
    """
    runs: dict[tuple[int, str], list[KeptExamples]] = defaultdict(list)
    for one in kept:
        runs[one.run].append(one)
    kept = [one for run in runs.values() for one in run]
    of_net = {(one.digest, one.model): one for one in kept}
    found: list[list[dict[str, Any]]] = [[] for _ in kept]
    for (digest, target), any_job in of_net.items():
        sources = [
            (source, rows)
            for source, rows in zip(kept, found, strict=True)
            if source.digest == digest and source.model != target
        ]
        if not sources:
            continue
        net, clean_predictions = load_net(target).to(any_job.device), any_job.clean_predictions()
        if any_job.channels_last:  # as it was when it made these predictions
            to_channels_last(net)
        for source, rows in sources:
            num_examples, num_fooled = count_transfer(
                net, source.batches(), clean_predictions, any_job.device
            )
            rows.append(
                {
                    "dataset": source.dataset,
                    "steps": source.steps,
                    "attack": paper_name(source.attack),
                    "options": describe_options(source.attack, named),
                    "unit": source.attack.unit,
                    "source": source.model,
                    "target": target,
                    "num_examples": num_examples,
                    "fooled": 100 * num_fooled / num_examples if num_examples else None,
                }
            )
    return [row for rows in found for row in rows]
