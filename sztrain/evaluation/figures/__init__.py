"""Figures of an evaluation, built without pyplot: they need no display and leave nothing behind."""

from sztrain.evaluation.figures.ablation import AblationCell, ablation_figure
from sztrain.evaluation.figures.curves import robustness_curve_figure
from sztrain.evaluation.figures.examples import adversarial_examples_figure
from sztrain.evaluation.figures.explanation import KIND_COLOURS, explanation_figure
from sztrain.evaluation.figures.files import figure_pixels, save_figure
from sztrain.evaluation.figures.gauge import (
    class_l0_figure,
    epoch_curves_figure,
    places_figure,
)
from sztrain.evaluation.figures.grid import attack_grid_figure
from sztrain.evaluation.figures.loss_terms import loss_terms_figure
from sztrain.evaluation.figures.moments import moments_figure
from sztrain.evaluation.figures.style import COLOURS, LINE_STYLES
from sztrain.evaluation.figures.trajectory import trajectory_figure

__all__ = [
    "COLOURS",
    "KIND_COLOURS",
    "LINE_STYLES",
    "AblationCell",
    "ablation_figure",
    "adversarial_examples_figure",
    "attack_grid_figure",
    "class_l0_figure",
    "epoch_curves_figure",
    "explanation_figure",
    "figure_pixels",
    "loss_terms_figure",
    "moments_figure",
    "places_figure",
    "robustness_curve_figure",
    "save_figure",
    "trajectory_figure",
]
