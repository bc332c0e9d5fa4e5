"""A gauge within its time, on a clock that the test turns."""

from dataclasses import dataclass, field

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from toy_training import ScriptedAttack, csv_rows, foreign_module, loader, make_trainer, toy_data

from sztrain.callbacks import SparseRobustness, _pace
from sztrain.callbacks._pace import Pace
from sztrain.errors import InputError


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_pace, "perf_counter", lambda: clock.now)
    return clock


class Clock:
    now = 0.0


@dataclass(frozen=True, kw_only=True)
class SlowScriptedAttack(ScriptedAttack):
    """Takes some seconds, another number in each call."""

    clock: Clock
    seconds: list[float] = field(default_factory=lambda: [1.0])

    def __call__(self, net, inputs, labels):
        self.clock.now += self.seconds[len(self.calls) % len(self.seconds)]
        return super().__call__(net, inputs, labels)


def fit(gauge, folder, module=None, **options):
    trainer = make_trainer(pl, callbacks=[gauge], logger=CSVLogger(folder), **options)
    trainer.fit(module or foreign_module(pl)(), loader(), loader(seed=1))
    return [row for row in csv_rows(folder) if "val/median_l0" in row]


@pytest.mark.parametrize(
    ("limit", "durations", "handed_out"),
    [
        (10.0, [3, 3, 3, 3, 3], 3),  # the fourth would end after 12
        (9.0, [3, 3, 3, 3, 3], 3),  # the third ends just in time
        (10.0, [1, 6, 1, 1, 1], 2),  # it goes by the slowest so far
        (0.5, [3, 3], 1),
        (99.0, [3, 3], 2),
    ],
)
def test_no_batch_is_begun_that_would_end_too_late(clock, limit, durations, handed_out):
    done = 0
    for seconds in Pace(max_seconds=limit).in_time(durations):
        clock.now += seconds
        done += 1
    assert done == handed_out


def test_a_share_is_one_of_the_time_since_the_start(clock):
    pace = Pace(max_share=0.1)
    assert len(list(pace.in_time(range(9)))) == 9  # nothing was started
    pace.start()
    clock.now += 30
    done = 0
    for _ in pace.in_time(range(9)):
        clock.now += 1
        done += 1
    assert done == 3


def test_first_samples_of_a_fixed_order_are_attacked_by_both(clock, tmp_path):
    attack = SlowScriptedAttack(clock=clock, seconds=[2.0, 2, 2, 3, 2, 2, 2])
    probe = SlowScriptedAttack(clock=clock, script=((2.0,),))
    gauge = SparseRobustness(
        attack=attack, probe=probe, budgets=(1,), batch_size=4, max_seconds=10, num_examples=99
    )
    rows = fit(gauge, tmp_path, max_epochs=2)
    # A batch takes 3 seconds and then 4, so of six batches three are done, then two.
    assert [row["val/num_samples"] for row in rows] == [12, 8]
    first, second = attack.calls[:3], attack.calls[3:]
    seen = [torch.cat([call.inputs for call in calls]) for calls in (first, second)]
    assert torch.equal(seen[0][:8], seen[1])
    for one, other in zip(attack.calls, probe.calls, strict=True):
        assert torch.equal(one.inputs, other.inputs)
    images = toy_data(seed=1).tensors[0]
    places = [int((images == image).flatten(1).all(1).nonzero()) for image in seen[0]]
    assert len(set(places)) == 12
    assert places != sorted(places)  # a choice at random, not the first of the loader
    assert rows[0]["val/robust_acc_worst@1"] == 0  # the attack takes 1 change


def test_interval_is_that_of_the_samples_attacked(clock, tmp_path):
    script = ((1.0, 2, 3, 4, 5, 6, 7, 8), (9.0,))
    attack = SlowScriptedAttack(clock=clock, script=script)
    gauge = SparseRobustness(attack=attack, budgets=(1,), batch_size=8, max_seconds=1.5)
    (row,) = fit(gauge, tmp_path)
    assert row["val/num_samples"] == 8
    # One series of 8 throws of a coin in 256 has no head, 9 have one at most: more than 2.5 %.
    assert (row["val/median_l0_low"], row["val/median_l0_high"]) == (1, 8)
    assert row["val/median_l0"] == 4.5


def test_a_share_of_the_training(clock, tmp_path):
    class Trained(foreign_module(pl)):
        def training_step(self, batch, batch_idx):
            clock.now += 10
            return super().training_step(batch, batch_idx)

    attack = SlowScriptedAttack(clock=clock)
    gauge = SparseRobustness(
        attack=attack, budgets=(1,), batch_size=2, max_share=0.1, every_n_epochs=2
    )
    rows = fit(gauge, tmp_path, Trained(), max_epochs=3)
    # 30 seconds before the first, 60 before the second: 3 and 6 batches of one second.
    assert [row["val/num_samples"] for row in rows] == [6, 12]


def test_outside_a_training_a_share_is_no_limit(clock, tmp_path):
    gauge = SparseRobustness(
        attack=SlowScriptedAttack(clock=clock), budgets=(1,), batch_size=2, max_share=1e-9
    )
    (row,) = fit(gauge, tmp_path)
    assert row["val/num_samples"] == 2  # one batch there is always
    trainer = make_trainer(pl, callbacks=[gauge])
    (values,) = trainer.validate(foreign_module(pl)(), loader(seed=1), verbose=False)
    assert values["val/num_samples"] == 24


def test_a_verdict_takes_its_time(clock):
    gauge = SparseRobustness(
        attack=SlowScriptedAttack(clock=clock),
        budgets=(1,),
        verdict=SlowScriptedAttack(clock=clock),
        batch_size=2,
        max_seconds=1,
    )
    trainer = make_trainer(pl, callbacks=[gauge])
    (values,) = trainer.test(foreign_module(pl)(), loader(seed=1), verbose=False)
    assert values["test/num_samples"] == 24


@pytest.mark.parametrize("name", ["max_seconds", "max_share"])
def test_no_time_at_all_is_refused(name):
    with pytest.raises(InputError, match=f"`{name}` to be positive, got 0"):
        SparseRobustness(**{name: 0})
