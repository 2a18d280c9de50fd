"""A grid of heatmaps: images down, methods across, one stated scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import INK, fitted, layout, number, placed
from kxai.plots.given import Relevance, check_size, check_texts
from kxai.plots.given import heatmaps as heatmaps_of
from kxai.plots.raster import heatmap_rgb, overlay, to_rgb, value_range
from kxai.plots.scale import bounds as bounds_of
from kxai.plots.scale import one_bound, stated

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(
    heatmaps: Relevance,
    images: np.ndarray | None = None,
    titles: Sequence[str] | None = None,
    scale: str = "method",
    clip: float = 99.5,
    opacity: float | None = None,
    size: float = 2.0,
) -> Figure:
    """Draws heatmaps of one batch side by side, a row per sample and a column per method.

    Args:
        heatmaps: by the name of the method, ``(batch, height, width)`` each, or explanations of images, one batch for
            all; or one of these alone.
        images: ``(batch, height, width[, 1|3])`` for a first column, or None (default); range as in ``to_rgb``.
        titles: one line per sample, written left of its row; default none.
        scale: what shares one colour scale: ``"figure"`` (everything: magnitudes can be compared across methods),
            ``"method"`` (default: a column) or ``"panel"`` (nothing: only patterns can be compared). The figure says
            which, and gives the bounds.
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate; default 99.5.
        opacity: None (default) draws bare heatmaps; a number in [0, 1] lays them over the images, see ``overlay``.
        size: height of a row in inches, > 0; default 2. Pictures of more than 4 : 1 or less than 1 : 4 are stretched.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: shapes do not fit each other, or an argument is out of range.
        InputError: a heatmap is empty or not finite.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> drawn = figure({"gradient": np.ones((2, 8, 8)), "lrp": -np.ones((2, 8, 8))}, titles=["cat", "dog"])
        >>> len(drawn.axes)  # four panels and the colour bar
        5
    """
    maps = heatmaps_of(heatmaps)
    pictures = _check(maps, images, titles, opacity, size)
    bounds = bounds_of(maps, scale, clip)
    rows, height, width = next(iter(maps.values())).shape
    drawn, how = placed(height, width, size)
    broad = max(drawn, 0.75 * size)
    columns = len(maps) + (pictures is not None)
    heads = _heads(maps, bounds, scale, images, broad)
    above = 0.08 + 0.17 * max(head.count("\n") + 1 for head in heads)
    between = 0.26 if scale == "panel" else 0.14
    made = layout(
        [(above, size)] + [(between, size)] * (rows - 1),
        [broad] * columns,
        left=0.5,
        foot=0.15 if scale != "panel" else 0.3,
        bar=True,
    )
    for row in range(rows):
        axes = [made.panel(row, column) for column in range(columns)]
        if titles is not None:
            axes[0].set_ylabel(fitted(titles[row], size, 9), color=INK, fontsize=9, parse_math=False)
        if pictures is not None:
            axes[0].imshow(pictures[row], **how)
        for axis, (name, values) in zip(axes[-len(maps) :], maps.items(), strict=True):
            bound = bounds[name][row] or 1.0
            if opacity is None or pictures is None:
                shown = heatmap_rgb(values[row], clip, bound)
            else:
                shown = overlay(pictures[row], values[row], opacity, clip, bound)
            axis.imshow(shown, **how)
            if scale == "panel":
                axis.set_xlabel(f"±{number(bounds[name][row])}", color=INK, fontsize=8, labelpad=2)
        if row == 0:
            for axis, head in zip(axes, heads, strict=True):
                axis.set_title(head, color=INK, fontsize=10, parse_math=False)
    made.bar(one_bound(bounds), stated(maps, bounds, scale, clip))
    return made.figure


def _heads(
    maps: dict[str, np.ndarray], bounds: dict[str, list[float]], scale: str, images: np.ndarray | None, width: float
) -> list[str]:
    heads = []
    if images is not None:
        low, high = value_range(images)
        # What is black and what is white is said only where one would not expect it.
        heads.append("input" if low == 0 and high in (1, 255) else f"input\n{number(low)} to {number(high)}")
    for name in maps:
        own = f"\n±{number(bounds[name][0])}" if scale == "method" and len(maps) > 1 else ""
        heads.append(fitted(name, width, 10) + own)
    return heads


def _check(
    maps: dict[str, np.ndarray],
    images: np.ndarray | None,
    titles: Sequence[str] | None,
    opacity: float | None,
    size: float,
) -> np.ndarray | None:
    shapes = {name: values.shape for name, values in maps.items()}
    shape = next(iter(shapes.values()), ())
    if len(set(shapes.values())) != 1 or len(shape) != 3 or 0 in shape:
        raise ArgumentError(
            "These heatmaps cannot be drawn as a grid.",
            expected="one shape (batch, height, width) for all, nowhere 0",
            received=str(shapes.get("", shapes)),
        )
    check_size(size)
    if opacity is not None and images is None:
        raise ArgumentError("An overlay needs images.", expected="images=", received="opacity without images")
    batch = shape[0]
    check_texts(titles, batch, "titles", "sample")
    if images is None:
        return None
    array = np.asarray(images)
    if array.ndim not in (3, 4) or len(array) != batch:
        raise ArgumentError(
            "images do not fit.", expected=f"({batch}, height, width[, 1|3])", received=str(array.shape)
        )
    return to_rgb(array[..., np.newaxis] if array.ndim == 3 else array)
