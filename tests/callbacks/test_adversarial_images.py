"""What the verdict's attack did, as files on disk and in W&B."""

import json
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import wandb
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toy_training import INF, ScriptedAttack, foreign_module, make_trainer
from wandb_files import by_digest, charts, load_picture, logged_items

from sztrain.callbacks import AdversarialImages, SparseRobustness
from sztrain.errors import InputError

SCRIPT = (0.0, 2.0, 5.0, INF)
"""Over all of them, three quarters resist 1 change, a half 2, and a quarter 5 or any number."""


def images_of(channels, size=8, num_samples=12):
    generator = torch.Generator().manual_seed(0)
    # Whole 255ths, so that a picture can hold them exactly.
    pixels = torch.randint(0, 256, (num_samples, channels, size, size), generator=generator)
    labels = torch.arange(num_samples) % 3
    return DataLoader(TensorDataset(pixels / 255, labels), batch_size=4), pixels


def make_module(lightning, features):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return foreign_module(lightning)(nn.Sequential(nn.Flatten(), nn.Linear(features, 3)))


def verdict(folder, *, lightning=pl, channels=3, unit="features", num_examples=3, **options):
    """Test with pictures; return the gauge."""
    gauge = SparseRobustness(
        verdict=ScriptedAttack(script=(SCRIPT,), unit=unit),
        budgets=(2,),
        num_examples=num_examples,
    )
    pictures = AdversarialImages(folder, name="toy")
    trainer = make_trainer(lightning, callbacks=[gauge, pictures], **options)
    data, _ = images_of(channels)
    trainer.test(make_module(lightning, 64 * channels), data, verbose=False)
    return gauge


def test_pictures_can_be_opened(lightning, tmp_path):
    verdict(tmp_path / "new" / "folder", lightning=lightning)
    for name in ("robustness_curve.png", "adversarial_examples.png"):
        with Image.open(tmp_path / "new" / "folder" / name) as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("RGB").getcolors(2**24)) > 10


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"channels": 1, "unit": "pixels"}, {"robustness_curve.png", "adversarial_examples.png"}),
        ({"channels": 2}, {"robustness_curve.png"}),  # neither grey nor colour
        ({"num_examples": 0}, {"robustness_curve.png"}),
    ],
)
def test_only_what_can_be_drawn_is_drawn(options, names, tmp_path):
    verdict(tmp_path, **options)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_what_is_drawn_is_what_was_measured(tmp_path, monkeypatch):
    calls = {}

    def note(name):
        def draw(*args, **kwargs):
            calls[name] = (args, kwargs)

        return draw

    module = "sztrain.callbacks.adversarial_images"
    for name in ("robustness_curve_figure", "adversarial_examples_figure", "save_figure"):
        monkeypatch.setattr(f"{module}.{name}", note(name))
    gauge = verdict(tmp_path, unit="pixels")
    measurement = gauge.measurements["test"]
    (curves, unit), options = calls["robustness_curve_figure"]
    assert list(curves) == ["toy"]
    assert torch.equal(curves["toy"], measurement.curve)
    assert (unit, options) == ("pixels", {"budgets": (2,)})
    assert calls["adversarial_examples_figure"] == ((measurement.examples, "pixels"), {})


def test_without_a_gauge_it_is_an_error(lightning, tmp_path):
    trainer = make_trainer(lightning, callbacks=[AdversarialImages(tmp_path)])
    with pytest.raises(InputError, match=r"add SparseRobustness\(verdict=\.\.\.\)"):
        trainer.test(make_module(lightning, 192), images_of(3)[0], verbose=False)


def test_without_a_verdict_there_are_no_pictures(tmp_path):
    folder = tmp_path / "pictures"
    callbacks = [SparseRobustness(attack=ScriptedAttack(), budgets=(1,)), AdversarialImages(folder)]
    trainer = make_trainer(pl, callbacks=callbacks)
    data, _ = images_of(3)
    module = make_module(pl, 192)
    trainer.fit(module, data, data)
    trainer.test(module, data, verbose=False)
    assert not folder.exists()


def test_other_processes_draw_nothing(tmp_path):
    gauge = verdict(tmp_path / "first")
    trainer = SimpleNamespace(callbacks=[gauge], is_global_zero=False, loggers=[])
    AdversarialImages(tmp_path / "second").on_test_end(trainer, None)
    assert not (tmp_path / "second").exists()


class FakeWandb:
    """Any logger of that name, whatever its namespace."""

    def __init__(self):
        self.logged = []
        self.experiment = SimpleNamespace(log=self.log)

    def log(self, values, **options):
        assert options == {}  # W&B drops what is logged at an earlier step than the last
        self.logged.append(values)


@pytest.mark.parametrize(("channels", "examples"), [(1, True), (3, True), (2, False)])
def test_loggers_are_known_by_their_name(channels, examples, tmp_path):
    gauge = verdict(tmp_path, channels=channels)
    logger = type("WandbLogger", (FakeWandb,), {})()
    loggers = [object(), logger, FakeWandb()]
    trainer = SimpleNamespace(callbacks=[gauge], is_global_zero=True, loggers=loggers)
    AdversarialImages(tmp_path).on_test_end(trainer, None)
    keys = {key for values in logger.logged for key in values}
    expected = {"test/robustness_curve", "test/robustness_curve_table"}
    assert keys == expected | ({"test/adversarial_examples"} if examples else set())
    assert loggers[2].logged == []


def test_offline_run_of_wandb_holds_the_curve_and_the_table(tmp_path, monkeypatch):
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    logger = WandbLogger(
        save_dir=tmp_path,
        project="toy",
        mode="offline",
        settings=wandb.Settings(silent=True, console="off"),
    )
    gauge = verdict(tmp_path / "pictures", logger=[CSVLogger(tmp_path / "csv"), logger])
    wandb.finish()
    wandb.teardown()  # finish() alone may return before everything is on disk

    (run_file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    items = logged_items(run_file)
    assert items["test/median_l0"] == 3.5
    path = items["test/robustness_curve_table/path"]
    table = json.loads((run_file.parent / "files" / path).read_text())
    assert table["columns"] == ["name", "budget", "robust_accuracy"]
    # A budget between two of the same accuracy is left out.
    points = [(0, 0.75), (1, 0.75), (2, 0.5), (4, 0.5), (5, 0.25), (192, 0.25)]
    assert table["data"] == [["toy", *point] for point in points]

    assert charts(run_file) == {"test/robustness_curve"}

    # Pictures in tables wait in W&B's data folder until the run is uploaded.
    assert items["test/adversarial_examples/nrows"] == 3
    staged = by_digest(tmp_path / "DATA" / "artifacts" / "staging")
    (table,) = [
        found
        for path in staged.values()
        if b"adversarial" in path.read_bytes()
        for found in [json.loads(path.read_text())]
        if "columns" in found
    ]
    names = ["clean", "adversarial", "changed", "l0", "label", "clean pred", "adv pred"]
    assert table["columns"] == names
    shown = gauge.measurements["test"].examples
    assert len(table["data"]) == 3
    for row, cells in enumerate(table["data"]):
        clean, adversarial, changed = (load_picture(staged[cell["sha256"]]) for cell in cells[:3])
        assert torch.equal(clean, (shown.inputs[row] * 255).round().byte())
        assert torch.equal(adversarial, (shown.adv_inputs[row] * 255).round().byte())
        assert torch.equal(changed, (clean != adversarial).any(dim=0, keepdim=True).byte() * 255)
        columns = (shown.l0, shown.labels, shown.clean_predictions, shown.adv_predictions)
        assert cells[3:] == [column[row].item() for column in columns]
    assert {cells[3] for cells in table["data"]} > {0.0}  # something was changed
