"""What the gauge says to someone who is about to be misled: once, with the mend."""

import re
import warnings
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toy_training import ScriptedAttack, foreign_module, loader, make_trainer, toy_data, toy_net

from sztrain.attacks import SigmaZero, SparseRS
from sztrain.callbacks import SparseRobustness
from sztrain.callbacks._advice import GaugeAdvice
from sztrain.errors import InputError, SztrainWarning

MANY = {"num_samples": 150, "seed": 1}


def said(module=None, *, gauge=None, val=None, callbacks=(), **options):
    """What the gauge warned of in a training of two epochs with a sanity check."""
    gauge = gauge or SparseRobustness(attack=SigmaZero(num_steps=3), budgets=(1,))
    options = {"callbacks": [gauge, *callbacks], "max_epochs": 2, **options}
    trainer = make_trainer(pl, num_sanity_val_steps=1, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module or foreign_module(pl)(), loader(), val or loader(**MANY))
    ours = [one for one in caught if str(one.message).startswith("SparseRobustness: ")]
    assert all(one.filename == __file__ for one in ours)  # where the training was called
    return [str(one.message) for one in ours]


class Ending(foreign_module(pl)):
    """A module whose forward does something to the logits."""

    def __init__(self, ending):
        super().__init__(toy_net(), lr=0.01)
        self.ending = ending

    def forward(self, inputs):
        return self.ending(self.body(inputs))


def test_a_sound_setup_hears_nothing():
    assert said() == []
    assert said(Ending(lambda logits: logits.log_softmax(1))) == []
    assert said(Ending(lambda logits: logits.sigmoid())) == []  # in [0, 1], yet no distribution


def test_probabilities():
    (text,) = said(Ending(lambda logits: logits.softmax(1)))
    assert "forward returns probabilities" in text
    assert "give forward=" in text


def test_the_mend_for_probabilities_is_one():
    gauge = SparseRobustness(
        attack=SigmaZero(num_steps=3),
        budgets=(1,),
        forward=lambda module, inputs: module.body(inputs),
    )
    assert said(Ending(lambda logits: logits.softmax(1)), gauge=gauge) == []


class Rounded(torch.autograd.Function):
    """Steps, whose gradient is zero."""

    @staticmethod
    def forward(ctx, values):
        return (values * 2).round()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class Rounds(nn.Module):
    def forward(self, inputs):
        return Rounded.apply(inputs)


def test_masked_gradients():
    (text,) = said(foreign_module(pl)(nn.Sequential(Rounds(), *toy_net())))
    assert "gradient is exactly zero for 100% of the samples" in text
    assert "probe=SparseRS" in text


def test_a_net_that_resists_with_its_gradients_hears_nothing():
    weak = SigmaZero(num_steps=1, eta=1e-6)
    assert said(gauge=SparseRobustness(attack=weak, budgets=(1,))) == []


def test_an_attack_that_gives_up_what_is_wrong_as_it_is():
    resisting = ScriptedAttack(script=((float("inf"),),))
    (text,) = said(gauge=SparseRobustness(attack=resisting, budgets=(1,)))
    assert "ScriptedAttack changes samples that the net misclassifies as they are" in text


def test_an_attack_without_gradients_may_meet_a_net_without():
    class Detached(foreign_module(pl)):
        def forward(self, inputs):
            with torch.no_grad():
                return self.body(inputs)

        def loss(self, batch):
            return nn.functional.cross_entropy(self.body(batch[0]), batch[1])

    search = SparseRS(num_steps=10)
    assert said(Detached(), gauge=SparseRobustness(attack=search, budgets=(1,))) == []
    for gauge in (
        None,
        SparseRobustness(attack=search, budgets=(1,), probe=SigmaZero(num_steps=2)),
    ):
        module = Detached()
        with pytest.raises(InputError, match=r"forward passes no gradient back .* forward="):
            said(module, gauge=gauge)
        assert module.train_flags == []  # in the sanity check, before an epoch is spent


@pytest.mark.parametrize(
    ("every", "patience", "is_told"), [(5, 3, True), (5, 5, False), (1, 1, False)]
)
def test_an_early_stopping_that_old_figures_would_trip(every, patience, is_told):
    stopping = EarlyStopping("val/mean_l0", patience=patience)
    gauge = SparseRobustness(attack=SigmaZero(num_steps=2), budgets=(1,), every_n_epochs=every)
    texts = said(gauge=gauge, callbacks=[stopping])
    assert [text for text in texts if "a patience of at least 5" in text] == texts
    assert bool(texts) is is_told
    others = EarlyStopping("loss_valid", patience=1)
    assert said(gauge=gauge, callbacks=[others]) == []


def test_one_class_only():
    images, labels = toy_data(**MANY).tensors
    ones = TensorDataset(images[labels == 1].repeat(3, 1, 1, 1), torch.ones(150, dtype=torch.long))
    (text,) = said(val=DataLoader(ones, batch_size=32))
    assert "all samples have the label 1" in text
    assert "shuffle the validation samples" in text


def test_few_samples():
    (text,) = said(val=loader(num_samples=99, seed=1))
    assert "the median ℓ0 rests on 99 samples" in text
    assert "num_samples" in text
    assert said(val=loader(num_samples=100, seed=1)) == []
    assert said(val=loader(num_samples=1, seed=1), fast_dev_run=True) == []  # nor of one class


def test_other_processes_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaugeAdvice(speaks=False).on_labels(torch.tensor([1, 1]))


def test_the_test_after_a_training_is_not_told_again():
    attack = SigmaZero(num_steps=3)
    gauge = SparseRobustness(attack=attack, verdict=attack, budgets=(1,))
    trainer = make_trainer(pl, callbacks=[gauge], max_epochs=1)
    module, few = foreign_module(pl)(), loader(num_samples=9, seed=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, loader(), few)
        trainer.test(module, few, verbose=False)
    assert gauge.measurements.keys() == {"val", "test"}
    assert sum("rests on 9 samples" in str(warning.message) for warning in caught) == 1


def test_another_run_hears_it_again():
    gauge = SparseRobustness(attack=SigmaZero(num_steps=3), budgets=(1,))
    for _ in range(2):
        assert len(said(val=loader(num_samples=9, seed=1), gauge=gauge)) == 1


# Refused before hours are spent


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (
            lambda logits: {"scores": logits},
            r"forward to return logits, .* got dict of scores; ",
        ),
        (lambda logits: logits[:, 0], r"logits of shape \(N, K\), K >= 2, got \(24,\)"),
        (lambda logits: logits[:, :2], "labels from 0 to 1, the net's classes, got labels from 0"),
        (lambda logits: logits / 0, "non-finite logits"),
    ],
)
def test_outputs_that_cannot_be_attacked_are_refused_before_the_training(ending, message):
    class Careless(Ending):
        def validation_step(self, batch, batch_idx):
            pass

    module = Careless(ending)
    gauge = SparseRobustness(attack=ScriptedAttack(), budgets=(1,))
    trainer = make_trainer(pl, callbacks=[gauge], num_sanity_val_steps=-1)
    with pytest.raises(InputError, match=message) as error:
        trainer.fit(module, loader(), loader(seed=1))
    assert "\n" not in str(error.value)
    assert module.train_flags == []


def test_a_module_without_forward_is_refused():
    class Headless(pl.LightningModule):
        def validation_step(self, batch, batch_idx):
            pass

    trainer = make_trainer(pl, callbacks=[SparseRobustness(budgets=(1,))])
    with pytest.raises(InputError, match=r"expected Headless to have a forward, .*forward="):
        trainer.validate(Headless(), loader(), verbose=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": (1, 1)}, r"`box` to be \(low, high\), finite and with low < high"),
        ({"box": (0, float("inf"))}, r"`box` to be .* finite .*, got \(0, inf"),
        ({"box": (-float("inf"), 1)}, r"`box` to be .* finite .*, got \(-inf, 1"),
        ({"box": (0, 1, 2)}, "`box` to be"),
        ({"std": [0.1, 0.0]}, r"`std` positive.* got mean=None and std=\[0.1, 0.0\]"),
        ({"mean": float("nan")}, "`mean` to be finite"),
    ],
)
def test_a_space_that_is_none_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        SparseRobustness(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.1, 0.2, 0.3]}, "one number for each of 2 channels, got 3"),
        ({"box": (-1, 1)}, None),  # images from 0.5 to 1: nobody can tell
        ({"mean": 0.5, "std": 0.25}, None),
        ({"mean": 0.5, "std": 2.0}, r"mean=0.5, std=2.0 and box=\(0.0, 1.0\) are undone, got val"),
        ({"batch_to_inputs": lambda batch: batch[0]}, "`batch_to_inputs` to return two tensors"),
        ({"logits": lambda out: [out]}, "`logits` to return a tensor, got list of Tensor"),
    ],
)
def test_what_the_user_tells_is_held_against_the_data(options, message):
    gauge = SparseRobustness(attack=ScriptedAttack(), budgets=(1,), **options)
    trainer = make_trainer(pl, callbacks=[gauge])
    if message is None:
        trainer.validate(foreign_module(pl)(), loader(), verbose=False)
        return
    with pytest.raises(InputError, match=message) as error:
        trainer.validate(foreign_module(pl)(), loader(), verbose=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("patience", "is_told"), [(2, True), (3, False)])
def test_an_early_stopping_counts_validations_and_not_epochs(patience, is_told):
    """Validated in epochs 1, 3, 5, ..., it sees the figure of 5 again in 7 and 9; 11 is gauged."""
    stopping = EarlyStopping("val/mean_l0", patience=patience)
    gauge = SparseRobustness(attack=SigmaZero(num_steps=2), budgets=(1,), every_n_epochs=5)
    texts = said(gauge=gauge, callbacks=[stopping], check_val_every_n_epoch=2)
    assert [text for text in texts if "a patience of at least 3" in text] == texts
    assert bool(texts) is is_told


@pytest.mark.parametrize(
    ("interval", "told"),
    [((2.0, 5.0), ", and that of all may be anywhere from 2 to 5 (95 %)"), ((3.0, 3.0), "")],
)
def test_an_interval_of_one_number_is_none(interval, told):
    measurement = SimpleNamespace(num_samples=40, median_interval=interval)
    text = f"SparseRobustness: the median ℓ0 rests on 40 samples{told}; attack"
    with pytest.warns(SztrainWarning, match=re.escape(text)):
        GaugeAdvice().on_measurement(measurement)


def test_who_keeps_the_best_by_an_old_figure_hears_nothing(tmp_path):
    gauge = SparseRobustness(attack=SigmaZero(num_steps=3), budgets=(1,), every_n_epochs=5)
    best = ModelCheckpoint(tmp_path, monitor="val/median_l0")
    assert said(gauge=gauge, callbacks=[best], enable_checkpointing=True) == []
