"""DeepLIFT against its plain definition, the numbers of the papers, and what it promises."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai import nest, rules
from kxai.analyzers.program import ReferenceValues
from kxai.errors import ArgumentError, InputError, RuleError
from kxai.references import Background
from kxai.testing import models
from tests import naive
from tests import naive_deeplift as plain
from tests.naive_deeplift import Value

RULES = ("rescale", "reveal_cancel")
# Rounding in float64; the definition divides differences down to 1e-4 by each other.
EXACT = 1e-9


def model64(*stack, shape, seed=0):
    """A float64 chain with random weights of both signs."""
    model = keras.Sequential([keras.Input(shape, dtype="float64"), *stack])
    random = np.random.default_rng(seed)
    model.set_weights(
        [random.normal(size=w.shape) / np.sqrt(max(1, np.prod(w.shape[:-1]))) for w in model.get_weights()]
    )
    return model


def pair(*shape, seed=1):
    """(samples, one reference per sample)."""
    random = np.random.default_rng(seed)
    return random.normal(size=(3, *shape)), random.normal(size=(3, *shape))


def close(found, expected, tolerance=EXACT):
    expected = np.asarray(expected)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=tolerance * np.abs(expected).max())


def compare(model, build, x, r, rule, target=1):
    """The engine and the plain definition; ``build(value)`` makes the network of values."""
    expected = []
    for one, other in zip(x, r, strict=True):
        value = Value(one.ravel(), other.ravel())
        output = build(value)
        plain.explain(output, np.eye(len(output.x))[target])
        expected.append(value.m * value.d)
    explanation = kxai.DeepLIFT(model, r, rule).explain(x, target)
    close(explanation.relevance, expected)
    np.testing.assert_allclose(explanation.residual, 0, atol=EXACT)


def dense(layer):
    kernel, *bias = layer.get_weights()
    return kernel, bias[0] if bias else 0.0


def matrix(function, shape):
    """The matrix of a linear map, from unit vectors."""
    size = int(np.prod(shape))
    return function(np.eye(size).reshape(size, *shape)).reshape(size, -1)


@pytest.mark.parametrize("rule", [*RULES, "genomics_default"])
def test_dense_layers(rule):
    options = {"dtype": "float64"}
    stack = [layers.Dense(5, "relu", **options), layers.Dense(4, "tanh", **options), layers.Dense(2, **options)]
    model, own = model64(*stack, shape=(4,)), "rescale" if rule == "rescale" else "reveal_cancel"

    def build(v):
        first = plain.relu(plain.linear(v, *dense(stack[0])), own)
        return plain.linear(plain.tanh(plain.linear(first, *dense(stack[1])), own), *dense(stack[2]))

    compare(model, build, *pair(4), rule)


@pytest.mark.parametrize("rule", [*RULES, "genomics_default"])
def test_convolution_pooling_and_batch_normalisation(rule):
    options = {"dtype": "float64"}
    conv, norm, top = layers.Conv2D(3, 2, **options), layers.BatchNormalization(**options), layers.Dense(2, **options)
    hidden = layers.Dense(4, "relu", **options)
    pools = [layers.MaxPooling2D(2, **options), layers.AveragePooling2D((1, 2), padding="same", **options)]
    model = model64(conv, norm, layers.ReLU(**options), *pools, layers.Flatten(**options), hidden, top, shape=(5, 5, 2))
    norm.set_weights([np.array([0.7, -1.3, 1.1]), np.array([0.1, -0.2, 0.3]), np.zeros(3), np.array([1.5, 0.8, 2.0])])
    here = {"rescale": "rescale", "reveal_cancel": "reveal_cancel", "genomics_default": "rescale"}[rule]
    there = "rescale" if rule == "rescale" else "reveal_cancel"

    def build(v):
        kernel, bias = conv.get_weights()
        W = matrix(lambda x: naive.conv(x, kernel), (5, 5, 2))
        y = plain.linear(v, W, np.tile(bias, 16))
        gamma, beta, mean, variance = norm.get_weights()
        factor = gamma / np.sqrt(variance + 1e-3)
        y = plain.relu(plain.scale(y, np.tile(factor, 16), np.tile(beta - mean * factor, 16)), here)
        places = np.arange(48).reshape(4, 4, 3)
        windows = [places[i : i + 2, j : j + 2, c].ravel() for i in (0, 2) for j in (0, 2) for c in range(3)]
        y = plain.windows_max(y, windows)
        y = plain.move(y, matrix(lambda x: naive.average_pool(x, (1, 2), padding="same"), (2, 2, 3)))
        return plain.linear(plain.relu(plain.linear(y, *dense(hidden)), there), *dense(top))

    compare(model, build, *pair(5, 5, 2), rule)


@pytest.mark.parametrize("rule", RULES)
def test_residual_scaled_and_subtracted(rule):
    options = {"dtype": "float64"}
    one, two, top = (layers.Dense(n, **options) for n in (4, 4, 2))
    x = keras.Input((3,), dtype="float64")
    first = ops.relu(one(x))
    second = two(first)
    joined = ops.relu(ops.subtract(ops.add(first, second), ops.multiply(second, 0.3)))
    turned = ops.sigmoid(ops.multiply(joined, np.array([-1.5, 0.5, -0.2, 2.0])))
    model = keras.Model(x, top(ops.concatenate([joined, turned], axis=-1)))
    random = np.random.default_rng(3)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])

    def build(v):
        a = plain.relu(plain.linear(v, *dense(one)), rule)
        b = plain.linear(a, *dense(two))
        joined = plain.relu(plain.add(plain.add(a, b), plain.scale(plain.scale(b, 0.3), -1.0)), rule)
        turned = plain.sigmoid(plain.scale(joined, np.array([-1.5, 0.5, -0.2, 2.0])), rule)
        return plain.linear(plain.concatenate(joined, turned), *dense(top))

    compare(model, build, *pair(3), rule)


@pytest.mark.parametrize("rule", RULES)
def test_gates_softmax_and_attention(rule):
    options = {"dtype": "float64"}
    q, k, v, top = (
        layers.Dense(2, **options),
        layers.Dense(2, **options),
        layers.Dense(3, **options),
        layers.Dense(2, **options),
    )
    x = keras.Input((3, 2), dtype="float64")
    values = v(x)
    gated = ops.multiply(ops.relu(values), ops.sigmoid(values))
    attended = ops.matmul(ops.softmax(ops.matmul(q(x), ops.swapaxes(k(x), 1, 2))), gated)
    model = keras.Model(x, top(ops.reshape(attended, (-1, 9))))
    random = np.random.default_rng(5)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])

    def build(value):
        def token(layer):
            kernel, bias = dense(layer)
            return plain.linear(value, np.kron(np.eye(3), kernel), np.tile(bias, 3))

        queries, keys, values = token(q), token(k), token(v)
        gated = plain.product(plain.relu(values, rule), plain.sigmoid(values, rule))
        turned = plain.move(keys, np.eye(6)[:, np.arange(6).reshape(3, 2).T.ravel()])
        scores = plain.matmul(queries, turned, 3, 2, 3)
        rows = [plain.softmax(plain.move(scores, np.eye(9)[:, 3 * i : 3 * i + 3])) for i in range(3)]
        return plain.linear(plain.matmul(plain.concatenate(*rows), gated, 3, 3, 3), *dense(top))

    compare(model, build, *pair(3, 2), rule)


@pytest.mark.parametrize("rule", RULES)
def test_layer_normalisation(rule):
    options = {"dtype": "float64"}
    stack = [layers.Dense(4, **options), layers.LayerNormalization(**options), layers.Dense(2, **options)]
    model = model64(*stack, shape=(3,))

    def build(v):
        gamma, beta = stack[1].get_weights()
        return plain.linear(plain.layer_norm(plain.linear(v, *dense(stack[0])), gamma, beta, 1e-3), *dense(stack[2]))

    compare(model, build, *pair(3), rule)


def test_unit_length_from_zero():
    model = keras.Sequential([keras.Input((2,)), layers.UnitNormalization(), layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0], [0.0]])])
    # y = (0.6, 0.8): 2 m y - y^2 (m y), however small the least length.
    found = kxai.DeepLIFT(model).explain(np.array([[3.0, 4.0]]), 0)
    np.testing.assert_allclose(found.relevance, [[0.984, -0.384]], rtol=1e-5)


NORMS = {
    "layer": lambda: layers.LayerNormalization(epsilon=1e-12),
    "root mean square": lambda: layers.RMSNormalization(),
    "group": lambda: layers.GroupNormalization(2, epsilon=1e-9),
    "unit": lambda: layers.UnitNormalization(),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_of_a_reference_without_length(name):
    model = models.seeded(keras.Sequential([keras.Input((6,)), NORMS[name](), layers.Dense(2)]))
    explanation = kxai.DeepLIFT(model).explain(models.numbers(6), 0)
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-5)
    # Each share is at most of the size of sqrt(n) y.
    assert 0.1 < np.abs(explanation.relevance).max() < 50


@pytest.mark.parametrize("name", NORMS)
def test_multipliers_of_norms_at_the_reference_and_at_one_as_long(name):
    model = models.seeded(keras.Sequential([keras.Input((6,)), NORMS[name](), layers.Dense(2)]))
    x = models.numbers(6)
    gradient = kxai.Gradient(model).explain(x, 0).relevance
    found = kxai.DeepLIFT(model, x, multipliers=True).explain(x, 0).relevance
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-5)
    # Exactly as long is the limit of nearly as long.
    turned = x[:, ::-1].copy()
    exact, near = (kxai.DeepLIFT(model, r, multipliers=True).explain(x, 0).relevance for r in (turned, turned * 1.0001))
    np.testing.assert_allclose(exact, near, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_lstm(rule):
    lstm, top, units = layers.LSTM(2, dtype="float64"), layers.Dense(2, dtype="float64"), 2
    model = model64(lstm, top, shape=(3, 2))

    def build(value):
        kernel, recurrent, bias = lstm.get_weights()
        h = c = Value(np.zeros(units), np.zeros(units))
        for t in range(3):
            step = plain.concatenate(plain.move(value, np.eye(6)[:, 2 * t : 2 * t + 2]), h)
            z = plain.linear(step, np.concatenate([kernel, recurrent]), bias)
            i, f, g, o = (plain.move(z, np.eye(4 * units)[:, units * k : units * (k + 1)]) for k in range(4))
            gate = [plain.sigmoid(part, rule) for part in (i, f, o)]
            c = plain.add(plain.product(gate[1], c), plain.product(gate[0], plain.tanh(g, rule)))
            h = plain.product(gate[2], plain.tanh(c, rule))
        return plain.linear(h, *dense(top))

    compare(model, build, *pair(3, 2), rule)


# --- numbers ---------------------------------------------------------------------------------------------------------


def relu_net(W, b, w, c=0.0):
    W, w = np.array(W, float), np.array(w, float).reshape(len(b), -1)
    model = keras.Sequential([keras.Input((len(W),)), layers.Dense(len(b), "relu", name="a"), layers.Dense(w.shape[1])])
    model.set_weights([W, np.array(b, float), w, np.broadcast_to(c, w.shape[1:])])
    return model


@pytest.mark.parametrize(("rule", "x", "expected"), [
    ("rescale", (1, -1, 2), (13 / 12, 1 / 12, -31 / 6)), ("reveal_cancel", (1, -1, 2), (1.5, -0.5, -5)),
    ("rescale", (2, 1, 1), (5, 3.5, -3.5)), ("reveal_cancel", (2, 1, 1), (4.75, 3.25, -3)),
])  # fmt: skip
def test_numbers_by_hand(rule, x, expected):
    model = relu_net([[1, -1], [2, 1], [-1, 3]], [0.5, -1], [2, -1], 0.5)
    explanation = kxai.DeepLIFT(model, rule=rule).explain(np.array([x], float))
    np.testing.assert_allclose(explanation.relevance[0], expected, rtol=1e-6)
    np.testing.assert_allclose(explanation.base, 1.5)


@pytest.mark.parametrize(("rule", "x", "expected"), [
    ("rescale", (3, 5), (3, 0)), ("rescale", (5, 3), (0, 3)),
    ("reveal_cancel", (3, 5), (1.5, 1.5)), ("reveal_cancel", (5, 3), (1.5, 1.5)),
])  # fmt: skip
def test_the_smaller_of_two(rule, x, expected):
    """i1 - relu(i1 - i2), figure 3 of the paper."""
    i = keras.Input((2,))
    difference = layers.Dense(1, "relu", use_bias=False)
    model = keras.Model(i, ops.subtract(i[:, :1], difference(i)))
    difference.set_weights([np.array([[1.0], [-1.0]])])
    found = kxai.DeepLIFT(model, rule=rule).explain(np.array([x], float))
    np.testing.assert_allclose(found.relevance[0], expected, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("x", "expected"), [
    ((1, 1), (0.5, 0.5)), ((1, 0.5), (2 / 3, 1 / 3)), ((0.4, 0.3), (0.4, 0.3)),
])  # fmt: skip
def test_saturation(rule, x, expected):
    """1 - relu(1 - i1 - i2), figure 1."""
    model = relu_net([[-1], [-1]], [1], [-1], 1.0)
    np.testing.assert_allclose(kxai.DeepLIFT(model, rule=rule).explain(np.array([x])).relevance[0], expected, rtol=1e-6)


def test_thresholding():
    """relu(x - 10), figure 2: no jump where the unit becomes active."""
    model = relu_net([[1]], [-10], [1])
    x = np.array([[9.0], [10.0], [10.001], [11.0]])
    np.testing.assert_allclose(kxai.DeepLIFT(model).explain(x).relevance, [[0], [0], [0.001], [1]], atol=2e-6)
    found = kxai.DeepLIFT(model, multipliers=True).explain(x[-1:])
    np.testing.assert_allclose(found.relevance, [[1 / 11]], rtol=1e-6)


@pytest.mark.parametrize(("p", "reference", "target", "expected", "inner"), [
    ((0, 3), (0, 0), 0, (0, 2.5), (0, 2.5)),
    ((3, 3), (0, 3), 1, (2.5, 0), (0, 2.5)),
    ((3, 3), (0, 0), 1, (0, 0), (0, 0)),
])  # fmt: skip
@pytest.mark.parametrize("rule", RULES)
def test_exclusive_or(p, reference, target, expected, inner, rule):
    """n1 = (p1 - p2 - 1/2, p2 - p1 - 1/2), n2 = (-1 + a1 + a2, 1 - a1 - a2), with every intermediate."""
    model = relu_net([[1, -1], [-1, 1]], [-0.5, -0.5], [[1, -1], [1, -1]], (-1.0, 1.0))
    analyzer = kxai.DeepLIFT(model, np.array(reference, float), rule)
    explanation = analyzer.explain(np.array([p], float), target, layers=("a", "a/relu"))
    np.testing.assert_allclose(explanation.relevance[0], expected, atol=1e-6)
    np.testing.assert_allclose(explanation.layers["a/relu"][0], inner, atol=1e-6)
    np.testing.assert_allclose(explanation.layers["a"].sum(), sum(expected), atol=1e-6)
    np.testing.assert_allclose(explanation.score - explanation.base, sum(expected), atol=1e-6)


# --- promises --------------------------------------------------------------------------------------------------------


def rolled(x):
    """Each sample's reference is its neighbour."""
    return nest.map_leaves(lambda array: np.roll(array, 1, axis=0), x)


LONG = {models.lstm, models.gru, *models.ATTENTION, models.decoder}
CASES = [
    pytest.param(build, rule, marks=pytest.mark.slow if build in LONG and rule == "reveal_cancel" else ())
    for build in (*models.ALL, models.gated, *models.ATTENTION, models.decoder)
    for rule in RULES
]


@pytest.mark.parametrize(("build", "rule"), CASES)
def test_contributions_add_up(build, rule):
    case = build()
    explanation = kxai.DeepLIFT(case.model, rolled, rule).explain(case.inputs, case.target)
    given = np.abs(explanation.score) + np.abs(explanation.base)
    given = given + sum(np.abs(r).reshape(len(given), -1).sum(axis=1) for r in nest.leaves(explanation.relevance))
    assert np.abs(explanation.residual / given).max() <= 1e-5
    assert np.abs(explanation.score - explanation.base).max() > 1e-3


def test_audit_says_where_contributions_are_lost():
    case = models.cnn()
    lost = kxai.DeepLIFT(case.model, rolled, max_pooling="gradient").explain(case.inputs, audit=True)
    np.testing.assert_allclose(sum(lost.absorbed.values()), lost.residual, atol=1e-6)
    (pool,) = [path for path, value in lost.absorbed.items() if np.abs(value).max() > 1e-4]
    assert "max_pool" in pool


@pytest.mark.parametrize("rule", RULES)
def test_without_biases_from_zero_it_is_gradient_times_input(rule):
    options = {"use_bias": False, "dtype": "float64"}
    conv, flat = layers.Conv1D(3, 2, activation="relu", **options), layers.Flatten(dtype="float64")
    model = model64(conv, flat, layers.Dense(2, **options), shape=(4, 2))
    x, _ = pair(4, 2)
    expected = kxai.GradientTimesInput(model).explain(x, 0).relevance
    found = kxai.DeepLIFT(model, rule=rule).explain(x, 0).relevance
    if rule == "rescale":
        close(found, expected)
    else:  # parts on both sides of the kink: it is another decomposition of the same
        np.testing.assert_allclose(found.sum((1, 2)), expected.sum((1, 2)), atol=EXACT)


def test_parts_on_one_side_of_the_kink_are_rescaled():
    stack = [layers.Dense(5, "relu", dtype="float64", bias_initializer="ones"), layers.Dense(1, dtype="float64")]
    model = model64(*stack, shape=(3,))
    stack[0].bias.assign(np.full(5, 100.0))
    x, r = pair(3)
    found = [kxai.DeepLIFT(model, r, rule).explain(x).relevance for rule in RULES]
    close(*found)


ACTIVATIONS = "tanh sigmoid gelu softplus exponential leaky_relu elu silu".split()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 2e-7)])
def test_multipliers_tend_to_the_gradient_without_a_step(activation, dtype, tolerance):
    """The quotient is the mean derivative over the way, from differences of 1 down to 1e-12."""

    def network(dtype):
        # Something has to follow a sigmoid: at the end of a network its input would be explained.
        stack = [layers.Activation(activation, dtype=dtype), layers.Flatten(dtype=dtype)]
        return keras.Sequential([keras.Input((1,), dtype=dtype), *stack])

    sizes = np.concatenate([10.0 ** -np.arange(0, 12.5, 0.25), [0.0]])
    r = np.full((len(sizes), 1), 0.7, dtype)
    x = (r[:, 0].astype("float64") + sizes).astype(dtype)[:, None]
    found = kxai.DeepLIFT(network(dtype), r, multipliers=True).explain(x, 0).relevance[:, 0]
    points, weights = np.polynomial.legendre.leggauss(12)
    way = r + (x.astype("float64") - r) * (points + 1) / 2
    slopes = kxai.Gradient(network("float64")).explain(way.reshape(-1, 1), 0).relevance.reshape(way.shape)
    np.testing.assert_allclose(found, slopes @ weights / 2, rtol=tolerance)


def test_a_linear_model_in_two_ways():
    options = {"dtype": "float64"}
    first, second = layers.Dense(4, **options), layers.Dense(2, **options)
    model = model64(first, second, shape=(3,))
    x, r = pair(3)
    weights = (first.get_weights()[0] @ second.get_weights()[0])[:, 1]
    close(kxai.DeepLIFT(model, r).explain(x, 1).relevance, (x - r) * weights)


def test_no_difference_no_contribution():
    case = models.cnn()
    explanation = kxai.DeepLIFT(case.model, lambda x: x).explain(case.inputs)
    assert not np.any(explanation.relevance)
    np.testing.assert_array_equal(explanation.base, explanation.score)


# --- nodes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "r", "expected"), [((3, 1), (0, 2), (1, 0)), ((1, 3), (4, 0), (-1, 0))])
def test_cross_maximum(x, r, expected):
    model = keras.Sequential([keras.Input((2, 1)), layers.MaxPooling1D(2), layers.Flatten()])
    x, r = (np.array(v, float).reshape(1, 2, 1) for v in (x, r))
    np.testing.assert_allclose(kxai.DeepLIFT(model, r).explain(x).relevance.ravel(), expected)
    winner = kxai.DeepLIFT(model, r, max_pooling="gradient").explain(x).relevance.ravel()
    np.testing.assert_allclose(winner, (x - r).ravel() * (x == x.max()).ravel())


TWO = {
    "quotient": (ops.divide, (6, 3), (2, 1), (8 / 3, -8 / 3)),
    "product": (ops.multiply, (3, 4), (1, 2), (6, 4)),
    "maximum": (ops.maximum, (5, 1), (0, 3), (3, -1)),
    "minimum": (ops.minimum, (5, 1), (0, 3), (2, -1)),
}


@pytest.mark.parametrize("case", TWO)
def test_two_players(case):
    function, x, r, expected = TWO[case]
    inputs = [keras.Input((1,)), keras.Input((1,))]
    x, r = ([np.array([[value]], float) for value in values] for values in (x, r))
    found = kxai.DeepLIFT(keras.Model(inputs, function(*inputs)), r).explain(x, 0)
    np.testing.assert_allclose(np.ravel(found.relevance), expected, rtol=1e-6)


FUNCTIONS = {
    "three factors": lambda x: layers.Multiply()([x, x[:, ::-1], ops.tanh(x)]),
    "itself": lambda x: x * x,
    "min of one": lambda x: ops.min(x, axis=1, keepdims=True),
    "logsumexp": lambda x: ops.logsumexp(x, axis=1, keepdims=True),
    "log softmax": ops.log_softmax,
    "masked softmax": lambda x: layers.Softmax()(x, mask=ops.greater(x, 0.0)),
    "infinite mask": lambda x: ops.softmax(ops.where(x > 0, x, -np.inf)),
    "root mean square": lambda x: layers.RMSNormalization()(x),
    "unit length": lambda x: layers.UnitNormalization()(x),
    "group norm": lambda x: layers.GroupNormalization(2)(x),
    "cumulated": lambda x: ops.cumsum(x, axis=1),
    "power": lambda x: ops.power(ops.abs(x) + 1, 1.7),
    "inverse": lambda x: 1 / (2 + ops.square(x)),
    "rounded gate": lambda x: x * ops.cast(x > 0.2, "float32"),
    "three maxima": lambda x: layers.Maximum()([x, x[:, ::-1], ops.tanh(x)]),
    "broadcast": lambda x: ops.maximum(x[:, :1], np.array([[0.1, -0.2, 0.3]], "float32")),
    "einsum of three": lambda x: ops.einsum("bi,bi,bi->bi", x, ops.relu(x), x[:, ::-1]),
    "time": lambda x: ops.reshape(layers.TimeDistributed(layers.Dense(3, "relu"))(ops.reshape(x, (-1, 3, 2))), (-1, 9)),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_complete(name, rule):
    x = keras.Input((6,))
    y = FUNCTIONS[name](layers.Dense(6, "relu")(x) + x)
    model = models.seeded(keras.Model(x, layers.Dense(2, use_bias=False)(y)))
    for reference in (0.1, rolled):
        explanation = kxai.DeepLIFT(model, reference, rule).explain(models.numbers(6), 1)
        given = np.abs(explanation.relevance).sum(axis=1) + np.abs(explanation.score) + np.abs(explanation.base)
        assert np.abs(explanation.residual / given).max() <= 1e-5


PARTIAL = {
    "root": lambda x: ops.sqrt(ops.sum(ops.square(x), axis=1, keepdims=True)),
    "logarithm": lambda x: ops.log(ops.cumsum(ops.exp(x), axis=1)),
    "inverse root": lambda x: ops.rsqrt(ops.square(x) + 0.1),
    "norm by hand": lambda x: (x - 0.1) / ops.sqrt(ops.var(x, axis=1, keepdims=True) + 1e-3),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_functions_without_a_value_somewhere_are_rescaled(name):
    x = keras.Input((6,))
    y = PARTIAL[name](layers.Dense(6)(x))
    model = models.seeded(keras.Model(x, layers.Dense(2)(y)))
    explanation = kxai.DeepLIFT(model, rolled, "reveal_cancel").explain(3 * models.numbers(6), 1)
    given = np.abs(explanation.relevance).sum(axis=1) + np.abs(explanation.score) + np.abs(explanation.base)
    assert np.abs(explanation.residual / given).max() <= 1e-5
    chosen = str(kxai.plan(model, "deeplift.reveal_cancel"))
    assert " Rescale(" in chosen
    assert " RevealCancel(" in chosen


def test_log_probabilities_far_below_what_a_probability_can_be():
    x, r = np.array([[3.0, 1.0, -2.0]]), np.array([[-1.0, 2.0, 0.5]])
    inner = keras.Input((3,))
    model = keras.Model(inner, layers.Dense(1, use_bias=False)(ops.log_softmax(1000 * inner)))
    model.set_weights([np.array([[0.0], [0.0], [1.0]])])
    # log softmax of the last is 1000 (x_3 - max x), in both runs far below log of the least number.
    explanation = kxai.DeepLIFT(model, r).explain(x, 0)
    np.testing.assert_allclose(explanation.score - explanation.base, -5000 + 1500)
    np.testing.assert_allclose(explanation.relevance.sum(), -3500, rtol=1e-5)
    np.testing.assert_allclose(explanation.relevance[0, 2], -2500, rtol=1e-5)


SORTED = {
    "sort": lambda x: ops.sort(x, axis=1),
    "median": lambda x: ops.median(x, axis=1, keepdims=True),
    "quantile": lambda x: ops.quantile(x, 0.3, axis=1, keepdims=True),
    "top_k": lambda x: ops.top_k(x, 2)[0],
}


@pytest.mark.parametrize("op", SORTED)
def test_what_moves_by_value_is_refused(op):
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(SORTED[op](layers.Dense(5)(x))))
    with pytest.raises(RuleError, match=op):
        kxai.plan(model, "deeplift")
    kxai.DeepLIFT(model, rule=[(op, rules.Gradient())]).explain(np.ones((1, 4)))


def test_tokens_are_compared_with_tokens():
    embedding, top = layers.Embedding(5, 3), layers.Dense(2)
    model = models.seeded(keras.Sequential([keras.Input((4,), dtype="int32"), embedding, layers.Flatten(), top]))
    ids = np.array([[1, 2, 3, 4]])
    table, weights = embedding.get_weights()[0], top.get_weights()[0][:, 0].reshape(4, 3)
    expected = ((table[ids[0]] - table[2]) * weights).sum(axis=1)
    found = kxai.DeepLIFT(model, 2).explain(ids, 0).relevance
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match="vocabulary"):
        kxai.DeepLIFT(model, 7).explain(ids, 0)


# --- references ------------------------------------------------------------------------------------------------------


def test_several_references_are_averaged():
    case = models.cnn()
    background = models.numbers(12, 12, 3, seed=8, samples=5)
    singles = [kxai.DeepLIFT(case.model, one).explain(case.inputs, 1) for one in background]
    expected = np.mean([single.relevance for single in singles], axis=0)
    for found in (
        kxai.DeepLIFT(case.model, Background(background)).explain(case.inputs, 1, layers="conv2d*"),
        kxai.DeepSHAP(case.model, background).explain(case.inputs, 1, layers="conv2d*"),
    ):
        np.testing.assert_allclose(found.relevance, expected, atol=1e-6)
        np.testing.assert_allclose(found.base, np.mean([single.base for single in singles], axis=0), rtol=1e-5)
    # References of a single sample are batches.
    alone = kxai.DeepSHAP(case.model, background).explain(case.inputs[2:3], 1, batch_size=2, layers="conv2d*")
    np.testing.assert_allclose(alone.relevance, expected[2:3], atol=1e-6)
    np.testing.assert_allclose(alone.score, found.score[2:3], rtol=1e-6)
    for path in found.layers:
        np.testing.assert_allclose(alone.layers[path], found.layers[path][2:3], atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_references_of_a_batch_that_is_fixed(count):
    inputs = keras.Input(batch_shape=(2, 4, 3))
    model = models.seeded(keras.Model(inputs, layers.Dense(2)(layers.LSTM(3, stateful=True)(inputs))))
    x, background = models.numbers(4, 3), models.numbers(4, 3, seed=8, samples=count)
    expected = [kxai.DeepLIFT(model, np.repeat(one[None], 4, axis=0)).explain(x, 0, batch_size=2) for one in background]
    found = kxai.DeepSHAP(model, background).explain(x, 0, batch_size=2)
    np.testing.assert_allclose(found.relevance, np.mean([one.relevance for one in expected], axis=0), atol=1e-6)
    np.testing.assert_allclose(found.residual, 0, atol=1e-6)
    assert np.abs(kxai.DeepLIFT(model).explain(x, 0, batch_size=2).residual).max() < 1e-6


@pytest.mark.parametrize("samples", [1, 3])
def test_losses_are_averaged_over_references(samples):
    case = models.mlp()
    background = models.numbers(6, seed=8, samples=5)
    table = [(kxai.Kind.ELEMENTWISE, rules.Gradient())]
    found = kxai.DeepLIFT(case.model, Background(background), table).explain(case.inputs[:samples], 1, audit=True)
    lost = sum(found.absorbed.values())
    assert np.abs(lost).max() > 1e-3
    np.testing.assert_allclose(lost, found.residual, atol=1e-6)


@pytest.mark.parametrize("build", [models.cnn, pytest.param(models.encoder, marks=pytest.mark.slow)])
def test_a_constant_reference_is_that_of_every_sample(build):
    case = build()
    once = kxai.DeepLIFT(case.model, 1).explain(case.inputs, case.target)
    each = kxai.DeepLIFT(case.model, np.ones_like(case.inputs)).explain(case.inputs, case.target)
    np.testing.assert_allclose(once.relevance, each.relevance, atol=1e-6)


def test_activations_of_a_constant_reference_are_computed_once(monkeypatch):
    computed = []
    call = ReferenceValues.__call__
    monkeypatch.setattr(ReferenceValues, "__call__", lambda self, given: computed.append(1) or call(self, given))
    case = models.residual()
    for rule in RULES:
        analyzer = kxai.DeepLIFT(case.model, 0.5, rule)
        whole = analyzer.explain(case.inputs, 1)
        computed.clear()
        close(analyzer.explain(case.inputs, 1, batch_size=1).relevance, whole.relevance, 1e-5)
        assert len(computed) == 1  # for four batches
        # They are those of the weights at the time of the call.
        case.model.set_weights([1.5 * weight for weight in case.model.get_weights()])
        each = np.full_like(case.inputs, 0.5)
        close(
            analyzer.explain(case.inputs, 1).relevance,
            kxai.DeepLIFT(case.model, each, rule).explain(case.inputs, 1).relevance,
            1e-5,
        )


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "words"), [
    ({"rule": "recale"}, "rule is out of range"), ({"rule": None}, r"rows \(match, rule\)"),
    ({"rule": rules.RevealCancel()}, r"Received: RevealCancel\("), ({"threshold": -1.0}, "threshold is out of range"),
    ({"max_pooling": "winner"}, "max_pooling"), ({"multipliers": 1}, "switch"), ({"rule": [("a",)]}, "pair"),
])  # fmt: skip
def test_bad_arguments(options, words):
    with pytest.raises(ArgumentError, match=words):
        kxai.DeepLIFT(models.mlp().model, **options)


def test_bad_references():
    case = models.mlp()
    with pytest.raises(ArgumentError, match="wrong shape"):
        kxai.DeepLIFT(case.model, np.zeros(7)).explain(case.inputs)
    with pytest.raises(ArgumentError, match="not finite"):
        kxai.DeepLIFT(case.model, np.nan).explain(case.inputs)
    with pytest.raises(ArgumentError, match="nothing to account for"):
        kxai.DeepLIFT(case.model, multipliers=True).explain(case.inputs, audit=True)


def test_rules_of_relevance_and_of_differences_do_not_mix():
    case = models.mlp()
    with pytest.raises(RuleError, match="hands down relevance"):
        kxai.DeepLIFT(case.model, rule=[(kxai.Kind.AFFINE, rules.Epsilon())]).plan()
    composite = kxai.preset("epsilon").but((kxai.Kind.ELEMENTWISE, rules.Rescale()))
    with pytest.raises(RuleError, match=r"kxai\.DeepLIFT"):
        kxai.LRP(case.model, composite).plan()


def test_rows_choose_the_rule_of_a_node():
    case = models.mlp()
    mixed = kxai.DeepLIFT(case.model, rule=[("dense*/relu", rules.RevealCancel())])
    chosen = {type(rule).__name__ for node, rule in mixed.plan().rules.items() if node.op == "relu"}
    assert chosen == {"RevealCancel", "Rescale"}
    assert mixed.name == "deeplift (deeplift + 1 row)"
    # The affine nodes, which the glob matches as well, keep the rule of the table.
    wider = kxai.DeepLIFT(case.model, rule=[("dense*", rules.RevealCancel())]).plan()
    chosen = {(node.kind, type(rule).__name__) for node, rule in wider.rules.items() if node.path.startswith("dense")}
    assert chosen == {(kxai.Kind.AFFINE, "Linear"), (kxai.Kind.ELEMENTWISE, "RevealCancel")}
