"""Clean, adversarial and changed images: every pixel and every caption."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_examples import examples
from figure_looks import left_edges, overlapping_words, words_outside
from pace import slow_after

from sztrain.errors import InputError
from sztrain.evaluation.figures import adversarial_examples_figure

LONG = [f"soft-coated wheaten terrier {k}" for k in range(10)]


def test_captions_say_what_happened_to_each_sample():
    figure = adversarial_examples_figure(examples(), unit="features")
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
    figure = adversarial_examples_figure(examples(2), unit="pixels", class_names=names)
    assert figure.axes[0].get_title() == "class 5 →\nsoft-coated wheat…\nℓ0 = 3 pixels"
    assert figure.axes[1].get_title() == "class 1 → class 7\nℓ0 = 1 pixel"


def test_rows_show_the_images_and_the_signed_change():
    batch = examples(2)
    figure = adversarial_examples_figure(batch, unit="features")
    images = [ax.images[0] for ax in figure.axes[:6]]
    clean, adv, change = images[0], images[2], images[4]
    np.testing.assert_allclose(clean.get_array(), batch.inputs[0, 0])
    np.testing.assert_allclose(adv.get_array(), batch.adv_inputs[0, 0])
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
    batch.adv_inputs[0, :, 2, 2] = torch.tensor([0.6, 0.1, 0.7])
    change = adversarial_examples_figure(batch, unit="pixels").axes[2].images[0].get_array()
    assert change[2, 2] == pytest.approx(-0.4)
    assert change[0, 0] == pytest.approx(0.5)


def test_one_pixel_of_a_large_image_stays_visible_at_its_place():
    batch = examples(1, channels=3, side=224)
    batch = replace(batch, adv_inputs=batch.inputs.clone())
    batch.adv_inputs[0, 1, 200, 20] = 0.0
    image = adversarial_examples_figure(batch, unit="features").axes[2].images[0]
    assert image.get_array().shape == (32, 32)
    assert [tuple(place) for place in np.argwhere(~image.get_array().mask)] == [(28, 2)]
    assert image.get_array()[28, 2] == pytest.approx(-0.5)
    assert tuple(image.get_extent()) == (-0.5, 223.5, 223.5, -0.5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples_stand_below_each_other_and_all_names_beside_them(count):
    figure = adversarial_examples_figure(examples(count, side=28), "features")
    assert words_outside(figure) == []
    assert len(left_edges(figure.axes[:-1:count])) == 1


@pytest.mark.parametrize(("max_examples", "columns"), [(1, 1), (3, 3), (8, 4)])
def test_at_most_so_many_samples_are_shown(max_examples, columns):
    figure = adversarial_examples_figure(examples(), unit="features", max_examples=max_examples)
    assert len(figure.axes) == 3 * columns + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.zeros(4, 36)}, r"got shape \(4, 36\)"),
        ({"inputs": torch.zeros(4, 2, 6, 6)}, r"C = 1 or 3, got shape \(4, 2, 6, 6\)"),
        ({"inputs": torch.zeros(0, 1, 6, 6)}, "at least 1 image"),
        ({"adv_inputs": torch.zeros(4, 1, 5, 5)}, r"got \(4, 1, 5, 5\)"),
        ({"l0": torch.zeros(3)}, r"shape \(4,\), got \(4,\), \(4,\), \(4,\), \(3,\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        adversarial_examples_figure(replace(examples(), **change), "features")


def test_captions_of_thousands_of_changes_stay_apart():
    many = replace(examples(), l0=torch.full_like(examples().l0, 2711.0))
    figure = adversarial_examples_figure(many, "features")
    assert not overlapping_words(figure)


def test_unit_and_number_of_columns_are_checked():
    with pytest.raises(InputError, match="unit"):
        adversarial_examples_figure(examples(), "voxels")
    with pytest.raises(InputError, match="max_examples"):
        adversarial_examples_figure(examples(), "features", max_examples=0)


@pytest.mark.parametrize(
    ("channels", "side", "names"),
    slow_after(2, [(1, 6, None), (1, 6, LONG), (3, 224, None), (3, 224, LONG)]),
)
def test_no_words_run_into_each_other(channels, side, names):
    batch = replace(
        examples(channels=channels, side=side), l0=torch.tensor([1024, 1, torch.inf, 0])
    )
    figure = adversarial_examples_figure(batch, "features", names)
    assert overlapping_words(figure) == []
    assert words_outside(figure) == []
