"""A sheet of samples side by side, each as its image, its heatmap and both: made to be compared with other sheets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import FAINT, INK, layout, placed
from kxai.plots.given import Explained, check_size, check_texts, one_heatmap
from kxai.plots.raster import heatmap_rgb, overlay, to_rgb
from kxai.plots.scale import chosen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE, _GAP, _BLOCK = 0.42, 0.1, 0.15
_FRAME: dict[str, Any] = {"color": FAINT, "linewidth": 0.6}


def sheet(
    heatmaps: np.ndarray | Explained, images: np.ndarray | None = None, titles: Sequence[str] | None = None,
    heading: str = "",
    bound: float | None = None, clip: float = 99.5, note: str = "", columns: int = 8, size: float = 1.3,
) -> Figure:  # fmt: skip
    """Draws samples across, and for each its image, its heatmap and the heatmap over the image down.

    Args:
        heatmaps: ``(batch, height, width)``, finite, or an explanation of images.
        images: ``(batch, height, width[, 1|3])``, range as in ``to_rgb``; default None, heatmaps alone.
        titles: one per sample, of at most two lines; default none.
        heading: one line over everything; default none.
        bound: the value of the darkest colours, > 0; default None, the percentile of these heatmaps.
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate where no bound is given;
            default 99.5.
        note: what the colour scale is, a line or two below it; default says where it is clipped, if it is.
        columns: samples in a row, >= 1; default 8.
        size: height of a panel in inches, > 0; default 1.3. Pictures of more than 4 : 1 or less than 1 : 4 are
            stretched.

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
    heatmaps = one_heatmap(heatmaps)
    rgb = _check(heatmaps, images, titles, columns, size)
    bound, told = chosen(heatmaps, clip, bound)
    rows = _panels(heatmaps, rgb, clip, bound or 1.0)
    drawn, how = placed(heatmaps.shape[1], heatmaps.shape[2], size)
    across, width = min(columns, len(heatmaps)), max(drawn, 0.6 * size)
    # Between the panel's edges and its picture, where that is narrower than the text above it.
    rim = (width - drawn) / 2 if how["aspect"] == "equal" else 0.0
    down = -(-len(heatmaps) // across)
    block = _TITLE + len(rows) * (size + _GAP)
    full = across * (width + _GAP), down * (block + _BLOCK)
    made = layout([(0.25 if heading else 0.0, full[1])], full[:1], bar=True)
    # One set of axes in inches for all panels: axes of their own would take several times as long.
    axes = made.panel(0)
    axes.axis("off")
    frames: list[list[tuple[float, float]]] = []
    for sample in range(len(heatmaps)):
        edge = sample % across * (width + _GAP)
        top = full[1] - sample // across * (block + _BLOCK) - _TITLE
        if titles is not None:
            _text(axes, edge + width / 2, top + 0.05, titles[sample], va="bottom")
        for row, (name, panels) in enumerate(rows.items()):
            base = top - row * (size + _GAP) - size
            place = (edge + rim, edge + width - rim, base, base + size)
            _image(axes, panels[sample], place, how["interpolation"])
            frames.append(_frame(*place))
            if sample % across == 0:
                _text(axes, edge - 0.1, base + size / 2, name, va="center", rotation=90)
    _lines(axes, frames)
    axes.set(xlim=(0, full[0]), ylim=(0, full[1]), aspect="auto")
    axes.set_title(heading, color=INK, fontsize=11, pad=4, parse_math=False)
    made.bar(bound, note or told)
    return made.figure


def _text(axes: Axes, left: float, bottom: float, text: str, **how: Any) -> None:
    side = "right" if "rotation" in how else "center"
    axes.text(left, bottom, text, ha=side, fontsize=8, color=INK, parse_math=False, **how)


def _image(axes: Axes, pixels: np.ndarray, place: tuple[float, float, float, float], interpolation: str) -> None:
    from matplotlib.image import AxesImage

    # Axes.imshow would adapt limits that are set anyway, which takes half of the time.
    image = AxesImage(axes, interpolation=interpolation, extent=place)
    image.set_data(pixels)
    axes.add_image(image)


def _lines(axes: Axes, lines: list[list[tuple[float, float]]]) -> None:
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(lines, **_FRAME), autolim=False)


def _frame(left: float, right: float, bottom: float, top: float) -> list[tuple[float, float]]:
    return [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]


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
    check_size(size, columns)
    check_texts(titles, len(heatmaps), "titles", "sample")
    if images is None:
        return None
    array = np.asarray(images)
    if array.shape[:3] != heatmaps.shape or array.ndim > 4:
        raise ArgumentError(
            "images do not fit.", expected=f"{heatmaps.shape}, perhaps with channels", received=str(array.shape)
        )
    return to_rgb(array[..., np.newaxis] if array.ndim == 3 else array)
