"""Relevance along a sequence: coloured cells, or the words themselves on coloured ground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import FAINT, INK, layout, number, row_title, whole_ticks
from kxai.plots.color import diverging
from kxai.plots.given import Explained, check_texts, check_tokens, one_heatmap
from kxai.plots.pieces import pieces
from kxai.plots.scale import chosen, scaled, strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _LINE, _TITLE, _CELLS = 6.9, 0.27, 0.28, 500
_CHARACTER, _PAD = 0.0867, 0.06  # inches; a monospaced character at 10 points and 150 dots, and the rim of a word
_LONGEST = int((_WIDTH - 2 * _PAD) / _CHARACTER)  # characters of a line


def strip(
    values: np.ndarray | Explained,
    tokens: Sequence[Sequence[str]] | None = None,
    titles: Sequence[str] | None = None,
    clip: float = 99.5,
    bound: float | None = None,
    note: str = "",
) -> Figure:
    """Draws relevance along sequences, one scale for the whole batch.

    Args:
        values: relevance ``(batch, steps)``, finite, or an explanation of sequences. Beyond 500 steps without tokens,
            a cell stands for several and has the colour of the strongest.
        tokens: per sample the words, at most ``steps`` of them (what follows, such as padding, is then not drawn and
            its relevance is stated if it is not 0); words longer than a line are cut, with "…". Default None draws
            cells without text.
        titles: one line per sample; default none.
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate; default 99.5.
        bound: the scale itself instead of a percentile, > 0, for example to share one; default None.
        note: what the colour scale is, a line or two below it; default says where it is clipped, if it is.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: shapes do not fit each other, or ``clip`` or ``bound`` is out of range.
        InputError: values are empty or not finite.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> drawn = strip(np.array([[0.1, -0.9, 0.4]]), tokens=[["not", "bad", "!"]])
        >>> [text.get_text() for text in drawn.axes[0].texts]
        ['not', 'bad', '!']
    """
    values = one_heatmap(values)
    _check(values, tokens, titles)
    bound, told = chosen(values, clip, bound)
    shown = [[_fitting(text) for text, _ in pieces(words)] for words in (() if tokens is None else tokens)]
    lines = [_wrapped(words) for words in shown]
    rests = (
        [float(row[len(words) :].sum()) for row, words in zip(values, shown, strict=True)]
        if lines
        else [0.0] * len(values)
    )
    above = 0.1 if titles is None and not any(rests) else _TITLE
    made = layout(
        [(above, _LINE * (len(lines[row]) if lines else 1)) for row in range(len(values))], [_WIDTH],
        foot=0.15 if lines else 0.35, bar=True,
    )  # fmt: skip
    for row, relevance in enumerate(values):
        axes = made.panel(row)
        after = f"relevance {number(rests[row])} after the last word" if rests[row] else ""
        row_title(axes, "" if titles is None else titles[row], "", after, _WIDTH)
        if lines:
            _write(axes, lines[row], scaled(relevance, bound), shown[row])
        else:
            _cells(axes, relevance, bound, last=row == len(values) - 1)
    made.bar(bound, note or told)
    return made.figure


def _cells(axes: Axes, relevance: np.ndarray, bound: float, last: bool) -> None:
    cells, _ = strongest(relevance, _CELLS)
    extent = (-0.5, len(relevance) - 0.5, 0.0, 1.0)
    axes.imshow(diverging(scaled(cells, bound))[np.newaxis], aspect="auto", interpolation="nearest", extent=extent)
    if last:
        axes.set_xticks(whole_ticks(0, len(relevance)))
        axes.tick_params(labelsize=7, color=FAINT, labelcolor=INK, length=2, pad=2)


def _fitting(word: str) -> str:
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…"


def _wrapped(words: Sequence[str]) -> list[list[tuple[int, float, float]]]:
    """Breaks words into lines of (index, left edge, width) in inches."""
    lines: list[list[tuple[int, float, float]]] = [[]]
    left, room = 0.0, _WIDTH
    for index, word in enumerate(words):
        width = len(word) * _CHARACTER + 2 * _PAD
        if left + width > room and lines[-1]:
            lines.append([])
            left = 0.0
        lines[-1].append((index, left, width))
        left += width + 0.03
    return lines


def _write(axes: Axes, lines: list, share: np.ndarray, words: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(len(lines) * _LINE, 0)
    axes.axis("off")
    for place, line in enumerate(lines):
        for index, left, width in line:
            colour = diverging(share[index]) / 255
            box = Rectangle((left, place * _LINE + 0.02), width, _LINE - 0.05, facecolor=colour, edgecolor="none")
            axes.add_patch(box)
            ink = "white" if abs(share[index]) > 0.6 else INK
            middle = (left + width / 2, place * _LINE + _LINE / 2)
            # parse_math would read a word such as "$5" as a formula.
            axes.text(
                *middle, words[index], ha="center", va="center", color=ink, fontsize=10, family="monospace",
                parse_math=False,
            )  # fmt: skip


def _check(values: np.ndarray, tokens: Sequence | None, titles: Sequence[str] | None) -> None:
    if values.ndim != 2:
        raise ArgumentError("This is no batch of sequences.", expected="(batch, steps)", received=str(values.shape))
    batch, steps = values.shape
    check_texts(titles, batch, "titles", "sample")
    if tokens is not None:
        check_tokens(tokens, batch, steps)
