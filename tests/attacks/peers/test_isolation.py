"""The stand-in for a net, and what is put back."""

import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sztrain.attacks.peers.isolation import CountedNet, frozen, import_peer, seeded, shares
from sztrain.errors import UnavailableError


def test_the_stand_in_brings_samples_to_the_shape_and_type_of_the_net():
    seen = []

    def logits_of(inputs):
        seen.append((inputs.shape, inputs.dtype))
        return inputs.flatten(1)[:, :2]

    net = CountedNet(logits_of, like=torch.zeros(9, 3, 2, 2, dtype=torch.float64))
    flat = torch.arange(24.0).view(2, 1, 12)
    logits = net(flat)
    assert seen == [((2, 3, 2, 2), torch.float64)]
    assert logits.dtype == torch.float32
    assert torch.equal(logits, flat[:, 0, :2])
    assert (net.num_forwards, net.num_backwards) == (2, 0)


def test_libraries_find_a_device_and_nothing_to_train():
    (place,) = CountedNet(lambda inputs: inputs, like=torch.zeros(1, 2, device="meta")).parameters()
    assert place.device.type == "meta"
    assert not place.requires_grad


def test_a_net_that_works_in_place_does_not_reach_the_samples():
    inputs = torch.rand(2, 3, requires_grad=True)
    kept = inputs.detach().clone()
    net = CountedNet(lambda samples: samples.mul_(2), like=inputs)
    net(inputs).sum().backward()
    assert torch.equal(inputs, kept)
    assert torch.equal(inputs.grad, torch.full((2, 3), 2.0))


def test_each_backward_pass_counts_also_on_one_forward_pass():
    net = CountedNet(lambda samples: 3 * samples, like=torch.zeros(1, 3))
    inputs = torch.rand(4, 3, requires_grad=True)
    logits = net(inputs)
    for column in logits.unbind(dim=1):
        torch.autograd.grad(column.sum(), inputs, retain_graph=True)
    net(inputs.detach())
    assert (net.num_forwards, net.num_backwards) == (8, 12)


def test_what_overflows_moves_nothing_and_what_does_not_stays_as_it_is():
    def logits_of(inputs):
        return torch.stack([inputs[:, 0].sqrt(), 1 / inputs[:, 1], inputs[:, 2].log()], dim=1)

    inputs = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.5, 1.0]], requires_grad=True)
    logits = CountedNet(logits_of, like=inputs)(inputs)
    assert logits.isfinite().all()
    assert logits[1].tolist() == [0.5, 2.0, 0.0]
    logits.sum().backward()
    assert inputs.grad.tolist() == [[0.0, 0.0, 0.0], [1.0, -4.0, 1.0]]


def test_frozen_restores_mixed_flags_also_after_an_error():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in net.parameters()]
    assert before == [False, True, True, True]

    def fail_inside():
        with frozen(net):
            assert not any(parameter.requires_grad for parameter in net.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert [parameter.requires_grad for parameter in net.parameters()] == before


def test_both_generators_are_seeded_and_that_of_numpy_is_restored():
    kept, draws = str(np.random.get_state()), []

    def draw_and_fail():
        with seeded(3, torch.device("cpu")):
            draws.append((float(torch.rand(())), np.random.rand()))
            raise KeyError

    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            with pytest.raises(KeyError):
                draw_and_fail()
    assert draws[0] == draws[1]
    assert str(np.random.get_state()) == kept


@pytest.mark.parametrize("total", [0, 1, 7, 12])
def test_shares_are_even_and_add_up(total):
    found = shares(total, torch.arange(5))
    assert found.sum() == total
    assert found.max() - found.min() <= 1
    assert found.dtype == torch.int64


def test_an_import_neither_warns_nor_hides_warnings_for_ever(tmp_path, monkeypatch):
    (tmp_path / "noisy_peer.py").write_text("import warnings\nwarnings.warn('old')\nVALUE = 1\n")
    (tmp_path / "broken_peer.py").write_text("raise ImportError('first line\\nsecond line')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_peer("noisy_peer").VALUE == 1
    with pytest.raises(UnavailableError) as caught:
        import_peer("broken_peer")
    assert str(caught.value).startswith("broken_peer cannot be imported (first line); install")
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", stacklevel=1)
    monkeypatch.delitem(sys.modules, "noisy_peer")


@pytest.mark.parametrize("raised", ["ImportError('no numpy')", "AttributeError('no numpy')"])
def test_a_library_that_cannot_be_imported_is_told_of(tmp_path, monkeypatch, raised):
    (tmp_path / "broken_peer.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnavailableError, match=r"broken_peer cannot be imported \(no numpy\)"):
        import_peer("broken_peer")


def test_another_version_than_is_needed_is_told_of():
    with pytest.raises(UnavailableError, match="json has no fmn, so it is another version"):
        import_peer("json", "dumps", "fmn")
