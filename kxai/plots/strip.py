"""Relevance along a sequence: coloured cells, or the words themselves on coloured ground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import INK, add_axes, blank, colour_bar, quiet
from kxai.plots.color import diverging
from kxai.plots.pieces import pieces
from kxai.plots.scale import checked_bound, limit, scaled, stated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _MARGIN, _LINE, _TITLE, _BAR = 7.5, 0.3, 0.27, 0.28, 0.75
_CHARACTER, _PAD = 0.083, 0.06  # inches; a monospaced character at 10 points, and the rim of a word


def strip(
    values: np.ndarray,
    tokens: Sequence[Sequence[str]] | None = None,
    titles: Sequence[str] | None = None,
    clip: float = 99.5,
    bound: float | None = None,
    note: str = "",
) -> Figure:
    """Draws relevance along sequences, one scale for the whole batch.

    Args:
        values: ``(batch, steps)``, finite.
        tokens: per sample the words, at most ``steps`` of them (what follows, such as padding, is then not drawn and
            its relevance is stated if it is not 0); default None draws cells without text.
        titles: one line per sample; default none.
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate; default 99.5.
        bound: the scale itself instead of a percentile, > 0, for example to share one; default None.
        note: what the colour scale is, one line below it; default says it.

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
    values = np.asarray(values)
    found = limit(values, clip)
    note = note or (stated(clip, found) if bound is None else f"scale ±{bound:.3g}, given")
    bound = found if bound is None else checked_bound(bound)
    _check(values, tokens, titles)
    share = scaled(values, bound)
    shown = [[text for text, _ in pieces(words)] for words in (() if tokens is None else tokens)]
    lines: list[list[list[tuple[int, float, float]]]] = [_wrapped(words) for words in shown] or [[[]] for _ in values]
    heights = [len(line) * _LINE + _TITLE for line in lines]
    full = sum(heights) + _BAR + 0.1
    fig, top = blank(_WIDTH, full), full - 0.05
    for row, height in enumerate(heights):
        axes = add_axes(fig, (_MARGIN, top - height, _WIDTH - 2 * _MARGIN, height - _TITLE))
        top -= height
        axes.set_title("" if titles is None else titles[row], fontsize=9, color=INK, loc="left", pad=3)
        if tokens is None:
            axes.imshow(diverging(share[row])[np.newaxis], aspect="auto", interpolation="nearest")
            quiet(axes)
        else:
            _write(axes, lines[row], share[row], shown[row], float(values[row, len(shown[row]) :].sum()))
    colour_bar(fig, add_axes(fig, (_WIDTH / 2 - 2, 0.48, 4.0, 0.09)), bound, note)
    return fig


def _wrapped(words: Sequence[str]) -> list[list[tuple[int, float, float]]]:
    """Breaks words into lines of (index, left edge, width) in inches."""
    lines: list[list[tuple[int, float, float]]] = [[]]
    left, room = 0.0, _WIDTH - 2 * _MARGIN
    for index, word in enumerate(words):
        width = len(word) * _CHARACTER + 2 * _PAD
        if left + width > room and lines[-1]:
            lines.append([])
            left = 0.0
        lines[-1].append((index, left, width))
        left += width + 0.03
    return lines


def _write(axes: Axes, lines: list, share: np.ndarray, words: Sequence[str], rest: float) -> None:
    from matplotlib.patches import Rectangle

    axes.set_xlim(0, _WIDTH - 2 * _MARGIN)
    axes.set_ylim(len(lines) * _LINE, 0)
    axes.axis("off")
    for number, line in enumerate(lines):
        for index, left, width in line:
            colour = diverging(share[index]) / 255
            box = Rectangle((left, number * _LINE + 0.02), width, _LINE - 0.05, facecolor=colour, edgecolor="none")
            axes.add_patch(box)
            ink = "white" if abs(share[index]) > 0.6 else INK
            place = (left + width / 2, number * _LINE + _LINE / 2)
            # parse_math would read a word such as "$5" as a formula.
            axes.text(
                *place, words[index], ha="center", va="center", color=ink, fontsize=10, family="monospace",
                parse_math=False,
            )  # fmt: skip
    if rest:
        axes.set_title(f"relevance {rest:.3g} after the last word", fontsize=8, color=INK, loc="right", pad=3)


def _check(values: np.ndarray, tokens: Sequence | None, titles: Sequence[str] | None) -> None:
    if values.ndim != 2:
        raise ArgumentError("This is no batch of sequences.", expected="(batch, steps)", received=str(values.shape))
    batch, steps = values.shape
    if titles is not None and len(titles) != batch:
        raise ArgumentError("titles do not fit.", expected=f"{batch}, one per sample", received=str(len(titles)))
    if tokens is None:
        return
    if isinstance(tokens, str) or any(isinstance(words, str) for words in tokens):
        raise ArgumentError("tokens has the wrong structure.", expected="a list of words per sample", received="a str")
    if len(tokens) != batch or any(len(words) > steps for words in tokens):
        raise ArgumentError(
            "tokens do not fit.",
            expected=f"{batch} lists of at most {steps} words",
            received=f"{len(tokens)} lists of {[len(words) for words in tokens]} words",
        )
