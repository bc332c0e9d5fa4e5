"""Moments of one attack on an image."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from sztrain.errors import InputError
from sztrain.evaluation.figures._images import (
    becomes,
    change_bar,
    class_name,
    counted,
    require_images,
    show_change,
    show_image,
)
from sztrain.evaluation.trace import AttackTrace


def moments_figure(
    trace: AttackTrace,
    steps: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    r"""The image as it was and at a few steps of its attack, and what was changed by then.

    Args:
        trace: of a grey or colour image.
        steps: steps to show, whose iterates were kept; ``None``: the first adversarial example,
            the sparsest, and the one halfway among those that were sparser than any before.
        class_names: name of each class; ``None``: its number.
        title: heading of the figure.

    Returns:
        A figure with two rows of axes and a colour bar.

    Raises:
        InputError: the sample is no image, an iterate was not kept, or there are neither ``steps``
            nor an adversarial example.

    Reference:
        Fig. 1, right, of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_.

    Example:
        >>> import torch
        >>> from sztrain.attacks import SigmaZero
        >>> from sztrain.evaluation.trace import trace_attack
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
        >>> net[1].weight.data = torch.tensor([[1.0, 0.1, 0.1, 0.1], [0.3, 0.0, 0.0, 0.3]])
        >>> inputs, label = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
        >>> figure = moments_figure(trace_attack(net, SigmaZero(num_steps=50), inputs, label))
        >>> [ax.get_title() for ax in figure.axes[:2]]
        ['clean\n0', 'step 1\n0 → 1\nℓ0 = 4 features']
    """
    require_images(trace.inputs, "trace.inputs")
    moments = _moments(trace) if steps is None else steps
    columns = [(trace.inputs[0], f"clean\n{class_name(trace.predictions[0], class_names)}")] + [
        (trace.iterate(step)[0], _caption(trace, step, class_names)) for step in moments
    ]
    figure = Figure(figsize=(1.75 * len(columns) + 1.5, 4.4), layout="constrained")
    grid: NDArray[Any] = figure.subplots(2, len(columns), squeeze=False)
    for (above, below), (image, caption) in zip(grid.T, columns, strict=True):
        above.set_title(caption, fontsize=10)
        show_image(above, image)
        show_change(below, image - trace.inputs[0])
    grid[0, 0].set_ylabel("image", fontsize=11)
    grid[1, 0].set_ylabel("changed", fontsize=11)
    beside_changes: dict[str, Any] = {"shrink": 0.44, "anchor": (0, 0)}
    change_bar(figure, grid.flat, trace.inputs, fraction=0.05, pad=0.02, **beside_changes)
    if title is not None:
        figure.suptitle(title)
    return figure


def _moments(trace: AttackTrace) -> list[int]:
    steps = trace.improvements
    if not steps:
        raise InputError(
            "expected a trace with an adversarial example, or `steps` to show, got neither"
        )
    # A sample that is misclassified from the start has no other moment than this one.
    return sorted({steps[0], steps[len(steps) // 2], steps[-1]} - {0})


def _caption(trace: AttackTrace, step: int, class_names: Sequence[str] | None) -> str:
    clean, now = (class_name(trace.predictions[i], class_names) for i in (0, step))
    seen = now if now == clean else becomes(clean, now)
    return f"step {step}\n{seen}\nℓ0 = {counted(float(trace.l0[step]), trace.unit)}"
