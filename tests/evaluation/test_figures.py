"""What figures contain: the data of lines, the pixels of images, and every label."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from sztrain.errors import InputError
from sztrain.evaluation.figures import (
    COLOURS,
    adversarial_examples_figure,
    robustness_curve_figure,
    save_figure,
)

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


def examples(count=4, *, channels=1, side=6):
    """Samples broken at l0 = 3 and 1, one never broken, and one wrong from the start."""
    inputs = torch.full((count, channels, side, side), 0.5)
    adv_inputs = inputs.clone()
    adv_inputs[0, 0, 0, :3] = torch.tensor([1.0, 0.25, 0.0])
    adv_inputs[1:2, 0, 5, 5] = 0.75
    return {
        "inputs": inputs,
        "adv_inputs": adv_inputs,
        "labels": torch.tensor([5, 1, 2, 3])[:count],
        "clean_predictions": torch.tensor([5, 1, 2, 8])[:count],
        "adv_predictions": torch.tensor([3, 7, 2, 8])[:count],
        "l0": torch.tensor([3.0, 1.0, torch.inf, 0.0])[:count],
    }


def test_captions_say_what_happened_to_each_sample():
    figure = adversarial_examples_figure(**examples(), unit="features")
    assert [ax.get_title() for ax in figure.axes[:4]] == [
        "5 → 3\nℓ0 = 3 features",
        "1 → 7\nℓ0 = 1 feature",
        "2\nnot broken",
        "8 (label 3)\nwrong from start",
    ]
    assert [figure.axes[4 * row].get_ylabel() for row in range(3)] == [
        "clean",
        "adversarial",
        "changed",
    ]


def test_class_names_stand_in_captions_and_long_ones_are_cut():
    names = [f"class {k}" for k in range(10)]
    names[3] = "soft-coated wheaten terrier"
    figure = adversarial_examples_figure(**examples(2), unit="pixels", class_names=names)
    assert figure.axes[0].get_title() == "class 5 →\nsoft-coated wheat…\nℓ0 = 3 pixels"
    assert figure.axes[1].get_title() == "class 1 → class 7\nℓ0 = 1 pixel"


def test_rows_show_the_images_and_the_signed_change():
    batch = examples(2)
    figure = adversarial_examples_figure(**batch, unit="features")
    images = [ax.images[0] for ax in figure.axes[:6]]
    clean, adv, change = images[0], images[2], images[4]
    np.testing.assert_allclose(clean.get_array(), batch["inputs"][0, 0])
    np.testing.assert_allclose(adv.get_array(), batch["adv_inputs"][0, 0])
    np.testing.assert_allclose(change.get_array()[0, :3].data, [0.5, -0.25, -0.5])
    assert change.get_array().mask.sum() == 36 - 3  # unchanged features are not painted
    assert change.get_clim() == (-1, 1)
    darkened, brightened = change.cmap(change.norm([-0.01, 0.01]))
    assert darkened[2] > darkened[0]  # blue
    assert brightened[0] > brightened[2]  # orange
    labels = [label.get_text() for label in figure.axes[-1].get_yticklabels()]
    assert labels == ["darkened by 1", "0", "brightened by 1"]


def test_of_a_colour_image_the_most_changed_channel_is_shown():
    batch = examples(1, channels=3)
    batch["adv_inputs"][0, :, 2, 2] = torch.tensor([0.6, 0.1, 0.7])
    change = adversarial_examples_figure(**batch, unit="pixels").axes[2].images[0].get_array()
    assert change[2, 2] == pytest.approx(-0.4)
    assert change[0, 0] == pytest.approx(0.5)


def test_one_pixel_of_a_large_image_stays_visible_at_its_place():
    batch = examples(1, channels=3, side=224)
    batch["adv_inputs"] = batch["inputs"].clone()
    batch["adv_inputs"][0, 1, 200, 20] = 0.0
    image = adversarial_examples_figure(**batch, unit="features").axes[2].images[0]
    assert image.get_array().shape == (32, 32)
    assert [tuple(place) for place in np.argwhere(~image.get_array().mask)] == [(28, 2)]
    assert image.get_array()[28, 2] == pytest.approx(-0.5)
    assert tuple(image.get_extent()) == (-0.5, 223.5, 223.5, -0.5)


@pytest.mark.parametrize(("max_examples", "columns"), [(1, 1), (3, 3), (8, 4)])
def test_at_most_so_many_samples_are_shown(max_examples, columns):
    figure = adversarial_examples_figure(**examples(), unit="features", max_examples=max_examples)
    assert len(figure.axes) == 3 * columns + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.zeros(4, 36)}, r"got shape \(4, 36\)"),
        ({"inputs": torch.zeros(4, 2, 6, 6)}, r"C = 1 or 3, got shape \(4, 2, 6, 6\)"),
        ({"inputs": torch.zeros(0, 1, 6, 6)}, "at least 1 image"),
        ({"adv_inputs": torch.zeros(4, 1, 5, 5)}, r"got \(4, 1, 5, 5\)"),
        ({"l0": torch.zeros(3)}, r"shape \(4,\), got \(4,\), \(4,\), \(4,\), \(3,\)"),
        ({"unit": "voxels"}, "unit"),
        ({"max_examples": 0}, "max_examples"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        adversarial_examples_figure(**{"unit": "features", **examples(), **change})


def test_figure_is_written_whole_and_leaves_nothing_else(tmp_path):
    figure = robustness_curve_figure({"σ-zero": FAST}, "features", [2])
    path = save_figure(figure, tmp_path / "curves" / "net.png", dpi=100)
    assert imread(path).shape[:2] == (430, 700)
    assert [file.name for file in path.parent.iterdir()] == ["net.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.png"
    path.write_bytes(b"old")

    def fail(self, target, **kwargs):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure(Figure(), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["net.png"]


def test_an_unknown_format_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match=r"got curve\.doc"):
        save_figure(Figure(), tmp_path / "new" / "curve.doc")
    assert list(tmp_path.iterdir()) == []
