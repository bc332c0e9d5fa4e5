"""A folder of records, kept batch by batch, so that a killed run can go on."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sztrain.errors import InputError
from sztrain.evaluation.examples import NUM_KEPT, Examples
from sztrain.evaluation.identity import claim_folder, damaged, read_json
from sztrain.evaluation.record import Cost, Record
from sztrain.files import write_whole

_EXAMPLES = "examples"


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
        if span.start < NUM_KEPT:
            paths.append(self._examples_path(span))
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
        if span.start < NUM_KEPT:
            self._read_examples(self._examples_path(span))
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
        found = f"it does not hold the samples {span[0]} to {span[-1]}, each whole"
        try:
            text = path.read_text(encoding="utf-8")
            rows = [Record.of_cells(row) for row in csv.DictReader(io.StringIO(text))]
        except OSError as error:
            raise InputError(damaged(path, f"it cannot be read ({error})")) from error
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise InputError(damaged(path, found)) from error
        whole = [row.index for row in rows] == list(span) and all(row.is_possible for row in rows)
        if not (whole and text.endswith("\n")):  # half a number may be a number
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
        if cost.num_samples != len(span) or not cost.is_possible:
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
        if adv_inputs.ndim == 0 or len(adv_inputs) != len(span):
            raise InputError(damaged(path, f"it does not hold {len(span)} examples"))
        return adv_inputs

    def write_examples(self, span: range, examples: Examples) -> None:
        """Keep a few samples of a batch to look at."""
        columns = {name: values.contiguous() for name, values in vars(examples).items()}
        write_whole(self._examples_path(span), save(columns))

    def read_examples(self) -> Examples:
        """The samples that were kept to look at.

        Raises:
            InputError: a file is damaged, or the first is missing.
        """
        joined = Examples.joined(map(self._read_examples, self._examples_paths))
        assert joined is not None
        return joined

    def _read_examples(self, path: Path) -> Examples:
        try:
            return Examples(**load(path.read_bytes()))
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise InputError(damaged(path, f"it cannot be read ({error})")) from error

    def precede(self, picture: Path) -> bool:
        """Whether a picture is there that may show these records: it is no older than they are."""
        if not picture.is_file():
            return False
        latest = max(path.stat().st_mtime_ns for path in self._examples_paths)
        return picture.stat().st_mtime_ns >= latest

    @property
    def _examples_paths(self) -> list[Path]:
        """Where they are: of the first batch, and of further ones where that has too few."""
        further = self.folder.glob(f"{_EXAMPLES}-*.safetensors")
        return [self._examples_path(range(0)), *sorted(further)]

    def _examples_path(self, span: range) -> Path:
        place = f"-{span.start:06d}" if span.start else ""
        return self.folder / f"{_EXAMPLES}{place}.safetensors"

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
