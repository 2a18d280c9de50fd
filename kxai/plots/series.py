"""Time series: the line of the values on the colours of their relevance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import INK, bare, inches_of, layout, number, row_title, shortened, spaces
from kxai.plots.color import diverging
from kxai.plots.given import Relevance, check_finite, check_texts, with_channels
from kxai.plots.scale import bounds as bounds_of
from kxai.plots.scale import one_bound, scaled, stated, strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _NEXT, _NAMES, _CELLS = 6.6, 0.6, 0.06, 1.6, 500
Ticks: TypeAlias = "list[tuple[float, str]]"


def series(
    relevance: Relevance,
    values: np.ndarray,
    names: Sequence[str] | None = None,
    time: np.ndarray | None = None,
    titles: Sequence[str] | None = None,
    scale: str = "method",
    clip: float = 99.5,
) -> Figure:
    """Draws time series, a row per channel, on the colours of their relevance.

    The colour of a step reaches halfway to its neighbours. Beyond 500 steps a cell of colour stands for several and
    shows the strongest.

    Args:
        relevance: ``(batch, steps, channels)``, or ``(batch, steps[, 1])``, which every channel is then shown on;
            finite; or an explanation; or a dict of these by the name of the method, which are
            shown below each other, sample by sample.
        values: the series, ``(batch, steps[, channels])``, finite.
        names: of the channels; default "channel 0", ... if there are several.
        time: of the steps, ``(steps,)``, increasing: numbers or ``datetime64``; default their index.
        titles: one line per sample; default none.
        scale: what shares one colour scale: ``"figure"``, ``"method"`` (default) or ``"panel"`` (nothing: a
            sample of a method). The figure gives the bounds.
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate; default 99.5.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: shapes do not fit each other, or an argument is out of range.
        InputError: relevance, values or time are empty or not finite.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> drawn = series(np.array([[0.0, 1.0, -1.0]]), np.array([[20.5, 21.0, 19.0]]))
        >>> drawn.axes[0].lines[0].get_ydata().tolist()
        [20.5, 21.0, 19.0]
    """
    maps, lines = with_channels(relevance), np.asarray(values)
    lines = lines[..., np.newaxis] if lines.ndim == 2 else lines
    maps = {name: each[..., np.newaxis] if each.ndim == 2 else each for name, each in maps.items()}
    _check(maps, lines)
    batch, steps, channels = lines.shape
    check_texts(names, channels, "names", "channel")
    check_texts(titles, batch, "titles", "sample")
    if names is None:
        names = [f"channel {number}" for number in range(channels)] if channels > 1 else [""]
    places, is_date = _places(time, steps)
    bounds = bounds_of(maps, scale, clip)
    panels = [(row, name, channel) for row in range(batch) for name in maps for channel in range(channels)]
    high = _HEIGHT * (1.4 if channels == 1 else 1.0)
    ticks = [[_ticks(*_ends(line)) for line in sample.T] for sample in lines]
    numbers = 0.1 + max(inches_of(text, 7) for sample in ticks for line in sample for _, text in line)
    left = 0.25 + numbers + min(max(inches_of(name, 8) for name in names), _NAMES)
    titled = titles is not None or any(maps)
    above = spaces([channel == 0 for _, _, channel in panels], titled, _NEXT)
    made = layout([(space, high) for space in above], [_WIDTH], left=left, foot=0.4, bar=True)
    for index, (row, name, channel) in enumerate(panels):
        axes = made.panel(index)
        shares = scaled(maps[name][row], bounds[name][row])
        _draw(axes, places, lines[row, :, channel], shares[:, min(channel, shares.shape[1] - 1)])
        _frame(axes, names[channel], ticks[row][channel], numbers)
        if channel == channels - 1:
            _time(axes, places, is_date)
        if channel == 0:
            own = f"±{number(bounds[name][row])}" if one_bound(bounds) is None else ""
            row_title(axes, "" if titles is None else titles[row], name, own, _WIDTH)
    made.bar(one_bound(bounds), stated(maps, bounds, scale, clip))
    return made.figure


def _draw(axes: Axes, places: np.ndarray, values: np.ndarray, share: np.ndarray) -> None:
    from matplotlib.patheffects import Normal, withStroke

    edges = np.concatenate([[places[0]], (places[1:] + places[:-1]) / 2, [places[-1]]])
    if len(places) == 1:
        edges = places[0] + np.array([-0.5, 0.5])
    shown, first = strongest(share, _CELLS)
    axes.pcolormesh(
        np.append(edges[first], edges[-1]), [0, 1], diverging(shown)[np.newaxis], transform=axes.get_xaxis_transform(),
        antialiased=False,
    )  # fmt: skip
    # A white rim keeps the line readable on the darkest colours.
    rim = [withStroke(linewidth=2.6, foreground="white"), Normal()]
    marker = "o" if len(places) == 1 else ""
    axes.plot(places, values, color=INK, linewidth=1.1, marker=marker, path_effects=rim)
    axes.set_ylim(*_ends(values))
    axes.set_xlim(edges[0], edges[-1])


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Returns where the axis of values begins and ends."""
    low, high = float(values.min()), float(values.max())
    room = 0.12 * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def _ticks(low: float, high: float) -> Ticks:
    """Chooses round numbers and writes each in full: matplotlib's common factor would stand in the panel above."""
    from matplotlib.ticker import MaxNLocator

    places = [float(place) for place in MaxNLocator(3, min_n_ticks=2).tick_values(low, high) if low <= place <= high]
    wrong = 1e-3 * (high - low)
    digits = next(n for n in range(1, 18) if all(abs(float(f"{place:.{n}g}") - place) <= wrong for place in places))
    # 2500 rather than 2.5e+03, and 2.5e+09 rather than 2500000000.
    written = [[number(place, count) for place in places] for count in (max(digits, 12), digits)]
    return list(zip(places, min(written, key=lambda texts: max(map(len, texts), default=0)), strict=True))


def _frame(axes: Axes, name: str, ticks: Ticks, numbers: float) -> None:
    bare(axes, "left")
    axes.set_yticks([place for place, _ in ticks], [text for _, text in ticks])
    axes.set_ylabel(
        shortened(name, _NAMES, 8), fontsize=8, color=INK, rotation=0, ha="right", va="center", parse_math=False
    )
    axes.yaxis.set_label_coords(-(numbers + 0.05) / _WIDTH, 0.5)


def _time(axes: Axes, places: np.ndarray, is_date: bool) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator

    if is_date:
        locator = AutoDateLocator(maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.xaxis.get_offset_text().set(fontsize=7, color=INK)
    elif len(places) == 1:
        axes.set_xticks(places)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=bool((places == np.round(places)).all())))


def _places(time: np.ndarray | None, steps: int) -> tuple[np.ndarray, bool]:
    """Returns where the steps lie on the axis, and whether these are dates."""
    if time is None:
        return np.arange(steps, dtype=np.float64), False
    array = np.asarray(time)
    if array.shape != (steps,):
        raise ArgumentError("time does not fit.", expected=f"({steps},), one per step", received=str(array.shape))
    is_date = array.dtype.kind == "M"
    if is_date:
        from matplotlib.dates import date2num

        array = date2num(array)
    check_finite(array, "time")
    if (np.diff(array) <= 0).any():
        step = int(np.argmax(np.diff(array) <= 0))
        raise ArgumentError(
            "time does not increase.",
            expected="every step later than the one before",
            received=f"step {step + 1} at {np.asarray(time)[step + 1]} after {np.asarray(time)[step]}",
        )
    return array.astype(np.float64), is_date


def _check(maps: dict[str, np.ndarray], values: np.ndarray) -> None:
    shapes = {name: each.shape for name, each in maps.items()}
    fits = {(*values.shape[:2], channels) for channels in (1, values.shape[-1])} if values.ndim == 3 else set()
    if values.ndim != 3 or not shapes or any(shape not in fits for shape in shapes.values()):
        raise ArgumentError(
            "Relevance and values are no time series together.",
            expected="values (batch, steps[, channels]), relevance of the same shape or with one channel",
            received=f"relevance {shapes.get('', shapes)}, values {values.shape}",
        )
    check_finite(values, "values")
