"""Relevance of a table's features as bars, the largest first, up to the whole of the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kxai.arguments import check_integer, check_number
from kxai.errors import ArgumentError
from kxai.plots.canvas import BLUE, FAINT, INK, RED, bare, fitted, inches_of, layout, number, shortened
from kxai.plots.given import Explained, check_finite, check_texts, one_heatmap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _LABELS, _BAR, _PER_ROW = 2.0, 2.0, 0.2, 3


def bars(
    relevance: np.ndarray | Explained,
    names: Sequence[str] | None = None,
    values: np.ndarray | None = None,
    titles: Sequence[str] | None = None,
    top: int = 12,
    score: np.ndarray | None = None,
    base: np.ndarray | None = None,
    bound: float | None = None,
) -> Figure:
    """Draws the relevance of features as horizontal bars, a panel per sample, one axis for all.

    The bars of a panel add up to all relevance; where the score is known, to score - base: what no feature explains
    is a bar of its own.

    Args:
        relevance: ``(batch, features)``, finite, or an explanation of a table, which knows its score and base.
        names: of the features; default their numbers.
        values: of the features, ``(batch, features)``, numbers or texts, written next to the names; default None.
        titles: one line per sample; default none.
        top: how many features a panel shows, >= 1, default 12; the sum of the others is one gray bar.
        score: ``(batch,)``, what was explained; default that of the explanation, else unknown.
        base: ``(batch,)``, its value at the reference; needs a score. Default that of the explanation, else 0.
        bound: where the axis ends, > 0, for example to share one, longer bars leave it; default None, at the longest.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: shapes do not fit each other, or ``top`` or ``bound`` is out of range.
        InputError: relevance, score or base are empty or not finite.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> drawn = bars(np.array([[0.2, -1.0, 0.1]]), ["age", "sex", "hours"], top=2, score=np.array([1.0]))
        >>> [label.get_text() for label in drawn.axes[0].get_yticklabels()]
        ['sex', 'age', '1 other', 'unexplained']
        >>> drawn.axes[0].get_xlabel()
        'base 0 → score 1'
    """
    if isinstance(relevance, Explained):
        score = relevance.score if score is None else score
        base = relevance.base if base is None else base
    shown = one_heatmap(relevance)
    _check(shown, names, values, titles, top)
    ends = _ends(score, base, len(shown))
    shown = shown.astype(np.float64)
    labels = _labels(names, values, shown.shape)
    panels = [_ranked(*row, top) for row in zip(shown, labels, strict=True)]
    if ends is not None:
        for panel, start, end in zip(panels, *ends, strict=True):
            panel.append(("unexplained", float(end - start - sum(value for _, value, _ in panel)), FAINT))
    longest = max(abs(value) for panel in panels for _, value, _ in panel) or 1.0
    reach = longest if bound is None else check_number("bound", bound, above=0, also="None")
    columns = min(len(shown), _PER_ROW)
    room = max(inches_of(label, 8) for panel in panels for label, _, _ in panel) + 0.1
    under = 0.55 if ends is None else 0.68
    above = 0.05 if titles is None else 0.36
    rows = [(above + (under - 0.2 if row else 0.0), len(panels[0]) * _BAR) for row in range(-(-len(shown) // columns))]
    made = layout(rows, [_WIDTH] * columns, left=room + 0.15, gap=room + 0.15, foot=under)
    for index, panel in enumerate(panels):
        axes = made.panel(*divmod(index, columns))
        _draw(axes, panel, reach)
        axes.set_xlabel(
            "relevance" if ends is None else _way(*(float(end[index]) for end in ends)), fontsize=8, color=INK
        )
        title = "" if titles is None else fitted(titles[index], _WIDTH + room, 9)
        axes.set_title(title, fontsize=9, color=INK, x=(1 - room / _WIDTH) / 2, parse_math=False)
    return made.figure


def _way(base: float, score: float) -> str:
    return f"base {number(base, 4)} → score {number(score, 4)}"


def _labels(names: Sequence[str] | None, values: np.ndarray | None, shape: tuple[int, ...]) -> list[list[str]]:
    """Returns what is written next to every bar, by sample."""
    known = [f"feature {number}" for number in range(shape[1])] if names is None else [str(name) for name in names]
    if values is None:
        return [[shortened(name, _LABELS, 8) for name in known]] * shape[0]
    # The value is never cut: a name can be guessed from its beginning.
    texts = [
        [f" = {number(one, 4)}" if isinstance(one, float) else f" = {one}" for one in row] for row in _rows(values)
    ]
    return [
        [shortened(name, _LABELS - inches_of(text, 8), 8) + text for name, text in zip(known, row, strict=True)]
        for row in texts
    ]


def _rows(values: np.ndarray) -> list[list[Any]]:
    return [[shortened(one, 0.8, 8) if isinstance(one, str) else one for one in row] for row in values.tolist()]


def _ranked(row: np.ndarray, labels: list[str], top: int) -> list[tuple[str, float, Any]]:
    """Returns (label, value, colour) of the largest features and of the sum of the others."""
    order = np.argsort(-np.abs(row), kind="stable")
    panel: list[tuple[str, float, Any]] = [
        (labels[index], float(row[index]), RED if row[index] >= 0 else BLUE) for index in order[:top]
    ]
    others = order[top:]
    if len(others):
        panel.append((f"{len(others)} other" + ("s" if len(others) > 1 else ""), float(row[others].sum()), FAINT))
    return panel


def _draw(axes: Axes, panel: list[tuple[str, float, Any]], reach: float) -> None:
    labels, sizes, colours = zip(*panel, strict=True)
    places = np.arange(len(panel))
    axes.barh(places, sizes, color=colours, height=0.72)
    bare(axes, "bottom")
    axes.set_yticks(places, labels, fontsize=8, color=INK, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(panel) - 0.4, -0.6)
    axes.set_xlim(-1.08 * reach, 1.08 * reach)
    axes.set_xticks([-reach, 0, reach], [number(tick) for tick in (-reach, 0, reach)], fontsize=7, color=INK)
    axes.axvline(0, color=INK, linewidth=0.6)


def _ends(score: np.ndarray | None, base: np.ndarray | None, batch: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns base and score of every sample."""
    if score is None:
        if base is not None:
            raise ArgumentError("A base needs a score.", expected="score=", received="base without score")
        return None
    ends = {"base": np.zeros(batch) if base is None else np.asarray(base), "score": np.asarray(score)}
    for name, array in ends.items():
        if array.shape != (batch,):
            raise ArgumentError(f"{name} does not fit.", expected=f"({batch},)", received=str(array.shape))
        check_finite(array, name)
    return ends["base"], ends["score"]


def _check(
    relevance: np.ndarray,
    names: Sequence[str] | None,
    values: np.ndarray | None,
    titles: Sequence[str] | None,
    top: int,
) -> None:
    if relevance.ndim != 2:
        raise ArgumentError("This is no table.", expected="(batch, features)", received=str(relevance.shape))
    check_finite(relevance, "Relevance")
    # Columns of a table may be numbered.
    texts = names if names is None or isinstance(names, str) else [str(name) for name in names]
    check_texts(texts, relevance.shape[1], "names", "feature")
    if values is not None and np.shape(values) != relevance.shape:
        raise ArgumentError("values do not fit.", expected=str(relevance.shape), received=str(np.shape(values)))
    check_texts(titles, len(relevance), "titles", "sample")
    check_integer("top", top)
