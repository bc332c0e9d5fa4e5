"""Several attacks on the same samples: every image, every word, and what marks a failure."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_examples import examples
from figure_looks import left_edges, overlapping_words, words_outside
from pace import slow_after

from sztrain.errors import InputError
from sztrain.evaluation.figures import attack_grid_figure

LONG = [f"soft-coated wheaten terrier {k}" for k in range(10)]


def words(ax):
    return [text.get_text() for text in ax.texts]


def other_attack():
    """Breaks the third sample of ``examples()`` instead of the first two."""
    batch = examples()
    adv_inputs = batch.inputs.clone()
    adv_inputs[2, 0, 1, :] = 0.0
    inf = torch.inf
    return replace(
        batch,
        adv_inputs=adv_inputs,
        adv_predictions=torch.tensor([5, 1, 9, 8]),
        l0=torch.tensor([inf, inf, 6.0, 0.0]),
    )


def grid():
    figure = attack_grid_figure({"σ-zero": examples(), "FMN": other_attack()}, "features")
    return [figure.axes[4 * row : 4 * row + 4] for row in range(3)]


def test_rows_are_named_and_every_cell_says_what_happened():
    rows = grid()
    assert [row[0].get_ylabel() for row in rows] == ["clean", "σ-zero", "FMN"]
    assert [[words(ax) for ax in row] for row in rows] == [
        [["5"], ["1"], ["2"], ["8 (label 3)"]],
        [["→ 3", "3 features"], ["→ 7", "1 feature"], ["not broken"], ["wrong from start"]],
        [["not broken"], ["not broken"], ["→ 9", "6 features"], ["wrong from start"]],
    ]


def test_cells_show_the_image_and_beside_it_the_change():
    rows, batch = grid(), examples()
    for i, ax in enumerate(rows[0]):
        (clean,) = ax.images
        np.testing.assert_allclose(clean.get_array(), batch.inputs[i, 0])
    adv, change = rows[1][0].images
    np.testing.assert_allclose(adv.get_array(), batch.adv_inputs[0, 0])
    delta = batch.adv_inputs[0, 0] - batch.inputs[0, 0]
    np.testing.assert_allclose(change.get_array().filled(0), delta)
    assert change.get_extent()[0] > adv.get_extent()[1]  # side by side
    assert change.get_extent()[2:] == adv.get_extent()[2:]
    np.testing.assert_allclose(rows[2][2].images[1].get_array().filled(0)[1], [-0.5] * 6)


def test_what_no_attack_changed_is_faded_red_and_without_a_change():
    for row in grid()[1:]:
        for ax in row:
            failed = len(words(ax)) == 1
            assert len(ax.images) == (1 if failed else 2)
            assert (ax.images[0].get_alpha() or 1) == (0.35 if failed else 1)
            assert {text.get_color() for text in ax.texts} == {"#D55E00" if failed else "black"}


def test_the_colour_bar_says_what_a_colour_means():
    def bar_of(**options):
        batch = examples(2, **options)
        return attack_grid_figure({"FMN": batch}, "features").axes[-1]

    bar = bar_of()
    assert [label.get_text() for label in bar.get_yticklabels()] == [
        "darkened by 1",
        "0",
        "brightened by 1",
    ]
    assert bar.get_ylabel() == ""
    assert bar_of(channels=3).get_ylabel() == "largest change\nof a channel"
    assert bar_of(channels=3, side=224).get_ylabel() == "largest change\nin 7 × 7 pixels"


@pytest.mark.parametrize(
    ("channels", "side", "attacks", "names"),
    slow_after(
        2,
        [
            (1, 28, 1, None),
            (3, 32, 1, LONG),
            (1, 28, 3, LONG),
            (3, 224, 1, None),
            (3, 224, 3, LONG),
        ],
    ),
)
def test_no_words_run_into_each_other(channels, side, attacks, names):
    batch = examples(channels=channels, side=side)
    batch = replace(batch, l0=torch.tensor([150_528.0, 1.0, torch.inf, 0.0]))
    figure = attack_grid_figure(
        {f"attack {i}": batch for i in range(attacks)}, "features", names, title="a net"
    )
    assert overlapping_words(figure) == []
    assert words_outside(figure) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples_stand_below_each_other_and_all_names_beside_them(count):
    batch = examples(count, side=28)
    attacks = {"sigma-zero": batch, "SparsePGD": batch}
    figure = attack_grid_figure(attacks, "features", title="M1 on mnist, N=100")
    assert words_outside(figure) == []
    assert len(left_edges(figure.axes[:-1:count])) == 1


@pytest.mark.parametrize("side", [28, 224])
def test_no_pixel_of_an_image_is_lost_at_150_dots_an_inch(side):
    figure = attack_grid_figure({"FMN": examples(1, channels=3, side=side)}, "features")
    figure.set_dpi(150)
    figure.draw_without_rendering()
    ax = figure.axes[1]
    left, right = ax.transData.transform([(-0.5, 0), (side - 0.5, 0)])[:, 0]
    assert right - left >= 0.95 * side


def test_at_most_so_many_samples_are_shown():
    batch = {"FMN": examples()}
    assert len(attack_grid_figure(batch, "features", max_examples=2).axes) == 2 * 2 + 1
    assert len(attack_grid_figure(batch, "features").axes) == 2 * 4 + 1


def test_what_cannot_stand_side_by_side_is_refused():
    one = examples()
    with pytest.raises(InputError, match="at least 1 attack"):
        attack_grid_figure({}, "features")
    for other in (
        replace(one, inputs=one.inputs / 2),
        replace(one, labels=one.labels + 1),
        examples(3),
    ):
        with pytest.raises(InputError, match="got others under EAD than under FMN"):
            attack_grid_figure({"FMN": one, "EAD": other}, "features")
    with pytest.raises(InputError, match=r"got shape \(4, 36\)"):
        attack_grid_figure({"FMN": replace(one, inputs=one.inputs.flatten(1))}, "features")
    with pytest.raises(InputError, match="unit"):
        attack_grid_figure({"FMN": one}, "voxels")
    with pytest.raises(InputError, match="max_examples"):
        attack_grid_figure({"FMN": one}, "features", max_examples=0)
