"""Numbers that a reader can check by hand: small networks of the literature, solved on paper."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai import Kind, rules
from kxai.errors import KxaiWarning
from tests import naive

EXACT = {"rtol": 0, "atol": 1e-6}  # the tables give six decimals


def network(*parts: Any, shape: tuple[int, ...] = (2,), weights: Any = None) -> Any:
    """A sequential float64 model with the given weights."""
    model = keras.Sequential([keras.Input(shape, dtype="float64"), *parts])
    if weights is not None:
        model.set_weights([np.asarray(w, np.float64) for w in weights])
    return model


def dense(units: int, activation: str | None = None, use_bias: bool = True) -> Any:
    return layers.Dense(units, activation, use_bias, dtype="float64")


# --- one layer, all rules --------------------------------------------------------------------------------------------

W, B, R = [[1.0, -1.0], [2.0, 1.0]], [-1.0, 2.0], [4.0, 3.0]
TABLE = [
    (rules.Epsilon(0.0), (0, 6), (2, 10)),
    (rules.Epsilon(0.0, bias=False), (-2.2, 9.2), (-1 / 3, 22 / 3)),
    (rules.Epsilon(0.5), (2 / 63, 5.269841), (1.111111, 7.555556)),
    (rules.Epsilon(0.5, bias=False), (-1.272727, 6.909091), (-0.285714, 6.285714)),
    (rules.Gamma(0.25, 0.0), (0.202381, 5.684524), (1.380952, 8.095238)),
    (rules.Gamma(0.25, 0.0, bias=False), (-1.2, 8.2), (0, 7)),
    (rules.GammaOriginal(0.25, 0.0), (0.202381, 5.684524), (1.947368, 11.710526)),
    (rules.AlphaBeta(1, 0, 0.0), (0.8, 4.7), (4, 0)),
    (rules.ZPlus(0.0, bias=True), (0.8, 4.7), (4, 0)),
    (rules.ZPlus(0.0), (0.8, 6.2), (4, 0)),
    (rules.AlphaBeta(2, 1, 0.0), (-1.4, 9.4), (7, -5.2)),
    (rules.AlphaBeta(2, 1, 0.0, bias=False), (-1.4, 12.4), (7, -6)),
    (rules.WSquare(), (2.3, 4.7), (2.3, 4.7)),
    (rules.Flat(), (3.5, 3.5), (3.5, 3.5)),
    (rules.ZBox(0.0, 4.0), (2.6, 4.4), None),
    (rules.ZBox(-3.0, 4.0), None, (4.916667, 2.083333)),
]
CELLS = [(rule, x, cell) for rule, *cells in TABLE for x, cell in zip(((1, 2), (1, -2)), cells, strict=True) if cell]


@pytest.mark.parametrize(("rule", "x", "expected"), CELLS, ids=lambda value: repr(value))
def test_rules_on_one_layer(rule, x, expected):
    model = network(dense(2), weights=[W, B])
    z = np.array(x, np.float64) @ W + B
    assert z.tolist() == ([4, 3] if x == (1, 2) else [-4, -1])
    found = kxai.LRP(model, kxai.Composite("one", ((Kind.AFFINE, rule),))).explain(np.array([x], np.float64), R / z)
    np.testing.assert_allclose(found.relevance, [expected], **EXACT)


# --- deep Taylor -----------------------------------------------------------------------------------------------------

DOMAINS = [({}, (1.05, 3.45)), ({"low": 0.0}, (0.8, 3.7)), ({"low": 0.0, "high": 4.0}, (1.1, 3.4))]


@pytest.mark.parametrize(("domain", "expected"), DOMAINS)
def test_deep_taylor_on_one_hidden_layer(domain, expected):
    """Hidden (4, 0.5), sum 4.5."""
    parts = [dense(2, "relu"), layers.Lambda(lambda v: ops.sum(v, axis=1, keepdims=True), dtype="float64")]
    model = network(*parts, weights=[W, [-1.0, -0.5]])
    found = kxai.DeepTaylor(model, **domain).explain(np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(found.score, [4.5], **EXACT)
    # The sum has a stabilizer of 1e-6.
    np.testing.assert_allclose(found.relevance, [expected], rtol=0, atol=2e-6)


def test_deep_taylor_says_so_when_there_is_nothing_to_explain():
    model = network(dense(2), weights=[W, B])
    with pytest.warns(KxaiWarning, match=r"for 1 of 1 samples .* sample 0, -4"):
        found = kxai.DeepTaylor(model).explain(np.array([[1.0, -2.0]]), 0)
    assert (found.relevance == 0).all()


# --- the XOR network -------------------------------------------------------------------------------------------------


def xor(activation: str | None = "softmax") -> Any:
    weights = [[[1, -1], [-1, 1]], [-0.5, -0.5], [[1, -1], [1, -1]], [-1, 1]]
    return network(dense(2, "relu"), dense(2, activation), weights=weights)


P = np.array([[0.0, 3.0], [3.0, 3.0]])


def test_xor_forward():
    points = np.array([[0, 3], [3, 3], [0, 0], [0, 1.5], [1.5, 3]])
    np.testing.assert_allclose(
        np.asarray(xor(None)(points)), [[1.5, -1.5], [-1, 1], [-1, 1], [0, 0], [0, 0]], atol=1e-12
    )
    outputs = kxai.explain(xor(), P, "gradient").outputs
    np.testing.assert_allclose(outputs, [[0.952574, 0.047426], [0.119203, 0.880797]], **EXACT)


@pytest.mark.parametrize(
    ("method", "expected"),
    [("gradient", [[-1, 1], [0, 0]]), ("gradient_x_input", [[0, 3], [0, 0]]), ("sensitivity", [[1, 1], [0, 0]])],
)
def test_xor_gradients(method, expected):
    found = kxai.explain(xor(), P, method)
    np.testing.assert_allclose(found.relevance, expected, atol=1e-12)
    np.testing.assert_allclose(found.score, [1.5, 1.0], atol=1e-12)
    assert found.target.tolist() == [0, 1]


def test_xor_gradient_and_bias_terms_add_up():
    """x.g + b1.s1 + b2 = 3 - 0.5 - 1 = 1.5."""
    model = xor(None)
    first = kxai.plan(model, "gradient").graph.nodes[0].path  # the first affine map, before its ReLU
    found = kxai.Gradient(model).explain(P[:1], layers=first)
    s1 = found.layers[first]
    assert s1.tolist() == [[0, 1]]
    assert (P[:1] * found.relevance).sum() + (s1 @ [-0.5, -0.5]).item() - 1 == pytest.approx(1.5, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 1e-9])
def test_xor_lrp_without_bias(epsilon):
    analyzer = kxai.LRP(xor(), "epsilon", epsilon=epsilon, bias=False)
    found = analyzer.explain(P, layers="*")
    kept = np.stack([array for array in found.layers.values() if array.shape == (2, 2)])
    # c(a2) once: its affine map; c(a1) twice: before and behind the ReLU.
    expected = [[[0, 1.5], [0, 0]], [[0, 1.5], [0, 0]], [[1.5, 0], [0, 1]]]
    np.testing.assert_allclose(kept, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.relevance[0], [0, 1.5], rtol=0, atol=1e-8)
    assert (found.relevance[1] == 0).all()  # all of the logit is bias: absorbed, and exactly 0
    np.testing.assert_allclose(found.residual, [0, 1], rtol=0, atol=1e-8)
    np.testing.assert_allclose(analyzer.explain(P[:1], 1).relevance, [[0, -1.5]], rtol=0, atol=1e-8)


def test_xor_lrp_with_bias_and_what_it_absorbs():
    found = kxai.LRP(xor(), "zero").explain(P, audit=True, layers="*")
    np.testing.assert_allclose(found.relevance, [[0, 3], [0, 0]], atol=1e-12)
    first, second = [absorbed for absorbed in found.absorbed.values() if np.abs(absorbed).max() > 0][::-1]
    np.testing.assert_allclose(second, [-1, 1], atol=1e-12)
    np.testing.assert_allclose(first, [-0.5, 0], atol=1e-12)
    np.testing.assert_allclose(found.residual, [-1.5, 1], atol=1e-12)
    np.testing.assert_allclose(sum(found.absorbed.values()), found.residual, atol=1e-12)
    assert [0, 2.5] in [kept[0].tolist() for kept in found.layers.values()]


# --- other small networks --------------------------------------------------------------------------------------------


def test_one_neuron():
    """W = (1, 1), b = -1, p = (2, 0): n = 1; contributions (2, 0) add up to n - b."""
    model = network(dense(1, "sigmoid"), weights=[[[1], [1]], [-1]])
    for method in ("gradient_x_input", "lrp.zero"):
        found = kxai.explain(model, np.array([[2.0, 0.0]]), method)
        np.testing.assert_allclose(found.relevance, [[2, 0]], atol=1e-12)
        np.testing.assert_allclose([found.outputs.item(), found.score.item()], [0.731059, 1], **EXACT)
    without = network(dense(1, use_bias=False), weights=[[[1], [1]]])
    for method in ("gradient_x_input", "lrp.zero", "lrp.epsilon"):
        np.testing.assert_allclose(kxai.explain(without, np.array([[2.0, 0.0]]), method).relevance, [[2, 0]], atol=2e-6)


@pytest.mark.parametrize(
    ("x", "y", "gradient_x_input", "without_bias"),
    [(9, 0, 0, 0), (10, 0, 0, 0), (10.001, 0.001, 10.001, 0.001), (11, 1, 11, 1)],
)
def test_a_threshold(x, y, gradient_x_input, without_bias):
    """y = relu(x - 10)."""
    model = network(dense(1, "relu"), shape=(1,), weights=[[[1]], [-10]])
    rows = (Kind.AFFINE, rules.Epsilon(0.0, bias=False)), (Kind.ELEMENTWISE, rules.Pass())
    for method, expected in (
        ("gradient_x_input", gradient_x_input),
        ("lrp.zero", gradient_x_input),
        (kxai.Composite("without bias", rows), without_bias),
    ):
        found = kxai.explain(model, np.array([[float(x)]]), method)
        np.testing.assert_allclose([found.score.item(), found.relevance.item()], [y, expected], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "gradient"), [((1, 1), 1, (0, 0)), ((1, 0.5), 1, (0, 0)), ((0.4, 0.3), 0.7, (1, 1))]
)
def test_saturation(x, y, gradient):
    """y = 1 - relu(1 - i1 - i2): the gradient vanishes where the sum exceeds 1."""
    model = network(dense(1, "relu"), dense(1), weights=[[[-1], [-1]], [1], [[-1]], [1]])
    found = kxai.explain(model, np.array([x], np.float64), "gradient")
    np.testing.assert_allclose(found.score, [y], atol=1e-12)
    np.testing.assert_allclose(found.relevance, [gradient], atol=1e-12)


@pytest.mark.parametrize(("x", "expected"), [((3, 5), (3, 0)), ((5, 3), (0, 3))])
def test_a_minimum_of_relus(x, expected):
    """o = i1 - relu(i1 - i2)."""
    inputs = keras.Input((2,), dtype="float64")
    hidden = dense(1, "relu", use_bias=False)
    model = keras.Model(inputs, inputs[:, :1] - hidden(inputs))
    hidden.set_weights([np.array([[1.0], [-1.0]])])
    found = kxai.explain(model, np.array([x], np.float64), "gradient_x_input")
    np.testing.assert_allclose(found.relevance, [expected], atol=1e-12)


def test_a_maximum_of_equals_is_shared():
    model = network(layers.Lambda(lambda v: ops.maximum(v[:, :1], v[:, 1:]), dtype="float64"))
    np.testing.assert_allclose(kxai.explain(model, np.array([[3.0, 3.0]]), "lrp.zero").relevance, [[1.5, 1.5]])


@pytest.mark.parametrize(
    ("p", "a", "gradient"), [((0, -1), 0.5, (0, 0.4)), ((0, 0), 0.689974, (0, 0)), ((1, 0), 0.5, (-0.4, 0))]
)
def test_a_radial_unit(p, a, gradient):
    """a = logsig(0.8 (1 - p1^2 - p2^2)): no gradient where the network is most confident."""
    radial = layers.Lambda(
        lambda v: ops.sigmoid(0.8 * (1 - ops.sum(ops.square(v), axis=1, keepdims=True))), dtype="float64"
    )
    found = kxai.Gradient(network(radial), strip_softmax=False).explain(np.array([p], np.float64))
    np.testing.assert_allclose(found.outputs, [[a]], **EXACT)
    np.testing.assert_allclose(found.relevance, [gradient], **EXACT)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_shattered_gradients(depth):
    """g(x) = 2 relu(x) - 4 relu(x - 0.5), the same layers again and again: 2^depth pieces, slope 2^depth."""
    lower, upper = dense(2, "relu"), dense(1, use_bias=False)
    inputs = keras.Input((1,), dtype="float64")
    value = inputs
    for _ in range(depth):
        value = upper(lower(value))
    model = keras.Model(inputs, value)
    model.set_weights([np.array([[1.0, 1.0]]), np.array([0.0, -0.5]), np.array([[2.0], [-4.0]])])
    known = {1: (0.2, 0.6, 0.8), 2: (0.4, 0.8, 0.4), 3: (0.8, 0.4, 0.8)}
    if depth in known:
        score = kxai.explain(model, np.array([[0.1], [0.3], [0.6]]), "gradient").score
        np.testing.assert_allclose(score, known[depth], atol=1e-12)
    pieces = 2**depth
    middles = (np.arange(pieces)[:, None] + 0.5) / pieces
    slopes = kxai.explain(model, middles, "gradient").relevance[:, 0]
    np.testing.assert_allclose(slopes, pieces * (-1.0) ** np.arange(pieces), atol=1e-9)
    # LRP-0 with biases is gradient x input on every piece.
    np.testing.assert_allclose(
        kxai.explain(model, middles, "lrp.zero").relevance[:, 0], slopes * middles[:, 0], atol=1e-9
    )


def test_linear_model():
    weights, x = [[2.0], [-3.0], [0.5]], np.array([[1.0, 2.0, -4.0]])
    model = network(dense(1), shape=(3,), weights=[weights, [7.0]])
    expected = {"gradient": [[2, -3, 0.5]], "gradient_x_input": [[2, -6, -2]], "lrp.zero": [[2, -6, -2]]}
    for method, relevance in expected.items():
        np.testing.assert_allclose(kxai.explain(model, x, method).relevance, relevance, atol=1e-12)


# --- convolution and pooling as matrices -----------------------------------------------------------------------------


def test_a_convolution_is_a_matrix():
    F = np.array([[1.0, 2.0], [3.0, 4.0]])
    a, b, c, d = F.ravel()
    matrix = np.array(
        [
            [a, b, 0, c, d, 0, 0, 0, 0],
            [0, a, b, 0, c, d, 0, 0, 0],
            [0, 0, 0, a, b, 0, c, d, 0],
            [0, 0, 0, 0, a, b, 0, c, d],
        ]
    )
    kernel = F.reshape(2, 2, 1, 1)
    np.testing.assert_array_equal(naive.matrix(lambda x: naive.conv(x, kernel), (3, 3, 1)).T, matrix)
    layer = layers.Conv2D(1, 2, use_bias=False, dtype="float64")
    convolution = network(layer, shape=(3, 3, 1), weights=[kernel])
    flat = network(layers.Flatten(), dense(4, use_bias=False), shape=(3, 3, 1), weights=[matrix.T])
    x = np.arange(-3.0, 6.0).reshape(1, 3, 3, 1)
    weights = np.array([1.0, -2.0, 0.5, 3.0])
    for method in ("gradient", "lrp.epsilon", "lrp.gamma", "lrp.alpha_beta", "lrp.z_plus", "lrp.w_square"):
        one = kxai.explain(convolution, x, method, target=weights.reshape(2, 2, 1)).relevance
        np.testing.assert_allclose(one, kxai.explain(flat, x, method, target=weights).relevance, atol=1e-9)


def test_average_pooling_is_a_frozen_dense_layer():
    matrix = np.zeros((16, 4))
    for cell in range(16):
        matrix[cell, 2 * (cell // 8) + cell % 4 // 2] = 0.25
    pooling = network(layers.AveragePooling2D(2, dtype="float64"), shape=(4, 4, 1))
    flat = network(layers.Flatten(), dense(4, use_bias=False), shape=(4, 4, 1), weights=[matrix])
    x = np.arange(-3.0, 13.0).reshape(1, 4, 4, 1)
    weights = np.array([1.0, -2.0, 0.5, 3.0])
    for method in ("gradient", "lrp.epsilon"):
        one = kxai.explain(pooling, x, method, target=weights.reshape(2, 2, 1)).relevance
        np.testing.assert_allclose(one, kxai.explain(flat, x, method, target=weights).relevance, atol=1e-9)


# --- theorems on random networks -------------------------------------------------------------------------------------


def deep(use_bias: bool) -> tuple[Any, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    parts = [*[dense(12, "relu", use_bias) for _ in range(3)], dense(3, use_bias=use_bias)]
    model = network(*parts, shape=(5,))
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model, rng.normal(size=(4, 5)), model.get_weights()


def test_conservation_from_layer_to_layer():
    """If every column of the shares adds up to 1, the total is the same at every layer."""
    model, x, weights = deep(use_bias=False)
    found = kxai.LRP(model, "zero").explain(x, layers="*")
    hidden = x
    for kernel in weights:
        contributions = hidden[:, :, None] * kernel
        sums = contributions.sum(axis=1)
        assert (np.abs((contributions / sums[:, None]).sum(axis=1) - 1) < 1e-9).all()
        hidden = np.maximum(sums, 0)
    assert len(found.layers) == 7
    for relevance in (*found.layers.values(), found.relevance):
        np.testing.assert_allclose(relevance.sum(axis=1), found.score, atol=1e-9)


def test_the_gradient_is_the_product_of_jacobians():
    model, x, (W1, b1, W2, b2, W3, b3, W4, _) = deep(use_bias=True)
    n1 = x @ W1 + b1
    n2 = np.maximum(n1, 0) @ W2 + b2
    n3 = np.maximum(n2, 0) @ W3 + b3
    signal = np.broadcast_to(W4[:, 2], n3.shape)
    for n, kernel in ((n3, W3), (n2, W2), (n1, W1)):
        signal = (signal * (n > 0)) @ kernel.T
    np.testing.assert_allclose(kxai.explain(model, x, "gradient", target=2).relevance, signal, atol=1e-12)


def test_the_gradient_equals_central_differences():
    parts = [dense(6, "tanh"), dense(6, "gelu"), dense(2, "softmax")]
    rng = np.random.default_rng(0)
    model = network(*parts, shape=(3,), weights=[rng.normal(size=s) for s in ([3, 6], [6], [6, 6], [6], [6, 2], [2])])
    x, step = rng.normal(size=(1, 3)), 1e-5
    found = kxai.Gradient(model, strip_softmax=False).explain(x, 1).relevance
    around = np.asarray(model(np.concatenate([x + step * np.eye(3), x - step * np.eye(3)])))[:, 1]
    np.testing.assert_allclose(found[0], (around[:3] - around[3:]) / (2 * step), rtol=0, atol=1e-9)


def test_gradient_times_input_adds_up_without_biases():
    model, x, _ = deep(use_bias=False)
    found = kxai.explain(model, x, "gradient_x_input")
    np.testing.assert_allclose(found.residual, 0, atol=1e-12)
