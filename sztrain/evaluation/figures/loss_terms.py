"""The two terms of σ-zero's objective along one run."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from sztrain.errors import InputError
from sztrain.evaluation.figures._images import counted
from sztrain.evaluation.figures.style import ADVERSARIAL, BLUE, GREEN, RED
from sztrain.evaluation.trace import AttackTrace
from sztrain.norms import num_units


def loss_terms_figure(trace: AttackTrace, title: str | None = None) -> Figure:
    r"""Loss :math:`\mathcal{L}` and norm :math:`\hat\ell_0` of one run of σ-zero, step by step.

    The steps at which the iterate is adversarial are shaded, and there the loss is 0; a star marks
    the sparsest adversarial example.

    Args:
        trace: the run.
        title: heading of the figure.

    Returns:
        A figure with two sets of axes that share their steps. Above: the loss in logits. Below, on
        a logarithmic scale: the smooth norm in percent of all units, and to the right their number.

    Raises:
        InputError: nothing was changed in the run: what is wrong from the start takes no step.

    Reference:
        Fig. 3 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_.

    Example:
        >>> from sztrain.evaluation.toy import toy_problem
        >>> from sztrain.evaluation.trace import trace_attack
        >>> figure = loss_terms_figure(trace_attack(*toy_problem()))
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['loss $\\mathcal{L}$ (logits)', '$\\hat{\\ell}_0\\,/\\,d$ (%)']
    """
    if not trace.l0.any():
        raise InputError(
            f"expected a run that changed something, got {trace.num_steps} steps that did not; "
            "a sample that is wrong from the start takes no step"
        )
    figure = Figure(figsize=(8.0, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = np.arange(trace.num_steps + 1)
    look = {"lw": 1.2, "drawstyle": "steps-mid"}
    above.plot(steps, trace.loss, color=BLUE, **look)
    above.set(ylabel=r"loss $\mathcal{L}$ (logits)", ylim=(0, None))
    percent = 100 * trace.penalty.numpy()
    changed = percent > 0  # at the clean sample it is not, and has no logarithm
    below.plot(steps[changed], percent[changed], color=RED, **look)
    below.set(ylabel=r"$\hat{\ell}_0\,/\,d$ (%)", xlabel="step", yscale="log")
    below.set_xlim(-0.5, trace.num_steps + 0.5)
    for ax in (above, below):
        _shade(ax, trace)
    _mark_sparsest(below, trace)
    _count_units(below, trace)
    below.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.legend(loc="outside lower center", ncols=2)
    if title is not None:
        above.set_title(title)
    return figure


def _shade(ax: Axes, trace: AttackTrace) -> None:
    edges = np.arange(trace.num_steps + 2) - 0.5
    ax.stairs(
        trace.adversarial.float().numpy(),
        edges,
        fill=True,
        color=ADVERSARIAL,
        transform=ax.get_xaxis_transform(),
        zorder=0,
        label="adversarial" if ax.get_xlabel() else None,  # once in the legend
    )


def _mark_sparsest(ax: Axes, trace: AttackTrace) -> None:
    step = trace.sparsest_step
    if step is None or trace.l0[step] == 0:
        return
    l0 = float(trace.l0[step])
    share = 100 * l0 / num_units(trace.inputs.shape[1:], trace.unit)
    label = f"sparsest adversarial example: {counted(l0, trace.unit)}, step {step}"
    ax.plot(step, share, "*", color=GREEN, mec="black", ms=15, ls="none", zorder=3, label=label)


def _count_units(ax: Axes, trace: AttackTrace) -> None:
    """Plain figures on the logarithmic axis, and a second axis that counts."""
    units = num_units(trace.inputs.shape[1:], trace.unit)

    def count(percent: Any) -> Any:
        return percent * units / 100

    def share(number: Any) -> Any:
        return number / units * 100

    right = ax.secondary_yaxis("right", functions=(count, share))
    right.set_ylabel(f"changed {trace.unit}")
    for axis in (ax.yaxis, right.yaxis):
        axis.set_major_locator(LogLocator(subs=[1, 2, 5]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
