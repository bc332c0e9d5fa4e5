"""What a reader sees of a figure: colours of its pixels, contrast, and room between its words."""

from itertools import combinations

import numpy as np
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def rendered(figure):
    """The figure as it is seen: a function from axes and a point to red, green and blue, 0..255."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())

    def colour_at(ax, x, y):
        column, row = ax.transData.transform((x, y))
        return tuple(image[image.shape[0] - 1 - round(row), round(column), :3].tolist())

    return colour_at


def contrast(first, second):
    """Contrast ratio of two sRGB colours in [0, 1], from 1 to 21, as the WCAG define it."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted([luminance(first), luminance(second)])
    return (bright + 0.05) / (dark + 0.05)


def overlapping_words(figure):
    """Pairs of texts that run into each other."""
    return [
        (one, other)
        for (one, first), (other, second) in combinations(_words(figure), 2)
        if first.x0 < second.x1 and second.x0 < first.x1
        if first.y0 < second.y1 and second.y0 < first.y1
    ]


def words_outside(figure):
    """Texts that the edge of the figure cuts off."""
    edge = figure.bbox.padded(1)
    return [
        words
        for words, box in _words(figure)
        if box.x0 < edge.x0 or box.x1 > edge.x1 or box.y0 < edge.y0 or box.y1 > edge.y1
    ]


def left_edges(axes):
    """Where axes of a drawn figure begin, in dots."""
    return {round(ax.get_window_extent().x0) for ax in axes}


def _words(figure):
    """Every text that is drawn, with its box."""
    figure.draw_without_rendering()
    hidden = {
        label
        for axis in figure.findobj(Axis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    texts = [
        text
        for text in figure.findobj(Text)
        if text.get_text() and text.get_visible() and text not in hidden
    ]
    return [(text.get_text(), text.get_window_extent()) for text in texts]
