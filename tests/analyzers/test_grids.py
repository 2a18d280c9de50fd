"""Quadrature on [0, 1]: weights add up to 1, and polynomials are exact up to the degree that each grid promises."""

from __future__ import annotations

import numpy as np
import pytest

from kxai.analyzers.sampling.grids import GRIDS, grid
from kxai.errors import ArgumentError, UnknownNameError

DEGREE = {"left": 0, "right": 0, "midpoint": 1, "trapezoid": 1, "gauss_legendre": 9}


@pytest.mark.parametrize("name", GRIDS)
def test_polynomials_up_to_the_degree_of_the_grid(name):
    points, weights = grid(name, 5)
    assert points.dtype == weights.dtype == np.float64
    assert np.all((points >= 0) & (points <= 1) & (np.diff(points, prepend=-1) > 0))
    for degree in range(DEGREE[name] + 2):
        error = abs(weights @ points**degree - 1 / (degree + 1))
        assert (error < 1e-15) == (degree <= DEGREE[name]), degree


def test_points_are_those_of_the_definitions():
    np.testing.assert_allclose(grid("left", 4)[0], [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(grid("right", 4)[0], [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(grid("midpoint", 4)[0], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(grid("trapezoid", 3)[1], [0.25, 0.5, 0.25])
    np.testing.assert_allclose(grid("gauss_legendre", 2)[0], [0.5 - 1 / 12**0.5, 0.5 + 1 / 12**0.5])


@pytest.mark.parametrize("points", [0, -3, 2.0, True, "5"])
def test_points_are_counted(points):
    with pytest.raises(ArgumentError, match=r"num_steps is out of range(.|\n)*an integer >= 1"):
        grid("left", points)


def test_bad_grids():
    with pytest.raises(UnknownNameError, match=r"Unknown grid 'midpiont'(.|\n)*did you mean midpoint"):
        grid("midpiont", 5)
    with pytest.raises(ArgumentError, match=r"num_steps >= 2(.|\n)*num_steps=1"):
        grid("trapezoid", 1)
