"""What a training leaves behind can be read anywhere, and gives back the very net."""

import copy
import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from toy_training import make_trainer

from sztrain.attacks import SigmaZero
from sztrain.data import Digits
from sztrain.errors import InputError
from sztrain.models import digits_cnn, load_net
from sztrain.training import MART, TRADES, AtomicCheckpointIO, SparseAT, StandardTraining

NET = {"_target_": "sztrain.models.digits_cnn", "width": 4, "mean": [0.3], "std": [0.35]}
DESCRIPTION = {
    "net": NET,
    "data": {"name": "digits", "val_fraction": 0.1, "root": None},
    "unit": "features",
    "method": {"name": "sparse_at", "attack": {"num_steps": 2, "budget": None}},
}


def make(method_class, **options):
    net = digits_cnn(**{key: value for key, value in NET.items() if key != "_target_"})
    return method_class(net, num_classes=10, hyper_parameters=DESCRIPTION, **options)


def saved(method, folder, **options):
    checkpoint = ModelCheckpoint(folder, filename="last")
    trainer = make_trainer(
        pl,
        callbacks=[checkpoint],
        enable_checkpointing=True,
        limit_train_batches=2,
        limit_val_batches=1,
        **options,
    )
    trainer.fit(method, datamodule=Digits(batch_size=16))
    return folder / "last.ckpt"


@pytest.mark.parametrize(
    ("method_class", "options"),
    [
        (StandardTraining, {}),
        (SparseAT, {"attack": SigmaZero(num_steps=2), "budget": 3}),
        (TRADES, {"attack": SigmaZero(num_steps=2)}),
        (MART, {"attack": SigmaZero(num_steps=2)}),
    ],
)
def test_checkpoint_gives_back_the_net(method_class, options, tmp_path):
    method = make(method_class, **options)
    path = saved(method, tmp_path)
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"] == DESCRIPTION
    assert {key.partition(".")[0] for key in content["state_dict"]} == {"net"}
    net = load_net(path)
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(net(images), method.eval()(images))
    assert not torch.equal(net(images), make(method_class)(images))


def test_description_is_a_copy_of_plain_containers():
    description = copy.deepcopy(DESCRIPTION)
    method = StandardTraining(nn.Flatten(), num_classes=2, hyper_parameters=description)
    assert dict(method.hparams) == DESCRIPTION
    assert StandardTraining(nn.Flatten(), num_classes=2).hparams == {}


def test_cost_of_the_adversary_survives_a_resume(tmp_path, monkeypatch):
    ticks = iter(range(1000))
    tick = "sztrain.training.adversarial.wall_time"
    monkeypatch.setattr(tick, lambda device: float(next(ticks)))
    path = saved(make(SparseAT, attack=SigmaZero(num_steps=2)), tmp_path)
    assert torch.load(path, weights_only=True)["attack_seconds"] == 2
    resumed = make(SparseAT, attack=SigmaZero(num_steps=2))
    trainer = make_trainer(pl, max_epochs=3, limit_train_batches=2, limit_val_batches=1)
    data = Digits(batch_size=16)
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        trainer.fit(resumed, datamodule=data, ckpt_path=path, weights_only=True)
    assert resumed.attack_seconds == 6
    # A checkpoint of a training without an adversary has no such cost.
    plain = saved(make(StandardTraining), tmp_path / "plain")
    fresh = make(SparseAT)
    fresh.on_load_checkpoint(torch.load(plain, weights_only=True))
    assert fresh.attack_seconds == 0


def test_interrupted_save_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"epoch": 1}, path)
    move = shutil.move

    def interrupted(source, target):
        # From another file system, which holds the folder for temporary files, moving is copying.
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.save_checkpoint({"epoch": 2}, path)
    monkeypatch.setattr(shutil, "move", move)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    writer.save_checkpoint({"epoch": 3}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 3}
    assert [found.name for found in path.parent.iterdir()] == ["last.ckpt"]


def test_training_writes_through_it(tmp_path):
    path = saved(make(StandardTraining), tmp_path, plugins=[AtomicCheckpointIO()])
    assert load_net(path)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


# Dynamo and inductor warn about themselves.
NOISE = [
    pytest.mark.filterwarnings(f"ignore::{category}")
    for category in ("UserWarning", "DeprecationWarning", "FutureWarning")
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("eager", marks=NOISE),
        pytest.param(
            "inductor",
            marks=[
                *NOISE,
                pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++"),
            ],
        ),
    ],
)
def test_compiled_training_saves_the_same_net(backend, monkeypatch, tmp_path):
    compiled = []
    original = nn.Module.compile

    def note(module):
        compiled.append(module)
        original(module, backend=backend)

    monkeypatch.setattr(nn.Module, "compile", note)
    start = make(SparseAT).net.state_dict()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = []
    for compile_net in (True, False):
        method = make(SparseAT, attack=SigmaZero(num_steps=3), budget=4, compile=compile_net)
        method.net.load_state_dict(start)
        path = saved(method, tmp_path / str(compile_net))
        keys = set(torch.load(path, weights_only=True)["state_dict"])
        assert keys == {f"net.{key}" for key in start}
        logits.append(load_net(path)(images))
        assert len(compiled) == 1  # by the first training alone
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)
    untrained = make(StandardTraining).net
    untrained.load_state_dict(start)
    assert (untrained(images) - logits[0]).abs().max() > 1e-2


def test_channels_last_is_refused_for_convolutions_of_volumes():
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3))
    with pytest.raises(InputError, match=r"2-D convolutions for channels_last, got 0.weight of"):
        StandardTraining(net, num_classes=3, channels_last=True)


def test_channels_last_is_another_layout_of_the_same_training(tmp_path):
    weights = []
    for channels_last in (True, False):
        pl.seed_everything(3, verbose=False)
        method = make(
            SparseAT, attack=SigmaZero(num_steps=3), budget=4, channels_last=channels_last
        )
        saved(method, tmp_path / str(channels_last))
        first = next(
            m for m in method.net.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1
        )
        assert first.weight.is_contiguous(memory_format=torch.channels_last) == channels_last
        weights.append(torch.cat([p.detach().reshape(-1) for p in method.net.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)
