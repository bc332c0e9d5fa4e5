"""The gauge in set-ups that it has never seen, each a training of its own, none of them adapted.

Whatever the loader yields and the module returns, the gauge attacks the images behind it, its
examples fool the module, and the training is bit for bit the one without it.
"""

import importlib
from collections import namedtuple
from dataclasses import dataclass, field, make_dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pace import slow_after
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, default_collate
from toy_training import (
    RecordingSigmaZero,
    foreign_module,
    loader,
    make_trainer,
    toy_data,
    toy_net,
)

from sztrain.attacks import SigmaZero, SparseRS
from sztrain.callbacks import SparseRobustness
from sztrain.errors import SztrainWarning

MEAN, STD = torch.tensor([0.2, 0.6]).view(2, 1, 1), torch.tensor([0.25, 0.5]).view(2, 1, 1)
Sample = make_dataclass("Sample", ["image", "label"])
Answer = make_dataclass("Answer", ["loss", "logits"])
Swapped = namedtuple("Swapped", ["y", "x"])


def same(value):
    return value


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How someone feeds a net and reads its answer, and what they tell the gauge."""

    pack: Any = same  # what becomes of the pair (images, labels) in the loader
    unpack: Any = same  # ... and how the module undoes that
    answer: Any = same  # what forward makes of the logits
    read: Any = same  # ... and how the module undoes that
    to_inputs: Any = same  # what the loader makes of images
    first_layer: Any = same  # what forward makes of inputs
    gauge: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-6


def normalise(images):
    return (images - MEAN) / STD


SETUPS = {
    "tuple": Setup(pack=tuple, answer=lambda logits: (logits, logits.sum()), read=lambda o: o[0]),
    "list": Setup(pack=list, answer=lambda logits: [logits, None], read=lambda out: out[0]),
    # A step that empties its batch.
    "dict": Setup(
        pack=lambda pair: {"index": 0, "pixel_values": pair[0], "labels": pair[1]},
        unpack=lambda batch: (batch.pop("pixel_values"), batch.pop("labels")),
        answer=lambda logits: {"loss": logits.mean(), "logits": logits},
        read=lambda out: out["logits"],
    ),
    "segmentation's name": Setup(answer=lambda x: {"out": x}, read=lambda out: out["out"]),
    "dataclass": Setup(
        pack=lambda pair: Sample(*pair),
        unpack=lambda batch: (batch.image, batch.label),
        answer=lambda logits: Answer(None, logits),
        read=lambda out: out.logits,
    ),
    "namedtuple, labels first": Setup(
        pack=lambda pair: Swapped(pair[1], pair[0]), unpack=lambda batch: (batch.x, batch.y)
    ),
    "labels of few bits": Setup(
        pack=lambda pair: (pair[0], pair[1].byte()),
        unpack=lambda batch: (batch[0], batch[1].long()),
    ),
    "hooks": Setup(
        pack=lambda pair: {"photo": {"left": pair[0]}, "species": pair[1]},
        unpack=lambda batch: (batch["photo"]["left"], batch["species"]),
        answer=lambda logits: SimpleNamespace(scores=[logits]),
        read=lambda out: out.scores[0],
        gauge={
            "batch_to_inputs": lambda batch: (batch["photo"]["left"], batch["species"]),
            "logits": lambda out: out.scores[0],
        },
    ),
    "one number a channel": Setup(
        to_inputs=normalise,
        gauge={"mean": MEAN.flatten().tolist(), "std": STD.flatten().tolist()},
    ),
    "one number": Setup(to_inputs=lambda x: (x - 0.5) / 0.25, gauge={"mean": 0.5, "std": 0.25}),
    "from -1 to 1": Setup(to_inputs=lambda x: 2 * x - 1, gauge={"box": (-1, 1)}),
    "bytes": Setup(
        to_inputs=lambda x: (255 * x).round().byte(),
        first_layer=lambda x: x.float() / 255,
        gauge={"box": (0, 255)},
        tolerance=1 / 255,
    ),
    "normalised bytes": Setup(
        to_inputs=lambda x: (255 * x - 127) / 64,
        gauge={"box": (0, 255), "mean": [127, 127], "std": [64]},
    ),
    "bfloat16 mixed in": Setup(trainer={"precision": "bf16-mixed"}),
    "bfloat16": Setup(trainer={"precision": "bf16-true"}, tolerance=2**-8),
    "bfloat16, normalised": Setup(
        to_inputs=normalise,
        gauge={"mean": MEAN.flatten().tolist(), "std": STD.flatten().tolist()},
        trainer={"precision": "bf16-true"},
        tolerance=2**-7,
    ),
    "float16": Setup(trainer={"precision": "16-true"}, tolerance=2**-11),
    "float64": Setup(trainer={"precision": "64-true"}),
    "no inference mode": Setup(trainer={"inference_mode": False}),
    "accumulation": Setup(trainer={"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}),
    "sanity check": Setup(trainer={"num_sanity_val_steps": -1}),
    "within an epoch": Setup(trainer={"val_check_interval": 1}),
}


def theirs(lightning, setup, *, manual=False):
    """A module for a set-up; it knows nothing of sztrain."""

    class Theirs(foreign_module(lightning)):
        def forward(self, inputs):
            return setup.answer(self.body(setup.first_layer(inputs)))

        def loss(self, batch):
            inputs, labels = setup.unpack(batch)
            return nn.functional.cross_entropy(setup.read(self(inputs)), labels)

        def validation_step(self, batch, batch_idx):
            self.log("loss_valid", self.loss(batch), batch_size=8)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05)

    module = Theirs(manual=manual)
    module.body.insert(2, nn.Dropout(0.2))
    module.body.insert(3, nn.BatchNorm1d(16))
    for parameter in module.body[1].parameters():
        parameter.requires_grad_(False)
    return module


def their_loader(setup, **options):
    def collate(samples):
        images, labels = default_collate(samples)
        return setup.pack((setup.to_inputs(images), labels))

    return loader(collate_fn=collate, **options)


def train(lightning, setup, gauges, *, manual=False):
    """Train; return the module and what a random number is after that."""
    torch.manual_seed(1)
    module = theirs(lightning, setup, manual=manual)
    trainer = make_trainer(lightning, callbacks=gauges, max_epochs=2, **setup.trainer)
    trainer.fit(module, their_loader(setup, shuffle=True), their_loader(setup, seed=1))
    return trainer, module, torch.rand(2)


def assert_same_training(one, other):
    (_, module, drawn), (_, twin, other_drawn) = one, other
    state = twin.state_dict()
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert torch.equal(drawn, other_drawn)
    assert module.train_flags == twin.train_flags
    flags = [[p.requires_grad for p in m.parameters()] for m in (module, twin)]
    assert flags[0] == flags[1]


def assert_fooled(setup, module, examples):
    """What the gauge claims of its examples holds for the module, fed as its loader feeds it."""
    changed = (examples.adv_inputs != examples.inputs).flatten(1).sum(1)
    broken = examples.l0.isfinite()
    assert broken.any()
    assert torch.equal(changed[broken].float(), examples.l0[broken])
    if "precision" in setup.trainer or setup.to_inputs(torch.zeros(2, 1, 1)).dtype == torch.uint8:
        return  # rounded once more, an example need not hold
    assert 0 <= examples.adv_inputs.min() <= examples.adv_inputs.max() <= 1
    with torch.no_grad():
        logits = setup.read(module.eval()(setup.to_inputs(examples.adv_inputs)))
    assert torch.equal(logits.argmax(1) != examples.labels, broken)


@pytest.mark.parametrize("name", SETUPS)
def test_images_are_attacked_and_the_training_is_untouched(lightning, name):
    setup = SETUPS[name]
    attack = RecordingSigmaZero(num_steps=12)
    gauge = SparseRobustness(attack=attack, budgets=(1, 4), num_examples=24, **setup.gauge)
    found = train(lightning, setup, [gauge])
    images, labels = toy_data(seed=1).tensors
    for call in attack.calls:
        assert torch.equal(call.labels, labels)
        assert call.inputs.dtype == (torch.float64 if name == "float64" else torch.float32)
        assert torch.allclose(call.inputs.float(), images, atol=setup.tolerance, rtol=0)
    trainer, module, _ = found
    assert trainer.callback_metrics["val/num_samples"] == 24
    assert_fooled(setup, module, gauge.measurements["val"].examples)
    assert_same_training(found, train(lightning, setup, []))


def test_a_verdict_undoes_what_the_test_loader_did(lightning):
    setup = SETUPS["one number a channel"]
    verdict = RecordingSigmaZero(num_steps=5)
    gauge = SparseRobustness(budgets=(1,), verdict=verdict, **setup.gauge)
    trainer = make_trainer(lightning, callbacks=[gauge])
    trainer.test(theirs(lightning, setup), their_loader(setup, seed=2), verbose=False)
    (call,) = verdict.calls
    assert torch.allclose(call.inputs, toy_data(seed=2).tensors[0], atol=1e-6)


def test_manual_optimisation(lightning):
    gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=5), budgets=(1,))
    setup = SETUPS["dict"]
    found = train(lightning, setup, [gauge], manual=True)
    assert len(gauge.attack.calls) == 2
    assert_same_training(found, train(lightning, setup, [], manual=True))


def test_half_precision_of_a_trainer_that_has_none_on_a_cpu(lightning):
    setup = Setup(trainer={"precision": "16-mixed"})
    gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=5), budgets=(1,))
    with pytest.warns(UserWarning, match="AMP with fp16 is not supported on CPU"):
        train(lightning, setup, [gauge])
    assert gauge.measurements["val"].num_samples == 24


def test_forward_hook_calls_what_the_module_has_instead(lightning):
    class Headless(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = nn.Flatten(), nn.Linear(32, 3)

        def validation_step(self, batch, batch_idx):
            pass

    attack = RecordingSigmaZero(num_steps=10)
    gauge = SparseRobustness(
        attack=attack,
        budgets=(1,),
        forward=lambda module, inputs: module.head(module.encoder(inputs)),
    )
    trainer = make_trainer(lightning, callbacks=[gauge])
    (values,) = trainer.validate(Headless(), loader(seed=1), verbose=False)
    assert values["val/num_samples"] == 24
    assert gauge.measurements["val"].examples.l0.isfinite().any()


# Loaders


def test_several_loaders_in_one(lightning):
    combined = pytest.importorskip(f"{lightning.__name__}.utilities").CombinedLoader(
        {"seen": loader(seed=1), "text": DataLoader([{"text": 1.0}] * 3)}, "max_size"
    )

    class Module(foreign_module(lightning)):
        def validation_step(self, batch, batch_idx):
            pass

    gauge = SparseRobustness(
        attack=RecordingSigmaZero(num_steps=2),
        budgets=(1,),
        batch_to_inputs=lambda batch: batch["seen"],
    )
    trainer = make_trainer(lightning, callbacks=[gauge])
    trainer.fit(Module(), loader(), combined)
    assert torch.equal(gauge.attack.calls[0].inputs, toy_data(seed=1).tensors[0])


class Stream(IterableDataset):
    def __iter__(self):
        yield from toy_data(seed=1)


def test_a_stream_of_unknown_length(lightning):
    gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=2), num_samples=10, budgets=(1,))
    trainer = make_trainer(lightning, callbacks=[gauge], max_epochs=2)
    trainer.fit(foreign_module(lightning)(), loader(), DataLoader(Stream(), batch_size=5))
    first, second = gauge.attack.calls
    assert torch.equal(first.inputs, second.inputs)
    assert len(first.labels) == 10


@pytest.mark.parametrize("options", [{"overfit_batches": 2}, {"limit_val_batches": 2}])
def test_part_of_the_data(lightning, options):
    gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=2), budgets=(1,))
    trainer = make_trainer(lightning, callbacks=[gauge], max_epochs=2, **options)
    trainer.fit(foreign_module(lightning)(), loader(), loader(seed=1))
    for call in gauge.attack.calls:
        assert torch.equal(call.inputs, toy_data(seed=1).tensors[0][:16])


def test_no_validation_means_no_figures(lightning):
    gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=2), budgets=(1,))
    trainer = make_trainer(lightning, callbacks=[gauge], limit_val_batches=0)
    with pytest.warns(SztrainWarning, match="validates nothing .* nothing is gauged"):
        trainer.fit(foreign_module(lightning)(), loader(), loader(seed=1))
    assert gauge.measurements == {}


class LogsInForward:
    """A part of a module that logs what passes it."""

    def __init__(self, on_step):
        self.on_step = on_step

    def module(self, lightning):
        on_step = self.on_step

        class Logging(foreign_module(lightning)):
            def forward(self, inputs):
                self.log("mean", inputs.mean(), on_step=on_step, on_epoch=True)
                self.log_dict({"most": inputs.max()}, on_epoch=True)
                return super().forward(inputs)

        return Logging()


@pytest.mark.parametrize("on_step", [False, True])
def test_what_a_forward_logs_is_of_the_training_alone(lightning, on_step):
    seen = []
    for gauges in ([], [SparseRobustness(attack=SigmaZero(num_steps=3), budgets=(1,))]):
        module = LogsInForward(on_step).module(lightning)
        trainer = make_trainer(lightning, callbacks=gauges)
        trainer.fit(module, loader(), loader(seed=1))
        seen.append({key: trainer.callback_metrics[key] for key in ("mean", "most")})
        assert "log" not in vars(module)
    assert seen[0] == seen[1]


# Tuning runs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*The number of training batches")
def test_tuning_runs_are_not_gauged_and_what_follows_is(lightning, tmp_path):
    tuner_of = pytest.importorskip(f"{lightning.__name__}.tuner").Tuner

    class Module(foreign_module(lightning)):
        def __init__(self):
            super().__init__()
            self.batch_size = 2

        def train_dataloader(self):
            return loader(batch_size=self.batch_size)

        def val_dataloader(self):
            return loader(seed=1)

    gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=2), budgets=(1,))
    trainer = make_trainer(lightning, callbacks=[gauge], default_root_dir=tmp_path)
    module, tuner = Module(), tuner_of(trainer)
    tuner.scale_batch_size(module, max_trials=2, steps_per_trial=1)
    tuner.lr_find(module, num_training=4, update_attr=False)
    assert gauge.attack.calls == []
    trainer.fit(module)
    assert len(gauge.attack.calls) == 1


# Compiled modules


def compiled_net(lightning, backend):
    return foreign_module(lightning)(torch.compile(toy_net(), backend=backend))


def compiled_module(lightning, backend):
    return torch.compile(foreign_module(lightning)(), backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize("make", [compiled_net, compiled_module])
@pytest.mark.parametrize(
    ("namespace", "backend"),
    [
        ("pytorch_lightning", "eager"),
        ("pytorch_lightning", "inductor"),
        ("lightning.pytorch", "eager"),
    ],
)
# The compiler looks at the inputs, which no longer are leaves of the graph here.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled(make, namespace, backend):
    lightning = importlib.import_module(namespace)

    def weights(gauges):
        torch.compiler.reset()
        module = make(lightning, backend)
        trainer = make_trainer(lightning, callbacks=gauges)
        trainer.fit(module, loader(), loader(seed=1))
        return trainer.lightning_module.state_dict()

    gauge = SparseRobustness(attack=SigmaZero(num_steps=3), num_samples=10, budgets=(1,))
    with_gauge, without = weights([gauge]), weights([])
    assert gauge.measurements["val"].num_samples == 10
    for key, value in with_gauge.items():
        assert torch.equal(value, without[key])


@pytest.mark.parametrize("make", slow_after(1, [compiled_net, compiled_module]))
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_the_gauge_has_no_say_in_how_a_module_is_compiled(lightning, make):
    """The sizes of its batches would, and other kernels round otherwise."""

    def compiled_for(gauges):
        torch.compiler.reset()
        shapes = []  # of the images that a graph was compiled for

        def backend(graph, inputs):
            tensors = (part for part in inputs if isinstance(part, torch.Tensor))
            shapes.extend(str(part.shape) for part in tensors if part.ndim == 4)
            return graph.forward

        trainer = make_trainer(lightning, callbacks=gauges, max_epochs=2)
        module = make(lightning, backend)
        trainer.fit(module, loader(), loader(seed=1))
        in_training = list(shapes)
        trainer.test(module, loader(num_samples=5), verbose=False)
        return in_training, shapes

    attack, probe = SigmaZero(num_steps=5, patience=1), SparseRS(num_steps=9, budget=1)
    gauge = SparseRobustness(
        attack=attack, num_samples=11, budgets=(1,), probe=probe, verdict=SigmaZero(num_steps=2)
    )
    (found, with_verdict), (expected, without) = compiled_for([gauge]), compiled_for([])
    assert found
    assert found == expected
    assert gauge.measurements["val"].num_samples == 11
    assert len(with_verdict) > len(without)  # after the training it may be compiled, and faster


# Averaged weights


def remembering(lightning, extra=()):
    """Someone's module that keeps the weights of each validation."""

    class Module(foreign_module(lightning)):
        validated = ()

        def on_validation_epoch_start(self):
            self.validated = (*self.validated, weights_of(self.body))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    return Module(toy_net(extra=extra))


def weights_of(net):
    return torch.cat([parameter.detach().flatten().clone() for parameter in net.parameters()])


@pytest.mark.parametrize("gauge_first", [True, False])
def test_moving_averages_are_gauged_as_they_are_validated(lightning, monitors, gauge_first):
    def run(with_gauge):
        average = monitors.EMAWeightAveraging(decay=0.5)
        gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=2), budgets=(1,))
        callbacks = [gauge, average] if gauge_first else [average, gauge]
        module = remembering(lightning)
        trainer = make_trainer(
            lightning, callbacks=callbacks if with_gauge else [average], max_epochs=3
        )
        trainer.fit(module, loader(), loader(seed=1))
        return gauge.attack.calls, module

    calls, module = run(with_gauge=True)
    assert len(calls) == 3
    # Lightning takes the averages in before the module's own hook.
    for call, validated in zip(calls, module.validated[1:], strict=True):
        assert torch.equal(weights_of(call.net), validated)
    assert torch.equal(weights_of(module.body), weights_of(calls[-1].net))
    assert torch.equal(weights_of(module.body), weights_of(run(with_gauge=False)[1].body))


@pytest.mark.parametrize("normalises", [True, False])
# The callback of Lightning calls torch's scheduler in a way of old.
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step", "ignore:.*epoch parameter")
def test_stochastic_averages_are_gauged_where_they_are_validated(lightning, monitors, normalises):
    average = monitors.StochasticWeightAveraging(swa_lrs=0.3, swa_epoch_start=2)
    gauge = SparseRobustness(attack=RecordingSigmaZero(num_steps=2), budgets=(1,))
    module = remembering(lightning, extra=[nn.BatchNorm1d(16)] if normalises else [])
    trainer = make_trainer(lightning, callbacks=[average, gauge], max_epochs=4)
    trainer.fit(module, loader(), loader(seed=1))
    calls = gauge.attack.calls
    assert len(calls) == (5 if normalises else 4)  # an epoch more for BatchNorm
    for call, validated in zip(calls, module.validated[1:], strict=True):
        assert torch.equal(weights_of(call.net), validated)
    final = weights_of(module.body)
    assert torch.equal(weights_of(calls[-1].net), final) == normalises
    trainer.validate(module, loader(seed=1), verbose=False)
    assert torch.equal(weights_of(calls[-1].net), final)
