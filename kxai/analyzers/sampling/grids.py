"""Points on a straight path from 0 to 1, and their weights, which add up to 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kxai.arguments import check_integer
from kxai.errors import ArgumentError, UnknownNameError

Grid = tuple[np.ndarray, np.ndarray]


def grid(name: str, points: int) -> Grid:
    """Points and weights of a quadrature over [0, 1].

    Args:
        name: "left", "right", "midpoint" (k + 1/2) / n, "trapezoid" (both ends, at half weight), or "gauss_legendre".
        points: how many, n >= 1; "trapezoid" needs 2.

    Returns:
        (points, weights), float64 (n,) each.

    Raises:
        UnknownNameError: no such grid. ArgumentError: not that few points.

    Example:
        >>> grid("midpoint", 2)
        (array([0.25, 0.75]), array([0.5, 0.5]))
    """
    check_integer("num_steps", points)
    if not isinstance(name, str) or name not in GRIDS:
        raise UnknownNameError("grid", str(name), GRIDS)
    if name == "trapezoid" and points < 2:
        raise ArgumentError("A trapezoid has two ends.", expected="num_steps >= 2", received=f"num_steps={points}")
    return GRIDS[name](int(points))


def _left(n: int) -> Grid:
    return np.arange(n) / n, np.full(n, 1 / n)


def _right(n: int) -> Grid:
    return np.arange(1, n + 1) / n, np.full(n, 1 / n)


def _midpoint(n: int) -> Grid:
    return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)


def _trapezoid(n: int) -> Grid:
    weights = np.full(n, 1 / (n - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, n), weights


def _gauss_legendre(n: int) -> Grid:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2


GRIDS: dict[str, Callable[[int], Grid]] = {
    "left": _left,
    "right": _right,
    "midpoint": _midpoint,
    "trapezoid": _trapezoid,
    "gauss_legendre": _gauss_legendre,
}
