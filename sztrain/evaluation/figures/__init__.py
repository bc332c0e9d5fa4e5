"""Figures of an evaluation, built without pyplot: they need no display and leave nothing behind."""

from sztrain.evaluation.figures.curves import robustness_curve_figure
from sztrain.evaluation.figures.examples import adversarial_examples_figure
from sztrain.evaluation.figures.files import save_figure
from sztrain.evaluation.figures.style import COLOURS, LINE_STYLES

__all__ = [
    "COLOURS",
    "LINE_STYLES",
    "adversarial_examples_figure",
    "robustness_curve_figure",
    "save_figure",
]
