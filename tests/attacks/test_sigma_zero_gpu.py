"""σ-zero where there is a GPU: `pytest -m gpu`."""

import threading
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from sztrain.attacks import SigmaZero
from sztrain.errors import InputError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

OPTIONS = [{}, {"budget": 5}, {"patience": 6}, {"unit": "pixels", "budget": 3}, {"targeted": True}]


@pytest.fixture
def on_gpu(make_batch):
    def make(**options):
        batch = make_batch(num_samples=9, num_wrong=2, seed=1, **options)
        return batch.net.cuda(), batch.inputs.cuda(), batch.labels.cuda()

    return make


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(o))
def test_a_cuda_graph_an_eager_step_and_a_cpu_give_the_same(on_gpu, options):
    net, inputs, labels = on_gpu()
    attack = SigmaZero(num_steps=40, **options)
    eager = attack(net, inputs, labels)
    recorded = replace(attack, cuda_graph=True)(net, inputs, labels)
    again = replace(attack, cuda_graph=True)(net, inputs, labels)
    on_cpu = attack(net.cpu(), inputs.cpu(), labels.cpu())
    for name, value in vars(eager).items():
        for other in (recorded, again, on_cpu):
            torch.testing.assert_close(
                getattr(other, name).cpu(), value.cpu(), rtol=0, atol=1e-9, msg=name
            )


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_step_does_not_wait_for_the_gpu(on_gpu, cuda_graph):
    batch, waits = on_gpu(), []
    for num_steps in (10, 50):
        attack = SigmaZero(num_steps=num_steps, cuda_graph=cuda_graph)
        attack(*batch)  # libraries set themselves up
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                attack(*batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchronizing" in str(warning.message) for warning in caught))
    assert waits[0] == waits[1]


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_memory_does_not_grow_with_the_number_of_steps(on_gpu, cuda_graph):
    batch, peaks = on_gpu(), []
    for num_steps in (10, 10, 500):
        torch.cuda.reset_peak_memory_stats()
        SigmaZero(num_steps=num_steps, cuda_graph=cuda_graph)(*batch)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] <= 1.02 * peaks[1]


def test_a_graph_is_recorded_while_another_thread_pins_memory(on_gpu):
    batch, over = on_gpu(), threading.Event()

    def pin():
        size = 2**16
        while not over.is_set():
            torch.empty(size).pin_memory()
            size += 2**12  # a size that is not kept from before

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        for budget in (None, 1):  # rows that leave make another recording necessary
            SigmaZero(num_steps=60, budget=budget, cuda_graph=True)(*batch)
    finally:
        over.set()
        thread.join()


class Deciding(nn.Module):
    """Reads a value on the host, which cannot be recorded."""

    def forward(self, inputs):
        logits = inputs.flatten(1)[:, :4]
        return logits + 1 if logits.sum().item() > 0 else logits


def test_a_net_that_cannot_be_recorded_is_refused_in_one_line():
    inputs = torch.rand(8, 8, device="cuda")
    labels = inputs[:, :4].argmax(dim=1)
    with pytest.raises(InputError, match=r"^cannot record the net as a CUDA graph .*graph=false$"):
        SigmaZero(num_steps=10, cuda_graph=True)(Deciding(), inputs, labels)
    assert SigmaZero(num_steps=10)(Deciding(), inputs, labels).success.any()  # nothing is left


class Hungry(nn.Module):
    """256 MiB a sample."""

    def forward(self, inputs):
        return inputs.repeat(1, 2**23).exp().view(len(inputs), 4, -1).mean(dim=2)


def test_a_batch_that_does_not_fit_is_halved():
    net, inputs = Hungry(), torch.rand(64, 8, device="cuda")
    labels = net(inputs[:1]).argmax(dim=1).expand(64)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 12 * 2**30 / total))
    try:
        with pytest.raises(torch.OutOfMemoryError):
            net(inputs.clone().requires_grad_())
        result = SigmaZero(num_steps=2)(net, inputs, labels)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert result.adv_inputs.shape == inputs.shape
    assert (result.num_forwards > 0).all()


def test_half_precision_breaks_what_full_precision_breaks_as_sparsely(on_gpu):
    net, inputs, labels = on_gpu(dtype=torch.float32)
    full = SigmaZero(num_steps=100)(net, inputs, labels)
    half = SigmaZero(num_steps=100, autocast=True)(net, inputs, labels)
    assert torch.equal(full.success, half.success)
    assert (half.l0 - full.l0).abs().max() <= 2
