"""The best checkpoint: the later of equals, and still the best when a training moves on."""

import re
import shutil
import warnings
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from toy_training import ScriptedAttack, foreign_module, loader, make_trainer

from sztrain.callbacks import BestCheckpoint, SparseRobustness
from sztrain.callbacks._gauges import is_repeated
from sztrain.callbacks._moved_files import bring_along
from sztrain.errors import InputError, SztrainWarning


def run(folder, means, epochs, ckpt_path=None, every_n_epochs=1, **options):
    """Train until `epochs`; the gauge claims one mean l0 after the other."""
    attack = ScriptedAttack(script=tuple((mean,) for mean in means))
    options = {"filename": "best-{epoch}", "monitor": "val/mean_l0"} | options
    best = BestCheckpoint(dirpath=folder, mode="max", **options)
    last = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    gauge = SparseRobustness(attack=attack, budgets=(1,), every_n_epochs=every_n_epochs)
    trainer = make_trainer(
        pl, callbacks=[gauge, best, last], max_epochs=epochs, enable_checkpointing=True
    )
    module = foreign_module(pl)()
    trainer.fit(module, loader(), loader(seed=1), ckpt_path=ckpt_path, weights_only=True)
    return best, trainer, module


def epoch_of(path):
    return torch.load(path, weights_only=True)["epoch"]


# Of the plain callback for last.ckpt, which starts anew.
moved = pytest.mark.filterwarnings("ignore:The dirpath has changed")
shared = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


@pytest.mark.parametrize("constant_name", [False, True])
def test_of_equals_the_later_is_kept(tmp_path, constant_name):
    name = {"filename": "best"} if constant_name else {}
    best, _, _ = run(tmp_path, [1.0, 5.0, 2.0, 5.0, 4.0], 5, enable_version_counter=False, **name)
    assert best.best_model_score == 5
    assert epoch_of(best.best_model_path) == 3
    assert len(list(tmp_path.glob("best*"))) == 1


def test_weights_that_were_not_gauged_are_not_the_best(tmp_path):
    best, _, _ = run(tmp_path, [3.0, 5.0, 4.0], 6, every_n_epochs=2)
    assert best.best_model_score == 5
    assert epoch_of(best.best_model_path) == 2  # epoch 3 shows the same figure again


@moved
def test_a_resumed_training_has_no_other_choice(tmp_path):
    run(tmp_path / "one", [3.0], 1, every_n_epochs=2)
    last = tmp_path / "one" / "last.ckpt"
    best, _, _ = run(tmp_path / "two", [4.0, 5.0], 4, last, every_n_epochs=2)
    assert best.best_model_score == 5
    assert epoch_of(best.best_model_path) == 3  # gauged were epochs 2 and 3


def test_clean_accuracy_on_the_gauged_samples_is_one_of_its_figures(tmp_path):
    best, *_ = run(tmp_path, [3.0, 5.0, 4.0], 6, monitor="val/gauge_clean_acc", every_n_epochs=2)
    assert epoch_of(best.best_model_path) in (0, 2, 4, 5)
    for epoch in (1, 3):  # the figure of the epoch before would be that of other weights
        trainer = SimpleNamespace(callbacks=[], current_epoch=epoch)
        gauge = SparseRobustness(budgets=(1,))
        gauge._epochs.record(epoch - 1, {"val/gauge_clean_acc": 0.5})
        trainer.callbacks.append(gauge)
        assert is_repeated("val/gauge_clean_acc", trainer)


@moved
@shared
def test_half_a_checkpoint_is_not_taken_for_one(tmp_path):
    """As a copy that was killed on its way leaves it."""
    run(tmp_path / "one", [1.0, 5.0, 2.0], 3)
    for place in (tmp_path / "one", tmp_path / "two"):
        place.mkdir(exist_ok=True)
        whole = (tmp_path / "one" / "best-epoch=1.ckpt").read_bytes()
        (place / "best-epoch=1.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(SztrainWarning, match=r"best-epoch=1\.ckpt is neither .* or damaged, or"):
        best, *_ = run(tmp_path / "two", [4.0, 3.0], 5, tmp_path / "one" / "last.ckpt")
    assert best.best_model_score == 4


@moved
def test_what_is_taken_along_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    run(tmp_path / "one", [1.0, 5.0, 2.0], 3)

    def broken(source, target):
        target.write_bytes(source.read_bytes()[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr("sztrain.callbacks._moved_files.shutil.copyfile", broken)
    with pytest.raises(KeyboardInterrupt):
        bring_along(tmp_path / "one" / "best-epoch=1.ckpt", tmp_path / "two", step=None)
    assert list((tmp_path / "two").iterdir()) == []


@shared
def test_in_a_remote_folder_the_best_stays_the_best(tmp_path):
    folder = f"memory://{tmp_path.name}"
    first, trainer, _ = run(folder, [1.0, 5.0], 2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second, *_ = run(folder, [4.0], 3, tmp_path / "last.ckpt")
    assert second.best_model_score == 5
    assert second.best_model_path == first.best_model_path


class OneOfTwo:
    """The strategy of one of two processes, whose decisions stand only if the other's do."""

    def __init__(self, others):
        self.others = list(others)

    def reduce_boolean_decision(self, decision):
        return self.others.pop(0) and decision


@pytest.mark.parametrize(
    ("current", "other", "saved"),
    [
        # (tie, better) of the other process; it asks for the second unless both tie.
        (5.0, [True], True),
        (5.0, [False, False], False),
        (6.0, [False, True], True),
        (6.0, [True, False], False),
        (4.0, [True, False], False),
    ],
)
def test_all_processes_decide_together(tmp_path, current, other, saved):
    best, _, _ = run(tmp_path, [5.0], 1)
    trainer = SimpleNamespace(current_epoch=0, callbacks=[], strategy=OneOfTwo(other))
    assert best.check_monitor_top_k(trainer, torch.tensor(current)) is saved
    assert trainer.strategy.others == []


@moved
def test_what_was_best_before_is_taken_along(tmp_path):
    run(tmp_path / "one", [1.0, 5.0, 2.0], 3)
    best, _, _ = run(tmp_path / "two", [4.0, 3.0], 5, tmp_path / "one" / "last.ckpt")
    assert best.best_model_path == str(tmp_path / "two" / "best-epoch=1.ckpt")
    assert best.best_model_score == 5
    assert epoch_of(best.best_model_path) == 1
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "best-epoch=1.ckpt",
        "last.ckpt",
    }
    assert epoch_of(tmp_path / "one" / "best-epoch=1.ckpt") == 1  # the first run keeps its own


@moved
def test_what_is_better_takes_its_place_in_the_new_folder_alone(tmp_path):
    run(tmp_path / "one", [1.0, 5.0], 2)
    best, _, _ = run(tmp_path / "two", [6.0, 3.0], 4, tmp_path / "one" / "last.ckpt")
    assert best.best_model_path == str(tmp_path / "two" / "best-epoch=2.ckpt")
    assert epoch_of(best.best_model_path) == 2
    assert not (tmp_path / "two" / "best-epoch=1.ckpt").exists()
    assert (tmp_path / "one" / "best-epoch=1.ckpt").exists()


@moved
def test_all_of_the_best_k_go_along(tmp_path):
    run(tmp_path / "one", [3.0, 5.0, 1.0], 3, save_top_k=2)
    best, _, _ = run(tmp_path / "two", [4.0], 4, tmp_path / "one" / "last.ckpt", save_top_k=2)
    names = {path.name for path in (tmp_path / "two").glob("best*")}
    assert names == {"best-epoch=1.ckpt", "best-epoch=3.ckpt"}
    assert sorted(float(score) for score in best.best_k_models.values()) == [4, 5]


@moved
@shared
def test_a_folder_with_another_name_has_its_best_one(tmp_path):
    run(tmp_path / "one", [1.0, 5.0], 2)
    (tmp_path / "one").rename(tmp_path / "two")
    best, _, _ = run(tmp_path / "two", [4.0, 3.0], 4, tmp_path / "two" / "last.ckpt")
    assert best.best_model_path == str(tmp_path / "two" / "best-epoch=1.ckpt")
    assert best.best_model_score == 5
    assert epoch_of(best.best_model_path) == 1


@moved
@shared
def test_lost_files_start_it_anew(tmp_path):
    run(tmp_path / "one", [1.0, 5.0], 2)
    shutil.move(tmp_path / "one" / "last.ckpt", tmp_path / "last.ckpt")
    shutil.rmtree(tmp_path / "one")
    lost = f"{tmp_path / 'one' / 'best-epoch=1.ckpt'} is neither there nor in {tmp_path / 'two'}"
    with pytest.warns(SztrainWarning, match=re.escape(lost)):
        best, _, _ = run(tmp_path / "two", [4.0, 3.0], 4, tmp_path / "last.ckpt")
    assert best.best_model_score == 4
    assert epoch_of(best.best_model_path) == 2


@shared
def test_in_the_same_folder_it_is_its_parent(tmp_path):
    run(tmp_path, [1.0, 5.0], 2)
    best, trainer, module = run(tmp_path, [4.0, 3.0], 4, tmp_path / "last.ckpt")
    assert best.best_model_path == str(tmp_path / "best-epoch=1.ckpt")
    assert best.best_model_score == 5
    assert [path.name for path in tmp_path.glob("last*")] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 3
    # Testing the best one leaves it the best one.
    trainer.test(module, loader(), ckpt_path=best.best_model_path, weights_only=True, verbose=False)
    assert best.best_model_path == str(tmp_path / "best-epoch=1.ckpt")


@moved
@shared
@pytest.mark.parametrize("folder", ["one", "two"])
def test_a_better_one_of_a_later_epoch_is_no_part_of_a_training_that_goes_on_before_it(
    tmp_path, folder
):
    constant = {"filename": "best", "enable_version_counter": False}
    run(tmp_path / "one", [3.0], 1, **constant)
    shutil.copy(tmp_path / "one" / "last.ckpt", tmp_path / "first.ckpt")
    run(tmp_path / "one", [5.0], 2, tmp_path / "one" / "last.ckpt", **constant)
    better = (tmp_path / "one" / "best.ckpt").read_bytes()
    with pytest.warns(SztrainWarning, match="of a later epoch than the one from which"):
        best, _, _ = run(tmp_path / folder, [2.0], 2, tmp_path / "first.ckpt", **constant)
    assert best.best_model_score == 2
    assert best.best_model_path == str(tmp_path / folder / "best.ckpt")
    kept = tmp_path / "one" / ("best.1.ckpt" if folder == "one" else "best.ckpt")
    assert kept.read_bytes() == better  # nothing is lost


def test_a_test_moves_nothing(tmp_path):
    constant = {"filename": "best", "enable_version_counter": False}
    run(tmp_path, [3.0], 1, **constant)
    shutil.copy(tmp_path / "last.ckpt", tmp_path / "first.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, trainer, module = run(tmp_path, [5.0], 2, tmp_path / "last.ckpt", **constant)
        trainer.test(
            module, loader(), ckpt_path=tmp_path / "first.ckpt", weights_only=True, verbose=False
        )
    assert epoch_of(tmp_path / "best.ckpt") == 1
    assert not (tmp_path / "best.1.ckpt").exists()


def test_a_training_without_a_best_goes_on_without_one(tmp_path):
    best = BestCheckpoint(monitor="val/mean_l0", dirpath=tmp_path)
    best.load_state_dict(best.state_dict())  # warns of nothing that is lost
    assert (best.best_model_path, best.best_k_models) == ("", {})


@pytest.mark.parametrize("folder", ["one", "two"])
def test_last_is_written_over_in_its_own_folder_alone(tmp_path, folder):
    first = BestCheckpoint(monitor="val/mean_l0", dirpath=tmp_path / "one", save_last=True)
    (tmp_path / "one").mkdir()
    torch.save({"global_step": 1}, tmp_path / "one" / "best.ckpt")
    first.best_model_path = str(tmp_path / "one" / "best.ckpt")  # not among the best k
    first.last_model_path = str(tmp_path / "one" / "last.ckpt")
    second = BestCheckpoint(monitor="val/mean_l0", dirpath=tmp_path / folder, save_last=True)
    second.load_state_dict(first.state_dict())
    assert second.best_model_path == str(tmp_path / folder / "best.ckpt")
    assert second.last_model_path == ("" if folder == "two" else first.last_model_path)


def test_the_other_lightning_would_not_know_it():
    other = pytest.importorskip("lightning.pytorch")
    trainer = make_trainer(other, callbacks=[BestCheckpoint(monitor="loss_valid")])
    with pytest.raises(InputError, match=r"of lightning.pytorch sees no checkpoint; use its Model"):
        trainer.fit(foreign_module(other)(), loader(), loader(seed=1))


@moved
def test_where_some_of_the_best_k_are_lost_it_starts_anew(tmp_path):
    run(tmp_path / "one", [3.0, 5.0], 2, save_top_k=2)
    (tmp_path / "one" / "best-epoch=0.ckpt").unlink()
    with pytest.warns(SztrainWarning, match=r"best-epoch=0\.ckpt is neither there nor in"):
        best, *_ = run(tmp_path / "two", [4.0], 3, tmp_path / "one" / "last.ckpt", save_top_k=2)
    assert best.best_model_score == 4
