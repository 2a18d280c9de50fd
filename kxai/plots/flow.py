"""The way of relevance through a model, layer by layer: what is positive, what is negative, what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.canvas import BLUE, FAINT, INK, RED, bare, fitted, inches_of, layout, number, shortened
from kxai.plots.given import Explained, method_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTHS, _NAMES, _GAP, _RIGHT, _ROW = (3.6, 1.9), 2.2, 0.75, 0.6, 0.22


@dataclass(frozen=True)
class _Row:
    """One stage; arrays ``(batch,)``. ``sums`` are the positive and the negative one, None where nobody knows them."""

    name: str
    sums: tuple[np.ndarray, np.ndarray] | None
    absorbed: np.ndarray


def flow(explanation: Explained, symlog: bool = False) -> Figure:
    """Draws how relevance flows from the score down to the inputs, a row per layer.

    Left, per layer: the sum of its positive and that of its negative relevance as bars, their net sum as a diamond,
    and cancellation, sum ``|R|`` / ``|sum R|``, as a number (of the means): 1 if all has one sign, large where much is
    added that cancels. Right, if the explanation was made with ``audit=True``: what the layer absorbs instead of
    handing it on, so that all of the right side and the inputs' net sums are score - base. Of several samples their
    mean, with a line from the 10th to the 90th percentile (of net sums and absorbed relevance).

    In a model with branches a layer carries what flows through its branch, not the whole.

    Args:
        explanation: with ``layers``, of any number of samples; ``flow(explanation[3])`` draws one.
        symlog: whether both axes are logarithmic beyond a hundredth of the score, for relevance of very different
            sizes; default False.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: no layers were kept, or what is given is no explanation.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> import keras, kxai
        >>> dense = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="class")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> explanation = kxai.LRP(model, "epsilon").explain(np.ones((5, 3)), layers="*", audit=True)
        >>> [label.get_text() for label in flow(explanation).axes[0].get_yticklabels()]
        ['score − base', 'class', 'hidden', 'input']
    """
    _check(explanation)
    rows = _rows(explanation)
    audited = bool(explanation.absorbed)
    widths = _WIDTHS if audited else _WIDTHS[:1]
    labels = [shortened(row.name, _NAMES, 8, keep_end=True) for row in rows]
    left = max(inches_of(label, 8) for label in labels) + 0.3
    notes = (_cancellation(rows), _lost(rows))[: len(widths)]
    room = [max((inches_of(text, 7) for text in each.values()), default=0.0) + 0.12 for each in notes]
    gap, right = max(_GAP, room[0] + 0.2), max(_RIGHT, room[-1])
    made = layout([(0.62, _ROW * len(rows))], widths, left=left, right=right, gap=gap, foot=0.75)
    panels = [made.panel(0, column) for column in range(len(widths))]
    threshold = float(np.abs(explanation.score - explanation.base).mean()) / 100 or 1.0
    for axes, fill, texts, width in zip(panels, (_fill_sums, _fill_absorbed), notes, widths, strict=False):
        if symlog:
            axes.set_xscale("symlog", linthresh=threshold)
        bare(axes, "bottom")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.axvline(0, color=INK, linewidth=0.6)
        fill(axes, rows)
        for place, text in texts.items():
            axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), fontsize=7, color=INK, va="center")
        _number(axes, threshold if symlog else None, width)
    panels[0].set_yticks(range(len(rows)), labels, fontsize=8, parse_math=False)
    panels[0].tick_params(axis="y", length=0, labelsize=8)
    method = shortened(method_of(explanation), 3.0, 10)
    panels[0].set_title(method, fontsize=10, color=INK, loc="left", pad=20, parse_math=False)
    width = float(made.figure.get_size_inches()[0])
    panels[0].set_xlabel(
        fitted(_account(explanation), width - left - 0.1, 8), x=0, ha="left", fontsize=8, color=INK, labelpad=6
    )
    return made.figure


def _rows(explanation: Explained) -> list[_Row]:
    """From the score to the inputs; what nodes without a row absorb is one row, so that nothing is left out."""
    nothing = np.zeros(len(explanation.score))
    rows = [_Row("score − base", _sums(explanation.score - explanation.base), nothing)]
    absorbed = {path: lost.astype(np.float64) for path, lost in explanation.absorbed.items()}
    for path, relevance in reversed([*explanation.layers.items()]):
        rows.append(_Row(path, _sums(relevance), absorbed.pop(path, nothing)))
    if any(lost.any() for lost in absorbed.values()):
        others = f"{len(absorbed)} other node" + "s" * (len(absorbed) > 1)
        rows.append(_Row(others, None, sum(absorbed.values(), start=nothing)))
    inputs = _leaves(explanation.relevance)
    return [*rows, *(_Row(name, _sums(part), nothing) for name, part in inputs.items())]


def _sums(relevance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = relevance.reshape(len(relevance), -1).astype(np.float64)
    return np.maximum(flat, 0).sum(axis=1), np.minimum(flat, 0).sum(axis=1)


def _leaves(relevance: Any, name: str = "input") -> dict[str, np.ndarray]:
    """The arrays of nested inputs, by a name each."""
    if isinstance(relevance, np.ndarray):
        return {name: relevance}
    parts = relevance.items() if isinstance(relevance, Mapping) else enumerate(relevance)
    return {key: leaf for part, value in parts for key, leaf in _leaves(value, f"{name} {part}").items()}


def _fill_sums(axes: Axes, rows: list[_Row]) -> None:
    known = [(place, *row.sums) for place, row in enumerate(rows) if row.sums is not None]
    places, above, below = ([*column] for column in zip(*known, strict=True))
    axes.barh(places, [each.mean() for each in above], color=RED, height=0.66, label="positive")
    axes.barh(places, [each.mean() for each in below], color=BLUE, height=0.66, label="negative")
    nets = [up + down for up, down in zip(above, below, strict=True)]
    _spread(axes, places, nets)
    axes.plot([net.mean() for net in nets], places, "D", color=INK, markersize=3.5, label="net")
    axes.text(1.02, 1.0, "cancel-\nlation", transform=axes.transAxes, fontsize=7, color=INK, va="bottom")
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=7, handlelength=1, borderpad=0.1,
        columnspacing=1.2, handletextpad=0.4,
    )  # fmt: skip


def _fill_absorbed(axes: Axes, rows: list[_Row]) -> None:
    places, lost = list(range(len(rows))), [row.absorbed for row in rows]
    axes.barh(places, [each.mean() for each in lost], color=FAINT, height=0.66)
    _spread(axes, places, lost)
    axes.set_title("absorbed", fontsize=8, color=INK, loc="left", pad=4)


def _cancellation(rows: list[_Row]) -> dict[int, str]:
    """What is written beside the sums, by row."""
    found = {}
    for place, (up, down) in ((place, row.sums) for place, row in enumerate(rows) if row.sums is not None):
        size, net = float((up - down).mean()), abs(float((up + down).mean()))
        if size:
            found[place] = f"×{number(size / net)}" if net > size * 1e-12 else "all"
    return found


def _lost(rows: list[_Row]) -> dict[int, str]:
    """What is written beside absorbed relevance, by row; nothing where it is next to nothing."""
    least = 1e-3 * np.abs([row.absorbed for row in rows]).max()
    means = {place: float(row.absorbed.mean()) for place, row in enumerate(rows)}
    return {place: number(mean) for place, mean in means.items() if abs(mean) > least}


def _number(axes: Axes, threshold: float | None, width: float) -> None:
    """Puts numbers on the axis that do not touch each other: 0, then from the ends inwards."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_xlim()
    if threshold is None:
        places = [round(place / (high - low), 9) * (high - low) for place in MaxNLocator(5).tick_values(low, high)]
    else:
        first, last = np.ceil(np.log10(threshold)), np.floor(np.log10(max(-low, high, threshold)))
        places = [0.0, *(sign * 10.0**power for power in np.arange(first, last + 1) for sign in (-1, 1))]
    taken: dict[float, tuple[float, float]] = {}
    for place in sorted(
        (place for place in places if low <= place <= high), key=lambda place: (place != 0, -abs(place))
    ):
        middle = width * float(axes.transAxes.inverted().transform(axes.transData.transform((place, 0)))[0])
        half = inches_of(number(place), 7) / 2 + 0.05
        if all(abs(middle - other) >= half + room for other, room in taken.values()):
            taken[place] = (middle, half)
    axes.set_xticks([*taken], [number(place) for place in taken])


def _spread(axes: Axes, places: list[int], samples: list[np.ndarray]) -> None:
    if len(samples[0]) > 1:
        axes.hlines(places, *np.percentile(samples, (10, 90), axis=1), color=INK, linewidth=1)


def _account(explanation: Explained) -> str:
    """What becomes of the score, in one line."""
    batch = len(explanation.score)
    whole = float((explanation.score - explanation.base).mean())
    arrived = sum(float(part.sum(dtype=np.float64)) for part in _leaves(explanation.relevance).values()) / batch
    lost = sum(float(each.mean()) for each in explanation.absorbed.values())
    parts = [f"{number(arrived, 4)} at the inputs"]
    if explanation.absorbed:
        parts.append(f"{number(lost, 4)} absorbed")
    rest = whole - arrived - lost
    if abs(rest) > 1e-3 * max(abs(whole), abs(arrived)):
        parts.append(f"{number(rest, 4)} unaccounted for")
    of = f"mean of {batch} samples: " if batch > 1 else ""
    return f"{of}score − base {number(whole, 4)} = {' + '.join(parts)}"


def _check(explanation: Explained) -> None:
    if not isinstance(explanation, Explained):
        raise ArgumentError(
            "This is no explanation.", expected="a kxai.Explanation", received=type(explanation).__name__
        )
    if not explanation.layers or not len(explanation.score):
        raise ArgumentError(
            "There is no flow to draw: no relevance of layers was kept.",
            expected="an explanation of at least one sample, with layers",
            received=f"{len(explanation.score)} samples, {len(explanation.layers)} layers",
            fix='analyzer.explain(x, layers="*", audit=True).',
        )
