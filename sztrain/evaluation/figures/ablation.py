"""How much σ-zero depends on its two hyper-parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sztrain.errors import InputError, require_in
from sztrain.evaluation.figures.style import in_lines, readable_on
from sztrain.types import UNITS, Unit

Statistic = Literal["median", "mean"]
STATISTICS: tuple[Statistic, ...] = ("median", "mean")

EMPTY = "#E0E0E0"
CELL, FRAME = (0.72, 0.42), (1.0, 1.05)  # inches
NARROWEST = 4  # cells, below which the headings do not fit


@dataclass(frozen=True, kw_only=True)
class AblationCell:
    """What σ-zero with one pair of hyper-parameters achieves on one net.

    Attributes:
        net: its name.
        sigma: σ.
        tau: τ0.
        asr_inf: share of all samples that were broken at any l0.
        median_l0: over all samples; inf where half of them were not broken.
        mean_l0: over the broken samples; inf where there were none.
    """

    net: str
    sigma: float
    tau: float
    asr_inf: float
    median_l0: float
    mean_l0: float


def ablation_figure(
    cells: Sequence[AblationCell],
    unit: Unit = "features",
    statistic: Statistic = "median",
    title: str | None = None,
) -> Figure:
    r"""Success rate and l0 of σ-zero for every pair of σ (upwards) and τ0 (to the right).

    The brighter, the better for the attack. Colours of the success rate run from 0 to 100 %, those
    of the l0 are logarithmic over the values of a net, but over no less than a factor of two: what
    hardly differs looks alike. A pair that was not run stays grey and empty.

    Args:
        cells: of one or several nets, in any order; a net takes a row.
        unit: what the l0 counts.
        statistic: which l0: the paper's text says the median, its caption the mean.
        title: heading of the figure; one that is too long for a line takes several.

    Returns:
        A figure with two sets of axes a net.

    Raises:
        InputError: there is no cell, or two of the same pair and net, a success rate is no
            fraction, an l0 is negative, or ``unit`` or ``statistic`` is unknown.

    Reference:
        Fig. 4 of `arXiv:2402.01879 <https://arxiv.org/abs/2402.01879>`_.

    Example:
        >>> cell = AblationCell(
        ...     net="M1", sigma=1e-3, tau=0.3, asr_inf=1.0, median_l0=16.0, mean_l0=15.8
        ... )
        >>> [[text.get_text() for text in ax.texts] for ax in ablation_figure([cell]).axes]
        [['100'], ['16']]
    """
    _check(cells, unit, statistic)
    nets = list(dict.fromkeys(cell.net for cell in cells))
    sigmas = sorted({cell.sigma for cell in cells})
    taus = sorted({cell.tau for cell in cells})
    width = 2 * (CELL[0] * max(len(taus), NARROWEST) + FRAME[0])
    height = len(nets) * (CELL[1] * len(sigmas) + FRAME[1])
    figure = Figure(figsize=(width, height), layout="constrained")
    grid: NDArray[Any] = figure.subplots(len(nets), 2, squeeze=False)
    for (left, right), net in zip(grid, nets, strict=True):
        asr, l0 = _matrices([cell for cell in cells if cell.net == net], sigmas, taus, statistic)
        _draw(left, 100 * asr, "viridis", Normalize(0, 100), f"{net}\nASR∞ (%)")
        _draw(right, l0, "viridis_r", _l0_scale(l0), f"{net}\n{statistic} ℓ0 ({unit})")
    for ax in grid.flat:
        ax.set_xticks(range(len(taus)), [f"{tau:g}" for tau in taus])
        ax.set_yticks(range(len(sigmas)), [f"{sigma:g}" for sigma in sigmas])
        ax.set_xlabel("τ0")
        ax.set_ylabel("σ", rotation=0)
    if title is not None:
        figure.suptitle(in_lines(title, width))
    return figure


def _check(cells: Sequence[AblationCell], unit: Unit, statistic: Statistic) -> None:
    require_in("unit", unit, UNITS)
    require_in("statistic", statistic, STATISTICS)
    if not cells:
        raise InputError("expected at least 1 cell of an ablation, got none")
    seen: set[tuple[str, float, float]] = set()
    for cell in cells:
        place = (cell.net, cell.sigma, cell.tau)
        name = f"{cell.net} at sigma={cell.sigma:g}, tau={cell.tau:g}"
        if place in seen:
            raise InputError(f"expected one cell for {name}, got two")
        seen.add(place)
        if not 0 <= cell.asr_inf <= 1:
            raise InputError(f"expected `asr_inf` of {name} in [0, 1], got {cell.asr_inf}")
        if not (cell.median_l0 >= 0 and cell.mean_l0 >= 0):
            found = f"{cell.median_l0} and {cell.mean_l0}"
            raise InputError(f"expected `median_l0` and `mean_l0` of {name} >= 0, got {found}")


def _matrices(
    cells: Sequence[AblationCell],
    sigmas: Sequence[float],
    taus: Sequence[float],
    statistic: Statistic,
) -> NDArray[np.float64]:
    """Success rates and l0, shape ``(2, S, T)``; NaN where nothing was run."""
    matrices = np.full((2, len(sigmas), len(taus)), np.nan)
    for cell in cells:
        l0 = cell.median_l0 if statistic == "median" else cell.mean_l0
        matrices[:, sigmas.index(cell.sigma), taus.index(cell.tau)] = cell.asr_inf, l0
    return matrices


def _l0_scale(l0: NDArray[np.float64]) -> Normalize:
    usual = l0[np.isfinite(l0) & (l0 > 0)]
    low = float(usual.min(initial=np.inf)) if len(usual) else 1.0
    return LogNorm(low, max(2 * low, float(usual.max(initial=0))), clip=True)


def _draw(ax: Axes, values: NDArray[np.float64], colours: str, scale: Normalize, name: str) -> None:
    shape = values.shape
    image = np.empty((*shape, 3))
    for place in np.ndindex(shape):
        value = values[place]
        if np.isnan(value):
            image[place] = to_rgb(EMPTY)
            continue
        image[place] = colormaps[colours](float(scale(min(value, scale.vmax or value))))[:3]
        text = "∞" if np.isinf(value) else f"{value:.1f}".removesuffix(".0")
        ink = readable_on(image[place])
        ax.text(place[1], place[0], text, ha="center", va="center", color=ink)
    ax.imshow(image, origin="lower", aspect="auto")
    ax.set_title(name, fontsize=11)
