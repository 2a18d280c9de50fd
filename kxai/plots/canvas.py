"""What the figures have in common: panels without global state, the colour bar, texts that fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from kxai.errors import ArgumentError, MissingDependencyError
from kxai.plots.color import diverging

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"
FAINT = "#bbbbbb"
RED, BLUE = (tuple(float(part) / 255 for part in diverging(np.array(value))) for value in (0.75, -0.75))

_FOOT, _RIM, _MIN_WIDTH = 0.85, 0.15, 4.2
_DPI, _MOST = 150, 65_000  # dots of a side; matplotlib cannot draw more than 2^16
_EXTREME = 4.0


@final
@dataclass(frozen=True)
class Layout:
    """A figure and the places of its panels, in inches; :func:`layout` makes one.

    Args:
        figure: the figure.
        lefts: left edges of the columns.
        widths: of the columns.
        bottoms: lower edges of the rows.
        heights: of the rows.
    """

    figure: Figure
    lefts: tuple[float, ...]
    widths: tuple[float, ...]
    bottoms: tuple[float, ...]
    heights: tuple[float, ...]

    def panel(self, row: int, column: int = 0) -> Axes:
        """Adds the axes of one panel.

        Args:
            row: from above.
            column: from the left; default 0.

        Returns:
            The axes, quiet.
        """
        axes = self._axes(self.lefts[column], self.bottoms[row], self.widths[column], self.heights[row])
        quiet(axes)
        return axes

    def bar(self, bound: float | None, note: str) -> None:
        """Draws the colour scale below the panels, for which the layout was made with ``bar=True``.

        Args:
            bound: the value of the darkest red; None where panels have bounds of their own, named "bound".
            note: what the colours hide, up to two lines below it; may be empty.
        """
        width = float(self.figure.get_size_inches()[0])
        length = min(width - 0.9, 4.5)
        axes = self._axes((width - length) / 2, 0.52, length, 0.09)
        axes.imshow(diverging(np.linspace(-1, 1, 513))[np.newaxis], aspect="auto", extent=(-1, 1, 0, 1))
        quiet(axes)
        end = "bound" if bound is None else number(bound)
        texts = ("", "0", "") if bound == 0 else (f"−{end}", "0", f"+{end}")
        axes.set_xticks([-1, 0, 1], texts, fontsize=8, color=INK)
        axes.tick_params(length=2, color=FAINT)
        axes.set_xlabel(fitted(note, width - 0.2, 8), fontsize=8, color=INK, labelpad=2)

    def _axes(self, *box: float) -> Axes:
        width, height = self.figure.get_size_inches()
        return self.figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))


def layout(
    rows: Sequence[tuple[float, float]],
    widths: Sequence[float],
    *,
    left: float = 0.3,
    right: float = 0.3,
    gap: float = 0.12,
    foot: float = _RIM,
    bar: bool = False,
) -> Layout:
    """Lays panels out in rows and columns.

    Args:
        rows: per row the space above it (for titles) and its height, inches.
        widths: of the columns, inches.
        left, right: margins, inches; default 0.3.
        gap: between columns, inches; default 0.12.
        foot: below the last row, inches; default 0.15.
        bar: whether to leave room for a colour bar below that; default False.

    Returns:
        The layout, with an empty white figure that can be saved and is never shown.

    Raises:
        ArgumentError: the figure would be larger than can be saved.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> made = layout([(0.5, 1.0), (0.5, 1.0)], [4.0, 2.0], left=1.0, right=0.5, gap=0.5, foot=0.85)
        >>> made.figure.get_size_inches()
        array([8., 4.])
        >>> made.panel(1, 1).get_position().get_points().round(4).tolist()
        [[0.6875, 0.2125], [0.9375, 0.4625]]
    """
    inner = left + sum(widths) + gap * (len(widths) - 1) + right
    width = max(inner, _MIN_WIDTH)
    left += (width - inner) / 2
    below = foot + (_FOOT - _RIM if bar else 0.0)
    height = _RIM + sum(above + high for above, high in rows) + below
    top, bottoms = height - _RIM, []
    for above, high in rows:
        top -= above + high
        bottoms.append(top)
    lefts = [left + sum(widths[:column]) + column * gap for column in range(len(widths))]
    heights = tuple(high for _, high in rows)
    return Layout(_blank(width, height), tuple(lefts), tuple(widths), tuple(bottoms), heights)


def _blank(width: float, height: float) -> Figure:
    if max(width, height) * _DPI > _MOST:
        raise ArgumentError(
            "This figure would be too large to be saved.",
            expected=f"at most {_MOST // _DPI} inches",
            received=f"{width:.0f} x {height:.0f} inches",
            fix="draw fewer samples at once, explanation[:20] for example, or smaller ones.",
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "Figures need matplotlib, which is not installed.",
            fix="pip install matplotlib; heatmap_rgb and overlay work without it.",
        ) from error
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def placed(height: int, width: int, size: float) -> tuple[float, dict[str, Any]]:
    """Chooses how a picture is drawn: in its own proportions, but at most 4 : 1 and at least 1 : 4, without gaps.

    Args:
        height, width: of the picture, pixels.
        size: its height, inches.

    Returns:
        Its width in inches, and options of ``imshow``.

    Example:
        >>> placed(20, 40, 1.0), placed(20, 500, 1.0)[0]
        ((2.0, {'aspect': 'equal', 'interpolation': 'nearest'}), 4.0)
    """
    own = width / height
    drawn = min(max(own, 1 / _EXTREME), _EXTREME)
    # Where a picture has more pixels than dots, single dots would be left out.
    fits = height <= size * _DPI and width <= size * drawn * _DPI
    aspect = "equal" if drawn == own else "auto"
    return size * drawn, {"aspect": aspect, "interpolation": "nearest" if fits else "antialiased"}


def quiet(axes: Axes) -> None:
    """Takes ticks off axes and makes their frame thin.

    Args:
        axes: the axes, changed in place.

    Example:
        >>> axes = layout([(0, 1)], [1]).panel(0)
        >>> len(axes.get_xticks())
        0
    """
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)


def bare(axes: Axes, *sides: str) -> None:
    """Takes the frame off but for some sides, and makes the ticks to come small.

    Args:
        axes: the axes, changed in place.
        *sides: what stays: "left", "bottom".

    Example:
        >>> axes = layout([(0, 1)], [1]).panel(0)
        >>> bare(axes, "bottom")
        >>> axes.spines["left"].get_visible()
        False
    """
    for side, spine in axes.spines.items():
        spine.set_visible(side in sides)
    axes.tick_params(labelsize=7, color=FAINT, labelcolor=INK, length=2, pad=2)


def spaces(begins: Sequence[bool], titled: bool, within: float) -> list[float]:
    """Chooses the space above wide panels that form groups.

    Args:
        begins: per panel, whether a group begins with it.
        titled: whether groups have a line of text above them.
        within: between panels of a group, inches.

    Returns:
        Inches, per panel.

    Example:
        >>> spaces([True, False, True], True, 0.0)
        [0.2, 0.0, 0.45]
    """
    heading = 0.2 if titled else 0.0
    between = [heading + 0.25 if first else within for first in begins]
    return [heading, *between[1:]]


def row_title(axes: Axes, title: str, method: str, note: str, width: float) -> None:
    """Writes above a wide panel: what it shows on the left, a note on the right.

    Args:
        axes: the panel, changed in place.
        title: of the sample; may be empty.
        method: its name; may be empty.
        note: may be empty.
        width: of the panel, inches.

    Example:
        >>> axes = layout([(0.4, 1)], [4]).panel(0)
        >>> row_title(axes, "a cat", "lrp", "", 4.0)
        >>> axes.get_title(loc="left")
        'a cat   lrp'
    """
    shown = "   ".join(text for text in (title, method) if text)
    room = width - inches_of(note, 8) - 0.2
    axes.set_title(shortened(shown, room, 9), fontsize=9, color=INK, loc="left", pad=4, parse_math=False)
    axes.set_title(note, fontsize=8, color=INK, loc="right", pad=4, parse_math=False)


def fitted(text: str, inches: float, points: float, lines: int = 2) -> str:
    """Breaks a text into lines of a width, at spaces and after "_", "/" and "."; the rest becomes "…".

    Args:
        text: the text; its own line breaks stay.
        inches: the width.
        points: size of the font.
        lines: the most lines; default 2.

    Returns:
        The text with line breaks.

    Example:
        >>> fitted("lrp.sequential_preset_b_flat_until_idx", 1.9, 10)
        'lrp.sequential_preset_b_\\nflat_until_idx'
        >>> fitted("unbreakable", 0.5, 10)
        'unbr…'
    """
    found: list[str] = []
    for own in text.split("\n"):
        found.append("")
        for piece in re.findall(r".+?(?:[\s_/]|\.(?!\d)|$)", own):
            if found[-1] and inches_of(found[-1] + piece.rstrip(), points) > inches:
                found.append("")
            found[-1] += piece
    shown = [line.strip() for line in found[:lines]]
    if len(found) > lines:
        shown[-1] += " …"
    return "\n".join(shortened(line, inches, points) for line in shown)


def shortened(text: str, inches: float, points: float, keep_end: bool = False) -> str:
    """Cuts a text to a width.

    Args:
        text: the text; line breaks become spaces.
        inches: the width.
        points: size of the font.
        keep_end: whether the end of the text stays instead of its beginning; default False.

    Returns:
        The text, or a part of it and "…".

    Example:
        >>> shortened("block_3/conv/relu", 0.7, 8, keep_end=True)
        '…/conv/relu'
    """
    text = " ".join(text.splitlines())
    if inches_of(text, points) <= inches:
        return text
    while text and inches_of(text + "…", points) > inches:
        text = text[1:] if keep_end else text[:-1]
    return f"…{text}" if keep_end else f"{text.rstrip()}…"


def number(value: float, digits: int = 3) -> str:
    """Writes a number as matplotlib does on axes.

    Args:
        value: the number.
        digits: significant ones; default 3.

    Returns:
        The text, with a true minus sign.

    Example:
        >>> number(-0.12345)
        '−0.123'
    """
    return f"{value + 0.0:.{digits}g}".replace("-", "−")  # without the sign of -0.0


def whole_ticks(first: int, count: int, most: int = 10) -> list[int]:
    """Chooses round positions along a sequence.

    Args:
        first: the first position.
        count: the number of positions, >= 1.
        most: of ticks; default 10.

    Returns:
        Multiples of 1, 2 or 5 times a power of ten.

    Example:
        >>> whole_ticks(95, 30)
        [95, 100, 105, 110, 115, 120]
    """
    step = next(s for power in range(20) for s in (10**power, 2 * 10**power, 5 * 10**power) if count / s <= most)
    return list(range(-(-first // step) * step, first + count, step))


def inches_of(text: str, points: float) -> float:
    """Measures a text.

    Args:
        text: one line.
        points: size of the font.

    Returns:
        Its width, inches.

    Example:
        >>> 0.5 < inches_of("relevance", 8) < 0.6
        True
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=points), False)[0]) / 72
