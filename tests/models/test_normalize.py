import copy

import pytest
import torch
from torch import nn

from sztrain.errors import InputError
from sztrain.models import Normalize, normalization, normalized


def test_each_channel_gets_its_own_numbers():
    inputs = torch.rand(4, 3, 5, 6)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    outputs = Normalize(mean, std)(inputs)
    for channel in range(3):
        expected = (inputs[:, channel] - mean[channel]) / std[channel]
        torch.testing.assert_close(outputs[:, channel], expected)


def test_is_not_part_of_the_state_dict_but_moves_with_the_net():
    layer = Normalize([0.5], [0.5])
    assert list(layer.state_dict()) == []
    assert layer.double()(torch.ones(1, 1, 2, 2, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("channels", [1, 2])
def test_a_grey_image_does_not_become_a_colour_image(channels):
    with pytest.raises(InputError, match=f"of 3 channels, .* got {channels}"):
        Normalize([0.5] * 3, [0.25] * 3)(torch.zeros(2, channels, 4, 4))


def test_normalized_wraps_or_leaves_alone():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    assert normalized(net, None, None, in_channels=3) is net
    wrapped = normalized(net, [0.5] * 3, [0.25] * 3, in_channels=3)
    inputs = torch.rand(2, 3, 2, 2)
    torch.testing.assert_close(wrapped(inputs), net((inputs - 0.5) / 0.25))
    assert list(wrapped.state_dict()) == ["net.1.weight", "net.1.bias"]
    torch.testing.assert_close(copy.deepcopy(wrapped)(inputs), wrapped(inputs))


@pytest.mark.parametrize(
    ("mean", "std", "match"),
    [
        ([0.5], None, "got `mean` without `std`"),
        (None, [0.5], "got `std` without `mean`"),
        ([0.5], [0.5], "each of 3 channels, got 1"),
        ([0.5] * 3, [0.5] * 2, "equally long, got 3 and 2"),
        ([0.5] * 3, [0.5, 0.5, 0.0], "above 0"),
        ([0.5] * 3, [0.5, 0.5, float("nan")], "`std` to be a list of one number"),
        (["a"] * 3, [0.5] * 3, "`mean` to be a list of one number"),
        (0.5, [0.5] * 3, "`mean` to be a list of one number"),
    ],
)
def test_refuses(mean, std, match):
    with pytest.raises(InputError, match=match):
        normalization(mean, std, in_channels=3)
