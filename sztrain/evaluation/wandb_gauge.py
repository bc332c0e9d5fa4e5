"""A gauge's measurements in Weights & Biases: step metrics, best values, charts, tables, images."""

import math
from collections.abc import Iterable
from typing import Any

from sztrain.evaluation.figures import figure_pixels, places_figure
from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.evaluation.gauge_page import GaugePage, thinned
from sztrain.evaluation.wandb_media import example_table

_MOST_ROWS = 10_000  # more of a table W&B does not draw


def define_metrics(run: Any, keys: GaugeKeys) -> None:
    """Draw the figures over epochs, and let the run's summary hold the best of each.

    The summary entry of a figure is nested: ``run.summary["val/median_l0"]["max"]``, and its last
    value stands beside the best. A verdict, which is taken once, keeps plain entries.

    Args:
        run: what ``wandb.init`` gave, before the figures are logged.
        keys: of the figures.
    """
    run.define_metric("epoch")
    for key in (*keys.median_interval, keys.num_samples):
        run.define_metric(key, step_metric="epoch")
    for key, best in keys.best.items():
        summary = None if keys.stage == "test" else f"{best},last"
        run.define_metric(key, step_metric="epoch", summary=summary)


def gauge_media(page: GaugePage) -> dict[str, Any]:
    """Charts, tables and pictures of a measurement by key, to log together and without a step.

    The tables of adversarial images hold the rows of one epoch each, which their first column
    says: ``runs.history.concat["val/adversarial_examples"]`` shows those of all epochs.
    """
    import wandb

    keys, measurement = page.keys, page.measurement
    media: dict[str, Any] = {"epoch": page.epoch, "trainer/global_step": page.step}
    media |= _curves(page)
    if measurement.breakdown is not None:
        media |= _l0_histogram(page) | _class_l0(page)
        if measurement.breakdown.places is not None:
            heat_map = figure_pixels(places_figure(measurement.breakdown.places))
            media[keys.places] = wandb.Image(heat_map, caption=f"epoch {page.epoch}")
    if measurement.drawable is not None:
        media[keys.examples] = example_table(measurement.drawable, page.epoch)
    return media


def _curves(page: GaugePage) -> dict[str, Any]:
    import wandb

    count = max(2, _MOST_ROWS // len(page.curves))
    rows: list[Iterable[Any]] = [
        [epoch, budget, accuracy]
        for epoch, points in sorted(page.curves.items())
        for budget, accuracy in thinned(points, count)
    ]
    columns: list[str | int] = ["epoch", "budget", "robust_accuracy"]
    table = wandb.Table(columns=columns, data=rows)
    title = f"Robust accuracy at each budget ({page.keys.unit}), by epoch"
    chart = wandb.plot.line(table, "budget", "robust_accuracy", stroke="epoch", title=title)
    return {f"{page.keys.curve}_table": table, page.keys.curve: chart}


def _l0_histogram(page: GaugePage) -> dict[str, Any]:
    import wandb

    broken = page.broken_l0
    rows: list[Iterable[Any]] = [
        [page.epoch, l0] for l0 in broken[:: max(1, math.ceil(len(broken) / _MOST_ROWS))]
    ]
    table = wandb.Table(columns=["epoch", "l0"], data=rows)
    title = f"ℓ0 ({page.keys.unit}) of the samples that were broken"
    chart = wandb.plot.histogram(table, "l0", title=title)
    return {f"{page.keys.l0_histogram}_table": table, page.keys.l0_histogram: chart}


def _class_l0(page: GaugePage) -> dict[str, Any]:
    import wandb

    assert page.measurement.breakdown is not None
    rows: list[Iterable[Any]] = [
        # No bar can be as long as ∞; that half of a class resists is seen by its success rate.
        [
            page.epoch,
            str(one.label),
            one.median_l0 if math.isfinite(one.median_l0) else None,
            one.asr_inf,
            one.num_samples,
        ]
        for one in page.measurement.breakdown.by_class()
    ]
    columns: list[str | int] = ["epoch", "class", "median_l0", "asr_inf", "num_samples"]
    table = wandb.Table(columns=columns, data=rows)
    title = f"Median ℓ0 ({page.keys.unit}) by class; no bar: half of the class resists"
    chart = wandb.plot.bar(table, "class", "median_l0", title=title)
    return {f"{page.keys.class_l0}_table": table, page.keys.class_l0: chart}
