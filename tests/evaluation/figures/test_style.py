"""Colours: luminance at known values, and ink that can be read on any ground."""

import pytest
from figure_looks import contrast
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from sztrain.evaluation.figures.style import (
    ADVERSARIAL,
    COLOURS,
    CORRECT,
    luminance,
    readable_on,
)

COLOUR = st.tuples(*[st.floats(0, 1)] * 3)


def test_luminance_of_known_colours():
    assert luminance([0, 0, 0]) == 0
    assert luminance([1, 1, 1]) == pytest.approx(1)
    assert luminance([0, 1, 0]) == pytest.approx(0.7152)
    assert luminance([0.5, 0.5, 0.5]) == pytest.approx(0.21404, abs=1e-5)  # ((0.5+.055)/1.055)^2.4


@given(COLOUR)
def test_ink_stands_out_from_its_ground_as_far_as_it_can(ground):
    inks = {ink: contrast(to_rgb(ink), ground) for ink in ("black", "white")}
    chosen = inks[readable_on(ground)]
    assert chosen >= 4.5
    assert chosen == pytest.approx(max(inks.values()), rel=1e-6)


def test_words_and_lines_can_be_seen_on_the_grounds():
    assert contrast(to_rgb(CORRECT), to_rgb(ADVERSARIAL)) > 1.1
    for ground in (CORRECT, ADVERSARIAL):
        assert contrast((0, 0, 0), to_rgb(ground)) > 15
    for colour in COLOURS[:3]:  # of curves on a shaded ground
        assert contrast(to_rgb(colour), to_rgb(ADVERSARIAL)) > 2.5
