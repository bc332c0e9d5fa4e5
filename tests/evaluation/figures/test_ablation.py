"""Matrices of an ablation: numbers, order, and colours that mean what they say."""

from dataclasses import replace

import numpy as np
import pytest
from figure_looks import contrast, overlapping_words, words_outside
from matplotlib.colors import to_rgb

from sztrain.errors import InputError
from sztrain.evaluation.figures import AblationCell, ablation_figure

SIGMAS, TAUS = (1e-4, 1e-2, 1.0), (0.0, 0.3, 0.9, 0.5)
INF = float("inf")


def cells(net="M1"):
    """Each with figures of its own, in no order."""
    return [
        AblationCell(
            net=net,
            sigma=sigma,
            tau=tau,
            asr_inf=(1 + i + 3 * k) / 12,
            median_l0=2.0 ** (i + k),
            mean_l0=2.0 ** (i + k) + 0.26,
        )
        for k, tau in enumerate(TAUS)
        for i, sigma in enumerate(SIGMAS)
        if (sigma, tau) != (1.0, 0.5)
    ]


def entry(ax, sigma, tau):
    """Words, their colour and the ground of a cell, by the labels of the axes."""
    column = [label.get_text() for label in ax.get_xticklabels()].index(f"{tau:g}")
    row = [label.get_text() for label in ax.get_yticklabels()].index(f"{sigma:g}")
    ground = tuple(float(value) for value in ax.images[0].get_array()[row, column])
    found = [text for text in ax.texts if text.get_position() == (column, row)]
    return found[0].get_text() if found else None, found[0].get_color() if found else None, ground


def test_every_pair_has_its_figures_in_its_place():
    asr, l0 = ablation_figure(cells(), title="an ablation").axes
    for cell in cells():
        written = f"{100 * cell.asr_inf:.1f}".removesuffix(".0")
        assert entry(asr, cell.sigma, cell.tau)[0] == written
        assert entry(l0, cell.sigma, cell.tau)[0] == f"{cell.median_l0:g}"
    assert [label.get_text() for label in asr.get_xticklabels()] == ["0", "0.3", "0.5", "0.9"]
    assert [label.get_text() for label in asr.get_yticklabels()] == ["0.0001", "0.01", "1"]
    assert asr.transData.transform((0, 2))[1] > asr.transData.transform((0, 0))[1]  # σ upwards
    assert (asr.get_xlabel(), asr.get_ylabel()) == ("τ0", "σ")
    assert (asr.get_title(), l0.get_title()) == ("M1\nASR∞ (%)", "M1\nmedian ℓ0 (features)")
    assert asr.figure.get_suptitle() == "an ablation"


def test_the_mean_stands_there_where_it_is_asked_for():
    ax = ablation_figure(cells(), "pixels", statistic="mean").axes[1]
    assert ax.get_title() == "M1\nmean ℓ0 (pixels)"
    assert entry(ax, 1.0, 0.0)[0] == "4.3"


def test_several_nets_are_rows_in_the_order_they_came_in():
    axes = ablation_figure(cells("M2") + cells("C9")).axes
    assert [ax.get_title().partition("\n")[0] for ax in axes] == ["M2", "M2", "C9", "C9"]


def test_numbers_can_be_read_on_their_ground_and_brighter_is_better_for_the_attack():
    for which, ax in enumerate(ablation_figure(cells()).axes):
        shown = []
        for cell in cells():
            _, ink, ground = entry(ax, cell.sigma, cell.tau)
            assert contrast(to_rgb(ink), ground) >= 4.5
            goodness = (cell.asr_inf, -cell.median_l0)[which]
            shown.append((goodness, contrast(ground, (0, 0, 0))))
        brightness = [value for _, value in sorted(shown)]
        assert np.all(np.diff(brightness) >= -1e-9)
        assert brightness[-1] > 4 * brightness[0]


def test_what_hardly_differs_looks_alike():
    pair = cells()[:2]
    near = [replace(pair[0], median_l0=20.0), replace(pair[1], median_l0=21.0)]
    far = [replace(pair[0], median_l0=20.0), replace(pair[1], median_l0=40.0)]

    def distance(two):
        ax = ablation_figure(two).axes[1]
        grounds = [np.array(entry(ax, cell.sigma, cell.tau)[2]) for cell in two]
        return np.abs(grounds[0] - grounds[1]).max()

    assert distance(near) < 0.25
    assert distance(far) > 0.7


def test_what_was_not_run_is_empty_and_grey():
    ax = ablation_figure(cells()).axes[0]
    words, _, ground = entry(ax, 1.0, 0.5)
    assert words is None
    assert ground[0] == ground[1] == ground[2]


def test_an_infinite_median_and_a_median_of_0_have_the_ends_of_the_scale():
    first, second, *rest = cells()
    ax = ablation_figure([replace(first, median_l0=INF), replace(second, median_l0=0.0), *rest])
    ax = ax.axes[1]
    words, ink, ground = entry(ax, first.sigma, first.tau)
    assert (words, ink) == ("∞", "white")
    assert contrast(ground, (0, 0, 0)) < 1.5
    assert entry(ax, second.sigma, second.tau)[0] == "0"
    ablation_figure([replace(first, median_l0=INF)]).draw_without_rendering()


@pytest.mark.parametrize("count", [1, 3, 11])
def test_no_words_run_into_each_other(count):
    some = [replace(cell, median_l0=1234.5) for cell in cells("a net of many words")[:count]]
    figure = ablation_figure(some, title="an ablation")
    assert overlapping_words(figure) == []
    assert words_outside(figure) == []


def test_a_heading_that_is_too_long_takes_several_lines():
    options = "num_steps=1000 budget=784 patience=1000 autocast=True batch_size=1000"
    title = f"σ-zero with the plain step {options}, N=1000, 10000 images a data set"
    figure = ablation_figure(cells(), title=title)
    assert words_outside(figure) == []
    assert overlapping_words(figure) == []
    assert figure.get_suptitle().split() == title.split()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asr_inf": 98.0}, r"`asr_inf` of M1 at sigma=0.0001, tau=0 in \[0, 1\], got 98.0"),
        ({"median_l0": -1.0}, "`median_l0` and `mean_l0` of M1 .* got -1.0 and"),
        ({"mean_l0": float("nan")}, "got 1.0 and nan"),
    ],
)
def test_impossible_figures_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        ablation_figure([replace(cells()[0], **change)])


def test_what_is_no_ablation_is_refused():
    with pytest.raises(InputError, match="at least 1 cell"):
        ablation_figure([])
    with pytest.raises(InputError, match=r"one cell for M1 at sigma=0\.0001, tau=0, got two"):
        ablation_figure([cells()[0], cells()[0]])
    with pytest.raises(InputError, match="`statistic` to be one of median, mean, got mode"):
        ablation_figure(cells(), statistic="mode")
    with pytest.raises(InputError, match="`unit`"):
        ablation_figure(cells(), unit="voxels")
