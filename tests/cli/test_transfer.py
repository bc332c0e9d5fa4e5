"""Which nets a suite tries its examples on."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sztrain.attacks import SigmaZero
from sztrain.cli import transfer
from sztrain.cli.transfer import KeptExamples, transfer_rows


@pytest.fixture
def kept(monkeypatch):
    """What a job on one net leaves; no example of it is looked at."""
    monkeypatch.setattr(transfer, "load_net", lambda name: nn.Identity())
    monkeypatch.setattr(transfer, "count_transfer", lambda *arguments: (4, 1))

    def of(model, dataset, digest, unit="features", **options):
        return KeptExamples(
            model=model,
            dataset=dataset,
            digest=digest,
            attack=SigmaZero(num_steps=10, unit=unit),
            steps=10,
            records=SimpleNamespace(),
            spans=[],
            device=torch.device("cpu"),
            **options,
        )

    return of


def pairs(rows):
    return [(row["source"], row["target"], row["unit"]) for row in rows]


def test_nets_are_tried_on_examples_of_the_same_samples_alone(kept):
    of_mnist = [kept("M1", "mnist", "a"), kept("M2", "mnist", "a")]
    found = transfer_rows([*of_mnist, kept("C1", "cifar10", "b"), kept("C2", "cifar10", "b")])
    assert pairs(found) == [
        (source, target, "features")
        for source, target in (("M1", "M2"), ("M2", "M1"), ("C1", "C2"), ("C2", "C1"))
    ]
    assert [row["fooled"] for row in found] == [25.0] * 4


def test_each_unit_has_rows_of_its_own(kept):
    units = ("features", "pixels")
    found = transfer_rows([kept(m, "mnist", "a", u) for m in ("M1", "M2") for u in units])
    assert pairs(found) == [(s, t, u) for u in units for s, t in (("M1", "M2"), ("M2", "M1"))]


def test_an_attack_that_has_no_hash_keeps_its_rows_together(kept):
    @dataclass(frozen=True, kw_only=True)
    class Listed(SigmaZero):
        scales: list[float] = field(default_factory=list)

    def kept_with(scale):
        return [replace(kept(m, "mnist", "a"), attack=Listed(scales=[scale])) for m in ("M1", "M2")]

    (a1, a2), (b1, b2) = kept_with(0.1), kept_with(0.2)
    found = transfer_rows([a1, b1, a2, b2])
    assert [row["options"] for row in found] == ["scales=[0.1]"] * 2 + ["scales=[0.2]"] * 2


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_net_predicts_in_the_layout_in_which_it_was_attacked(kept, monkeypatch, channels_last):
    nets = []

    def count(net, *arguments):
        nets.append(net)
        return 4, 1

    monkeypatch.setattr(transfer, "load_net", lambda name: nn.Conv2d(3, 4, 3))
    monkeypatch.setattr(transfer, "count_transfer", count)
    transfer_rows([kept(m, "mnist", "a", channels_last=channels_last) for m in ("M1", "M2")])
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert [net.weight.is_contiguous(memory_format=layout) for net in nets] == [True, True]
