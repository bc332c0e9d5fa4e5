"""Soft labels against the recurrence of their paper, alone and in a training."""

import pytest
import pytorch_lightning as pl
import torch
from toy_training import NUM_CLASSES, Indexed, ScriptedAttack, loader, make_trainer, toy_net

from sztrain.data import Digits
from sztrain.errors import InputError
from sztrain.losses import trades_kl, wrong_class_margin
from sztrain.models import digits_cnn
from sztrain.training import MART, TRADES, SparseAT
from sztrain.training.soft_labels import SoftLabels


def test_targets_follow_the_recurrence_sample_by_sample():
    soft = SoftLabels(start=0, momentum=0.8)
    soft.begin(num_samples=5, num_classes=3, num_steps=10)
    labels = torch.tensor([2, 0, 1, 1, 0])
    generator = torch.Generator().manual_seed(0)
    by_hand = {}
    for indices in ([4, 0], [0, 2], [2, 4], [0, 1]):
        p = torch.rand(2, 3, generator=generator).softmax(dim=1)
        found = soft.update(torch.tensor(indices), labels[indices], p)
        for row, index in enumerate(indices):
            old = by_hand.get(index, [float(k == labels[index]) for k in range(3)])
            by_hand[index] = [0.8 * t + 0.2 * q for t, q in zip(old, p[row].tolist(), strict=True)]
            assert found[row].tolist() == pytest.approx(by_hand[index])
    assert soft.targets[3].tolist() == [0, 0, 0]  # never seen
    torch.testing.assert_close(soft.targets[[0, 1, 2, 4]].sum(dim=1), torch.ones(4))


def cross_entropy(logits, targets):
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1)


@pytest.mark.parametrize("method_class", [SparseAT, TRADES, MART])
def test_the_loss_is_weighted_and_taken_on_the_targets_from_the_middle_of_the_run_on(method_class):
    dataset = Indexed(loader().dataset)
    losses = []

    class Watched(method_class):
        def sample_losses(self, clean_logits, adv_logits, labels, targets):
            found = super().sample_losses(clean_logits, adv_logits, labels, targets)
            losses.append((targets, clean_logits, adv_logits, labels, found))
            return found

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            losses[-1] = (*losses[-1], loss)
            return loss

    method = Watched(
        toy_net(),
        num_classes=NUM_CLASSES,
        attack=ScriptedAttack(),
        soft_labels_from=0.5,
        soft_labels_momentum=0.7,
    )
    trainer = make_trainer(pl, max_epochs=4, limit_val_batches=0)
    trainer.fit(method, torch.utils.data.DataLoader(dataset, batch_size=8), loader())
    assert [len(targets.shape) for targets, *_ in losses] == [1] * 6 + [2] * 6
    for step, (targets, clean, adv, labels, found, loss) in enumerate(losses):
        if step < 6:
            assert torch.equal(targets, labels)
            torch.testing.assert_close(loss, found.mean())
            continue
        start = torch.eye(NUM_CLASSES)[labels] if step < 9 else losses[step - 3][0]
        expected = 0.7 * start + 0.3 * clean.detach().softmax(dim=1)
        torch.testing.assert_close(targets, expected)
        weights = expected.max(dim=1).values
        torch.testing.assert_close(loss, (weights * found).sum() / weights.sum())
        divergence = trades_kl(clean, adv)
        doubt = 1 - clean.softmax(dim=1)[range(8), labels]
        boosted = cross_entropy(adv, targets) + wrong_class_margin(adv, labels)
        by_hand = {
            SparseAT: (cross_entropy(clean, targets) + cross_entropy(adv, targets)) / 2,
            TRADES: cross_entropy(clean, targets) + 6 * divergence,
            MART: boosted + 5 * divergence * doubt,
        }
        torch.testing.assert_close(found, by_hand[method_class])


@pytest.mark.parametrize("method_class", [SparseAT, TRADES, MART])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_learns_them_too(method_class, precision):
    method = method_class(
        toy_net(), num_classes=NUM_CLASSES, attack=ScriptedAttack(), soft_labels_from=0.0
    )
    trainer = make_trainer(pl, precision=precision, limit_val_batches=0)
    batches = torch.utils.data.DataLoader(Indexed(loader().dataset), batch_size=8)
    trainer.fit(method, batches, loader())
    assert method.soft_labels.targets.dtype == torch.float32
    assert trainer.callback_metrics["train/loss"].isfinite()


def digits_training(**options):
    method = SparseAT(
        digits_cnn(width=2), num_classes=10, attack=ScriptedAttack(), soft_labels_from=0.0
    )
    data = Digits(batch_size=16, limit_train=48, augment=True, **options)
    trainer = make_trainer(pl, max_epochs=1, limit_val_batches=0)
    trainer.fit(method, datamodule=data)
    return method, data


def test_a_data_module_is_asked_for_the_indices():
    method, data = digits_training()
    labels = data.train_set.samples.labels
    assert torch.equal(method.soft_labels.targets.argmax(dim=1), labels)
    assert all(len(batch) == 3 for batch in data.train_dataloader())
    assert all(len(batch) == 2 for batch in data.val_dataloader())
    _, shown, indices = next(iter(data.train_dataloader()))
    assert torch.equal(labels[indices], shown)
    plain = SparseAT(digits_cnn(width=2), num_classes=10, attack=ScriptedAttack())
    make_trainer(pl, fast_dev_run=True).fit(plain, datamodule=data)
    assert not data.indexed


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from loader().dataset


def test_what_soft_labels_need_is_said():
    # Said in the first batch, not in the middle of the run.
    method = SparseAT(toy_net(), num_classes=3, attack=ScriptedAttack(), soft_labels_from=1.0)
    with pytest.raises(InputError, match="batches of inputs, labels and indices, got no indices"):
        make_trainer(pl, limit_val_batches=0).fit(method, loader(), loader())
    stream = torch.utils.data.DataLoader(Stream(), batch_size=8)
    for loaders, found in ((stream, "Stream"), ([loader(), loader()], "list")):
        with pytest.raises(InputError, match=f"samples that can be counted, got {found}; use a"):
            make_trainer(pl, limit_val_batches=0, max_steps=3).fit(method, loaders, loader())
    with pytest.raises(InputError, match="whose end nobody knows"):
        SoftLabels(0.5).begin(1, 2, float("inf"))
    soft = SoftLabels(0.5)
    soft.targets = torch.zeros(4, 2)
    with pytest.raises(InputError, match=r"of shape \(4, 2\), the training needs \(5, 2\)"):
        soft.begin(5, 2, 10)
