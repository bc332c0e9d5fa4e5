"""Robustness curves: the data of lines, marks and axes, and every label."""

import numpy as np
import pytest
import torch

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
