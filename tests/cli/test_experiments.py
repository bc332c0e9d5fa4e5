"""Each experiment takes its first steps, on made-up data of the shape it is for."""

import json

import cifar_files
import numpy as np
import pytest
import torch
from PIL import Image

from sztrain.models import load_net, robustbench_nets

SMOKE = (
    "trainer=cpu trainer.fast_dev_run=true logger=none data.batch_size=4 data.limit_train=4 "
    "verdict.num_samples=2 data.num_workers=0"
)

EXTRA = {
    "cifar10_wrn28_20px": "model.depth=10 model.width=1",
    "imagenet100_resnet34_200px": (
        "data.root=data/folder data.num_classes=2 data.image_size=40 model.name=resnet10t"
    ),
}

EXPERIMENTS = [
    "digits",
    "cifar10_wrn28_20px",
    "cifar10_prn18_20px",
    "cifar10_narrow_20px",
    "cifar100_prn18_10px",
    "imagenet100_resnet34_200px",
]


@pytest.fixture
def made_up_data(tmp_path):
    cifar_files.write_cifar10(tmp_path / "data", num_images=4, num_test=4)
    cifar_files.write_cifar100(tmp_path / "data", num_images=200, num_test=100)
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / "folder" / part / name
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = generator.integers(0, 255, (48, 50, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_takes_its_first_steps(name, made_up_data, call, tmp_path):
    outcome = call(f"train experiment={name} {SMOKE} {EXTRA.get(name, '')} hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["unit"] == ("pixels" if name.endswith("px") else "features")


@pytest.mark.slow
def test_a_published_net_is_tuned_from_its_own_weights(made_up_data, call, tmp_path, monkeypatch):
    robustbench = robustbench_nets._import_robustbench()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        published = robustbench.model_zoo.architectures.resnet.ResNet18()
    path = tmp_path / "weights/cifar10/Linf/Addepalli2022Efficient_RN18.pt"
    path.parent.mkdir(parents=True)
    torch.save(published.state_dict(), path)
    monkeypatch.setenv("SZTRAIN_WEIGHTS_DIR", str(tmp_path / "weights"))
    few = (
        "trainer=cpu logger=csv data.batch_size=4 data.limit_train=8 data.val_fraction=0.5 "
        "trainer.max_epochs=1 method.attack.num_steps=2 callbacks.gauge.num_samples=4 "
        "callbacks.gauge.attack.num_steps=2 callbacks.gauge.probe.num_steps=2 "
        "callbacks.gauge.probe.num_queries=2 "
        "verdict.num_steps=10 verdict.num_queries=10 verdict.num_samples=2"
    )
    outcome = call(f"train experiment=finetune_robustbench {few} hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    tuned = load_net(tmp_path / "run" / "checkpoints" / "last.ckpt")
    before, after = published.state_dict(), tuned.state_dict()
    assert before.keys() == after.keys()
    moved = (after["linear.weight"] - before["linear.weight"]).abs()
    # One step at a learning rate of 0.005: another net than before, but not another start.
    assert 0 < moved.max() < 0.05
    other = robustbench.model_zoo.architectures.resnet.ResNet18().state_dict()
    assert (other["linear.weight"] - before["linear.weight"]).abs().max() > moved.max()
