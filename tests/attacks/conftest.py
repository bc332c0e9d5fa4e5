"""Nets to attack, and instruments that look at a net from outside while it is attacked."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn


class FrozenBatchNorm(nn.BatchNorm2d):
    """A BatchNorm that nobody may switch."""

    def train(self, mode=True):
        raise RuntimeError("this layer is frozen")


class ConvNet(nn.Module):
    """A small net with what an attack could disturb: dropout, running statistics, a frozen layer.

    All flags are set by hand, since ``train()`` of the frozen layer refuses.
    """

    def __init__(self, channels, size, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.5)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.frozen = FrozenBatchNorm(6)
        self.head = nn.Linear(6 * size * size, num_classes)

    def forward(self, inputs):
        hidden = self.dropout(self.norm(self.conv(inputs)).relu())
        return self.head(self.frozen(self.second(hidden)).relu().flatten(1))


def set_flags(net, training):
    for module in net.modules():
        module.training = training


def logits_in_eval(net, inputs):
    """What the net says of ``inputs``, found out without the code under test."""
    flags = {module: module.training for module in net.modules()}
    set_flags(net, training=False)
    with torch.inference_mode(False), torch.no_grad():
        logits = net(inputs.clone())
    for module, training in flags.items():
        module.training = training
    return logits


@dataclass
class Batch:
    """A net in eval mode, inputs, and labels of which ``num_wrong`` are not the prediction."""

    net: nn.Module
    inputs: torch.Tensor
    labels: torch.Tensor
    wrong: torch.Tensor


@pytest.fixture
def make_batch():
    def make(
        *, shape=(3, 5, 5), num_samples=6, num_classes=4, num_wrong=1, seed=0, dtype=torch.float64
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = ConvNet(shape[0], shape[1], num_classes)
            for norm in (net.norm, net.frozen):
                norm.running_mean.normal_(std=0.1)
                norm.running_var.uniform_(0.5, 1.5)
            inputs = torch.rand(num_samples, *shape, dtype=dtype)
        net = net.to(dtype)
        set_flags(net, training=False)
        labels = logits_in_eval(net, inputs).argmax(dim=1)
        wrong = torch.arange(num_samples) < num_wrong
        labels = torch.where(wrong, (labels + 1) % num_classes, labels)
        return Batch(net, inputs, labels, wrong)

    return make


@dataclass
class Spy:
    """What passed through a net, pass by pass."""

    inputs: list = field(default_factory=list)
    logits: list = field(default_factory=list)
    backward_rows: list = field(default_factory=list)

    @property
    def forward_rows(self):
        return [len(inputs) for inputs in self.inputs]

    def attach(self, net):
        def before(module, args):
            (inputs,) = args
            self.inputs.append(inputs.detach().clone())
            if inputs.requires_grad:
                inputs.register_hook(lambda gradient: self.backward_rows.append(len(gradient)))

        def after(module, args, logits):
            self.logits.append(logits.detach().clone())

        net.register_forward_pre_hook(before)
        net.register_forward_hook(after)
        return self


@pytest.fixture
def spy_on():
    return lambda net: Spy().attach(net)


@pytest.fixture
def in_eval():
    return logits_in_eval
