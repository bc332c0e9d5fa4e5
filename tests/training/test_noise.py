"""What sparse noise does to the images of a batch, and where it stands in a training step."""

import pytest
import pytorch_lightning as pl
import torch
from toy_training import INF, NUM_CLASSES, ScriptedAttack, loader, make_trainer, toy_data, toy_net

from sztrain.callbacks import SparseRobustness
from sztrain.errors import InputError
from sztrain.norms import l0_norm
from sztrain.training import SparseAT
from sztrain.training.noise import add_sparse_noise


@pytest.mark.parametrize(("unit", "places"), [("features", 48), ("pixels", 16)])
def test_numbers_places_and_values_are_uniform(unit, places):
    inputs = torch.full((6000, 3, 4, 4), 2.0)
    noisy = add_sparse_noise(inputs, most=6, unit=unit)
    changed = noisy != inputs
    counts = l0_norm(noisy - inputs, unit)
    # A count out of seven has a standard error of 0.0045; a place, hit in 3 of `places`, less.
    shares = torch.bincount(counts.long(), minlength=7) / 6000
    torch.testing.assert_close(shares, torch.full((7,), 1 / 7), atol=0.02, rtol=0)
    hit = changed.float().mean(dim=0)
    torch.testing.assert_close(hit, torch.full_like(hit, 3 / places), atol=0.025, rtol=0)
    if unit == "pixels":
        assert torch.equal(changed.any(dim=1), changed.all(dim=1))
    values = noisy[changed]
    quartiles = torch.quantile(values[:100_000], torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(quartiles, torch.linspace(0, 1, 5), atol=0.02, rtol=0)


def test_none_is_the_image_itself_and_more_than_there_is_is_everything():
    inputs = torch.full((500, 1, 2, 2), 2.0)
    assert torch.equal(add_sparse_noise(inputs, most=0), inputs)
    assert l0_norm(add_sparse_noise(inputs, most=99) - inputs).max() == 4
    with pytest.raises(InputError, match="`most` to be at least 0, got -1"):
        add_sparse_noise(inputs, most=-1)


def test_the_adversary_starts_from_the_noise_and_the_loss_is_taken_there():
    attack = ScriptedAttack(script=((1.0, INF),))
    seen = []
    net = toy_net()
    net.register_forward_pre_hook(lambda module, args: seen.append((module.training, args[0])))
    method = SparseAT(net, num_classes=NUM_CLASSES, attack=attack, budget=3, noise=2.0)
    trainer = make_trainer(pl, num_sanity_val_steps=0, limit_val_batches=0)
    trainer.fit(method, loader(24, batch_size=24), loader())
    images, attacked = toy_data().tensors[0], attack.calls[0].inputs
    distance = l0_norm(attacked - images)
    assert distance.max() == 6  # twice the budget
    assert distance.min() == 0
    (clean, examples) = (inputs for training, inputs in seen if training)
    assert torch.equal(clean, attacked)
    # Counted from the noise on, and not clipped back towards the image.
    assert l0_norm(examples - attacked).tolist() == [1.0, 0.0] * 12


def test_noise_follows_the_warmup_and_the_ramp_of_the_budget():
    attack = ScriptedAttack(script=((1.0,),))
    seen = []
    net = toy_net()
    net.register_forward_pre_hook(lambda module, args: seen.append((module.training, args[0])))
    method = SparseAT(
        net,
        num_classes=NUM_CLASSES,
        attack=attack,
        budget=4,
        noise=2.0,
        warmup_epochs=1,
        ramp_epochs=2,
    )
    trainer = make_trainer(pl, max_epochs=4, num_sanity_val_steps=0, limit_val_batches=0)
    trainer.fit(method, loader(24, batch_size=24), loader())
    images = toy_data().tensors[0]
    warmup = next(inputs for training, inputs in seen if training)
    assert torch.equal(warmup, images)
    # Twice a budget of 1, 2 and 4; one of 24 images draws the largest number.
    most = [int(l0_norm(call.inputs - images).max()) for call in attack.calls]
    assert most == [2, 4, 8]


def test_noise_goes_by_the_full_budget_in_the_unit_of_the_adversary(monkeypatch):
    told = []

    def note(inputs, most, unit):
        told.append((most, unit))
        return inputs

    monkeypatch.setattr("sztrain.training.adversarial.add_sparse_noise", note)
    adversary, gauging = (ScriptedAttack(script=((l0,),), unit="pixels") for l0 in (1.0, 3.0))
    method = SparseAT(
        toy_net(),
        num_classes=NUM_CLASSES,
        attack=adversary,
        budget=10,
        budget_schedule="gauge",
        noise=1.15,
    )
    gauge = SparseRobustness(attack=gauging, budgets=(1,))
    trainer = make_trainer(pl, callbacks=[gauge], max_epochs=2)
    trainer.fit(method, loader(), loader(seed=1))
    assert [call.budget for call in adversary.calls] == [10] * 3 + [3] * 3
    assert told == [(12, "pixels")] * 6  # 11.5, rounded
