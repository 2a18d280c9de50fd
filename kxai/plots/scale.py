"""The scale of a picture: one bound, symmetric about zero, chosen by a percentile of the magnitudes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kxai.errors import ArgumentError, InputError

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
    if isinstance(clip, bool) or not isinstance(clip, (int, float)) or not 0 < clip <= 100:
        raise ArgumentError("clip is out of range.", expected="a percentile in (0, 100]", received=repr(clip))
    values = np.abs(np.asarray(values, dtype=np.float64))
    if values.size == 0 or not np.isfinite(values).all():
        raise InputError(
            "There is nothing that could be drawn.",
            expected="at least one value, all finite",
            received="no values" if values.size == 0 else "NaN or infinity",
        )
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
    if scale not in SCALES:
        raise ArgumentError("scale is out of range.", expected=f"one of {', '.join(SCALES)}", received=repr(scale))
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


def stated(clip: float, bound: float) -> str:
    """Says in words what a scale does, for a figure.

    Args:
        clip: the percentile.
        bound: the bound.

    Returns:
        One line.

    Example:
        >>> stated(99.5, 0.25)
        'scale ±0.25 = 99.5th percentile of |relevance|'
    """
    return f"scale ±{bound:.3g} = {percentile(clip)} of |relevance|"


def checked_bound(bound: float) -> float:
    """Returns a bound that was given.

    Args:
        bound: the bound.

    Returns:
        The bound, finite and > 0.

    Raises:
        ArgumentError: it is out of range.

    Example:
        >>> checked_bound(2)
        2.0
    """
    if isinstance(bound, bool) or not isinstance(bound, (int, float, np.number)) or not 0 < bound < np.inf:
        raise ArgumentError("bound is out of range.", expected="a finite number > 0, or None", received=repr(bound))
    return float(bound)


def percentile(clip: float) -> str:
    """Names a percentile.

    Args:
        clip: the percentile, (0, 100].

    Returns:
        Its name.

    Example:
        >>> percentile(99.5), percentile(100)
        ('99.5th percentile', 'maximum')
    """
    return "maximum" if clip == 100 else f"{clip:g}th percentile"
