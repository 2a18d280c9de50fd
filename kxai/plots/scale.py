"""The scale of a picture: one bound, symmetric about zero, chosen by a percentile of the magnitudes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kxai.arguments import check_choice, check_number
from kxai.plots.given import check_finite

SCALES = ("figure", "method", "panel")


def limit(values: np.ndarray, clip: float = 99.5) -> float:
    """Returns the bound of a symmetric colour scale: what is larger than it is shown in the darkest colour.

    bound = ``clip``-th percentile of ``|values|``; if that is 0 (a nearly empty map), the maximum of ``|values|``.

    Args:
        values: array of any shape, at least one value, finite.
        clip: percentile in (0, 100]; 100 clips nothing; default 99.5.

    Returns:
        The bound, > 0 unless all values are 0.

    Raises:
        ArgumentError: ``clip`` is outside (0, 100].
        InputError: the values are empty or not finite.

    Example:
        >>> limit(np.array([-4.0, 1.0, 2.0]), clip=100)
        4.0
    """
    check_number("clip", clip, above=0, most=100, unit="a percentile")
    values = np.asarray(values)
    check_finite(values, "Relevance")
    values = np.abs(values.astype(np.float64))
    return float(np.percentile(values, clip)) or float(values.max())


def bounds(maps: Mapping[str, np.ndarray], scale: str, clip: float) -> dict[str, list[float]]:
    """Returns the bound of every method and sample.

    Args:
        maps: by the name of the method, ``(batch, ...)`` each.
        scale: what shares a bound: ``"figure"`` (everything), ``"method"`` or ``"panel"`` (nothing).
        clip: percentile in (0, 100].

    Returns:
        One bound per sample, by method.

    Raises:
        ArgumentError: ``scale`` or ``clip`` is out of range.
        InputError: the values are empty or not finite.

    Example:
        >>> bounds({"a": np.array([[1.0], [2.0]]), "b": np.array([[3.0], [-4.0]])}, "method", 100)
        {'a': [2.0, 2.0], 'b': [4.0, 4.0]}
    """
    check_choice("scale", scale, SCALES)
    if scale == "panel":
        return {name: [limit(row, clip) for row in values] for name, values in maps.items()}
    if scale == "method":
        return {name: [limit(values, clip)] * len(values) for name, values in maps.items()}
    bound = limit(np.concatenate([values.ravel() for values in maps.values()]), clip)
    return {name: [bound] * len(values) for name, values in maps.items()}


def scaled(values: np.ndarray, bound: float) -> np.ndarray:
    """Divides by the bound; a bound of 0 belongs to values that are all 0.

    Args:
        values: array of any shape.
        bound: the bound, >= 0.

    Returns:
        float64 array of the same shape, clipped to [-1, 1].

    Example:
        >>> scaled(np.array([-3.0, 1.0]), 2.0)
        array([-1. ,  0.5])
    """
    return np.clip(np.asarray(values, dtype=np.float64) / (bound or 1.0), -1.0, 1.0)


def one_bound(found: Mapping[str, list[float]]) -> float | None:
    """Returns the bound that all panels share, or None.

    Args:
        found: what ``bounds`` returned.

    Returns:
        The bound.

    Example:
        >>> one_bound({"a": [2.0, 2.0]}), one_bound({"a": [2.0], "b": [3.0]})
        (2.0, None)
    """
    every = {bound for each in found.values() for bound in each}
    return every.pop() if len(every) == 1 else None


def stated(maps: Mapping[str, np.ndarray], found: Mapping[str, list[float]], scale: str, clip: float) -> str:
    """Says in words, for a figure, what its colours hide: whether there are several scales, and values beyond them.

    Args:
        maps: by the name of the method, ``(batch, ...)`` each.
        found: what ``bounds`` returned for them.
        scale: what shares a bound.
        clip: the percentile.

    Returns:
        One line; empty if there is one scale and no value lies beyond it.

    Example:
        >>> values = {"a": np.arange(201.0)[np.newaxis]}
        >>> stated(values, bounds(values, "figure", 99.5), "figure", 99.5)
        'clipped at the 99.5th percentile, |R| ≤ 199'
        >>> stated(values, bounds(values, "figure", 100), "figure", 100)
        ''
    """
    peaks = {name: np.abs(values.reshape(len(values), -1)).max(axis=1) for name, values in maps.items()}
    clipped = any((peaks[name] > found[name]).any() for name in maps)
    bound = one_bound(found)
    if bound is not None:
        return _clipped(percentile(clip), bound) if clipped else ""
    own = f"each {scale} by its own ±bound"
    return f"{own}, clipped at the {percentile(clip)} of |R|" if clipped else own


def chosen(values: np.ndarray, clip: float, bound: float | None) -> tuple[float, str]:
    """Returns the one bound of a picture, and what its colours hide.

    Args:
        values: array of any shape, at least one value, finite.
        clip: percentile of their magnitudes, (0, 100].
        bound: the bound itself instead, > 0, or None.

    Returns:
        The bound, and one line that is empty if no value lies beyond it.

    Raises:
        ArgumentError: ``clip`` or ``bound`` is out of range.
        InputError: the values are empty or not finite.

    Example:
        >>> chosen(np.array([1.0, -4.0]), 99.5, 2.0)
        (2.0, 'clipped at the given bound, |R| ≤ 2')
    """
    own = limit(values, clip)
    value = own if bound is None else check_number("bound", bound, above=0, also="None")
    clipped = float(np.abs(values).max()) > value
    return value, _clipped(percentile(clip) if bound is None else "given bound", value) if clipped else ""


def _clipped(at: str, bound: float) -> str:
    return f"clipped at the {at}, |R| ≤ {bound:.3g}"


def percentile(clip: float) -> str:
    """Names a percentile.

    Args:
        clip: the percentile, (0, 100].

    Returns:
        Its name.

    Example:
        >>> percentile(99.5), percentile(92), percentile(11)
        ('99.5th percentile', '92nd percentile', '11th percentile')
    """
    text = f"{clip:g}"
    ending = (
        "th" if text in ("11", "12", "13") or "." in text else {"1": "st", "2": "nd", "3": "rd"}.get(text[-1], "th")
    )
    return f"{text}{ending} percentile"


def strongest(values: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Shortens long sequences for a picture with fewer cells than steps: the largest magnitude of a cell is kept.

    A mean would fade, and a sampled step hide, the single steps that matter most.

    Args:
        values: ``(steps,)``.
        cells: the most cells that a picture can show, >= 1.

    Returns:
        The signed values ``(n,)`` with n <= ``cells``, and the first step of every cell, ``(n,)``.

    Example:
        >>> strongest(np.array([1.0, -5.0, 2.0, 3.0]), 2)
        (array([-5.,  3.]), array([0, 2]))
    """
    steps = len(values)
    first = np.arange(steps) if steps <= cells else np.arange(cells) * steps // cells
    low, high = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
    return np.where(-low > high, low, high), first
