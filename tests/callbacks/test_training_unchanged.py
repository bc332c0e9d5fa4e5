"""A training with the gauge is, bit for bit, the training without it."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from toy_training import foreign_module, loader, make_trainer, toy_net

from sztrain.attacks import SigmaZero
from sztrain.callbacks import RobustnessDashboard, SparseRobustness


class Stubborn(nn.BatchNorm1d):
    """A frozen BatchNorm whose `train` refuses, as fine-tuning code writes it."""

    def train(self, mode=True):
        return super().train(False)


class DrawingLogger(CSVLogger):
    """Draws random numbers whenever a dashboard writes to it, as a careless logger may."""

    @property
    def log_dir(self):
        torch.rand(1), np.random.random(), random.random()
        return super().log_dir


@pytest.mark.slow
def test_a_dashboard_changes_nothing_either(tmp_path):
    def loggers(name):
        return [TensorBoardLogger(tmp_path / name), DrawingLogger(tmp_path / name)]

    gauge = SparseRobustness(attack=SigmaZero(num_steps=4), num_samples=10, budgets=(1,))
    shown = trained([gauge, RobustnessDashboard()], logger=loggers("shown"))
    assert list(tmp_path.glob("shown/**/class_l0.csv"))
    assert_same(shown, trained([gauge], logger=loggers("plain")))


class AlwaysNoisy(nn.Module):
    """Draws random numbers in eval mode as well, as randomised smoothing does."""

    def forward(self, inputs):
        return inputs + 0.01 * torch.randn_like(inputs)


class Ranging(nn.Module):
    """Learns the range of what passes in eval mode as well, as observers of quantisation do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, inputs):
        with torch.no_grad():
            self.largest.copy_(torch.maximum(self.largest, inputs.max()))
            self.mean = 0.9 * self.mean + 0.1 * inputs.mean()  # another tensor
        return inputs / (1 + self.largest + self.mean)


def test_a_net_that_learns_in_eval_mode_learns_nothing_from_the_attack():
    gauge = SparseRobustness(attack=SigmaZero(num_steps=4), num_samples=10, budgets=(1,))
    assert_same(trained([gauge], [Ranging()]), trained([], [Ranging()]))


class Storing(nn.Module):
    """Has buffers of all kinds: some that nobody can write to, one that grows, one that is none."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(0))
        self.register_buffer("wide", torch.tensor([torch.nan]).expand(16))
        self.register_buffer("sparse", torch.eye(16).to_sparse())
        self.register_buffer("none", None)
        self.unused = nn.LazyBatchNorm1d()

    def forward(self, inputs):
        self.seen.resize_(len(self.seen) + 1).fill_(len(inputs))
        return inputs @ self.sparse.to_dense()


def test_buffers_of_all_kinds_are_as_they_were():
    gauge = SparseRobustness(attack=SigmaZero(num_steps=2), num_samples=10, budgets=(1,))
    found = []
    for gauges in ([gauge], []):
        module = foreign_module(pl)(toy_net(extra=[Storing()]))
        make_trainer(pl, callbacks=gauges).validate(module, loader(seed=1), verbose=False)
        found.append(dict(module.body[3].named_buffers(recurse=False)))
    assert gauge.measurements["val"].num_samples == 10
    assert found[0]["seen"].tolist() == found[1]["seen"].tolist() == [8.0] * 3
    assert found[0].keys() == found[1].keys()


def net(extra=()):
    layers = [nn.BatchNorm1d(16), nn.Dropout(0.4), Stubborn(16), *extra]
    return toy_net(extra=layers)


def trained(gauges, extra=(), **options):
    """Train on a loader that shuffles with the global random state; return all that is left."""
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    module = foreign_module(pl)(net(extra), lr=0.01)
    trainer = make_trainer(pl, callbacks=gauges, max_epochs=3, **options)
    trainer.fit(module, loader(shuffle=True), loader(seed=1))
    drawn = torch.rand(3), np.random.random(), random.random()
    (optimizer,) = trainer.optimizers
    return module, optimizer.state_dict()["state"], drawn


def assert_same(one, other):
    module, moments, drawn = one
    twin, other_moments, other_drawn = other
    state, twin_state = module.state_dict(), twin.state_dict()
    assert state.keys() == twin_state.keys()
    for key in state:
        assert torch.equal(state[key], twin_state[key]), key
    for index, moment in moments.items():
        for name, value in moment.items():
            assert torch.equal(value, other_moments[index][name]), name
    assert torch.equal(drawn[0], other_drawn[0])
    assert drawn[1:] == other_drawn[1:]
    assert module.train_flags == twin.train_flags


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bf16-mixed"},
        {"val_check_interval": 1},  # gauged in the midst of an epoch
        {"inference_mode": False},
    ],
)
def test_weights_optimizer_flags_and_random_states_are_the_same(options):
    gauge = SparseRobustness(attack=SigmaZero(num_steps=4), num_samples=10, budgets=(1,))
    assert_same(trained([gauge], **options), trained([], **options))
    assert gauge.measurements["val"].num_samples == 10


def test_a_net_that_draws_in_eval_mode_trains_on_the_same_noise():
    gauge = SparseRobustness(attack=SigmaZero(num_steps=4), num_samples=10, budgets=(1,))
    assert_same(trained([gauge], [AlwaysNoisy()]), trained([], [AlwaysNoisy()]))


def state_of(module):
    gradients = [p.grad for p in module.parameters()]
    return (
        [part.training for part in module.modules()],
        [p.requires_grad for p in module.parameters()],
        [None if g is None else g.clone() for g in gradients],
        [b.clone() for b in module.buffers()],
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    )


class Inspected(SparseRobustness):
    """A gauge that looks at the module right before and right after it has measured."""

    def __init__(self, **options):
        super().__init__(**options)
        self.before, self.after = [], []

    def measuring(self, pl_module, measure):
        self.before.append(state_of(pl_module))
        measure()
        self.after.append(state_of(pl_module))

    def on_validation_epoch_end(self, trainer, pl_module):
        measure = super().on_validation_epoch_end
        self.measuring(pl_module, lambda: measure(trainer, pl_module))

    def on_test_epoch_end(self, trainer, pl_module):
        measure = super().on_test_epoch_end
        self.measuring(pl_module, lambda: measure(trainer, pl_module))


@dataclass(frozen=True, kw_only=True)
class Vandal(SigmaZero):
    """Leaves traces of each kind in the module that it attacks."""

    trace: str

    def __call__(self, net, inputs, labels):
        result = super().__call__(net, inputs, labels)
        module = net.module
        if self.trace == "flags":
            module.train(not module.training)
        for parameter in module.parameters() if self.trace == "gradients" else ():
            parameter.grad = torch.full_like(parameter, 7)
        for parameter in module.parameters() if self.trace == "frozen" else ():
            parameter.requires_grad_(not parameter.requires_grad)
        for buffer in module.buffers() if self.trace == "buffers" else ():
            buffer.add_(1)
        return result


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


class KeepsGradients(foreign_module(pl)):
    """Lightning clears them before a validation, unless a module has its own mind."""

    def on_validation_model_zero_grad(self):
        pass


@pytest.mark.parametrize("inference_mode", [True, False])
def test_gauge_gives_the_module_back_as_it_found_it(inference_mode):
    attack = SigmaZero(num_steps=3)
    gauge = inspected(attack, inference_mode=inference_mode)
    assert len(gauge.before) == 1 + 2 + 1  # the sanity check, two epochs, the test
    for one, other in zip(gauge.before, gauge.after, strict=True):
        assert equal(one, other)
    assert any(gradient is not None for gradient in gauge.before[1][2])


def inspected(attack, **options):
    """The gauge after two epochs and a test."""
    gauge = Inspected(attack=attack, budgets=(1,), verdict=attack)
    module = KeepsGradients(net())
    module.body[-1].bias.requires_grad_(False)
    trainer = make_trainer(pl, callbacks=[gauge], max_epochs=2, **options)
    trainer.fit(module, loader(), loader(seed=1))
    trainer.test(module, loader(seed=2), verbose=False)
    return gauge


@pytest.mark.parametrize("inference_mode", [True, False])
def test_buffers_that_an_attack_changes_are_put_back(inference_mode):
    gauge = inspected(Vandal(num_steps=3, trace="buffers"), inference_mode=inference_mode)
    assert all(map(equal, gauge.before, gauge.after))


@pytest.mark.parametrize("trace", ["flags", "gradients", "frozen"])
def test_an_attack_that_leaves_traces_would_be_seen(trace):
    """What the test above looks for, it finds."""
    gauge = inspected(Vandal(num_steps=3, trace=trace), inference_mode=False)
    assert not all(map(equal, gauge.before, gauge.after))


class ModeSpy(nn.Module):
    """Writes down in which mode it was passed, and whether gradients were taken."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, inputs):
        self.seen.append((self.training, inputs.requires_grad))
        return inputs


def test_modules_left_in_train_mode_are_attacked_in_eval_mode_and_left_so():
    class KeepsDropout(foreign_module(pl)):
        """Leaves a layer in train mode while it validates, on purpose."""

        def on_validation_start(self):
            self.body[3].train()

    spy = ModeSpy()
    module = KeepsDropout(toy_net(extra=[spy, nn.Dropout()]))
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # so that the attack alone takes gradients
    gauge = SparseRobustness(attack=SigmaZero(num_steps=3), num_samples=8, budgets=(1,))
    trainer = make_trainer(pl, callbacks=[gauge], inference_mode=False)
    trainer.validate(module, loader(num_samples=16, seed=1), verbose=False)
    assert spy.seen[:2] == [(True, False)] * 2  # two batches of validation
    assert len(spy.seen) > 2 + 3
    assert not any(training for training, _ in spy.seen[2:])
    assert sum(gradient for _, gradient in spy.seen) == 3
    assert spy.training
