"""Letter logos: relevance along DNA, RNA and proteins, every letter as high as its relevance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kxai.arguments import check_integer
from kxai.errors import ArgumentError
from kxai.plots.canvas import INK, bare, inches_of, layout, number, row_title, spaces, whole_ticks
from kxai.plots.given import Relevance, check_finite, check_texts, with_channels
from kxai.plots.letters import letter_colours, letter_path
from kxai.plots.scale import bounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT, _NEXT, _LETTER = 0.75, 0.2, 0.2


def logo(
    relevance: Relevance,
    alphabet: str = "ACGT",
    sequences: Sequence[str] | np.ndarray | None = None,
    start: int = 0,
    stop: int | None = None,
    titles: Sequence[str] | None = None,
    scale: str = "method",
    colors: Mapping[str, str] | None = None,
    per_line: int = 100,
) -> Figure:
    """Draws relevance of sequences as letters: as high as their relevance, below the axis where it is negative.

    Where several letters of a step have relevance, they are stacked, the smallest next to the axis.

    Args:
        relevance: ``(batch, steps, letters)`` of one-hot inputs, finite, or an explanation of these; with
            ``sequences`` also ``(batch, steps)`` or any number of channels, whose sum is then the height of the letter
            that is there. Or a dict of these by the name of the method, which are shown below each other, sample by
            sample.
        alphabet: the letter of every channel, all different; such as ``"ACGU"`` or ``"ACDEFGHIKLMNPQRSTVWY"``; default
            ``"ACGT"``.
        sequences: the letters that are there: a text per sample, or one-hot ``(batch, steps, letters)`` (steps of
            zeros have no letter). Relevance of steps without a letter is stated. Default None draws every letter
            with its own relevance, which is that of the present one if the method multiplies by the input.
        start, stop: the window of steps to draw, start <= step < stop; default all.
        titles: one line per sample; default none.
        scale: what shares one axis: ``"figure"``, ``"method"`` (default) or ``"panel"`` (nothing: each sample of each
            method has its own).
        colors: of letters; default as :func:`kxai.plots.letters.letter_colours` chooses them.
        per_line: letters in a line, >= 1; longer sequences continue below. Default 100.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: shapes, letters or the window do not fit each other, or an argument is out of range.
        InputError: relevance is empty or not finite.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> drawn = logo(np.array([[[0.0, 2.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]]))
        >>> [patch.get_gid() for patch in drawn.axes[0].patches]
        ['A', 'C']

    Source: Shrikumar, Greenside, Kundaje, "Learning important features through propagating activation differences"
    (2017), figure 5; Schneider and Stephens, "Sequence logos" (1990).
    """
    maps = with_channels(relevance)
    batch, steps = _check(maps, alphabet, sequences, per_line)
    check_texts(titles, batch, "titles", "sample")
    stop = _window(start, stop, steps)
    present = None if sequences is None else _codes(sequences, alphabet, batch, steps)
    heights = {name: _heights(values, present, len(alphabet))[:, start:stop] for name, values in maps.items()}
    rests = {name: _rests(values, present)[:, start:stop].sum(axis=1) for name, values in maps.items()}
    ups = bounds({name: np.maximum(each, 0).sum(axis=2) for name, each in heights.items()}, scale, 100)
    downs = bounds({name: np.minimum(each, 0).sum(axis=2) for name, each in heights.items()}, scale, 100)
    colours = letter_colours(alphabet, colors)
    count = min(per_line, stop - start)
    panels = [(row, name, first) for row in range(batch) for name in maps for first in range(start, stop, count)]
    width = min(max(_LETTER * count, 3.2), 12.0)
    titled = titles is not None or any(maps) or any(rest.any() for rest in rests.values())
    above = spaces([first == start for _, _, first in panels], titled, _NEXT)
    ends = {number(float(end), 2) for sides in (ups, downs) for each in sides.values() for end in each}
    left = max(0.6, 0.25 + max(inches_of(f"−{end}", 7) for end in ends))
    made = layout([(space, _HEIGHT) for space in above], [width], left=left, foot=0.4)
    for index, (row, name, first) in enumerate(panels):
        axes = made.panel(index)
        part = heights[name][row, first - start : first - start + count]
        _write(axes, part, first, colours)
        _frame(axes, first, len(part), -downs[name][row], ups[name][row])
        axes.set_xlim(first - 0.5, first + count - 0.5)
        if first == start:
            rest = float(rests[name][row])
            note = f"relevance {number(rest)} at steps without a letter" if rest else ""
            row_title(axes, "" if titles is None else titles[row], name, note, width)
    axes.set_xlabel("position", fontsize=8, color=INK, labelpad=2)
    return made.figure


def _write(axes: Axes, heights: np.ndarray, first: int, colours: Mapping[str, str]) -> None:
    from matplotlib.patches import PathPatch

    bottoms = stacked(heights)
    for index, (letter, colour) in enumerate(colours.items()):
        there = np.flatnonzero(heights[:, index])
        if len(there):
            path = letter_path(letter, first - 0.5 + there, bottoms[there, index], heights[there, index])
            # Unlike add_patch, this does not look at every curve for limits that are known.
            axes.add_artist(PathPatch(path, facecolor=colour, linewidth=0, gid=letter))


def stacked(heights: np.ndarray) -> np.ndarray:
    """Says where every letter of a stack begins: positive ones upward from 0, negative ones downward, small ones first.

    Args:
        heights: ``(steps, letters)``.

    Returns:
        The ends next to the axis, ``(steps, letters)``.

    Example:
        >>> stacked(np.array([[3.0, 1.0, -2.0, 0.0]]))
        array([[1., 0., 0., 0.]])
    """
    order = np.argsort(np.abs(heights), axis=1, kind="stable")
    ranked = np.take_along_axis(heights, order, axis=1)
    ends = [np.cumsum(side, axis=1) - side for side in (np.maximum(ranked, 0), np.minimum(ranked, 0))]
    bottoms = np.empty_like(ranked)
    np.put_along_axis(bottoms, order, np.where(ranked > 0, *ends), axis=1)
    return bottoms


def _frame(axes: Axes, first: int, count: int, low: float, high: float) -> None:
    room = 0.04 * ((high - low) or 1.0)
    axes.set_ylim(low - room, high + room)
    bare(axes, "left")
    axes.plot([first - 0.5, first + count - 0.5], [0, 0], color=INK, linewidth=0.5)
    ticks = sorted({low, 0.0, high})
    # Ticks closer than their letters are high would overlap.
    ticks = [tick for tick in ticks if tick == 0 or abs(tick) > 0.2 * (high - low)]
    axes.set_yticks(ticks, [number(tick, 2) for tick in ticks])
    axes.set_xticks(whole_ticks(first, count, 20))


def _heights(relevance: np.ndarray, present: np.ndarray | None, letters: int) -> np.ndarray:
    """Returns the height of every letter, ``(batch, steps, letters)``."""
    if present is None:
        return relevance.astype(np.float64)
    return (present[..., np.newaxis] == np.arange(letters)) * _per_step(relevance)[..., np.newaxis]


def _rests(relevance: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """Returns relevance of steps without a letter, ``(batch, steps)``."""
    if present is None:
        return np.zeros(relevance.shape[:2])
    return np.where(present < 0, _per_step(relevance), 0.0)


def _per_step(relevance: np.ndarray) -> np.ndarray:
    per_step: np.ndarray = relevance.reshape(*relevance.shape[:2], -1).sum(axis=2, dtype=np.float64)
    return per_step


def _codes(sequences: Sequence[str] | np.ndarray, alphabet: str, batch: int, steps: int) -> np.ndarray:
    """Returns the index of the present letter, ``(batch, steps)``; -1 where there is none."""
    if isinstance(sequences, np.ndarray) and sequences.ndim > 1:
        if sequences.shape != (batch, steps, len(alphabet)):
            raise ArgumentError(
                "sequences do not fit.",
                expected=f"({batch}, {steps}, {len(alphabet)}) for the alphabet {alphabet!r}",
                received=str(sequences.shape),
            )
        total = sequences.sum(axis=2)
        if not (np.isin(sequences, (0, 1)).all() and (total <= 1).all()):
            raise ArgumentError("sequences are not one-hot.", expected="0 everywhere but one 1 in a step at most")
        return np.where(total == 1, sequences.argmax(axis=2), -1)
    texts = [sequences] if isinstance(sequences, str) else [str(text) for text in sequences]
    if isinstance(sequences, str) or len(texts) != batch or any(len(text) > steps for text in texts):
        raise ArgumentError(
            "sequences do not fit.",
            expected=f"{batch} texts of at most {steps} letters",
            received=f"{len(texts)} of {[len(text) for text in texts]} letters"
            + " (one text)" * isinstance(sequences, str),
        )
    strangers = sorted(set("".join(texts)) - set(alphabet))
    if strangers:
        raise ArgumentError(
            "sequences have letters that the alphabet lacks.",
            expected=f"letters of {alphabet!r}",
            received=", ".join(strangers),
            fix=f"alphabet={alphabet + ''.join(strangers)!r}, or texts in upper case.",
        )
    return np.array([[alphabet.index(c) for c in text] + [-1] * (steps - len(text)) for text in texts])


def _window(start: int, stop: int | None, steps: int) -> int:
    end = steps if stop is None else stop
    if (
        any(isinstance(edge, bool) or not isinstance(edge, int) for edge in (start, end))
        or not 0 <= start < end <= steps
    ):
        raise ArgumentError(
            "The window does not lie in the sequence.",
            expected=f"0 <= start < stop <= {steps}",
            received=f"start={start!r}, stop={stop!r}",
        )
    return end


def _check(
    maps: dict[str, np.ndarray], alphabet: str, sequences: Sequence[str] | np.ndarray | None, per_line: int
) -> tuple[int, int]:
    if not isinstance(alphabet, str) or len(set(alphabet)) != len(alphabet) or not alphabet or " " in alphabet:
        raise ArgumentError("This is no alphabet.", expected="different letters, as one text", received=repr(alphabet))
    check_integer("per_line", per_line)
    shapes = {name: values.shape for name, values in maps.items()}
    shape = next(iter(shapes.values()), ())
    ranks = (3,) if sequences is None else (2, 3)
    if len(set(shapes.values())) != 1 or len(shape) not in ranks:
        raise ArgumentError(
            "This is no relevance of sequences of letters.",
            expected="one shape (batch, steps, letters) for all methods"
            + ("" if len(ranks) == 1 else ", or (batch, steps)"),
            received=str(shapes if "" not in shapes else shape),
            fix="say with sequences= which letters are there, if relevance has one number per step."
            if len(shape) == 2
            else "",
        )
    if sequences is None and shape[2] != len(alphabet):
        raise ArgumentError(
            "The alphabet does not fit the channels.",
            expected=f"{shape[2]} letters, one per channel",
            received=f"{len(alphabet)}: {alphabet!r}",
        )
    for name, values in maps.items():
        check_finite(values, f"Relevance of {name}" if name else "Relevance")
    return shape[0], shape[1]
