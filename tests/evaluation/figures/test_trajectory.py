"""The way over the decision regions: every point of it, and the colour of the ground."""

import numpy as np
import pytest
import torch
from figure_looks import overlapping_words, rendered, words_outside
from matplotlib.colors import to_rgb
from torch import nn

from sztrain.attacks import SigmaZero
from sztrain.errors import InputError
from sztrain.evaluation.figures import trajectory_figure
from sztrain.evaluation.figures.style import ADVERSARIAL, CORRECT
from sztrain.evaluation.toy import CENTRE, RADIUS, START, toy_problem
from sztrain.evaluation.trace import trace_attack


@pytest.fixture(scope="module")
def toy():
    net, attack, inputs, labels = toy_problem()
    return net, trace_attack(net, attack, inputs, labels, keep="all")


def named_lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_every_iterate_is_drawn_in_the_colour_of_its_step(toy):
    net, trace = toy
    ax, bar = trajectory_figure(net, trace, title="two features").axes
    assert ax.get_title() == "two features"
    (steps,) = [found for found in ax.collections if len(found.get_offsets()) == 41]
    np.testing.assert_allclose(steps.get_offsets(), trace.iterates)
    assert steps.get_array().tolist() == list(range(41))
    assert bar.get_ylabel() == "step"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("feature 1", "feature 2")
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)
    ways = [line for line in ax.lines if len(line.get_xdata()) == 41]
    np.testing.assert_allclose(ways[0].get_xydata(), trace.iterates)


def test_start_and_sparsest_example_are_marked_and_named(toy):
    net, trace = toy
    figure = trajectory_figure(net, trace)
    lines = named_lines(figure.axes[0])
    start = lines["x, the sample"]
    end = lines[f"x*, sparsest adversarial example: ℓ0 = 1, step {trace.sparsest_step}"]
    np.testing.assert_allclose(start.get_xydata(), [START])
    np.testing.assert_allclose(end.get_xydata(), trace.result.adv_inputs)
    assert start.get_marker() != end.get_marker()
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    x, y = trace.inputs[0].tolist()
    assert [dashed[0].get_xdata(), dashed[1].get_ydata()] == [[x, x], [y, y]]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "one feature unchanged: ℓ0 = 1" in words
    assert words[-2:] == ["not adversarial", "adversarial"]


@pytest.mark.parametrize("targeted", [False, True])
def test_the_ground_says_what_the_net_decides(targeted):
    net, _, inputs, _ = toy_problem()
    attack = SigmaZero(num_steps=5, eta=0.05, tau=0.02, targeted=targeted)
    labels = torch.tensor([1 if targeted else 0])
    trace = trace_attack(net, attack, inputs, labels, keep="all")
    figure = trajectory_figure(net, trace)
    colour_at = rendered(figure)
    for angle in np.linspace(np.pi / 2, 3 * np.pi / 2, 7):  # what of the circle is in the picture
        for share, ground in ((0.93, ADVERSARIAL), (1.07, CORRECT)):
            x = CENTRE[0] + share * RADIUS * np.cos(angle)
            y = CENTRE[1] + share * RADIUS * np.sin(angle)
            if y < 1 and abs(x - START[0]) > 0.02 and abs(y - START[1]) > 0.02:
                expected = tuple(round(255 * value) for value in to_rgb(ground))
                assert colour_at(figure.axes[0], x, y) == expected


def test_no_words_run_into_each_other(toy):
    figure = trajectory_figure(*toy, title="two features")
    assert overlapping_words(figure) == []
    assert words_outside(figure) == []


def test_other_traces_are_refused(toy):
    net, attack, inputs, labels = toy_problem()
    with pytest.raises(InputError, match=r'all 41 iterates, got 2: trace with keep="all"'):
        trajectory_figure(net, trace_attack(net, attack, inputs, labels))
    wide = nn.Linear(3, 2)
    trace = trace_attack(wide, attack, torch.rand(1, 3), torch.tensor([0]), keep="all")
    with pytest.raises(InputError, match=r"two features, .* got shape \(1, 3\)"):
        trajectory_figure(wide, trace)
