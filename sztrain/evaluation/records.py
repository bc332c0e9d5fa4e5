"""Records of an attack: one row a sample, kept batch by batch, so that a killed run can go on."""

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sztrain.errors import InputError
from sztrain.evaluation.identity import claim_folder, damaged, read_json
from sztrain.evaluation.measurement import Examples
from sztrain.files import write_whole


@dataclass(frozen=True, kw_only=True)
class Record:
    """What an attack did to one sample: a row of ``records/<net>.csv``.

    Attributes:
        index: of the sample among those attacked; in the file of all of them, in its split.
        label: true class.
        clean_prediction: class predicted for the clean sample.
        l0: changes of the sparsest adversarial example; inf where there was none.
        success: whether the sample was broken.
        num_forwards: forward passes, as the attack counts them.
        num_backwards: backward passes, alike.
        broken_by: of an attack with several members, whose example it is, empty where none was
            needed or found; ``None``: the attack has no members, and the rows no such column.
        features: changed features of the example; 0 where none was needed or found; ``None``, and
            no such column: the samples are no images, or the record is of an earlier version.
        pixels: changed pixels, alike.
        clusters: clusters of changed pixels, alike.
    """

    index: int
    label: int
    clean_prediction: int
    l0: float
    success: bool
    num_forwards: int
    num_backwards: int
    broken_by: str | None = None
    features: int | None = None
    pixels: int | None = None
    clusters: int | None = None

    def cells(self) -> dict[str, Any]:
        """Its columns and values."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a batch cost: not the same in every run, so it stands beside the records.

    Attributes:
        num_samples: size of the batch.
        seconds: wall time of the attack.
        num_forwards: samples that passed the net forwards, counted at the net.
        num_backwards: samples that passed it backwards, alike.
        peak_memory: bytes; allocated on a GPU, resident in the process on a CPU; 0: not known, as
            the process had needed more before.
        device: what it ran on: ``cpu``, or a GPU's name.
        torch: version of torch; empty: not known.
    """

    num_samples: int
    seconds: float
    num_forwards: int
    num_backwards: int
    peak_memory: int
    device: str = "cpu"
    torch: str = ""

    @property
    def seconds_per_sample(self) -> float:
        """Wall time of the attack for one sample."""
        return self.seconds / self.num_samples

    @property
    def passes_per_sample(self) -> float:
        """Forward and backward passes that one sample took."""
        return (self.num_forwards + self.num_backwards) / self.num_samples


class Records:
    """A folder with the records of one net under one attack, a file for each batch.

    A batch is written whole or not at all, its records after its cost: where the records are, the
    batch is done. Processes that share the folder write different batches of it.

    Args:
        folder: made if it is not there.
        identity: everything that the records depend on, as plain containers.
        keeps_adv_inputs: whether the adversarial examples of all samples are kept as well.

    Raises:
        InputError: the folder has the records of something else.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "M1"
        >>> records = Records(folder, {"attack": {"num_steps": 10}})
        >>> Records(folder, {"attack": {"num_steps": 100}})
        Traceback (most recent call last):
        ...
        sztrain.errors.InputError: ...M1 has records of another run: attack.num_steps is 10 there \
and 100 here; choose another folder or remove that one
    """

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, Any],
        *,
        keeps_adv_inputs: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.keeps_adv_inputs = keeps_adv_inputs
        claim_folder(self.folder, identity)

    def has(self, span: range) -> bool:
        """Whether the batch of the samples ``span`` is done and all of its files are there."""
        paths = [self._records_path(span), self._cost_path(span)]
        if span.start == 0:
            paths.append(self._examples_path)
        if self.keeps_adv_inputs:
            paths.append(self._adv_inputs_path(span))
        return all(path.is_file() for path in paths)

    def check(self, span: range) -> None:
        """Read all that was kept of a batch, before hours are spent on the others.

        Raises:
            InputError: a file is damaged.
        """
        self.read(span)
        self.cost(span)
        if span.start == 0:
            self.read_examples()
        if self.keeps_adv_inputs:
            self.read_adv_inputs(span)

    def write(self, span: range, rows: Sequence[Record], cost: Cost) -> None:
        """Keep a batch.

        Raises:
            InputError: there is no room for it.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(rows[0].cells())
        writer.writerows(row.cells().values() for row in rows)
        write_whole(self._cost_path(span), json.dumps(asdict(cost)) + "\n")
        write_whole(self._records_path(span), text.getvalue())

    def read(self, span: range) -> list[Record]:
        """The records of a batch.

        Raises:
            InputError: the file is damaged.
        """
        path = self._records_path(span)
        try:
            text = path.read_text(encoding="utf-8")
            rows = [_parse(row) for row in csv.DictReader(io.StringIO(text))]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(damaged(path, f"it cannot be read ({error})")) from error
        whole = [row.index for row in rows] == list(span) and all(map(_is_possible, rows))
        if not (whole and text.endswith("\n")):  # half a number may be a number
            found = f"it does not hold the samples {span[0]} to {span[-1]}, each whole"
            raise InputError(damaged(path, found))
        return rows

    def cost(self, span: range) -> Cost:
        """What a batch cost.

        Raises:
            InputError: the file is damaged.
        """
        path = self._cost_path(span)
        values = read_json(path)
        try:
            cost = Cost(**values)
        except TypeError as error:
            raise InputError(damaged(path, f"it cannot be read ({error})")) from error
        if cost.num_samples != len(span) or not _is_cost(cost):
            raise InputError(damaged(path, f"it does not hold the cost of {len(span)} samples"))
        return cost

    def write_adv_inputs(self, span: range, adv_inputs: Tensor) -> None:
        """Keep the adversarial examples of a batch; sparse changes of images pack well.

        Raises:
            InputError: there is no room for them.
        """
        content = save({"adv_inputs": adv_inputs.cpu().contiguous()})
        write_whole(self._adv_inputs_path(span), gzip.compress(content, mtime=0))

    def read_adv_inputs(self, span: range) -> Tensor:
        """The adversarial examples of a batch.

        Raises:
            InputError: the file is damaged.
        """
        path = self._adv_inputs_path(span)
        try:
            adv_inputs = load(gzip.decompress(path.read_bytes()))["adv_inputs"]
        except (OSError, EOFError, ValueError, KeyError, zlib.error, SafetensorError) as error:
            raise InputError(damaged(path, f"it cannot be read ({error})")) from error
        if len(adv_inputs) != len(span):
            raise InputError(damaged(path, f"it does not hold {len(span)} examples"))
        return adv_inputs

    def write_examples(self, examples: Examples) -> None:
        """Keep a few samples to look at."""
        write_whole(
            self._examples_path, save({k: v.contiguous() for k, v in vars(examples).items()})
        )

    def read_examples(self) -> Examples:
        """The samples that were kept to look at.

        Raises:
            InputError: the file is damaged.
        """
        try:
            return Examples(**load(self._examples_path.read_bytes()))
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise InputError(
                damaged(self._examples_path, f"it cannot be read ({error})")
            ) from error

    def precede(self, picture: Path) -> bool:
        """Whether a picture is there that may show these records: it is no older than they are."""
        if not picture.is_file():
            return False
        return picture.stat().st_mtime_ns >= self._examples_path.stat().st_mtime_ns

    @property
    def _examples_path(self) -> Path:
        return self.folder / "examples.safetensors"

    def _records_path(self, span: range) -> Path:
        return self.folder / f"{span.start:06d}.csv"

    def _adv_inputs_path(self, span: range) -> Path:
        return self.folder / f"{span.start:06d}.safetensors.gz"

    def _cost_path(self, span: range) -> Path:
        return self.folder / f"{span.start:06d}.json"


def batch_spans(num_samples: int, batch_size: int) -> list[range]:
    """The samples of every batch.

    Example:
        >>> batch_spans(10, 4)
        [range(0, 4), range(4, 8), range(8, 10)]
    """
    starts = range(0, num_samples, batch_size)
    return [range(start, min(start + batch_size, num_samples)) for start in starts]


def common_cells(rows: Sequence[Record]) -> list[dict[str, Any]]:
    """Columns and values of records, without columns that some of them lack.

    Batches of an earlier version lack those that came later.

    Example:
        >>> from dataclasses import replace
        >>> old = Record(
        ...     index=0, label=7, clean_prediction=7, l0=2.0, success=True,
        ...     num_forwards=5, num_backwards=4,
        ... )
        >>> new = replace(old, index=1, pixels=2)
        >>> "pixels" in common_cells([new])[0], "pixels" in common_cells([old, new])[1]
        (True, False)
    """
    cells = [row.cells() for row in rows]
    common = [key for key in cells[0] if all(key in other for other in cells)]
    return [{key: row[key] for key in common} for row in cells]


def total_cost(costs: Iterable[Cost]) -> Cost:
    """The sum of what batches cost, with the largest peak, all devices and versions.

    Example:
        >>> batch = Cost(num_samples=2, seconds=1, num_forwards=5, num_backwards=4, peak_memory=9)
        >>> both = total_cost([batch, batch])
        >>> both.num_samples, both.num_forwards, both.peak_memory, both.device
        (4, 10, 9, 'cpu')
    """
    costs = list(costs)
    return Cost(
        num_samples=sum(cost.num_samples for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        num_forwards=sum(cost.num_forwards for cost in costs),
        num_backwards=sum(cost.num_backwards for cost in costs),
        peak_memory=max((cost.peak_memory for cost in costs), default=0),
        device=", ".join(sorted({cost.device for cost in costs})),
        torch=", ".join(sorted({cost.torch for cost in costs if cost.torch})),
    )


def _parse(row: Mapping[str, str]) -> Record:
    return Record(
        index=int(row["index"]),
        label=int(row["label"]),
        clean_prediction=int(row["clean_prediction"]),
        l0=float(row["l0"]),
        success={"True": True, "False": False}[row["success"]],
        num_forwards=int(row["num_forwards"]),
        num_backwards=int(row["num_backwards"]),
        broken_by=row.get("broken_by"),
        features=_count(row, "features"),
        pixels=_count(row, "pixels"),
        clusters=_count(row, "clusters"),
    )


def _count(row: Mapping[str, str], name: str) -> int | None:
    return int(row[name]) if name in row else None


def _is_possible(row: Record) -> bool:
    """Whether what a record says of its sample goes together."""
    if not row.success:
        return row.l0 == math.inf and not row.features
    whole = row.l0 >= 0 and row.l0.is_integer()
    return whole and (row.features is None or row.l0 in (row.features, row.pixels))


def _is_cost(cost: Cost) -> bool:
    """Whether every value is one that its field can have: JSON holds what it is given."""
    words = ("device", "torch")
    numbers = [value for name, value in vars(cost).items() if name not in words]
    return all(isinstance(getattr(cost, name), str) for name in words) and all(
        type(value) in (int, float) and 0 <= value < math.inf for value in numbers
    )
