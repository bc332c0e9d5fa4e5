"""Robustness curves: the data of lines, marks and axes, and every label."""

import numpy as np
import pytest
import torch
from figure_looks import overlapping_words, words_outside

from sztrain.errors import InputError
from sztrain.evaluation.figures import COLOURS, robustness_curve_figure

FAST = np.array([0.9, 0.6, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
SLOW = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.25, 0.2, 0.2, 0.2, 0.2, 0.2])


def step_lines(ax):
    return [line for line in ax.lines if line.get_drawstyle() == "steps-post"]


def test_curves_are_drawn_in_percent_against_the_budget():
    ax = robustness_curve_figure({"FMN": FAST, "EAD": SLOW}, "features", title="digits").axes[0]
    assert ax.get_title() == "digits"
    assert ax.get_xlabel() == "budget (changed features)"
    assert ax.get_ylabel() == "robust accuracy (%)"
    fast, slow = step_lines(ax)
    np.testing.assert_allclose(fast.get_xdata(), range(11))
    np.testing.assert_allclose(fast.get_ydata(), 100 * FAST)
    np.testing.assert_allclose(slow.get_ydata(), 100 * SLOW.numpy(), rtol=1e-6)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["FMN", "EAD"]


def test_marked_budgets_show_their_robust_accuracy():
    figure = robustness_curve_figure({"FMN": FAST, "EAD": SLOW}, "pixels", budgets=[2, 5])
    ax = figure.axes[0]
    legend = ax.get_legend()
    assert legend.get_title().get_text() == "robust accuracy (%) at 2 / 5 pixels"
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["FMN (30.0 / 0.0)", "EAD (70.0 / 25.0)"]
    marks = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(marks, [(2, 30), (5, 0), (2, 70), (5, 25)], atol=1e-5)


def test_axis_ends_where_all_curves_have_fallen():
    assert 3 < robustness_curve_figure({"a": FAST}, "pixels").axes[0].get_xlim()[1] < 4
    both = robustness_curve_figure({"b": SLOW, "a": FAST}, "pixels").axes[0]
    assert 6 < both.get_xlim()[1] < 7
    assert robustness_curve_figure({"a": FAST}, "pixels", [9]).axes[0].get_xlim()[1] > 9


def test_a_budget_beyond_a_curve_takes_its_end():
    figure = robustness_curve_figure({"short": FAST[:3], "long": SLOW}, "features", [10])
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["short (30.0)", "long (20.0)"]


def test_many_curves_are_told_apart():
    curves = {f"net {i}": FAST for i in range(20)}
    lines = step_lines(robustness_curve_figure(curves, "features").axes[0])
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20
    assert {line.get_color() for line in lines} == set(COLOURS)


@pytest.mark.parametrize("count", [5, 18, 40])
def test_the_picture_is_as_high_as_its_legend(count):
    curves = {f"sigma-zero eta={i} step_rule=adam": SLOW for i in range(count)}
    figure = robustness_curve_figure(curves, "features", [1, 2, 5], "a net on MNIST, N=100")
    assert words_outside(figure) == []


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "at least 1 robustness curve"),
        ({"FMN": np.zeros((2, 2))}, r"of FMN .* got shape \(2, 2\)"),
        ({"FMN": np.zeros(0)}, r"of FMN .* got shape \(0,\)"),
        ({"FMN": np.array([90.0, 50.0])}, r"got shape \(2,\) and 50.0..90.0"),
        ({"FMN": np.array([np.nan])}, "of FMN"),
    ],
)
def test_what_is_no_curve_is_refused(curves, message):
    with pytest.raises(InputError, match=message):
        robustness_curve_figure(curves, "features")


def test_unit_and_budgets_of_curves_are_checked():
    with pytest.raises(InputError, match="unit"):
        robustness_curve_figure({"FMN": FAST}, "voxels")
    with pytest.raises(InputError, match="budget"):
        robustness_curve_figure({"FMN": FAST}, "features", [-1])


def test_the_success_rate_is_what_robust_accuracy_lacks():
    figure = robustness_curve_figure({"FMN": FAST, "EAD": SLOW}, "features", [2], measure="asr")
    ax = figure.axes[0]
    assert ax.get_ylabel() == "attack success rate (%)"
    fast, slow = step_lines(ax)
    np.testing.assert_allclose(fast.get_ydata(), 100 - 100 * FAST)
    np.testing.assert_allclose(slow.get_ydata(), 100 - 100 * SLOW.numpy(), rtol=1e-6)
    legend = ax.get_legend()
    assert legend.get_title().get_text() == "attack success rate (%) at 2 features"
    assert [text.get_text() for text in legend.get_texts()] == ["FMN (70.0)", "EAD (30.0)"]
    marks = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(marks, [(2, 70), (2, 30)], atol=1e-5)


def test_a_logarithmic_axis_begins_at_no_change_and_names_its_ticks_plainly():
    weak = np.concatenate([np.full(300, 0.9), np.zeros(500)])
    strong = np.concatenate([[0.9, 0.5], np.zeros(798)])
    ax = robustness_curve_figure({"weak": weak, "strong": strong}, "features", scale="log").axes[0]
    low, high = ax.get_xlim()
    assert low == 0
    assert 300 < high < 360
    ticks = {
        tick: label.get_text()
        for tick, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    }
    shown = [label for tick, label in ticks.items() if 0 <= tick <= high]
    assert shown == ["0", "1", "2", "5", "10", "20", "50", "100", "200"]
    places = ax.transData.transform([(1, 0), (10, 0), (100, 0)])[:, 0]
    assert places[2] - places[1] == pytest.approx(places[1] - places[0])


@pytest.mark.parametrize("title", [None, "M2"])
def test_a_long_legend_covers_no_curve(title):
    curves = {f"attack {i}": FAST for i in range(10)}
    figure = robustness_curve_figure(curves, "features", [2], title=title)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 10
    assert figure.axes[0].get_legend() is None
    box, plot = legend.get_window_extent(), figure.axes[0].get_window_extent()
    assert box.x0 > plot.x1
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("name", ["M1", "sigma-zero step_rule=sgd patience=250"])
def test_a_heading_that_is_too_long_takes_several_lines(count, name):
    options = "num_queries=2000 attacks=sigma_zero_sgd+sparse_rs budget=24"
    title = f"SparseAutoAttack {options}, N=1000, cifar10"
    curves = {f"{name} {i}": SLOW for i in range(count)}
    figure = robustness_curve_figure(curves, "features", [2], title)
    assert overlapping_words(figure) == []
    assert words_outside(figure) == []
    assert figure.axes[0].get_title().split() == title.split()


def test_curves_along_the_edges_are_seen_whole():
    ax = robustness_curve_figure({"never": np.ones(9), "at once": np.zeros(9)}, "pixels").axes[0]
    low, high = ax.get_ylim()
    assert low < 0
    assert high > 100


def test_unknown_measures_and_scales_are_refused():
    with pytest.raises(InputError, match="`measure` to be one of robust_accuracy, asr, got acc"):
        robustness_curve_figure({"FMN": FAST}, "features", measure="acc")
    with pytest.raises(InputError, match="`scale` to be one of linear, log, got symlog"):
        robustness_curve_figure({"FMN": FAST}, "features", scale="symlog")
