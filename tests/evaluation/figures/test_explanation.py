"""What the figure of obscuring and leading changes shows, read back from its axes."""

import pytest
import torch
from figure_looks import overlapping_words, words_outside
from matplotlib.colors import to_hex, to_rgba

from sztrain.errors import InputError
from sztrain.evaluation.figures import KIND_COLOURS, explanation_figure
from sztrain.metrics.saliency import NoiseLabels

LABELS, TARGETS = torch.tensor([3, 1]), torch.tensor([5, 0])


def kinds_of(size, **pixels):
    """Masks for two samples with the named pixels of the first one set."""
    masks = {name: torch.zeros(2, size, size, dtype=torch.bool) for name in NoiseLabels._fields}
    for name, positions in pixels.items():
        for row, column in positions:
            masks[name][0, row, column] = True
    return NoiseLabels(**masks)


def drawn_cells(ax):
    """Colours by cell of what is drawn over the image."""
    overlay = ax.get_images()[1].get_array()
    return {
        (row, column): to_hex(overlay[row, column]).upper()
        for row in range(overlay.shape[0])
        for column in range(overlay.shape[1])
        if overlay[row, column, 3] > 0
    }


def test_every_change_has_the_colour_of_its_kind():
    kinds = kinds_of(6, obscuring=[(0, 1), (2, 2)], leading=[(5, 0)], neutral=[(3, 4)])
    figure = explanation_figure(torch.rand(2, 1, 6, 6), kinds, LABELS, TARGETS)
    assert len(figure.axes) == 4
    assert [ax.get_title() for ax in figure.axes[:2]] == ["3 → 5", "1 → 0"]
    assert drawn_cells(figure.axes[2]) == {
        (0, 1): KIND_COLOURS["obscuring"],
        (2, 2): KIND_COLOURS["obscuring"],
        (5, 0): KIND_COLOURS["leading"],
        (3, 4): KIND_COLOURS["neutral"],
    }
    assert drawn_cells(figure.axes[3]) == {}
    (legend,) = figure.legends
    named = {
        text.get_text(): patch.get_facecolor()
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    assert named == {name: to_rgba(colour) for name, colour in KIND_COLOURS.items()}


def test_a_block_of_a_large_image_has_the_colour_of_most_of_its_changes():
    kinds = kinds_of(96, obscuring=[(0, 0)], leading=[(1, 1), (2, 2), (95, 95)])
    figure = explanation_figure(torch.rand(2, 3, 96, 96), kinds, LABELS, TARGETS, max_examples=1)
    assert drawn_cells(figure.axes[1]) == {
        (0, 0): KIND_COLOURS["leading"],
        (31, 31): KIND_COLOURS["leading"],
    }


def test_maps_stand_below_where_they_are_given():
    kinds, maps = kinds_of(6), torch.rand(2, 1, 6, 6)
    figure = explanation_figure(
        torch.rand(2, 3, 6, 6),
        kinds,
        LABELS,
        TARGETS,
        label_maps=maps,
        target_maps=1 - maps,
        class_names=[f"class {k}" for k in range(6)],
    )
    assert len(figure.axes) == 8
    assert figure.axes[0].get_title() == "class 3 → class 5"
    for row, expected in ((2, maps), (3, 1 - maps)):
        for column in range(2):
            shown = figure.axes[2 * row + column].get_images()[1].get_array()
            torch.testing.assert_close(torch.as_tensor(shown.data), expected[column, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.rand(2, 36)}, "expected `inputs` to be at least 1 image of shape .*"),
        ({"inputs": torch.rand(2, 1, 6, 7)}, r"expected the obscuring pixels to be a mask of .*"),
        ({"labels": LABELS[:1]}, r"expected `labels` to have shape \(2,\), got \(1,\)"),
        ({"targets": LABELS[:1]}, r"expected `targets` to have shape \(2,\), got \(1,\)"),
        ({"label_maps": torch.rand(2, 6, 6)}, "expected class activation maps of shape .*"),
        ({"max_examples": 0}, "expected `max_examples` to be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {
        "inputs": torch.rand(2, 1, 6, 6),
        "kinds": kinds_of(6),
        "labels": LABELS,
        "targets": TARGETS,
    }
    with pytest.raises(InputError, match=f"^{message}$"):
        explanation_figure(**arguments | change)


@pytest.mark.parametrize("maps", [None, torch.rand(2, 1, 6, 6)])
@pytest.mark.parametrize("names", [None, [f"soft-coated wheaten terrier {k}" for k in range(6)]])
@pytest.mark.parametrize("max_examples", [1, 2])
def test_no_words_run_into_each_other(maps, names, max_examples):
    figure = explanation_figure(
        torch.rand(2, 1, 6, 6),
        kinds_of(6),
        LABELS,
        TARGETS,
        label_maps=maps,
        target_maps=maps,
        class_names=names,
        max_examples=max_examples,
    )
    assert overlapping_words(figure) == []
    assert words_outside(figure) == []
