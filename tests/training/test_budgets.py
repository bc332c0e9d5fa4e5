"""The training budget over the epochs, and below what a gauge measured."""

from collections import Counter
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from toy_training import INF, NUM_CLASSES, ScriptedAttack, loader, make_trainer, toy_net

from sztrain.attacks import AttackMix, SigmaZero, SparsePGD
from sztrain.callbacks import SparseRobustness
from sztrain.errors import InputError
from sztrain.training import SparseAT
from sztrain.training.budgets import TrainingBudget, l0_at


def test_it_is_a_ramp_after_the_warmup():
    budget = TrainingBudget(10, warmup_epochs=2, ramp_epochs=4)
    found = [budget.at(epoch) for epoch in (0, 1.99, 2, 2.1, 3, 4, 5, 5.9, 6, 100)]
    assert found == [0, 0, 1, 1, 2, 5, 8, 10, 10, 10]
    constant = TrainingBudget(10, warmup_epochs=1)
    assert [constant.at(epoch) for epoch in (0, 0.9, 1, 2)] == [0, 0, 10, 10]
    unlimited = TrainingBudget(None, warmup_epochs=1, ramp_epochs=3)
    assert [unlimited.at(epoch) for epoch in (0, 1, 2)] == [0, None, None]
    fixed = TrainingBudget(10, warmup_epochs=1, ramp_epochs=3, schedule="fixed")
    assert [fixed.at(epoch) for epoch in (0, 1, 2)] == [0, 10, 10]


def test_the_multiplier_is_of_the_full_size():
    budget = TrainingBudget(20, multiplier=6, ramp_epochs=2)
    assert [budget.at(epoch) for epoch in (0, 1, 2)] == [1, 60, 120]
    assert TrainingBudget(3, multiplier=1.5).full == 4
    method = SparseAT(toy_net(), num_classes=NUM_CLASSES, budget=10, budget_multiplier=4)
    with pytest.raises(InputError, match="`budget` to be at most 32, the features of a sample"):
        method.check_budget((2, 4, 4))


def test_sizes_are_rounded_and_not_cut_off():
    assert int(1.14 * 50) == 56  # a little less than 57
    budget = TrainingBudget(50, multiplier=1.14, schedule="gauge")
    assert budget.full == 57
    budget.curve = torch.tensor([1.0] * 50 + [0.0])  # every sample is broken by 50 changes
    assert budget.draw(0) == 57


def test_a_budget_is_held_against_the_unit_of_the_adversary():
    attack = ScriptedAttack(unit="pixels")
    method = SparseAT(toy_net(), num_classes=NUM_CLASSES, attack=attack, budget=17)
    method.check_budget((1, 5, 5))
    with pytest.raises(InputError, match="`budget` to be at most 16, the pixels of a sample"):
        method.check_budget((2, 4, 4))


def test_too_few_steps_to_search_for_a_budget_are_refused_at_once():
    for attack in (SparsePGD(num_steps=5), AttackMix(num_steps=5)):
        with pytest.raises(InputError, match="`num_steps` to be at least 10"):
            SparseAT(toy_net(), num_classes=NUM_CLASSES, attack=attack, warmup_epochs=2)
        SparseAT(toy_net(), num_classes=NUM_CLASSES, attack=attack, warmup_epochs=2, budget=3)


def test_a_budget_beyond_the_features_is_refused_in_the_first_batch():
    adversary = ScriptedAttack()
    method = SparseAT(
        toy_net(),
        num_classes=NUM_CLASSES,
        attack=adversary,
        budget=10,
        budget_multiplier=6,
        warmup_epochs=1,
        ramp_epochs=5,
    )
    trainer = make_trainer(pl, max_epochs=9)
    with pytest.raises(
        InputError, match="`budget` to be at most 32, the features of a sample, got 60"
    ):
        trainer.fit(method, loader(), loader(seed=1))
    assert trainer.global_step == 0
    assert adversary.calls == []


def test_draws_have_the_distribution_of_the_samples_that_were_measured():
    l0 = torch.tensor([0, 0, 1, 1, 1, 3, 3, INF])
    curve = torch.stack([(l0 > k).float().mean() for k in range(6)])
    budget = TrainingBudget(4, multiplier=2, schedule="gauge", ramp_epochs=4)
    budget.curve = curve
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = Counter(budget.draw(9) for _ in range(4000))
        capped = {budget.draw(1) for _ in range(100)}
    # 0 becomes 1, 1 becomes 2, 3 becomes 6, what was never broken gets the full 8.
    for value, share in {1: 2 / 8, 2: 3 / 8, 6: 2 / 8, 8: 1 / 8}.items():
        assert found[value] / 4000 == pytest.approx(share, abs=0.03)
    assert capped == {1, 2}  # a quarter of the ramp is done
    assert [l0_at(torch.tensor([1.0, 0.5]), level) for level in (0.5, 0.51)] == [1, None]


def make(**options):
    return SparseAT(
        toy_net(), num_classes=NUM_CLASSES, budget=8, budget_schedule="gauge", **options
    )


def test_batches_follow_the_gauge_from_the_second_epoch_on():
    adversary = ScriptedAttack(script=((1.0,),))
    gauge = SparseRobustness(attack=ScriptedAttack(script=((3.0,),)), budgets=(1,))
    method = make(attack=adversary, budget_multiplier=2)
    trainer = make_trainer(pl, callbacks=[gauge], max_epochs=2)
    trainer.fit(method, loader(), loader(seed=1))
    assert [call.budget for call in adversary.calls] == [16, 16, 16, 6, 6, 6]
    checkpoint = {}
    method.on_save_checkpoint(checkpoint)
    resumed = make()
    resumed.on_load_checkpoint(checkpoint)
    assert torch.equal(resumed.training_budget.curve, gauge.measurements["val"].curve)


def test_an_adversary_that_counts_pixels_follows_a_gauge_that_does():
    adversary = ScriptedAttack(script=((1.0,),), unit="pixels")
    gauge = SparseRobustness(attack=ScriptedAttack(script=((3.0,),), unit="pixels"), budgets=(1,))
    trainer = make_trainer(pl, callbacks=[gauge], max_epochs=2)
    trainer.fit(make(attack=adversary), loader(), loader(seed=1))
    assert [call.budget for call in adversary.calls] == [8, 8, 8, 3, 3, 3]


class Saver(pl.Callback):
    """Saves before the third batch of the first epoch."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (0, 2):
            trainer.save_checkpoint(self.path)


def test_a_checkpoint_holds_what_the_gauge_measured_and_leaves_the_epoch_alone(tmp_path):
    adversary = ScriptedAttack(script=((1.0,),))
    gauge = SparseRobustness(attack=ScriptedAttack(script=((3.0,),)), budgets=(1,))
    callbacks = [gauge, Saver(tmp_path / "middle.ckpt")]
    trainer = make_trainer(pl, callbacks=callbacks, max_epochs=2, val_check_interval=2)
    trainer.fit(make(attack=adversary), loader(32), loader(seed=1))
    assert [call.budget for call in adversary.calls] == [8] * 4 + [3] * 4
    checkpoint = torch.load(tmp_path / "middle.ckpt", weights_only=True)
    assert torch.equal(checkpoint["gauged_curve"], gauge.measurements["val"].curve)
    # A training by another schedule does not follow it.
    other = SparseAT(
        toy_net(), num_classes=NUM_CLASSES, attack=ScriptedAttack(script=((1.0,),)), budget=8
    )
    other.on_load_checkpoint(checkpoint)
    make_trainer(pl).fit(other, loader(), loader(seed=1))
    assert {call.budget for call in other.attack.calls} == {8}


def test_without_a_fitting_gauge_it_says_so():
    with pytest.raises(InputError, match="found none among the callbacks; add SparseRobustness"):
        make_trainer(pl).fit(make(), loader(), loader(seed=1))
    other = SimpleNamespace(measurements={}, attack=SigmaZero(unit="pixels"))
    with pytest.raises(InputError, match=r"a gauge that counts features .* counts pixels"):
        TrainingBudget(2, schedule="gauge").gauged_curve([other], "features")


def test_of_several_gauges_the_one_that_counts_alike_is_followed():
    """Each puts itself first among the callbacks, so that their order says nothing."""
    gauges = [
        SimpleNamespace(
            measurements={"val": SimpleNamespace(curve=unit)}, attack=SigmaZero(unit=unit)
        )
        for unit in ("pixels", "features")
    ]
    budget = TrainingBudget(2, schedule="gauge")
    for unit in ("pixels", "features"):
        assert budget.gauged_curve(gauges, unit) == unit
