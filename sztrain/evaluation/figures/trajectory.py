"""The way of an attack over the decision regions of a net with two features."""

from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor, nn

from sztrain.attacks.modes import eval_mode
from sztrain.errors import InputError
from sztrain.evaluation.figures.style import ADVERSARIAL, CORRECT, GREEN, RED
from sztrain.evaluation.trace import AttackTrace
from sztrain.losses import difference_of_logits

# Without its pale end, which would be lost on the regions.
STEP_MAP = ListedColormap(colormaps["viridis"](np.linspace(0, 0.85, 256)))

NUM_POINTS = 201  # a side, at which the net is asked


def trajectory_figure(net: nn.Module, trace: AttackTrace, title: str | None = None) -> Figure:
    """Every iterate of an attack on two features, over the decision regions of the net.

    Args:
        net: the net that was attacked.
        trace: of inputs of shape ``(1, 2)``, with ``keep="all"``.
        title: heading of the figure.

    Returns:
        A figure with one set of axes and a colour bar that counts the steps.

    Raises:
        InputError: there are not two features, or not every iterate was kept.

    Reference:
        Fig. 1, left, of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_.

    Example:
        >>> from sztrain.evaluation.toy import toy_problem
        >>> from sztrain.evaluation.trace import trace_attack
        >>> net, attack, inputs, labels = toy_problem()
        >>> trace = trace_attack(net, attack, inputs, labels, keep="all")
        >>> [ax.get_ylabel() for ax in trajectory_figure(net, trace).axes]
        ['feature 2', 'step']
    """
    _check(trace)
    figure = Figure(figsize=(6.4, 6.2), layout="constrained")
    ax = figure.subplots()
    _draw_regions(ax, net, trace)
    _draw_sparse_lines(ax, trace.inputs)
    figure.colorbar(_draw_way(ax, trace), ax=ax, label="step", shrink=0.9)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="feature 1", ylabel="feature 2")
    if title is not None:
        ax.set_title(title)
    regions = [
        Patch(facecolor=CORRECT, edgecolor="black", label="not adversarial"),
        Patch(facecolor=ADVERSARIAL, edgecolor="black", label="adversarial"),
    ]
    handles = [*ax.get_legend_handles_labels()[0], *regions]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _check(trace: AttackTrace) -> None:
    if trace.inputs.shape != (1, 2):
        raise InputError(
            "expected the trace of a sample with two features, inputs of shape (1, 2), "
            f"got shape {tuple(trace.inputs.shape)}"
        )
    if len(trace.iterates) != trace.num_steps + 1:
        raise InputError(
            f"expected a trace of all {trace.num_steps + 1} iterates, got {len(trace.iterates)}: "
            'trace with keep="all"'
        )


def _draw_regions(ax: Axes, net: nn.Module, trace: AttackTrace) -> None:
    axis = torch.linspace(0, 1, NUM_POINTS)
    points = torch.cartesian_prod(axis, axis)
    with torch.no_grad(), eval_mode(net):
        logits = net(points.to(trace.result.adv_inputs)).cpu()
    labels = torch.full((len(points),), trace.label)
    margin = difference_of_logits(logits, labels).view(NUM_POINTS, NUM_POINTS).T
    margin = -margin if trace.attack.targeted else margin
    limit = max(1.0, float(margin.abs().max()))
    ax.contourf(axis, axis, margin, [-limit, 0, limit], colors=[ADVERSARIAL, CORRECT])
    ax.contour(axis, axis, margin, [0], colors="black", linewidths=1)


def _draw_sparse_lines(ax: Axes, inputs: Tensor) -> None:
    """Where one feature is what it was."""
    x, y = inputs[0].tolist()
    ax.axvline(x, color="0.45", lw=1, ls="--", label="one feature unchanged: ℓ0 = 1")
    ax.axhline(y, color="0.45", lw=1, ls="--")


def _draw_way(ax: Axes, trace: AttackTrace) -> PathCollection:
    x, y = trace.iterates.T.numpy()
    ax.plot(x, y, color="0.3", lw=0.8, zorder=2)
    steps = ax.scatter(x, y, c=range(len(x)), cmap=STEP_MAP, s=18, zorder=3)
    start: dict[str, Any] = {"color": RED, "marker": "o", "ms": 10, "mec": "black"}
    ax.plot(x[0], y[0], ls="none", zorder=4, label="x, the sample", **start)
    if trace.sparsest_step is not None:
        at = trace.sparsest_step
        label = f"x*, sparsest adversarial example: ℓ0 = {trace.l0[at]:g}, step {at}"
        end: dict[str, Any] = {"color": GREEN, "marker": "*", "ms": 17, "mec": "black"}
        ax.plot(x[at], y[at], ls="none", zorder=5, label=label, **end)
    return steps
