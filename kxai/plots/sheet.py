"""A sheet of samples side by side, each as its image, its heatmap and both: made to be compared with other sheets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import FAINT, INK, add_axes, blank, colour_bar
from kxai.plots.raster import heatmap_rgb, overlay, to_rgb
from kxai.plots.scale import limit, stated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARGIN, _SIDE, _HEAD, _TITLE, _GAP, _BLOCK, _BAR = 0.2, 0.3, 0.35, 0.42, 0.1, 0.15, 0.75
_MIN_WIDTH = 5.0
_FRAME: dict[str, Any] = {"color": FAINT, "linewidth": 0.6}


def sheet(
    heatmaps: np.ndarray, images: np.ndarray | None = None, titles: Sequence[str] | None = None, heading: str = "",
    bound: float | None = None, clip: float = 99.5, note: str = "", columns: int = 8, size: float = 1.3,
) -> Figure:  # fmt: skip
    """Draws samples across, and for each its image, its heatmap and the heatmap over the image down.

    Args:
        heatmaps: ``(batch, height, width)``, finite.
        images: ``(batch, height, width[, 1|3])``, range as in ``to_rgb``; default None, heatmaps alone.
        titles: one per sample, of at most two lines; default none.
        heading: one line over everything; default none.
        bound: the value of the darkest colours, > 0; default None, the percentile of these heatmaps.
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate where no bound is given;
            default 99.5.
        note: what the colour scale is, one line below it; default says it.
        columns: samples in a row, >= 1; default 8.
        size: height of a panel in inches, > 0; default 1.3.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: shapes do not fit each other, or an argument is out of range.
        InputError: a heatmap is empty or not finite.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> drawn = sheet(np.ones((2, 8, 8)), np.ones((2, 8, 8)), titles=["cat", "dog"], bound=2.0)
        >>> len(drawn.axes[0].images)  # image, heatmap and overlay per sample
        6
    """
    heatmaps = np.asarray(heatmaps)
    rgb = _check(heatmaps, images, titles, columns, size)
    found = limit(heatmaps, clip)
    note = note or (stated(clip, found) if bound is None else f"scale ±{bound:.3g}, given")
    bound = (found or 1.0) if bound is None else bound
    rows = _panels(heatmaps, rgb, clip, bound)
    across, width = min(columns, len(heatmaps)), size * max(heatmaps.shape[2] / heatmaps.shape[1], 0.6)
    down = -(-len(heatmaps) // across)
    block = _TITLE + len(rows) * (size + _GAP)
    full = (
        max(_MARGIN + _SIDE + across * (width + _GAP) + _MARGIN, _MIN_WIDTH),
        _HEAD + down * (block + _BLOCK) + _BAR,
    )
    fig = blank(*full)
    axes = _ground(fig, full)
    left = (full[0] - across * (width + _GAP)) / 2
    for sample in range(len(heatmaps)):
        edge = left + sample % across * (width + _GAP)
        top = full[1] - _HEAD - sample // across * (block + _BLOCK) - _TITLE
        if titles is not None:
            axes.text(edge + width / 2, top + 0.05, titles[sample], ha="center", va="bottom", fontsize=8, color=INK)
        for row, (name, panels) in enumerate(rows.items()):
            base = top - row * (size + _GAP) - size
            place = (edge, edge + width, base, base + size)
            axes.imshow(panels[sample], interpolation="nearest", extent=place, aspect="auto")
            axes.plot(*_frame(*place), **_FRAME)
            if sample % across == 0:
                axes.text(
                    edge - 0.1, base + size / 2, name, ha="right", va="center", fontsize=8, color=INK, rotation=90
                )
    axes.set(xlim=(0, full[0]), ylim=(0, full[1]))
    axes.text(full[0] / 2, full[1] - 0.14, heading, ha="center", va="top", color=INK, fontsize=11)
    length = min(full[0] - 2 * _MARGIN, 4.5)
    colour_bar(fig, add_axes(fig, ((full[0] - length) / 2, 0.48, length, 0.09)), bound, note)
    return fig


def _ground(fig: Figure, full: tuple[float, float]) -> Axes:
    """One set of axes in inches for all panels: axes of their own would take several times as long."""
    axes = add_axes(fig, (0, 0, *full))
    axes.axis("off")
    return axes


def _frame(left: float, right: float, bottom: float, top: float) -> tuple[list[float], list[float]]:
    return [left, right, right, left, left], [bottom, bottom, top, top, bottom]


def _panels(heatmaps: np.ndarray, rgb: np.ndarray | None, clip: float, bound: float) -> dict[str, list[np.ndarray]]:
    """The pictures of all samples by the name of their row."""
    coloured = {"relevance": [heatmap_rgb(heatmap, clip, bound) for heatmap in heatmaps]}
    if rgb is None:
        return coloured
    both = [overlay(image, heatmap, clip=clip, bound=bound) for image, heatmap in zip(rgb, heatmaps, strict=True)]
    return {"input": list(rgb), **coloured, "overlay": both}


def _check(
    heatmaps: np.ndarray, images: np.ndarray | None, titles: Sequence[str] | None, columns: int, size: float
) -> np.ndarray | None:
    if heatmaps.ndim != 3:
        raise ArgumentError("These are no heatmaps.", expected="(batch, height, width)", received=str(heatmaps.shape))
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1 or not 0 < size < np.inf:
        raise ArgumentError(
            "columns or size is out of range.",
            expected="an integer >= 1, and inches > 0",
            received=f"columns={columns!r}, size={size!r}",
        )
    if titles is not None and len(titles) != len(heatmaps):
        raise ArgumentError("titles do not fit.", expected=f"{len(heatmaps)}", received=f"{len(titles)}")
    if images is None:
        return None
    array = np.asarray(images)
    if array.shape[:3] != heatmaps.shape or array.ndim > 4:
        raise ArgumentError(
            "images do not fit.", expected=f"{heatmaps.shape}, perhaps with channels", received=str(array.shape)
        )
    return to_rgb(array[..., np.newaxis] if array.ndim == 3 else array)
