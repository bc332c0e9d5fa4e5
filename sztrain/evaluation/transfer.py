"""Whether what fools one net fools another."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sztrain.evaluation.record import Record
from sztrain.evaluation.runner import predict
from sztrain.evaluation.tables import Cell, digits

TRANSFER_HEADINGS = {
    "attack": "attack",
    "options": "options",
    "steps": "N",
    "unit": "unit",
    "source": "examples from",
}
"""Columns of the printed table; one for each net on which the examples are tried follows them."""

_UNTOLD = {"unit": "features"}  # where it is that throughout


def count_transfer(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Sequence[Record]]],
    clean_predictions: Mapping[int, int],
    device: torch.device | str = "cpu",
) -> tuple[int, int]:
    """How many of the examples found on another net there are, and how many of them fool this one.

    An example counts where both nets classify the clean sample correctly and the other net was
    fooled by it.

    Args:
        net: maps images to logits, on ``device``.
        batches: adversarial examples ``(N, ...)`` of another net, and its N records of them.
        clean_predictions: what ``net`` predicts for the clean samples, by their index.
        device: where the examples go.

    Returns:
        Examples that count, and those of them that ``net`` misclassifies.
    """
    num_examples = num_fooled = 0
    for adv_inputs, records in batches:
        counts = [
            record.success and record.label == record.clean_prediction == clean_predictions[i]
            for i, record in ((record.index, record) for record in records)
        ]
        mask = torch.tensor(counts)
        if mask.any():
            labels = torch.tensor([record.label for record in records])[mask]
            fooled = predict(net, adv_inputs[mask].to(device)).cpu() != labels
            num_examples, num_fooled = num_examples + len(fooled), num_fooled + int(fooled.sum())
    return num_examples, num_fooled


def transfer_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Cell]]]:
    """Headings and cells of the printed table: a row for each attack and net that it attacked.

    Args:
        rows: of ``transfer.csv``: ``dataset``, ``attack``, ``options``, ``steps``, ``unit``,
            ``source``, ``target``, ``num_examples`` and ``fooled``, percent.

    Example:
        >>> row = {"dataset": "mnist", "attack": "GSE", "options": "", "steps": 100}
        >>> nets = {"unit": "features", "source": "M1", "target": "M2"}
        >>> headings, body = transfer_table([row | nets | {"num_examples": 8, "fooled": 12.5}])
        >>> headings
        ['attack', 'N', 'examples from', 'on M2']
        >>> [cell.ours for cell in body[0]]
        ['GSE', '100', 'M1', '12.50']
    """
    keys = [
        key
        for key in TRANSFER_HEADINGS
        if any(row[key] not in ("", _UNTOLD.get(key)) for row in rows)
    ]
    tried = {row["target"] for row in rows}
    nets = dict.fromkeys(row[role] for role in ("source", "target") for row in rows)
    targets = [net for net in nets if net in tried]  # in the order of the rows
    matrix: dict[tuple[Any, ...], dict[str, float | None]] = {}
    for row in rows:
        place = tuple(row[key] for key in keys)
        matrix.setdefault(place, {})[row["target"]] = row["fooled"]
    headings = [*(TRANSFER_HEADINGS[key] for key in keys), *(f"on {name}" for name in targets)]
    body = [
        [Cell(digits(value)) for value in (*place, *(found.get(name) for name in targets))]
        for place, found in matrix.items()
    ]
    return headings, body
