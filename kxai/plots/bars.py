"""Relevance of a table's features as bars, the largest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import FAINT, INK, add_axes, blank
from kxai.plots.color import diverging
from kxai.plots.scale import checked_bound, limit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _LABELS, _BAR, _GAP, _RIM, _PER_ROW = 2.3, 1.45, 0.2, 0.5, 0.4, 3
_POSITIVE, _NEGATIVE = 0.75, -0.75


def bars(
    values: np.ndarray, names: Sequence[str] | None = None, titles: Sequence[str] | None = None, top: int = 12,
    bound: float | None = None,
) -> Figure:  # fmt: skip
    """Draws the relevance of features as horizontal bars, a panel per sample, one axis for all.

    Args:
        values: ``(batch, features)``, finite.
        names: of the features; default their numbers.
        titles: one line per sample; default none.
        top: how many features a panel shows, >= 1, default 12; the sum of the others is one gray bar.
        bound: where the axis ends, > 0, for example to share one, longer bars leave it; default None, at the longest.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: shapes do not fit each other, or ``top`` or ``bound`` is out of range.
        InputError: values are empty or not finite.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> drawn = bars(np.array([[0.2, -1.0, 0.1]]), names=["age", "sex", "hours"], top=2)
        >>> [label.get_text() for label in drawn.axes[0].get_yticklabels()]
        ['sex', 'age', '1 other']
    """
    values = np.asarray(values, dtype=np.float64)
    limit(values)
    _check(values, names, titles, top)
    batch, features = values.shape
    names = [f"feature {number}" for number in range(features)] if names is None else [str(name) for name in names]
    panels = [_ranked(row, names, top) for row in values]
    longest = max(max(abs(value) for _, value, _ in panel) for panel in panels) or 1.0
    reach = longest if bound is None else checked_bound(bound)
    columns = min(batch, _PER_ROW)
    rows, height = -(-batch // columns), len(panels[0]) * _BAR
    width = 2 * _RIM + columns * (_LABELS + _WIDTH) - 0.2
    full = rows * (height + 2 * _GAP) + 0.1
    fig = blank(width, full)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left = _RIM + column * (_LABELS + _WIDTH) + _LABELS - 0.2
        axes = add_axes(fig, (left, full - 0.05 - (row + 1) * (height + 2 * _GAP) + 1.2 * _GAP, _WIDTH - 0.3, height))
        _draw(axes, panel, reach)
        axes.set_title("" if titles is None else titles[number], fontsize=9, color=INK)
    return fig


def _ranked(row: np.ndarray, names: list[str], top: int) -> list[tuple[str, float, Any]]:
    """Returns (name, value, colour) of the largest features and of the sum of the others."""
    order = np.argsort(-np.abs(row), kind="stable")
    red, blue = (tuple(diverging(np.array(value)) / 255) for value in (_POSITIVE, _NEGATIVE))
    panel: list[tuple[str, float, Any]] = [
        (names[index], float(row[index]), red if row[index] >= 0 else blue) for index in order[:top]
    ]
    others = order[top:]
    if len(others):
        label = f"{len(others)} other" + ("s" if len(others) > 1 else "")
        panel.append((label, float(row[others].sum()), FAINT))
    return panel


def _draw(axes: Axes, panel: list[tuple[str, float, Any]], reach: float) -> None:
    labels, sizes, colours = zip(*panel, strict=True)
    places = np.arange(len(panel))
    axes.barh(places, sizes, color=colours, height=0.72)
    shown = [label if len(label) <= 20 else label[:19] + "…" for label in labels]
    axes.set_yticks(places, shown, fontsize=8, color=INK, parse_math=False)
    axes.set_ylim(len(panel) - 0.4, -0.6)
    axes.set_xlim(-1.08 * reach, 1.08 * reach)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_xlabel("relevance", fontsize=8, color=INK)
    axes.tick_params(axis="x", labelsize=7, color=FAINT, labelcolor=INK)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set(color=FAINT, linewidth=0.6)


def _check(values: np.ndarray, names: Sequence[str] | None, titles: Sequence[str] | None, top: int) -> None:
    if values.ndim != 2:
        raise ArgumentError("This is no table.", expected="(batch, features)", received=str(values.shape))
    if names is not None and len(names) != values.shape[1]:
        raise ArgumentError(
            "names do not fit.", expected=f"{values.shape[1]}, one per feature", received=str(len(names))
        )
    if titles is not None and len(titles) != len(values):
        raise ArgumentError("titles do not fit.", expected=f"{len(values)}, one per sample", received=str(len(titles)))
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise ArgumentError("top is out of range.", expected="an integer >= 1", received=repr(top))
