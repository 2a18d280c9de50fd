"""TensorFlow's own functions in a layer's call are recorded like those of Keras."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.util import dispatch

import kxai
from kxai import Kind
from kxai.errors import RuleError
from kxai.graph.trace import input_specs, trace

KERNEL = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype("float32")
MATRIX = np.random.default_rng(1).normal(size=(6, 3)).astype("float32")

# name -> (function, shape of the input, operations, kinds)
FUNCTIONS = {
    "relu": (lambda x: tf.nn.relu(x), (4, 6), "relu", "elementwise"),
    "reshape": (lambda x: tf.reshape(x, [-1, 24]), (4, 6), "reshape", "route"),
    "reshape by shape": (lambda x: tf.reshape(x, [tf.shape(input=x)[0], 24]), (4, 6), "reshape", "route"),
    "concat": (lambda x: tf.concat([x, x], axis=-1), (4, 6), "concatenate", "route"),
    "mean": (lambda x: tf.reduce_mean(x, axis=1), (4, 6), "mean", "sum"),
    "sum": (lambda x: tf.reduce_sum(x, axis=[1, 2], keepdims=True), (4, 6), "sum", "sum"),
    "max": (lambda x: tf.reduce_max(x, 1), (4, 6), "max", "max"),
    "matmul": (lambda x: tf.matmul(x, MATRIX), (4, 6), "matmul", "affine"),
    "matmul transposed": (lambda x: tf.matmul(x, MATRIX.T, transpose_b=True), (4, 6), "matmul_transposed", "affine"),
    "einsum": (lambda x: tf.einsum("bij,jk->bik", x, MATRIX), (4, 6), "einsum", "affine"),
    "constant plus x": (lambda x: tf.constant(1.5) + x, (4, 6), "add", "scale"),
    "x plus constant": (lambda x: x + tf.constant(1.5), (4, 6), "add", "scale"),
    "add": (lambda x: tf.add(x, 2.0), (4, 6), "add", "scale"),
    "product": (lambda x: tf.multiply(x, tf.sigmoid(x)), (4, 6), "sigmoid multiply", "elementwise product"),
    "quotient": (lambda x: tf.divide(x, 2.0), (4, 6), "divide", "scale"),
    "inverse": (lambda x: tf.divide(2.0, tf.exp(x)), (4, 6), "exp divide", "elementwise elementwise"),
    "square": (lambda x: tf.multiply(x, x), (4, 6), "multiply", "elementwise"),
    "conv2d": (lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME"), (6, 6, 3), "conv", "affine"),
    "depthwise": (
        lambda x: tf.nn.depthwise_conv2d(x, KERNEL, [1, 1, 1, 1], "SAME"),
        (6, 6, 3),
        "depthwise_conv",
        "affine",
    ),
    "max_pool": (lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"), (6, 6, 3), "max_pool", "max"),
    "avg_pool": (lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"), (6, 6, 3), "average_pool", "sum"),
    "resize": (lambda x: tf.image.resize(x, (4, 4)), (6, 6, 3), "resize", "sum"),
    "slice": (lambda x: x[:, 1:, ::2], (4, 6), "get_item", "route"),
    "split": (lambda x: tf.split(x, 2, axis=1)[1], (4, 6), "split", "route"),
    "normalise": (lambda x: tf.nn.l2_normalize(x, axis=-1), (4, 6), "l2_normalize", "norm"),
    "cast": (lambda x: tf.cast(tf.cast(x, tf.float64), np.float32), (4, 6), "cast cast", "route route"),
    "transpose": (lambda x: tf.transpose(x, [0, 2, 1]), (4, 6), "transpose", "route"),
    "gather": (lambda x: tf.gather(x, [0, 2], axis=1), (4, 6), "take", "route"),
}


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


class Box(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def model_of(function, shape, layer=Box):
    x = layers.Input(shape)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(layer(function)(x))))


def inner(model):
    nodes = trace(model, input_specs(model)).nodes
    return [node for node in nodes if node.path.startswith(("box", "lambda"))]


@pytest.mark.parametrize("layer", [Box, layers.Lambda])
@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_are_opened(case, layer):
    function, shape, operations, kinds = FUNCTIONS[case]
    model = model_of(function, shape, layer)
    nodes = inner(model)
    assert [node.op for node in nodes] == operations.split()
    assert [node.kind.value for node in nodes] == kinds.split()
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype("float32")
    explanation = kxai.explain(model, x, "gradient", target=0)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        score = model(inputs)[:, 0]
    np.testing.assert_allclose(explanation.score, score, rtol=1e-5, atol=1e-5)
    # float32, the same kernels in another order
    np.testing.assert_allclose(explanation.relevance, tape.gradient(score, inputs), rtol=1e-4, atol=1e-5)
    assert np.isfinite(kxai.explain(model, x, "lrp.epsilon", target=0).relevance).all()


class Weighted(layers.Layer):
    """A dense layer written with TensorFlow."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5))
        self.bias = self.add_weight(shape=(5,), initializer="ones")

    def call(self, x):
        return tf.nn.relu(tf.nn.bias_add(tf.matmul(x, self.kernel), self.bias))


class Softened(Weighted):
    def call(self, x):
        return tf.matmul(x, tf.nn.softplus(self.kernel)) + self.bias


class Raw(layers.Layer):
    """Holds a variable that Keras knows nothing of."""

    def __init__(self, function):
        super().__init__()
        self.function, self.kernel = function, tf.Variable(MATRIX)

    def call(self, x):
        return tf.matmul(x, self.function(self.kernel))


@pytest.mark.parametrize(
    "make", [Weighted, Softened, lambda: Raw(tf.identity), lambda: Raw(tf.nn.relu), lambda: Raw(lambda w: w)]
)
def test_weights_stay_live(make):
    layer = make()
    model = keras.Sequential([layers.Input((6,)), layer, layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    analyzer = kxai.LRP(model, "epsilon")
    before = analyzer.explain(x, target=0)
    layer.kernel.assign(-2.0 * tf.convert_to_tensor(layer.kernel))
    after = analyzer.explain(x, target=0)
    np.testing.assert_allclose(after.score, np.asarray(model(x))[:, 0], rtol=1e-5, atol=1e-5)
    assert np.abs(before.score - after.score).max() > 0.1
    np.testing.assert_allclose(after.relevance, kxai.LRP(model, "epsilon").explain(x, target=0).relevance, rtol=1e-5)


def test_a_layer_in_tensorflow_equals_its_twin_in_keras():
    own = Weighted()
    model = keras.Sequential([layers.Input((6,)), own, layers.Dense(2)])
    twin = keras.Sequential([layers.Input((6,)), layers.Dense(5, activation="relu"), layers.Dense(2)])
    twin.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    for method in ("lrp.epsilon", "lrp.z_plus", "lrp.alpha1_beta0"):
        got, expected = (kxai.explain(m, x, method, target=0).relevance for m in (model, twin))
        # The same map and bias in float32, relevance of order 1.
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_functions_without_a_kind_stay_closed_alone():
    model = model_of(lambda x: tf.nn.relu(tf.math.igamma(tf.nn.softplus(x), 2.0)), (4, 6))
    assert [node.op for node in inner(model)] == ["softplus", "igamma", "relu"]
    with pytest.raises(RuleError, match=r"(?s)has no rule: kxai has no rule for TensorFlow's igamma.*plain gradient"):
        kxai.plan(model, "lrp.epsilon")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.map_fn(lambda row: row * 2.0, x),
        lambda x: tf.cond(tf.reduce_max(x) > 0.5, lambda: tf.nn.relu(x), lambda: 2.0 * x),
        lambda x: tf.function(lambda v: 2.0 * v)(x),
    ],
)
def test_functions_that_cannot_be_recorded_close_their_layer(function):
    model = model_of(function, (4, 6))
    (node,) = inner(model)
    assert node.kind is Kind.OPAQUE
    assert kxai.explain(model, np.ones((2, 4, 6), "float32"), "gradient").relevance.shape == (2, 4, 6)


def test_nothing_is_left_behind():
    before = list(dispatch._GLOBAL_DISPATCHERS)
    seen = []

    def look(x):
        seen.append(len(dispatch._GLOBAL_DISPATCHERS) - len(before))
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return tf.nn.relu(x)

    def elsewhere():
        try:
            tf.nn.relu(keras.KerasTensor((2, 3)))
        except (TypeError, ValueError) as error:
            seen.append(type(error))

    model = model_of(look, (4, 6))
    seen.clear()
    kxai.plan(model, "gradient")
    assert seen[0] > 0
    assert seen[1] in (TypeError, ValueError)  # other threads get TensorFlow's own error
    assert before == dispatch._GLOBAL_DISPATCHERS


@pytest.mark.parametrize("cast", [lambda x: keras.ops.cast(x, "int64"), lambda x: tf.cast(x, tf.int64)])
@pytest.mark.parametrize("method", ["gradient_x_input", "lrp.epsilon"])
def test_casts_between_integers_pass_relevance_on(cast, method):
    ids = layers.Input((4,), dtype="int32")
    embedding, dense = layers.Embedding(5, 3), layers.Dense(2)
    plain = keras.Model(ids, dense(layers.Flatten()(embedding(ids))))
    model = keras.Model(ids, dense(layers.Flatten()(embedding(Box(cast)(ids)))))
    x = np.array([[1, 2, 3, 1], [0, 1, 2, 4]])
    expected = kxai.explain(plain, x, method, target=0).relevance
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(kxai.explain(model, x, method, target=0).relevance, expected, rtol=1e-6)
