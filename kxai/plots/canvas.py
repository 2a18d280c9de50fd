"""What the figures have in common: a canvas without global state, quiet axes and the colour bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kxai.errors import MissingDependencyError
from kxai.plots.color import diverging

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"
FAINT = "#bbbbbb"

_MARGIN, _HEAD, _GAP, _BAR = 0.35, 0.45, 0.12, 0.75
_MIN_WIDTH = 4.2


def blank(width: float, height: float) -> Figure:
    """Returns an empty white figure that can be saved and is never shown.

    Args:
        width: inches, > 0.
        height: inches, > 0.

    Returns:
        A matplotlib ``Figure`` with its own Agg canvas.

    Raises:
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> blank(2.0, 1.0).get_size_inches()
        array([2., 1.])
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "Figures need matplotlib, which is not installed.",
            fix="pip install matplotlib; heatmap_rgb and overlay work without it.",
        ) from error
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def new_figure(rows: int, columns: int, height: float, width: float) -> tuple[Figure, np.ndarray, Axes]:
    """Returns a figure with a grid of quiet panels and a place for the colour bar below it.

    Args:
        rows: number of rows, >= 1.
        columns: number of columns, >= 1.
        height: of a panel, inches.
        width: of a panel, inches.

    Returns:
        The figure, its panels ``(rows, columns)``, and the axes of the colour bar.

    Example:
        >>> _, panels, _ = new_figure(2, 3, 1.0, 1.0)
        >>> panels.shape
        (2, 3)
    """
    inner = columns * width + (columns - 1) * _GAP
    full_width = max(inner + 2 * _MARGIN, _MIN_WIDTH)
    row_gap = 2.2 * _GAP
    full_height = _HEAD + rows * height + (rows - 1) * row_gap + _BAR
    fig, left = blank(full_width, full_height), (full_width - inner) / 2
    panels = np.empty((rows, columns), dtype=object)
    for row in range(rows):
        bottom = full_height - _HEAD - (row + 1) * height - row * row_gap
        for column in range(columns):
            box = (left + column * (width + _GAP), bottom, width, height)
            panels[row, column] = add_axes(fig, box)
            quiet(panels[row, column])
    length = min(full_width - 2 * _MARGIN, 4.5)
    return fig, panels, add_axes(fig, ((full_width - length) / 2, 0.48, length, 0.09))


def add_axes(fig: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Adds axes at a place given in inches.

    Args:
        fig: the figure.
        box: left, bottom, width, height; inches from the lower left corner.

    Returns:
        The axes.

    Example:
        >>> add_axes(blank(4.0, 2.0), (1.0, 0.5, 2.0, 1.0)).get_position().get_points().tolist()
        [[0.25, 0.25], [0.75, 0.75]]
    """
    width, height = fig.get_size_inches()
    return fig.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))


def quiet(axes: Axes) -> None:
    """Takes ticks off axes and makes their frame thin.

    Args:
        axes: the axes, changed in place.

    Example:
        >>> axes = blank(1.0, 1.0).add_subplot()
        >>> quiet(axes)
        >>> len(axes.get_xticks())
        0
    """
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)


def colour_bar(fig: Figure, axes: Axes, bound: float | None, note: str) -> None:
    """Draws the colour scale.

    Args:
        fig: the figure.
        axes: where, changed in place.
        bound: the value of the darkest red; None where panels have bounds of their own, named "bound".
        note: what the scale is, one line below it.

    Example:
        >>> fig = blank(4.0, 1.0)
        >>> colour_bar(fig, fig.add_subplot(), 0.5, "a note")
    """
    axes.imshow(diverging(np.linspace(-1, 1, 513))[np.newaxis], aspect="auto", extent=(-1, 1, 0, 1))
    texts = ("−bound", "0", "+bound") if bound is None else (f"−{bound:.3g}", "0", f"+{bound:.3g}")
    axes.set_xticks([-1, 0, 1], texts, fontsize=8, color=INK)
    axes.set_yticks([])
    axes.tick_params(length=2, color=FAINT)
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)
    axes.set_xlabel(note, fontsize=8, color=INK, labelpad=2)
