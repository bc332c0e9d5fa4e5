"""What Lightning makes of the loaders, in real trainings: order, epochs, resume."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class Recorder(pl.LightningModule):
    """Writes down which batches it was trained on, epoch by epoch."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(36, 4)
        self.seen = {}
        self.validated = 0

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        self.seen.setdefault(self.current_epoch, []).append(inputs.clone())
        return torch.nn.functional.cross_entropy(self.layer(inputs.flatten(1)), labels)

    def validation_step(self, batch, batch_idx):
        self.validated += len(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, folder, *, ckpt_path=None, every_n_train_steps=None, **options):
    module = Recorder()
    callback = ModelCheckpoint(
        folder, filename="{epoch}", save_top_k=-1, every_n_train_steps=every_n_train_steps
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module


def expected_epoch(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return torch.cat([inputs for inputs, _ in loader])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_and_resumed_epochs_are_functions_of_seed_and_epoch(toy, tmp_path, num_workers):
    def data():
        return toy(augment=True, seed=3, num_workers=num_workers)

    whole = fit(data(), tmp_path / "whole", max_epochs=4)
    assert sorted(whole.seen) == [0, 1, 2, 3]
    assert whole.validated == 5 * 4  # the sanity check, then once an epoch
    reference = toy(augment=True, seed=3)
    for epoch, batches in whole.seen.items():
        assert torch.equal(torch.cat(batches), expected_epoch(reference, epoch))
    resumed = fit(
        data(),
        tmp_path / "whole",
        max_epochs=4,
        ckpt_path=tmp_path / "whole" / "epoch=1.ckpt",
    )
    assert sorted(resumed.seen) == [2, 3]
    for epoch, batches in resumed.seen.items():
        assert torch.equal(torch.cat(batches), torch.cat(whole.seen[epoch]))
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_resume_from_a_checkpoint_taken_after_the_last_batch(toy, tmp_path):
    options = {"max_epochs": 3, "every_n_train_steps": 5}  # an epoch has five batches
    whole = fit(toy(seed=1, num_workers=2), tmp_path, **options)
    resumed = fit(
        toy(seed=1, num_workers=2), tmp_path, ckpt_path=tmp_path / "epoch=1.ckpt", **options
    )
    assert torch.equal(torch.cat(resumed.seen[2]), torch.cat(whole.seen[2]))


def test_epochs_cut_short_do_not_shift_the_next(toy, tmp_path):
    module = fit(
        toy(num_workers=1), tmp_path, max_epochs=3, limit_train_batches=2, limit_val_batches=0
    )
    for epoch, batches in module.seen.items():
        expected = expected_epoch(toy(), epoch)[:16]
        assert torch.equal(torch.cat(batches), expected)


def test_another_training_before_changes_nothing(toy, tmp_path):
    data = toy()
    first = fit(data, tmp_path / "first", max_epochs=2)
    second = fit(data, tmp_path / "second", max_epochs=2)
    for epoch in (0, 1):
        assert torch.equal(torch.cat(first.seen[epoch]), torch.cat(second.seen[epoch]))


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfitting_on_few_batches_reads_plain_samples(toy, tmp_path):
    module = fit(toy(augment=True), tmp_path, max_epochs=2, overfit_batches=1)
    assert torch.equal(module.seen[0][0], module.seen[1][0])
