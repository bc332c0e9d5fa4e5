"""What a gauge's figures draw: lines, bars, cells and words."""

import numpy as np
import pytest
import torch
from figure_looks import overlapping_words, rendered, words_outside
from pace import slow_after

from sztrain.errors import InputError
from sztrain.evaluation.breakdown import ClassFigures
from sztrain.evaluation.figures import (
    class_l0_figure,
    epoch_curves_figure,
    figure_pixels,
    places_figure,
)

CURVES = {2: [(0, 0.9), (3, 0.9), (4, 0.4), (9, 0.0)], 0: [(0, 0.5), (2, 0.0), (9, 0.0)]}


def classes(*medians):
    return [
        ClassFigures(label=label, num_samples=4, median_l0=median, asr_inf=0.5)
        for label, median in enumerate(medians)
    ]


def test_each_epoch_has_its_curve_and_the_bar_says_which():
    figure = epoch_curves_figure(CURVES, "pixels", budgets=(24,))
    ax, bar = figure.axes
    first, last = (line for line in ax.lines if line.get_drawstyle() == "steps-post")
    np.testing.assert_allclose(first.get_xydata(), [(0, 50), (2, 0), (9, 0)])
    np.testing.assert_allclose(last.get_xydata(), [(0, 90), (3, 90), (4, 40), (9, 0)])
    assert first.get_color() != last.get_color()
    assert (ax.get_xlabel(), bar.get_ylabel()) == ("budget (changed pixels)", "epoch")
    assert ax.get_xlim()[1] > 24  # a marked budget is seen
    assert (bar.get_ylim()) == (0, 2)
    assert not overlapping_words(figure)
    assert not words_outside(figure)


def test_the_axis_ends_where_all_curves_have_come_down():
    long = {0: [(0, 1.0), (5, 1.0), (6, 0.0), (3072, 0.0)]}
    assert epoch_curves_figure(long, "features").axes[0].get_xlim()[1] == pytest.approx(6.6)
    one = epoch_curves_figure({0: [(0, 0.0)]}, "features")  # nothing is right, and a single epoch
    assert one.axes[0].get_xlim()[1] > 0


def test_bars_are_medians_and_a_class_that_resists_is_told_apart():
    figure = class_l0_figure(classes(3.0, float("inf"), 1.5), "features")
    (ax,) = figure.axes
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in ax.patches}
    assert (heights[0], heights[2]) == (3.0, 1.5)
    assert heights[1] > 3
    assert [text.get_text() for text in ax.texts] == ["∞"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2"]
    assert ax.get_ylabel() == "median ℓ0 (features)"
    assert not overlapping_words(figure)


@pytest.mark.parametrize("medians", slow_after(2, [[0.0], [float("inf")] * 3, [5.0] * 1000]))
def test_any_number_of_classes_can_be_read(medians):
    figure = class_l0_figure(classes(*medians), "pixels")
    assert not overlapping_words(figure)
    assert not words_outside(figure)


def test_a_heat_map_is_darkest_where_most_was_changed():
    figure = places_figure(torch.tensor([[0.0, 0.1], [0.2, 0.8]]))
    ax, bar = figure.axes
    colour_at = rendered(figure)
    sums = [sum(colour_at(ax, x, y)) for x, y in ((0, 0), (1, 0), (0, 1), (1, 1))]
    assert sums == sorted(sums, reverse=True)
    assert len(set(sums)) == 4
    assert bar.get_ylim() == pytest.approx((0, 80))
    assert not words_outside(figure)


@pytest.mark.parametrize("shape", [(28, 28), (20, 60), (60, 20)])
def test_images_of_any_form_have_room_for_the_words(shape):
    figure = places_figure(torch.zeros(shape))  # nothing was changed
    assert not overlapping_words(figure)
    assert not words_outside(figure)


def test_pixels_are_those_of_the_figure():
    pixels = figure_pixels(places_figure(torch.eye(2)), dpi=50)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert np.ptp(pixels) > 200


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: epoch_curves_figure({}, "features"), "at least 1 robustness curve"),
        (lambda: epoch_curves_figure(CURVES, "bytes"), "`unit` to be one of"),
        (lambda: class_l0_figure([], "features"), "at least 1 class"),
        (lambda: class_l0_figure(classes(1.0), "bytes"), "`unit` to be one of"),
        (lambda: places_figure(torch.zeros(3)), r"shape \(H, W\), got \(3,\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(InputError, match=message):
        draw()
