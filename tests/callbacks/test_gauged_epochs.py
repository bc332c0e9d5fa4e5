"""In which epochs a gauge measures: the rule itself, without a training."""

from types import SimpleNamespace

import pytest

from sztrain.callbacks._epochs import GaugedEpochs

FIGURES = {"val/median_l0": 7.0}


def trainer_in(epoch, *, fn="fit", max_epochs=10, every_val=1, steps=(0, -1)):
    return SimpleNamespace(
        current_epoch=epoch,
        state=SimpleNamespace(fn=fn),
        max_epochs=max_epochs,
        check_val_every_n_epoch=every_val,
        global_step=steps[0],
        max_steps=steps[1],
    )


def gauged_in(epoch, every=3):
    epochs = GaugedEpochs(every)
    epochs.record(epoch, FIGURES)
    return epochs


@pytest.mark.parametrize(
    ("epochs", "trainer", "due"),
    [
        (GaugedEpochs(3), trainer_in(1), True),  # there are no figures yet
        (gauged_in(3), trainer_in(3), True),  # a second validation of the same epoch
        (gauged_in(3), trainer_in(5), False),
        (gauged_in(3), trainer_in(6), True),
        (gauged_in(3), trainer_in(7), True),  # epoch 6 was not validated
        (gauged_in(4), trainer_in(6), True),
        (gauged_in(6), trainer_in(8), False),
        (gauged_in(6), trainer_in(8, fn="validate"), True),
        (gauged_in(6), trainer_in(8, max_epochs=9), True),
        (gauged_in(6), trainer_in(7, max_epochs=9, every_val=4), True),  # the last validated
        (gauged_in(6), trainer_in(8, max_epochs=-1), False),
        (gauged_in(6), trainer_in(8, steps=(50, 50)), True),
    ],
)
def test_when_figures_are_due(epochs, trainer, due):
    assert epochs.are_due(trainer) is due


def test_figures_of_a_checkpoint_are_shown_once_where_no_new_ones_are_due():
    epochs = GaugedEpochs(3)
    epochs.load_state_dict(gauged_in(3).state_dict())
    assert epochs.take_resumed(trainer_in(4)) == FIGURES
    assert epochs.take_resumed(trainer_in(5)) == {}
    epochs.load_state_dict(gauged_in(3).state_dict())
    assert epochs.take_resumed(trainer_in(6)) == {}
    assert gauged_in(3).take_resumed(trainer_in(4)) == {}  # nothing was resumed


def test_another_run_sees_nothing_of_the_one_before():
    epochs = gauged_in(3)
    epochs.load_state_dict(epochs.state_dict())
    epochs.reset()
    assert epochs.state_dict() == GaugedEpochs(3).state_dict()
    assert epochs.take_resumed(trainer_in(4)) == {}
    assert not epochs.repeats("val/median_l0", 4)
