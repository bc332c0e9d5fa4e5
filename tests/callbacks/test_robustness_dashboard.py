"""What the loggers hold of a gauge's measurements, read back from their files."""

import csv
import json
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import wandb
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tensorboard_files import picture, values_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toy_training import INF, ScriptedAttack, foreign_module, loader, make_trainer
from wandb_files import by_digest, charts, load_picture, logged_items, run_records, summary_of

from sztrain.attacks import SigmaZero, SparseAutoAttack
from sztrain.callbacks import RobustnessDashboard, SparseRobustness
from sztrain.callbacks._kinds import is_a
from sztrain.callbacks.alarms import raise_alarm, wandb_alert
from sztrain.callbacks.dashboard_writers import writer_for
from sztrain.dashboards import build_report, build_workspace
from sztrain.errors import InputError
from sztrain.evaluation import wandb_gauge
from sztrain.evaluation.breakdown import Breakdown
from sztrain.evaluation.figures import robustness_curve_figure
from sztrain.evaluation.gauge_keys import GaugeKeys
from sztrain.evaluation.gauge_page import GaugePage
from sztrain.evaluation.measurement import Measurement

SCRIPTS = (
    (0.0, 2.0, 5.0, INF, 2.0, 1.0),  # epoch by epoch; the net is right or wrong as these say
    (1.0, 3.0, INF, INF, INF, 1.0),
)
VERDICT = (0.0, 2.0, 5.0, INF)
BUDGETS = (2, 4)
LABELS = torch.tensor([0, 1, 2] * 8)


def images_of(channels, size=8, num_samples=24):
    generator = torch.Generator().manual_seed(0)
    # Whole 255ths, so that a picture can hold them exactly.
    pixels = torch.randint(0, 256, (num_samples, channels, size, size), generator=generator)
    labels = LABELS[:num_samples]
    return DataLoader(TensorDataset(pixels / 255, labels), batch_size=4), pixels


def make_module(lightning, features=192):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return foreign_module(lightning)(nn.Sequential(nn.Flatten(), nn.Linear(features, 3)))


def make_gauge(probe=None, verdict=(VERDICT,), **options):
    return SparseRobustness(
        attack=ScriptedAttack(script=SCRIPTS),
        budgets=BUDGETS,
        probe=None if probe is None else ScriptedAttack(script=probe, budget=3),
        verdict=ScriptedAttack(script=verdict),
        num_examples=3,
        **options,
    )


def shares(l0, budget):
    return sum(value > budget for value in l0) / len(l0)


def repeated(row):
    return [row[index % len(row)] for index in range(24)]


def of_class(l0, label):
    return [value for value, other in zip(l0, LABELS.tolist(), strict=True) if other == label]


# --- one training that logs to everything, read back ---


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Two epochs and a verdict, logged to W&B, TensorBoard and CSV at once."""
    folder = tmp_path_factory.mktemp("logged")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(folder / name))
        settings = wandb.Settings(silent=True, console="off")
        loggers = [
            WandbLogger(save_dir=folder, project="toy", mode="offline", settings=settings),
            TensorBoardLogger(folder / "tb"),
            CSVLogger(folder / "csv", name="", version=""),
        ]
        # The probe breaks all that the gauge leaves in the second epoch.
        gauge = make_gauge(probe=((INF,), (1.0,)))
        callbacks = [gauge, RobustnessDashboard(folder / "pictures", name="toy")]
        trainer = make_trainer(pl, callbacks=callbacks, max_epochs=2, logger=loggers)
        module, (data, _) = make_module(pl), images_of(3)
        with pytest.warns(UserWarning, match="The gauge says robust, the probe says not"):
            trainer.fit(module, data, data)
        time.sleep(1)  # tensorboardX names files by the second: this one would be written over
        trainer.test(module, data, verbose=False)
        wandb.finish()
        wandb.teardown()  # finish() alone may return before everything is on disk
        (run_file,) = folder.glob("wandb/offline-run-*/*.wandb")
        yield SimpleNamespace(
            folder=folder, gauge=gauge, run=run_file, items=logged_items(run_file)
        )


def tables(logged, key):
    """Every version of a table of W&B, in the order of logging."""
    paths = logged.run.parent.glob(f"files/media/table/{key}_*.table.json")
    steps = {int(path.name.removeprefix(Path(key).name).split("_")[1]): path for path in paths}
    return [json.loads(steps[step].read_text()) for step in sorted(steps)]


KEYS = GaugeKeys(budgets=BUDGETS, probe_budgets=(3,))
TEST_KEYS = GaugeKeys(stage="test", budgets=BUDGETS)


def panels_of(blocks):
    return [panel for block in blocks for panel in getattr(block, "panels", [])]


def named_by(panel):
    """Everything logged that a panel of wandb-workspaces names, each with its kind."""
    kind = type(panel).__name__
    metrics = {
        "LinePlot": lambda: [panel.x, *panel.y],
        "BarPlot": lambda: panel.metrics,
        "ScatterPlot": lambda: [panel.x.name, panel.y.name],
        "CustomChart": lambda: [panel.query["summaryTable"]["tableKey"]],
        "MediaBrowser": lambda: panel.media_keys,
        "WeavePanelSummaryTable": lambda: [panel.table_name],
    }[kind]()
    return [(kind, str(getattr(metric, "name", metric))) for metric in metrics]


def test_all_that_the_panels_name_is_in_the_run(logged):
    workspace = build_workspace("me", "toy", KEYS, TEST_KEYS)
    report = build_report("me", "toy", KEYS, TEST_KEYS)
    named = [pair for panel in panels_of(workspace.sections) for pair in named_by(panel)]
    assert named == [pair for panel in panels_of(report.blocks) for pair in named_by(panel)]
    assert {kind for kind, _ in named} == {
        *("LinePlot", "BarPlot", "ScatterPlot", "CustomChart", "MediaBrowser"),
        "WeavePanelSummaryTable",
    }
    summary, defined = summary_of(logged.run), charts(logged.run)
    for kind, key in named:
        if kind == "ScatterPlot":
            assert key in summary, key
        elif kind == "CustomChart":
            assert logged.items[f"{key}/_type"] == "table-file", key
            assert key.removesuffix("_table") in defined
        elif kind == "MediaBrowser":
            assert logged.items[f"{key}/_type"] == "image-file"
            assert (logged.run.parent / "files" / logged.items[f"{key}/path"]).is_file()
        elif kind == "WeavePanelSummaryTable":
            assert logged.items[f"{key}/nrows"] == 3
        else:
            assert isinstance(logged.items[key], int | float), key
    # ... and nothing that the gauge logs is left out.
    shown = {key for _, key in named}
    logged_figures = {key for key in logged.items if key.startswith("val/") and "/" not in key[4:]}
    assert logged_figures - shown == set()


def test_charts_read_the_columns_that_their_tables_have(logged):
    workspace = build_workspace("me", "toy", KEYS, TEST_KEYS)
    charts_built = [p for p in panels_of(workspace.sections) if type(p).__name__ == "CustomChart"]
    assert len(charts_built) == 6
    for panel in charts_built:
        (_, key), *_ = named_by(panel)
        assert set(panel.chart_fields.values()) <= set(tables(logged, key)[-1]["columns"])


def test_figures_are_drawn_over_epochs_and_the_summary_holds_the_best(logged):
    metrics = {
        record.metric.name: record.metric
        for record in run_records(logged.run)
        if record.WhichOneof("record_type") == "metric"
    }
    for key in ("val/median_l0", "val/robust_acc@4", "val/robust_acc_worst@3", "val/asr_inf"):
        assert metrics[key].step_metric == "epoch"
    summary = summary_of(logged.run)
    robust = [shares(repeated(row), 4) for row in SCRIPTS]
    assert robust == pytest.approx([1 / 3, 0.5])
    assert summary["val/robust_acc@4.max"] == pytest.approx(0.5)
    assert summary["val/asr@4.min"] == pytest.approx(0.5)
    assert summary["val/robust_acc_worst@3.max"] == pytest.approx(1 / 3)
    assert summary["val/robust_acc_worst@3.last"] == 0
    assert summary["test/robust_acc@4"] == 0.5  # a verdict is taken once


def test_one_chart_has_the_curve_of_each_epoch(logged):
    *_, table = tables(logged, "val/robustness_curve_table")
    assert table["columns"] == ["epoch", "budget", "robust_accuracy"]
    for epoch, row in enumerate(SCRIPTS):
        points = {k: share for e, k, share in table["data"] if e == epoch}
        assert {0, 192} <= set(points)
        for budget, share in points.items():
            assert share == pytest.approx(shares(repeated(row), budget))
    (verdict,) = tables(logged, "test/robustness_curve_table")
    # A budget between two of the same accuracy is left out.
    points = [(0, 0.75), (1, 0.75), (2, 0.5), (4, 0.5), (5, 0.25), (192, 0.25)]
    assert [tuple(row[1:]) for row in verdict["data"]] == points


def test_histogram_and_classes_are_those_of_the_script(logged):
    for epoch, (row, found) in enumerate(
        zip(SCRIPTS, tables(logged, "val/l0_histogram_table"), strict=True)
    ):
        finite = sorted(value for value in repeated(row) if value < INF)
        assert found["data"] == [[epoch, value] for value in finite]
    by_class = tables(logged, "val/class_l0_table")
    assert by_class[1]["columns"] == ["epoch", "class", "median_l0", "asr_inf", "num_samples"]
    for row, found in zip(SCRIPTS, by_class, strict=True):
        for _, label, median, asr, count in found["data"]:
            l0 = of_class(repeated(row), int(label))
            expected = statistics.median(l0)
            assert median == (expected if expected < INF else None)
            assert asr == sum(value < INF for value in l0) / len(l0)
            assert count == 8
    assert None in [row[2] for row in by_class[1]["data"]]


def test_adversarial_images_say_their_epoch(logged):
    names = ["clean", "adversarial", "changed", "l0", "label", "clean pred", "adv pred"]
    # Tables with pictures, and the pictures, wait in W&B's data folder until the run is uploaded.
    staged = by_digest(logged.folder / "DATA" / "artifacts" / "staging")
    found = {}
    for path in staged.values():
        table = json.loads(path.read_text()) if path.read_bytes().startswith(b"{") else {}
        if "adversarial" in table.get("columns", ()):
            assert table["columns"] == ["epoch", *names]
            (epoch,) = {row[0] for row in table["data"]}
            found[epoch] = table["data"]
    assert sorted(found) == [0, 1, 2]
    assert {len(rows) for rows in found.values()} == {3}
    shown = logged.gauge.measurements["test"].examples
    for row, (_, *cells) in enumerate(found[2]):
        clean, adversarial, changed = (load_picture(staged[cell["sha256"]]) for cell in cells[:3])
        assert torch.equal(clean, (shown.inputs[row] * 255).round().byte())
        assert torch.equal(adversarial, (shown.adv_inputs[row] * 255).round().byte())
        assert torch.equal(changed, (clean != adversarial).any(dim=0, keepdim=True).byte() * 255)
        columns = (shown.l0, shown.labels, shown.clean_predictions, shown.adv_predictions)
        assert cells[3:] == [column[row].item() for column in columns]
    assert max(row[4] for row in found[2]) > 0  # something was changed


def test_attacked_places_are_counted_by_position(logged):
    # The script changes the first features: l0 of them in the first channel, row by row.
    l0 = [value for value in repeated(VERDICT) if 0 < value < INF]
    expected = torch.zeros(64)
    for value in l0:
        expected[: int(value)] += 1 / len(l0)
    places = logged.gauge.measurements["test"].breakdown.places
    torch.testing.assert_close(places, expected.view(8, 8))
    for stage in ("val", "test"):
        path = logged.run.parent / "files" / logged.items[f"{stage}/attacked_places/path"]
        assert np.ptp(np.asarray(Image.open(path).convert("L"))) > 100


def test_a_gauge_that_its_probe_contradicts_is_an_alert(logged):
    records = (record for record in run_records(logged.run))
    alerts = [r.alert for r in records if r.WhichOneof("record_type") == "alert"]
    (alert,) = alerts
    assert alert.title == "The gauge says robust, the probe says not"
    assert "50.0% of the samples" in alert.text
    assert "val/robust_acc_worst@3" in alert.text
    assert alert.level == "WARN"


def test_tensorboard_has_the_same_as_pictures_and_histograms(logged):
    values = values_of(logged.folder / "tb")
    figures = dict(values["val/median_l0"])
    pictures = ("robustness_curve", "class_l0", "attacked_places", "adversarial_examples")
    for name in pictures:
        for stage, count in (("val", 2), ("test", 1)):
            shown = values[f"{stage}/{name}"]
            assert len(shown) == count
            for step, value in shown:
                assert stage == "test" or step in figures  # beside the figures of its epoch
                assert np.ptp(picture(value)) > 100
    for row, (_, value) in zip(SCRIPTS, values["val/l0_histogram"], strict=True):
        finite = [v for v in repeated(row) if v < INF]
        assert (value.histo.num, value.histo.sum) == (len(finite), sum(finite))
    curves = [picture(value) for _, value in values["val/robustness_curve"]]
    assert not np.array_equal(*curves)


def test_csv_has_the_same_as_tables(logged):
    def rows(name):
        with (logged.folder / "csv" / f"{name}.csv").open() as file:
            return list(csv.DictReader(file))

    scripts = {("val", "0"): SCRIPTS[0], ("val", "1"): SCRIPTS[1], ("test", "2"): VERDICT}
    for name in ("robustness_curves", "class_l0", "l0_histogram"):
        assert list(dict.fromkeys((r["stage"], r["epoch"]) for r in rows(name))) == list(scripts)
    for row in rows("robustness_curves"):
        l0 = repeated(scripts[row["stage"], row["epoch"]])
        assert float(row["robust_accuracy"]) == pytest.approx(shares(l0, int(row["budget"])))
    for place, script in scripts.items():
        counted = {
            float(row["l0"]): int(row["num_samples"])
            for row in rows("l0_histogram")
            if (row["stage"], row["epoch"]) == place
        }
        l0 = repeated(script)
        assert counted == {value: l0.count(value) for value in set(l0)}
    for row in rows("class_l0"):
        l0 = of_class(repeated(scripts[row["stage"], row["epoch"]]), int(row["class"]))
        assert float(row["median_l0"]) == statistics.median(l0)
        assert int(row["num_samples"]) == 8
    assert "val/gauge_clean_acc" in (logged.folder / "csv" / "metrics.csv").read_text()


def test_files_of_the_verdict_can_be_opened(logged):
    for name in ("robustness_curve.png", "adversarial_examples.png"):
        with Image.open(logged.folder / "pictures" / name) as shown:
            assert min(shown.size) > 100
            assert len(shown.convert("RGB").getcolors(2**24)) > 10


# --- trainings without all that ---


def test_the_curve_of_the_verdict_names_its_judge(monkeypatch, tmp_path):
    titles = []

    def note(*args, title, **options):
        titles.append(title)
        return robustness_curve_figure(*args, title=title, **options)

    monkeypatch.setattr("sztrain.callbacks.dashboard_writers.robustness_curve_figure", note)
    gauge = SparseRobustness(
        attack=SigmaZero(num_steps=1),
        verdict=SparseAutoAttack(num_steps=10, num_queries=12),
        budgets=(2,),
    )
    trainer = make_trainer(pl, callbacks=[gauge, RobustnessDashboard(tmp_path)])
    trainer.test(make_module(pl), images_of(3)[0], verbose=False)
    assert titles == ["SparseAutoAttack num_queries=12, N=10"]


@pytest.mark.parametrize(
    ("channels", "num_examples", "names"),
    [
        (1, 3, {"robustness_curve.png", "adversarial_examples.png"}),
        (2, 3, {"robustness_curve.png"}),  # neither grey nor colour
        (3, 0, {"robustness_curve.png"}),
    ],
)
def test_only_what_can_be_drawn_is_drawn(channels, num_examples, names, lightning, tmp_path):
    verdict = ScriptedAttack(script=(VERDICT,), unit="pixels")
    gauge = SparseRobustness(verdict=verdict, budgets=(2,), num_examples=num_examples)
    callbacks = [gauge, RobustnessDashboard(tmp_path / "new")]
    trainer = make_trainer(lightning, callbacks=callbacks)
    data = images_of(channels)[0]
    trainer.test(make_module(lightning, 64 * channels), data, verbose=False)
    assert {path.name for path in (tmp_path / "new").iterdir()} == names


def test_without_any_logger_the_figure_is_there(lightning):
    callbacks = [make_gauge(), RobustnessDashboard()]
    trainer = make_trainer(lightning, callbacks=callbacks)
    data = images_of(3)[0]
    trainer.fit(make_module(lightning), data, data)
    clean = shares(repeated(SCRIPTS[0]), 0)
    assert float(trainer.callback_metrics["val/gauge_clean_acc"]) == pytest.approx(clean)


def test_between_two_measurements_nothing_is_shown(tmp_path):
    gauge = make_gauge(every_n_epochs=2)
    dashboard = RobustnessDashboard()
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = make_trainer(pl, callbacks=[gauge, dashboard], max_epochs=4, logger=logger)
    data = images_of(3)[0]
    trainer.fit(make_module(pl), data, data)
    with (tmp_path / "robustness_curves.csv").open() as file:
        assert {row["epoch"] for row in csv.DictReader(file)} == {"0", "2", "3"}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # another gauge
def test_a_training_that_goes_on_in_another_unit_begins_another_chart(tmp_path):
    data = images_of(3)[0]
    for epochs, path, unit in ((1, None, "features"), (2, tmp_path / "one.ckpt", "pixels")):
        dashboard = RobustnessDashboard()
        gauge = SparseRobustness(attack=ScriptedAttack(script=SCRIPTS, unit=unit), budgets=(2,))
        trainer = make_trainer(pl, callbacks=[gauge, dashboard], max_epochs=epochs)
        trainer.fit(make_module(pl), data, data, ckpt_path=path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert {place: list(curves) for place, curves in dashboard._curves.items()} == {
        "val": [0],
        "val_px": [1],
    }


def test_a_resumed_training_keeps_the_curves_of_its_first_part(tmp_path):
    data = images_of(3)[0]
    curves = []
    for epochs, path in ((2, None), (3, tmp_path / "two.ckpt")):
        dashboard = RobustnessDashboard()
        callbacks = [make_gauge(), dashboard]
        trainer = make_trainer(pl, callbacks=callbacks, max_epochs=epochs)
        trainer.fit(make_module(pl), data, data, ckpt_path=path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "two.ckpt")
        curves.append(dashboard._curves["val"])
    assert list(curves[1]) == [0, 1, 2]
    assert [curves[1][epoch] for epoch in (0, 1)] == [curves[0][epoch] for epoch in (0, 1)]


def test_another_run_shows_its_own_curves_alone(tmp_path):
    """And nothing in its sanity check, before it has measured anything."""
    data = images_of(3)[0]
    callbacks = [make_gauge(), RobustnessDashboard()]
    for number, epochs in enumerate((3, 2)):
        logger = CSVLogger(tmp_path, name="", version=str(number))
        trainer = make_trainer(
            pl, callbacks=callbacks, max_epochs=epochs, logger=logger, num_sanity_val_steps=1
        )
        trainer.fit(make_module(pl), data, data)
    with (tmp_path / "1" / "robustness_curves.csv").open() as file:
        assert {row["epoch"] for row in csv.DictReader(file)} == {"0", "1"}
    assert list(callbacks[1]._curves["val"]) == [0, 1]


def test_a_trainer_that_goes_on_keeps_its_curves():
    data = images_of(3)[0]
    dashboard = RobustnessDashboard()
    trainer = make_trainer(pl, callbacks=[make_gauge(), dashboard], max_epochs=1)
    module = make_module(pl)
    trainer.fit(module, data, data)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, data, data)
    assert list(dashboard._curves["val"]) == [0, 1]


def test_a_checkpoint_holds_some_points_of_a_curve_both_ends_among_them(monkeypatch):
    monkeypatch.setattr("sztrain.callbacks.robustness_dashboard._POINTS", 3)
    dashboard = RobustnessDashboard()
    trainer = make_trainer(pl, callbacks=[make_gauge(), dashboard])
    trainer.validate(make_module(pl), images_of(3)[0], verbose=False)
    budgets = [budget for budget, _ in dashboard._curves["val"][0]]
    assert len(budgets) == 3
    assert (budgets[0], budgets[-1]) == (0, 192)


def test_tables_have_no_more_rows_than_wandb_draws(monkeypatch):
    monkeypatch.setattr(wandb_gauge, "_MOST_ROWS", 10)
    broken = torch.arange(1.0, 16.0)
    measurement = Measurement(
        values={},
        curve=torch.linspace(1, 0, 31),
        unit="features",
        num_samples=15,
        attack_seconds=0.0,
        examples=None,
        breakdown=Breakdown(labels=torch.zeros(15).long(), l0=broken, places=None),
    )
    points = [(budget, 1 - budget / 30) for budget in range(31)]
    page = GaugePage(
        keys=KEYS,
        measurement=measurement,
        curves={0: points, 1: points},
        epoch=1,
        step=6,
        judged_by="",
    )
    media = wandb_gauge.gauge_media(page)
    rows = media["val/robustness_curve_table"].data
    assert len(rows) == 10
    for epoch in (0, 1):
        budgets = [budget for e, budget, _ in rows if e == epoch]
        assert (budgets[0], budgets[-1]) == (0, 30)
    assert media["val/l0_histogram_table"].data == [[1, l0] for l0 in range(1, 16, 2)]


def test_it_needs_a_gauge(lightning):
    trainer = make_trainer(lightning, callbacks=[RobustnessDashboard()])
    with pytest.raises(InputError, match="found none; add SparseRobustness"):
        trainer.test(make_module(lightning), images_of(3)[0], verbose=False)


def test_it_may_stand_before_the_gauge(lightning):
    dashboard = RobustnessDashboard()
    trainer = make_trainer(lightning, callbacks=[dashboard, make_gauge()])
    trainer.validate(make_module(lightning), images_of(3)[0], verbose=False)
    assert list(dashboard._curves["val"]) == [0]
    assert "val/gauge_clean_acc" in trainer.callback_metrics


@pytest.mark.parametrize("share", [0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InputError, match="alarm_share"):
        RobustnessDashboard(alarm_share=share)


def test_samples_that_are_no_images_have_no_places():
    class Rows(foreign_module(pl)):
        pass

    inputs = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(inputs, torch.arange(8) % 3), batch_size=4)
    gauge = SparseRobustness(num_samples=8, budgets=(1,), num_examples=2)
    trainer = make_trainer(pl, callbacks=[gauge, RobustnessDashboard()])
    with torch.random.fork_rng(devices=[]):
        module = Rows(nn.Linear(5, 3))
    trainer.fit(module, data, data)
    assert gauge.measurements["val"].breakdown.places is None


# --- alarms ---


def alarms(monkeypatch, script, probe, share=0.9, num_samples=120, budget=3, runs=1):
    """In which epochs an alarm is raised."""
    raised = []
    monkeypatch.setattr(
        "sztrain.callbacks.robustness_dashboard.raise_alarm",
        lambda trainer, title, text: raised.append(trainer.current_epoch),
    )
    gauge = SparseRobustness(
        attack=ScriptedAttack(script=script),
        budgets=BUDGETS,
        probe=ScriptedAttack(script=probe, budget=budget),
    )
    callbacks = [gauge, RobustnessDashboard(alarm_share=share)]
    data = loader(num_samples=num_samples)
    for _ in range(runs):
        trainer = make_trainer(pl, callbacks=callbacks, max_epochs=len(script))
        trainer.fit(make_module(pl, 32), data, data)
    return raised


def row(num_robust):
    return (INF,) * num_robust + (1.0,) * (24 - num_robust)


def one_batch(*counts):
    """Scripts of an attack on 24 samples, or five times as many, of which so many resist."""
    return tuple(row(count) for count in counts)


def test_an_alarm_is_raised_once_until_both_agree_again(monkeypatch):
    script = one_batch(12, 12, 12, 12, 12)
    probe = one_batch(12, 1, 0, 12, 1)
    assert alarms(monkeypatch, script, probe) == [1, 4]


def test_another_run_raises_an_alarm_of_its_own(monkeypatch):
    assert alarms(monkeypatch, one_batch(12, 12), one_batch(0, 0), runs=2) == [0, 0]


def test_a_probe_without_a_budget_is_believed_at_those_of_the_gauge(monkeypatch):
    assert alarms(monkeypatch, one_batch(12, 12), one_batch(12, 1), budget=None) == [1]


def test_what_the_gauge_itself_hardly_calls_robust_is_no_alarm(monkeypatch):
    assert alarms(monkeypatch, one_batch(2, 3), one_batch(0, 0)) == [1]  # below a tenth, above


def test_too_few_samples_are_no_alarm(monkeypatch):
    assert alarms(monkeypatch, one_batch(9, 10), one_batch(0, 0), num_samples=24) == [1]


@pytest.mark.filterwarnings("ignore:.*barebones=True")
def test_where_nothing_is_logged_there_is_no_alarm_and_no_error():
    gauge = SparseRobustness(
        attack=ScriptedAttack(), budgets=BUDGETS, probe=ScriptedAttack(budget=3)
    )
    trainer = pl.Trainer(
        barebones=True, accelerator="cpu", max_epochs=1, callbacks=[gauge, RobustnessDashboard()]
    )
    trainer.fit(make_module(pl, 32), loader(), loader())
    assert gauge.measurements["val"].num_samples == 24


def test_the_share_says_how_much_the_probe_may_break(monkeypatch):
    script, probe = one_batch(20, 20), one_batch(11, 9)
    assert alarms(monkeypatch, script, probe, share=0.5) == [1]
    assert alarms(monkeypatch, script, probe) == []


class FakeRun:
    def __init__(self):
        self.alerts = []

    def alert(self, **options):
        self.alerts.append(options)


def test_an_alarm_goes_to_the_screen_and_to_wandb_of_the_first_process():
    class MyWandbLogger(type("WandbLogger", (), {})):
        experiment = FakeRun()

    loggers = [object(), MyWandbLogger()]
    other = SimpleNamespace(loggers=loggers, is_global_zero=False)
    raise_alarm(other, "collapse", "all is lost")  # a warning would be an error here
    with pytest.warns(UserWarning, match="collapse: all is lost"):
        raise_alarm(
            SimpleNamespace(loggers=loggers, is_global_zero=True), "collapse", "all is lost"
        )
    (alert,) = MyWandbLogger.experiment.alerts
    assert alert == {"title": "collapse", "text": "all is lost", "level": "WARN"}


def test_a_title_is_cut_to_what_wandb_takes():
    run = FakeRun()
    wandb_alert(run, "x" * 100, "y")
    assert len(run.alerts[0]["title"]) < 64


def test_loggers_are_known_by_their_name_in_either_namespace(loggers):
    assert is_a(loggers.CSVLogger("x"), "CSVLogger")
    assert writer_for(loggers.CSVLogger("x")) is not None
    assert writer_for(object()) is None
