"""Numbers that a reader can check by hand, of methods that compare an input with a reference."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from tests.test_numbers import dense, network, xor

# Both in float64; the numbers are of order one.
CLOSE = {"rtol": 0, "atol": 1e-12}


def deeplift(model: Any, x: Any, reference: Any = 0.0, rule: str = "rescale", **options: Any) -> Any:
    analyzer = kxai.DeepLIFT(model, reference, rule)
    return analyzer.explain(np.asarray(x, np.float64), **options)


def integrated(
    model: Any, x: Any, baseline: Any = 0.0, points: int = 50, grid: str = "midpoint", **options: Any
) -> Any:
    analyzer = kxai.IntegratedGradients(model, baseline, points, grid)
    return analyzer.explain(np.asarray(x, np.float64), **options)


# --- the XOR network -------------------------------------------------------------------------------------------------

# (input, reference, class): the network's output differs from the reference's by 2.5 in both.
FIRST = ([[0.0, 3.0]], [0.0, 0.0], 0)
SECOND = ([[3.0, 3.0]], [0.0, 3.0], 1)


@pytest.mark.parametrize(
    ("problem", "points", "gradients", "mean"),
    [
        (FIRST, [[0, 0], [0, 1.5], [0, 3]], [[0, 0], [-1, 1], [-1, 1]], [-2 / 3, 2 / 3]),
        (SECOND, [[0, 3], [1.5, 3], [3, 3]], [[1, -1], [1, -1], [0, 0]], [2 / 3, -2 / 3]),
    ],
)
def test_xor_gradients_on_the_path(problem, points, gradients, mean):
    """Both ends and the middle with equal weights give 2; that is no grid of kxai, for it misses 2.5 by O(1 / n)."""
    x, reference, target = problem
    found = kxai.Gradient(xor()).explain(np.array(points, np.float64), target).relevance
    np.testing.assert_allclose(found, gradients, **CLOSE)
    np.testing.assert_allclose(found.mean(axis=0), mean, **CLOSE)
    total = (np.array(x[0]) - reference) * found.mean(axis=0)
    np.testing.assert_allclose(total, [[0, 2], [2, 0]][target], **CLOSE)


GRIDS = [
    ("left", 3, 2, 3), ("left", 10, 2.4, 2.7), ("left", 50, 2.46, 2.52),
    ("right", 3, 3, 2), ("right", 10, 2.7, 2.4), ("right", 50, 2.52, 2.46),
    # With 3 midpoints one falls on the kink, where the derivative is 0.
    ("midpoint", 3, 2, 2), ("midpoint", 10, 2.4, 2.4), ("midpoint", 50, 2.52, 2.52),
    ("trapezoid", 3, 2.25, 2.25), ("trapezoid", 10, 2.5, 2.5), ("trapezoid", 50, 2.479592, 2.479592),
    ("gauss_legendre", 3, 2.166667, 2.166667), ("gauss_legendre", 10, 2.347186, 2.347186),
    ("gauss_legendre", 50, 2.518744, 2.518744),
]  # fmt: skip


@pytest.mark.parametrize(("grid", "points", "one", "two"), GRIDS)
def test_xor_integrated_gradients(grid, points, one, two):
    """The gradient switches at 1/6 and at 5/6 of the path; the integral is 2.5."""
    for (x, reference, target), expected in ((FIRST, [0, one]), (SECOND, [two, 0])):
        if (grid, points) == ("midpoint", 3):
            # alpha = 5/6 and (1 - alpha) 3 + alpha 3 are rounded: the point may lie on either side of the kink.
            expected = [expected, np.array(expected) * 1.5]
        found = integrated(xor(), x, np.array(reference), points, grid, target=target)
        distance = np.abs(found.relevance - np.atleast_2d(expected)).max(axis=1).min()
        assert distance <= 1e-6  # the table has six decimals
        assert found.score - found.base == pytest.approx(2.5, abs=1e-12)


def test_xor_integrated_gradients_from_a_baseline_of_the_same_class():
    found = integrated(xor(), [[3, 3]], 0.0, 50, target=1)
    np.testing.assert_array_equal(found.relevance, [[0, 0]])
    assert found.score == found.base == 1


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel", "genomics_default"])
@pytest.mark.parametrize(
    ("problem", "outputs", "hidden", "expected"),
    [(FIRST, (1.5, -1.0), (0, 2.5), (0, 2.5)), (SECOND, (1.0, -1.5), (0, 2.5), (2.5, 0))],
)
def test_xor_deeplift(problem, outputs, hidden, expected, rule):
    """Contributions at every layer; their sum is the difference of the logits."""
    x, reference, target = problem
    found = deeplift(xor(), x, np.array(reference), rule, target=target, layers="*")
    np.testing.assert_allclose(found.relevance, [expected], **CLOSE)
    np.testing.assert_allclose([found.score[0], found.base[0]], outputs, **CLOSE)
    np.testing.assert_allclose(found.residual, 0, **CLOSE)
    # Of the hidden units, before and behind their ReLU: q(Da1) Da1 = (1, 1) (0, 2.5), or (-1, -1) (0, -2.5).
    inner = [array[0] for array in found.layers.values() if array.shape == (1, 2)]
    assert sum(np.allclose(array, hidden, **CLOSE) for array in inner) >= 2


def test_xor_multipliers():
    """Rescale factors Da1 / Dn1 = 0 / -3 and 2.5 / 3, then Q = [[0, -5/6], [0, 5/6]]."""
    for (x, reference, target), factor in ((FIRST, 1), (SECOND, -1)):
        analyzer = kxai.DeepLIFT(xor(), np.array(reference), multipliers=True)
        found = analyzer.explain(np.array(x), target, layers="*")
        np.testing.assert_allclose(found.relevance, [[-factor * 5 / 6, factor * 5 / 6]], **CLOSE)
        before = next(iter(found.layers))  # the first affine map
        np.testing.assert_allclose(found.layers[before], [[0, factor * 5 / 6]], **CLOSE)


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_xor_deeplift_from_a_reference_with_the_same_hidden_values(rule):
    """Dn1 = (0, 0): for Rescale the derivative at the reference, 0; for RevealCancel halves that cancel."""
    found = deeplift(xor(), [[3, 3]], 0.0, rule, target=1)
    np.testing.assert_allclose(found.relevance, [[0, 0]], **CLOSE)
    assert found.score == found.base == 1


# --- saturation, thresholds, minima ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "expected"), [((1, 1), (0.5, 0.5)), ((1, 0.5), (2 / 3, 1 / 3)), ((0.4, 0.3), (0.4, 0.3))]
)
def test_saturation(x, expected):
    """y = 1 - relu(1 - i1 - i2) = min(1, i1 + i2): a reference sees what the gradient does not."""
    model = network(dense(1, "relu"), dense(1), weights=[[[-1], [-1]], [1], [[-1]], [1]])
    for rule in ("rescale", "reveal_cancel"):
        np.testing.assert_allclose(deeplift(model, [x], rule=rule).relevance, [expected], **CLOSE)
    # The kink lies at 1/2 or 2/3 of the path, between two of six midpoints.
    np.testing.assert_allclose(integrated(model, [x], points=6).relevance, [expected], **CLOSE)
    gradient = (np.sum(x) < 1) * np.array(x, np.float64)
    np.testing.assert_allclose(kxai.explain(model, np.array([x], np.float64), "gradient_x_input").relevance, [gradient])


def threshold() -> Any:
    """y = relu(x - 10)."""
    return network(dense(1, "relu"), shape=(1,), weights=[[[1]], [-10]])


@pytest.mark.parametrize(
    ("x", "y", "multiplier"), [(9.0, 0, 0), (10.0, 0, 0), (10.001, 0.001, 1e-3 / 10.001), (11.0, 1, 1 / 11)]
)
def test_a_threshold(x, y, multiplier):
    for rule in ("rescale", "reveal_cancel"):
        np.testing.assert_allclose(deeplift(threshold(), [[x]], rule=rule).relevance, [[y]], **CLOSE)
    found = kxai.DeepLIFT(threshold(), multipliers=True).explain(np.array([[x]]))
    np.testing.assert_allclose(found.relevance, [[multiplier]], **CLOSE)
    # The kink lies somewhere between two of n midpoints.
    points = 2000
    path = integrated(threshold(), [[x]], points=points, batch_size=points)
    np.testing.assert_allclose(path.relevance, [[y]], rtol=0, atol=x / (2 * points))


def test_around_a_threshold():
    """Contributions are continuous there; gradient times input jumps by 10."""
    e = 1e-3
    x = np.array([[10 - e], [10 + e]])
    jumps = {
        "rescale": np.diff(deeplift(threshold(), x).relevance[:, 0]),
        "reveal_cancel": np.diff(deeplift(threshold(), x, rule="reveal_cancel").relevance[:, 0]),
        "gradient": np.diff(kxai.explain(threshold(), x, "gradient_x_input").relevance[:, 0]),
    }
    assert jumps["gradient"] == pytest.approx(10, abs=2 * e)
    assert abs(jumps["rescale"]) <= 2 * e
    assert abs(jumps["reveal_cancel"]) <= 2 * e


def test_small_differences_are_not_lost_in_single_precision():
    """Differences of 2^-20 from a reference of 1, exact in float32; the slope is 3."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, "relu"), layers.Dense(1)])
    model.set_weights([np.array([[1.0]]), np.array([-0.5]), np.array([[3.0]]), np.array([7.0])])
    x = np.array([[1 + 2.0**-20], [1 - 2.0**-20]], "float32")
    found = kxai.DeepLIFT(model, 1.0).explain(x)
    np.testing.assert_array_equal(found.relevance, [[3 * 2.0**-20], [-3 * 2.0**-20]])


@pytest.mark.parametrize(("x", "gradient"), [((3, 5), (3, 0)), ((5, 3), (0, 3))])
def test_a_minimum_of_relus(x, gradient):
    """o = i1 - relu(i1 - i2): RevealCancel gives half of the minimum to each, Rescale and IG what the gradient says."""
    inputs = keras.Input((2,), dtype="float64")
    hidden = dense(1, "relu", use_bias=False)
    model = keras.Model(inputs, inputs[:, :1] - hidden(inputs))
    hidden.set_weights([np.array([[1.0], [-1.0]])])
    np.testing.assert_allclose(deeplift(model, [x]).relevance, [gradient], **CLOSE)
    np.testing.assert_allclose(integrated(model, [x]).relevance, [gradient], **CLOSE)
    np.testing.assert_allclose(deeplift(model, [x], rule="reveal_cancel").relevance, [[1.5, 1.5]], **CLOSE)


# --- one neuron ------------------------------------------------------------------------------------------------------


def test_one_neuron():
    """W = (1, 1), b = -1, p = (2, 0): the weight of evidence, (2, 0) by all methods."""
    model = network(dense(1, "sigmoid"), weights=[[[1], [1]], [-1]])
    for found in (
        deeplift(model, [[2, 0]]),
        deeplift(model, [[2, 0]], rule="reveal_cancel"),
        integrated(model, [[2, 0]]),
    ):
        np.testing.assert_allclose(found.relevance, [[2, 0]], **CLOSE)
        np.testing.assert_allclose([found.score[0], found.base[0]], [1, -1], **CLOSE)
