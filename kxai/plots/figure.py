"""A grid of heatmaps: images down, methods across, one stated scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import INK, colour_bar, new_figure
from kxai.plots.raster import heatmap_rgb, overlay, to_rgb
from kxai.plots.scale import bounds as bounds_of
from kxai.plots.scale import percentile, stated

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(
    heatmaps: Mapping[str, np.ndarray],
    images: np.ndarray | None = None,
    titles: Sequence[str] | None = None,
    scale: str = "method",
    clip: float = 99.5,
    opacity: float | None = None,
    size: float = 2.0,
) -> Figure:
    """Draws heatmaps of one batch side by side, a row per sample and a column per method.

    Args:
        heatmaps: by the name of the method, ``(batch, height, width)`` each, one batch for all.
        images: ``(batch, height, width[, 1|3])`` for a first column, or None (default); range as in ``to_rgb``.
        titles: one line per sample, written left of its row; default none.
        scale: what shares one colour scale: ``"figure"`` (everything: magnitudes can be compared across methods),
            ``"method"`` (default: a column) or ``"panel"`` (nothing: only patterns can be compared). The figure says
            which, and gives the bounds.
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate; default 99.5.
        opacity: None (default) draws bare heatmaps; a number in [0, 1] lays them over the images, see ``overlay``.
        size: height of a row in inches, > 0; default 2.

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
    maps = {str(name): np.asarray(values) for name, values in heatmaps.items()}
    pictures = _check(maps, images, titles, opacity, size)
    rows = len(next(iter(maps.values())))
    columns = len(maps) + (pictures is not None)
    bounds = bounds_of(maps, scale, clip)
    height, width = next(iter(maps.values())).shape[1:]
    fig, axes, bar = new_figure(rows, columns, size, max(size * width / height, 0.75 * size))
    for row in range(rows):
        if titles is not None:
            axes[row, 0].set_ylabel(titles[row], color=INK, fontsize=9)
        if pictures is not None:
            axes[row, 0].imshow(pictures[row], interpolation="nearest")
        for column, (name, values) in enumerate(maps.items(), start=columns - len(maps)):
            bound = bounds[name][row] or 1.0
            if opacity is None or pictures is None:
                drawn = heatmap_rgb(values[row], clip, bound)
            else:
                drawn = overlay(pictures[row], values[row], opacity, clip, bound)
            axes[row, column].imshow(drawn, interpolation="nearest")
            if scale == "panel":
                axes[row, column].set_xlabel(f"±{bounds[name][row]:.3g}", color=INK, fontsize=8)
    _head(axes[0], maps, bounds, scale, pictures is not None)
    only = scale == "figure" or (scale == "method" and len(maps) == 1)
    bound = next(iter(bounds.values()))[0]
    note = stated(clip, bound) if only else f"each {scale} by its own ±bound = {percentile(clip)} of |relevance|"
    colour_bar(fig, bar, bound if only else None, note)
    return fig


def _head(axes: np.ndarray, maps: dict, bounds: dict, scale: str, pictured: bool) -> None:
    if pictured:
        axes[0].set_title("input", color=INK, fontsize=10)
    for axis, name in zip(axes[int(pictured) :], maps, strict=True):
        shown = f"{name}\n±{bounds[name][0]:.3g}" if scale == "method" and len(maps) > 1 else name
        axis.set_title(shown, color=INK, fontsize=10)


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
            received=str(shapes),
        )
    if not 0 < size < np.inf:
        raise ArgumentError("size is out of range.", expected="inches > 0", received=repr(size))
    if opacity is not None and images is None:
        raise ArgumentError("An overlay needs images.", expected="images=", received="opacity without images")
    batch = shape[0]
    if titles is not None and len(titles) != batch:
        raise ArgumentError("titles do not fit.", expected=f"{batch}, one per sample", received=str(len(titles)))
    if images is None:
        return None
    array = np.asarray(images)
    if array.ndim not in (3, 4) or len(array) != batch:
        raise ArgumentError(
            "images do not fit.", expected=f"({batch}, height, width[, 1|3])", received=str(array.shape)
        )
    return to_rgb(array[..., np.newaxis] if array.ndim == 3 else array)
