"""Moments of an attack on an image: which ones, their pixels and their captions."""

import numpy as np
import pytest
import torch
from figure_looks import overlapping_words, words_outside
from torch import nn

from sztrain.attacks import SigmaZero
from sztrain.errors import InputError
from sztrain.evaluation.figures import moments_figure
from sztrain.evaluation.trace import trace_attack

LONG = ["soft-coated wheaten terrier", "tailed frog, bell toad"] * 2


def trace_of(channels=1, side=12, keep="improvements", wrong=False, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        size = channels * side * side
        net = nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, 4))
        inputs = torch.rand(1, channels, side, side)
    labels = (net(inputs).argmax(dim=1) + int(wrong)) % 4
    return trace_attack(net, SigmaZero(**{"num_steps": 30, **options}), inputs, labels, keep)


def test_first_halfway_and_sparsest_example_stand_beside_the_clean_image():
    trace = trace_of()
    steps = trace.improvements
    assert len(steps) > 4
    figure = moments_figure(trace, title="a net")
    assert figure.get_suptitle() == "a net"
    above, below = figure.axes[:4], figure.axes[4:8]
    shown = [steps[0], steps[len(steps) // 2], steps[-1]]
    images = [trace.inputs[0, 0], *(trace.iterate(step)[0, 0] for step in shown)]
    for image, ax, changed in zip(images, above, below, strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), image)
        change = changed.images[0].get_array()
        np.testing.assert_allclose(change.filled(0), image - trace.inputs[0, 0])
    clean = int(trace.predictions[0])
    first, *titles = [ax.get_title() for ax in above]
    assert first == f"clean\n{clean}"
    for step, title in zip(shown, titles, strict=True):
        seen, l0 = int(trace.predictions[step]), int(trace.l0[step])
        counted = "1 feature" if l0 == 1 else f"{l0} features"
        assert title == f"step {step}\n{clean} → {seen}\nℓ0 = {counted}"
    assert (above[0].get_ylabel(), below[0].get_ylabel()) == ("image", "changed")


def test_steps_can_be_chosen_and_one_that_is_not_adversarial_has_no_arrow():
    trace = trace_of(keep="all")
    other = int((~trace.adversarial).nonzero()[-1])
    figure = moments_figure(trace, steps=[other], class_names=["a", "b", "c", "d"])
    name = "abcd"[trace.predictions[0]]
    assert figure.axes[1].get_title() == f"step {other}\n{name}\nℓ0 = {trace.l0[other]:g} features"
    assert len(figure.axes) == 2 * 2 + 1


@pytest.mark.parametrize(("channels", "side"), [(1, 12), (3, 12), (3, 64)])
def test_long_names_do_not_run_into_each_other(channels, side):
    figure = moments_figure(trace_of(channels, side), class_names=LONG, title="a net")
    assert overlapping_words(figure) == []
    assert words_outside(figure) == []


def test_what_was_changed_in_pixels_is_counted_in_pixels():
    figure = moments_figure(trace_of(3, unit="pixels", tau=0.5))
    assert figure.axes[1].get_title().endswith(" pixels")


def test_a_sample_wrong_from_the_start_has_no_further_moment():
    figure = moments_figure(trace_of(wrong=True))
    assert len(figure.axes) == 2 + 1


def test_what_has_no_moments_is_refused():
    with pytest.raises(InputError, match="an adversarial example, or `steps` to show, got neither"):
        moments_figure(trace_of(num_steps=1, eta=1e-6, tau=1.0))
    with pytest.raises(InputError, match=r"was kept .* got 29"):
        moments_figure(trace_of(), steps=[29])
    net = nn.Linear(4, 2)
    table = trace_attack(net, SigmaZero(num_steps=3), torch.rand(1, 4), torch.tensor([0]))
    with pytest.raises(InputError, match=r"`trace.inputs` .* got shape \(1, 4\)"):
        moments_figure(table)
