"""A grid of images, with a line above each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import INK, fitted, layout, placed
from kxai.plots.given import check_size, check_texts
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
        size: height of an image in inches, > 0; default 2. Images of more than 4 : 1 or less than 1 : 4 are stretched.

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
    if rgb.ndim != 4:
        raise ArgumentError("These are no images.", expected="(n, height, width, 1|3)", received=str(np.shape(images)))
    check_texts(titles, len(rgb), "titles", "image")
    check_size(size, columns)
    drawn, how = placed(rgb.shape[1], rgb.shape[2], size)
    across = min(columns, len(rgb))
    width = max(drawn, 0.6 * size)
    made = layout([(_HEAD, size)] * math.ceil(len(rgb) / across), [width] * across)
    for index, (picture, title) in enumerate(zip(rgb, titles, strict=True)):
        axes = made.panel(*divmod(index, across))
        axes.imshow(picture, **how)
        axes.set_title(fitted(title, width, 9), color=INK, fontsize=9, parse_math=False)
    return made.figure
