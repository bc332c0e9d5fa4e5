import pytest
import torch

from sztrain.attacks import SigmaZero
from sztrain.errors import SztrainWarning
from sztrain.models import digits_cnn
from sztrain.precision import warn_of_slow_bfloat16

MESSAGE = "this CPU has no instructions for convolutions in bfloat16"


@pytest.fixture
def cpu_with(monkeypatch):
    def having(*, bfloat16):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bfloat16)

    return having


def test_a_cpu_without_bfloat16_is_told_of(cpu_with):
    cpu_with(bfloat16=False)
    with pytest.warns(SztrainWarning, match=MESSAGE):
        warn_of_slow_bfloat16(torch.device("cpu"))


def test_a_torch_without_onednn_has_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.delattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", raising=False)
    with pytest.warns(SztrainWarning, match=MESSAGE):
        warn_of_slow_bfloat16(torch.device("cpu"))


def test_hardware_with_bfloat16_is_not(cpu_with, recwarn):
    cpu_with(bfloat16=True)
    warn_of_slow_bfloat16(torch.device("cpu"))
    cpu_with(bfloat16=False)
    warn_of_slow_bfloat16(torch.device("cuda"))
    assert not recwarn.list


def test_an_attack_tells_of_it_where_it_passes_the_net_in_bfloat16(cpu_with, recwarn):
    cpu_with(bfloat16=False)
    batch = digits_cnn(), torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    SigmaZero(num_steps=1)(*batch)
    assert not recwarn.list
    with pytest.warns(SztrainWarning, match=MESSAGE):
        SigmaZero(num_steps=1, autocast=True)(*batch)
