"""A grid of images, with a line above each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import INK, fitted, layout
from kxai.plots.raster import to_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEAD = 0.42


def pictures(images: np.ndarray, titles: Sequence[str], columns: int = 5, size: float = 2.0) -> Figure:
    """Draws images side by side.

    Args:
        images: ``(n, height, width, 1|3)``, range as in ``to_rgb``.
        titles: one line per image.
        columns: images in a row, >= 1; default 5.
        size: height of an image in inches, > 0; default 2.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: shapes do not fit each other, or an argument is out of range.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> len(pictures(np.ones((3, 8, 8, 1)), ["a", "b", "c"], columns=2).axes)
        3
    """
    rgb = to_rgb(images)
    if rgb.ndim != 4 or len(titles) != len(rgb):
        raise ArgumentError(
            "Images and titles do not fit.",
            expected="(n, height, width, 1|3) and n titles",
            received=f"{np.shape(images)} and {len(titles)} titles",
        )
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
        raise ArgumentError("columns is out of range.", expected="an integer >= 1", received=repr(columns))
    if not 0 < size < math.inf:
        raise ArgumentError("size is out of range.", expected="inches > 0", received=repr(size))
    across = min(columns, len(rgb))
    width = max(size * rgb.shape[2] / rgb.shape[1], 0.6 * size)
    made = layout([(_HEAD, size)] * math.ceil(len(rgb) / across), [width] * across)
    for index, (picture, title) in enumerate(zip(rgb, titles, strict=True)):
        axes = made.panel(*divmod(index, across))
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(fitted(title, width, 9), color=INK, fontsize=9, parse_math=False)
    return made.figure
