"""The panels of a dashboard, each made from the keys under which a gauge logs."""

from collections.abc import Sequence
from typing import Any

from sztrain.dashboards.library import reports
from sztrain.evaluation.gauge_keys import GaugeKeys

Panels = dict[str, list[Any]]
"""Panels of wandb-workspaces by the heading they stand under."""


def training_panels(keys: GaugeKeys) -> Panels:
    """What a gauge has seen, epoch by epoch.

    Args:
        keys: of the stage ``val``.

    Raises:
        UnavailableError: wandb-workspaces is not installed.
    """
    unit = f"ℓ0 ({keys.unit})"
    robust = keys.worst_accs or keys.robust_accs
    robustness = [
        _lines("Clean against robust accuracy", [keys.clean_acc, *robust], unit_range=True),
        _lines("Robust accuracy under the gauge", keys.robust_accs, unit_range=True),
        _lines("Median ℓ0, 95 % confidence", [keys.median_l0, *keys.median_interval], unit),
        _lines("Mean ℓ0 of broken samples", [keys.mean_l0], unit),
        _lines("Attack success rate", [*keys.asrs, keys.asr_inf], unit_range=True),
    ]
    if keys.probe_budgets:
        both = [*keys.probe_accs, *keys.worst_accs]
        robustness.insert(2, _lines("Under the probe, and under both", both, unit_range=True))
    return {
        "Robustness": robustness,
        "By budget and by class": _charts(keys),
        "Attacked images": _images(keys),
        "Cost": [
            _lines("Seconds of attack a measurement", keys.seconds, "s"),
            _lines("Attacked samples", [keys.num_samples]),
        ],
        "Runs compared": [_trade_off(keys, robust[-1])] if robust else [],
    }


def verdict_panels(keys: GaugeKeys) -> Panels:
    """What the attack found on the test samples after the training.

    Args:
        keys: of the stage ``test``.

    Raises:
        UnavailableError: wandb-workspaces is not installed.
    """
    shares = [keys.clean_acc, *keys.robust_accs]
    bars = [
        reports().BarPlot(title="Verdict: accuracy", metrics=shares),
        reports().BarPlot(title=f"Verdict: median ℓ0 ({keys.unit})", metrics=[keys.median_l0]),
    ]
    return {"Verdict": [*bars, *_charts(keys), *_images(keys)]}


def _lines(
    title: str, metrics: Sequence[str], unit: str | None = None, *, unit_range: bool = False
) -> Any:
    return reports().LinePlot(
        title=title,
        x="epoch",
        y=list(metrics),
        title_x="epoch",
        title_y=unit,
        range_y=(0, 1) if unit_range else (None, None),
    )


def _charts(keys: GaugeKeys) -> list[Any]:
    fields = {"x": "budget", "y": "robust_accuracy", "stroke": "epoch"}
    title = f"Robust accuracy at each budget ({keys.unit}), by epoch"
    return [
        _custom("wandb/line/v0", keys.curve, fields, title),
        _custom("wandb/histogram/v0", keys.l0_histogram, {"value": "l0"}, f"ℓ0 ({keys.unit})"),
        _custom(
            "wandb/bar/v0",
            keys.class_l0,
            {"label": "class", "value": "median_l0"},
            f"Median ℓ0 ({keys.unit}) by class",
        ),
    ]


def _custom(preset: str, key: str, fields: dict[str, str], title: str) -> Any:
    return reports().CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name=preset,
        chart_fields=fields,
        chart_strings={"title": title},
    )


def _images(keys: GaugeKeys) -> list[Any]:
    wide = reports().Layout(w=24, h=9)
    return [
        reports().MediaBrowser(title="Where images are attacked", media_keys=[keys.places]),
        reports().WeavePanelSummaryTable(table_name=keys.examples, layout=wide),
    ]


def _trade_off(keys: GaugeKeys, robust: str) -> Any:
    best = reports().SummaryMetric
    return reports().ScatterPlot(
        title="Best clean against best robust accuracy, a dot a run",
        x=best(f"{keys.clean_acc}.max"),
        y=best(f"{robust}.max"),
    )
