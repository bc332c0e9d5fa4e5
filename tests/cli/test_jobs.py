"""What the records of a job depend on."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Subset

from sztrain.attacks import SigmaZero
from sztrain.cli.jobs import Job, Selection, attack_share
from sztrain.data import Digits
from sztrain.errors import InputError, SztrainWarning
from sztrain.models import load_net, preact_resnet18, save_net
from sztrain.progress import SpacedLines

SIZE = {"num_classes": 10, "in_channels": 1, "width": 1}


@pytest.fixture
def job_of(tmp_path):
    data = Digits()
    data.setup()
    torch.manual_seed(0)
    net = preact_resnet18(**SIZE)
    path = str(tmp_path / "net.safetensors")

    def job(**options):
        """Of a net whose weights are always the same."""
        spec = {"_target_": "sztrain.models.preact_resnet18", **SIZE, **options}
        described = {"net": spec, "data": {"name": "digits"}, "unit": "features"}
        save_net(net, described | {"method": {"name": "standard"}}, path)
        return Job(
            label="net",
            model=path,
            net_label="net",
            net=load_net(path),
            attack=SigmaZero(num_steps=2),
            steps=2,
            selection=Selection(data, Subset(data.part("test"), range(4))),
            batch_size=4,
            budgets=[],
            output_dir=tmp_path,
        )

    return job


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "softplus"}, "architecture.activation is relu there and softplus here"),
        ({"mean": [0.5], "std": [0.25]}, "architecture.mean is None there and "),
    ],
)
def test_records_of_a_net_with_the_same_weights_are_refused(job_of, options, message):
    for _ in range(2):
        assert not job_of(activation="relu").records.has(range(4))
    with pytest.raises(InputError, match=message):
        _ = job_of(**{"activation": "relu"} | options).records


def test_records_of_a_net_in_another_layout_are_refused(job_of):
    job = job_of()
    assert not job.records.has(range(4))
    with pytest.raises(InputError, match="channels_last is False there and True here"):
        _ = replace(job, channels_last=True).records


@pytest.mark.parametrize(
    ("rank", "world_size", "told"),
    [
        (0, 1, ["2 of 4 samples", "4 of 4 samples"]),
        (0, 2, ["2 of 2 samples of the first of 2 processes"]),
        (1, 2, []),
    ],
)
def test_a_long_job_says_how_far_it_is_where_no_bar_can(
    job_of, capsys, monkeypatch, rank, world_size, told
):
    monkeypatch.setattr("sztrain.progress.SpacedLines", partial(SpacedLines, every=0))
    team = SimpleNamespace(global_rank=rank, world_size=world_size, device=torch.device("cpu"))
    attack_share(replace(job_of(), batch_size=2), team, "1/3")
    lines = [line for line in capsys.readouterr().out.splitlines() if "samples" in line]
    assert [line.rpartition(": ")[2].partition(" in ")[0] for line in lines] == told
    assert all(line.startswith("1/3 net, median ℓ0 ") for line in lines)


@pytest.mark.parametrize(
    ("made_by", "is_told"),
    [
        ({}, False),
        ({"torch": ""}, False),  # not known
        ({"torch": "0.4"}, True),
        ({"sztrain": ""}, False),  # alike
        ({"sztrain": "0.0.1"}, True),
        ({"device": "some GPU"}, True),
    ],
)
def test_batches_of_other_devices_and_versions_are_told_of(job_of, made_by, is_told):
    team = SimpleNamespace(global_rank=0, world_size=1, device=torch.device("cpu"))
    job = replace(job_of(), batch_size=2)
    attack_share(job, team, "1/1")
    first, second = job.spans
    cost = replace(job.records.cost(first), **made_by)
    job.records.write(first, job.records.read(first), cost)
    attack_share(job, team, "1/1")  # nothing is left to attack
    (job.records.folder / "000002.csv").unlink()
    with pytest.warns(SztrainWarning, match="all of them alike") if is_told else nullcontext():
        attack_share(job, team, "1/1")
    assert job.records.has(second)
