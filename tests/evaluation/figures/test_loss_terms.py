"""Loss terms of a run: lines, shades, marks and both scales, against the trace they show."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from figure_looks import overlapping_words, rendered, words_outside
from torch import nn

from sztrain.attacks import SigmaZero
from sztrain.errors import InputError
from sztrain.evaluation.figures import loss_terms_figure
from sztrain.evaluation.trace import trace_attack


@pytest.fixture(scope="module")
def trace():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Flatten(), nn.Linear(300, 16), nn.Tanh(), nn.Linear(16, 4))
        inputs = torch.rand(1, 3, 10, 10)
    found = trace_attack(net, SigmaZero(num_steps=60), inputs, net(inputs).argmax(dim=1))
    assert 0 < found.adversarial.sum() < 61
    return found


def test_the_loss_stands_above_the_penalty_in_percent(trace):
    figure = loss_terms_figure(trace, title="a net")
    above, below = figure.axes
    assert above.get_title() == "a net"
    assert above.get_ylabel() == r"loss $\mathcal{L}$ (logits)"
    assert below.get_ylabel() == r"$\hat{\ell}_0\,/\,d$ (%)"
    assert below.get_xlabel() == "step"
    np.testing.assert_allclose(above.lines[0].get_xdata(), range(61))
    np.testing.assert_allclose(above.lines[0].get_ydata(), trace.loss)
    np.testing.assert_allclose(below.lines[0].get_xdata(), range(1, 61))  # at step 0 it is 0
    np.testing.assert_allclose(below.lines[0].get_ydata(), 100 * trace.penalty[1:])
    assert below.get_yscale() == "log"
    assert above.get_ylim()[0] == 0
    assert above.get_xlim() == below.get_xlim() == (-0.5, 60.5)


def test_the_second_scale_counts_what_the_first_gives_in_percent(trace):
    below = loss_terms_figure(trace).axes[1]
    (right,) = below.child_axes
    assert right.get_ylabel() == "changed features"
    below.figure.draw_without_rendering()
    np.testing.assert_allclose(right.get_ylim(), np.multiply(below.get_ylim(), 300 / 100))
    pixels = replace(trace, attack=SigmaZero(num_steps=60, unit="pixels"))
    (right,) = loss_terms_figure(pixels).axes[1].child_axes
    right.figure.draw_without_rendering()
    assert right.get_ylabel() == "changed pixels"
    assert right.get_ylim()[1] == pytest.approx(below.get_ylim()[1])  # 100 units: percent


def test_steps_at_which_the_iterate_is_adversarial_are_shaded_and_no_others(trace):
    figure = loss_terms_figure(trace)
    figure.set_dpi(200)
    colour_at = rendered(figure)
    for ax in figure.axes:
        above_the_curve = ax.transAxes.transform((0, 0.98))
        bare = ax.transData.inverted().transform(above_the_curve)[1]
        for side in (-0.3, 0.3):
            seen = [colour_at(ax, step + side, bare) for step in range(61)]
            assert [colour != (255, 255, 255) for colour in seen] == trace.adversarial.tolist()


def test_a_star_marks_the_sparsest_adversarial_example(trace):
    figure = loss_terms_figure(trace)
    (star,) = [line for line in figure.axes[1].lines if line.get_marker() == "*"]
    step, share = star.get_xydata()[0]
    l0 = trace.result.l0.item()
    assert step == trace.sparsest_step
    assert share == pytest.approx(100 * l0 / 300)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == [
        "adversarial",
        f"sparsest adversarial example: {l0:g} features, step {trace.sparsest_step}",
    ]


def test_a_run_without_an_adversarial_example_has_neither_shade_nor_star(trace):
    never = replace(trace, adversarial=torch.zeros_like(trace.adversarial))
    figure = loss_terms_figure(never)
    assert not [line for line in figure.axes[1].lines if line.get_marker() == "*"]
    figure.draw_without_rendering()


def test_a_run_that_changed_nothing_is_refused():
    net = nn.Linear(4, 2)
    inputs = torch.full((1, 4), 0.5)
    wrong = trace_attack(net, SigmaZero(num_steps=5), inputs, net(inputs).argmin(dim=1))
    with pytest.raises(InputError, match=r"got 0 steps .* wrong from the start"):
        loss_terms_figure(wrong)


def test_no_words_run_into_each_other(trace):
    figure = loss_terms_figure(trace, title="a net")
    assert overlapping_words(figure) == []
    assert words_outside(figure) == []
