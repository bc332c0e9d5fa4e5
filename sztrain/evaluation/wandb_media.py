"""Measurements as tables, charts and pictures of Weights & Biases."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sztrain.evaluation.examples import Examples
from sztrain.types import Unit


def curve_media(key: str, curves: Mapping[str, Tensor], unit: Unit) -> dict[str, Any]:
    """Robustness curves as a table and its line chart, to log together.

    A budget at which a curve stays as it was before is left out.

    Args:
        key: of the chart; the table's is ``<key>_table``.
        curves: robust accuracy at the budgets 0..d by name, each of shape ``(d + 1,)``.
        unit: what the budget counts.
    """
    import wandb

    table = wandb.Table(
        columns=["name", "budget", "robust_accuracy"],
        data=[
            [name, budget, accuracy]
            for name, curve in curves.items()
            for budget, accuracy in curve_points(curve)
        ],
    )
    title = f"Robust accuracy ({unit})"
    chart = wandb.plot.line(table, "budget", "robust_accuracy", stroke="name", title=title)
    return {f"{key}_table": table, key: chart}


def curve_points(curve: Tensor) -> list[tuple[int, float]]:
    """The budgets where a robustness curve changes, with what it is there; both ends included.

    Example:
        >>> import torch
        >>> curve_points(torch.tensor([1.0, 1.0, 1.0, 0.5, 0.5]))
        [(0, 1.0), (2, 1.0), (3, 0.5), (4, 0.5)]
    """
    values = curve.tolist()
    last = len(values) - 1
    return [
        (k, values[k])
        for k in range(len(values))
        if k in (0, last) or values[k] != values[k - 1] or values[k] != values[k + 1]
    ]


def example_table(examples: Examples, epoch: int | None = None) -> Any:
    """Clean and adversarial images with what was changed, a ``wandb.Table`` with a row a sample.

    Args:
        examples: grey or colour images.
        epoch: what the first column says of every row; ``None``: no such column.
    """
    import wandb

    def image(values: Tensor) -> Any:
        return wandb.Image(values.clamp(0, 1).permute(1, 2, 0).mul(255).round().byte().numpy())

    columns: list[str | int] = ["clean", "adversarial", "changed"]
    columns += ["l0", "label", "clean pred", "adv pred"]
    first = [] if epoch is None else [epoch]
    table = wandb.Table(columns=columns if epoch is None else ["epoch", *columns])
    for row in range(len(examples.labels)):
        inputs, adv_inputs = examples.inputs[row], examples.adv_inputs[row]
        table.add_data(
            *first,
            image(inputs),
            image(adv_inputs),
            image((adv_inputs != inputs).any(dim=0, keepdim=True).float()),
            float(examples.l0[row]),
            int(examples.labels[row]),
            int(examples.clean_predictions[row]),
            int(examples.adv_predictions[row]),
        )
    return table


def result_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows of results as a ``wandb.Table`` with the columns of ``results.csv``."""
    import wandb

    columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
    return wandb.Table(
        columns=columns,
        data=[[row.get(str(column)) for column in columns] for row in rows],
        allow_mixed_types=True,
    )
