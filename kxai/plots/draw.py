"""One call for any explanation: the picture that fits its data, or the one that is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kxai.errors import ArgumentError, UnknownNameError
from kxai.plots.bars import bars
from kxai.plots.canvas import number
from kxai.plots.figure import figure
from kxai.plots.flow import flow
from kxai.plots.given import Explained, check_texts, method_of
from kxai.plots.logo import logo
from kxai.plots.series import series
from kxai.plots.strip import strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWERS: dict[str, Callable[..., Figure]] = {
    "grid": figure, "strip": strip, "logo": logo, "series": series, "bars": bars, "flow": flow,
}  # fmt: skip
_KEEP_CHANNELS = ("logo", "series")
# Rank of the relevance, and the options that only one of the kinds for this rank has.
_ASKED = {2: {"tokens": "strip"}, 3: {"sequences": "logo", "alphabet": "logo", "values": "series"}, 4: {}}
_USUAL = {2: "bars", 3: "strip", 4: "grid"}


def draw(
    explanation: Explained,
    kind: str | None = None,
    input: str | int | None = None,
    reduce: str | None = None,
    **options: Any,
) -> Figure:
    """Draws an explanation in the way that its data ask for.

    Args:
        explanation: the explanation.
        kind: ``"grid"`` (:func:`figure`, images), ``"strip"`` (:func:`strip`, sequences and texts), ``"logo"``
            (:func:`logo`, one-hot letters), ``"series"`` (:func:`series`, time series), ``"bars"`` (:func:`bars`,
            tables) or ``"flow"`` (:func:`flow`, layer by layer). None (default) takes what fits the rank of the
            relevance: 4 ``"grid"``; 3 ``"logo"`` if ``sequences`` or ``alphabet`` is given, ``"series"`` if ``values``
            are, else ``"strip"``; 2 ``"strip"`` if ``tokens`` are given, else ``"bars"``.
        input: which of several inputs; default the only one. Not for ``"flow"``, which shows all.
        reduce: how channels become one number, as in ``Explanation.heatmap``; default ``"sum"``. Not for ``"logo"``,
            ``"series"`` and ``"flow"``.
        **options: of the function that draws; ``titles`` are by default the scores.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: relevance of this shape cannot be drawn so, or an option does not exist or does not apply.
        UnknownNameError: there is no such kind or input.

    Example:
        >>> import kxai
        >>> table = kxai.Explanation(np.ones((2, 4)), np.zeros((2, 1)), "sum", np.array([4.0, 4.0]))
        >>> len(draw(table).axes)
        2
    """
    if kind is not None and (not isinstance(kind, str) or kind not in _DRAWERS):
        raise UnknownNameError("kind of picture", str(kind), _DRAWERS)
    if kind == "flow":
        given = {"input": input, "reduce": reduce}
        _options("flow", {**options, **{name: value for name, value in given.items() if value is not None}})
        return flow(explanation, **options)
    relevance = explanation.of_input(input)
    kind = kind or _fitting(relevance, options)
    _options(kind, options)
    if kind in _KEEP_CHANNELS and reduce is not None:
        raise ArgumentError("reduce does not apply.", expected=f"no reduce for {kind!r}", received=repr(reduce))
    shown = relevance if kind in _KEEP_CHANNELS else explanation.heatmap(input, reduce or "sum")
    titles = options.pop("titles", None)
    check_texts(titles, len(explanation.score), "titles", "sample")
    lines = [f"score {number(value, 4)}" for value in explanation.score] if titles is None else list(titles)
    method = method_of(explanation, "relevance")
    if kind in ("strip", "bars"):
        if kind == "bars" and isinstance(explanation.relevance, np.ndarray) and reduce in (None, "sum"):
            options = {"score": explanation.score, "base": explanation.base, **options}
        return _DRAWERS[kind](shown, titles=[f"{method}  {line}" for line in lines], **options)
    return _DRAWERS[kind]({method: shown}, titles=lines, **options)


def _fitting(relevance: np.ndarray, options: dict[str, Any]) -> str:
    if relevance.ndim not in _USUAL:
        raise ArgumentError(
            "Relevance of this rank has no picture.",
            expected="images (batch, height, width, channels), sequences (batch, steps, channels) or tables "
            "(batch, features)",
            received=str(relevance.shape),
            fix="draw slices of explanation.heatmap() with kxai.plots.figure.",
        )
    asked = [kind for option, kind in _ASKED[relevance.ndim].items() if option in options]
    return asked[0] if asked else _USUAL[relevance.ndim]


def _options(kind: str, options: dict[str, Any]) -> None:
    parameters = [*inspect.signature(_DRAWERS[kind]).parameters.values()][1:]
    taken = [parameter.name for parameter in parameters]
    missing = [one.name for one in parameters if one.default is one.empty and one.name not in options]
    if missing:
        raise ArgumentError(
            f"This picture needs {', '.join(missing)}.",
            expected=f"explanation.plot(kind={kind!r}, {', '.join(f'{name}=...' for name in missing)})",
            received=", ".join(sorted(options)) or "no options",
        )
    unknown = sorted(set(options) - set(taken))
    if unknown:
        raise ArgumentError(
            f"The option {', '.join(unknown)} does not apply to this picture.",
            expected=f"options of {kind!r}: {', '.join(taken)}",
            received=", ".join(sorted(options)),
        )
