"""FullGrad: the terms add up to the score of every network, each is what it should be, and the map is their sum."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kxai
from kxai import backend, nest
from kxai.analyzers.fullgrad import added
from kxai.errors import ArgumentError, RuleError
from kxai.graph.graph import Kind
from kxai.reverse import forward
from kxai.testing import check_analyzer, models
from tests.beside import existing

EVERY = (*models.ALL, models.gated, models.encoder, models.vision_transformer, models.decoder)


def terms(explanation):
    return sum(explanation.absorbed.values())


def xor():
    """The network of the worked problem: ReLU(W x - 1/2), then two logits with biases -1 and 1."""
    stack = [layers.Dense(2, "relu", name="hidden"), layers.Dense(2, "softmax", name="logits")]
    model = keras.Sequential([keras.Input((2,)), *stack])
    weights = [[1, -1], [-1, 1]], [-0.5, -0.5], [[1, -1], [1, -1]], [-1, 1]
    model.set_weights([np.array(w) for w in weights])
    return model


def test_worked_problem(double):
    """3 - 0.5 - 1 = 1.5 at (0, 3)."""
    e = kxai.FullGrad(xor(), psi=None).explain(np.array([[0.0, 3.0]]))
    np.testing.assert_array_equal(e.relevance, [[0, 3]])
    assert {path: value[0] for path, value in e.absorbed.items() if value[0]} == {"hidden": -0.5, "logits": -1.0}
    assert e.score == 1.5


@pytest.mark.parametrize("build", EVERY, ids=lambda build: build.__name__)
def test_terms_add_up_to_the_score(double, build):
    """Of every network, ReLUs or not; and ``added`` times the signal adds up to the entry of every node."""
    case = build()
    analyzer = kxai.FullGrad(case.model, psi=None)
    plan = analyzer.plan(case.inputs)
    paths = [n.path for n in plan.rules if len(n.outputs) == 1 and n.outputs[0].batch == (0, 1)]
    e = analyzer.explain(case.inputs, case.target, batch_size=3, layers=paths)
    # Float64: sums of some thousand terms of order 1.
    np.testing.assert_allclose(e.residual - terms(e), 0, atol=1e-12)
    assert np.abs(terms(e)).max() > 1e-3
    pairs = zip(keras.tree.flatten(case.inputs), plan.graph.inputs, strict=True)
    run = forward(plan, [ops.convert_to_tensor(x, edge.dtype) for x, edge in pairs])
    compared = 0
    for node in plan.rules:
        # A cast to other numbers adds its rounding.
        if node.path in paths and node.path in e.absorbed and node.kind is not Kind.RECURRENT and node.op != "cast":
            term = np.asarray(added(run.steps[node])) * e.layers[node.path]
            total = term.reshape(len(term), -1).sum(axis=1)
            np.testing.assert_allclose(total, e.absorbed[node.path], atol=1e-12, err_msg=node.path)
            compared += 1
    assert compared


@pytest.mark.parametrize("build", [models.mlp, models.tokens, models.dict_inputs], ids=lambda build: build.__name__)
def test_relevance_without_a_map_is_gradient_times_input(build):
    case = build()
    ours = kxai.FullGrad(case.model, psi=None).explain(case.inputs)
    usual = kxai.GradientTimesInput(case.model).explain(case.inputs)
    for one, other in zip(nest.leaves(ours.relevance), nest.leaves(usual.relevance), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "target", [None, 1, np.array([0.5, -1.0, 2.0]), kxai.Contrast(0, 2), lambda y: ops.sum(y, axis=1) ** 3]
)
@pytest.mark.parametrize("strip_softmax", [True, False])
def test_terms_add_up_for_every_target(double, target, strip_softmax):
    case = models.mlp()
    e = kxai.FullGrad(case.model, psi=None, strip_softmax=strip_softmax).explain(case.inputs, target)
    np.testing.assert_allclose(e.residual - terms(e), 0, atol=1e-13)
    assert ("(target)" in e.absorbed) == callable(target)


def small(shape=(6, 6, 2)):
    stack = [
        layers.Conv2D(3, 3, padding="same", name="first"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(),
        layers.MaxPooling2D(2),
        layers.Conv2D(4, 2, activation="relu", name="second"),
        layers.Flatten(),
        layers.Dense(2, name="logits"),
    ]
    return models.seeded(keras.Sequential([keras.Input(shape), *stack]))


def test_terms_are_biases_times_their_gradients(double):
    """By TensorFlow's own derivative with respect to each bias."""
    model, x = small(), models.numbers(6, 6, 2).astype("float64")
    e = kxai.FullGrad(model, psi=None).explain(x, 1)
    for i in range(len(x)):
        with tf.GradientTape() as tape:
            y = model(x[i : i + 1], training=False)[0, 1]
        norm = model.get_layer("norm")
        layers_ = [model.get_layer(name) for name in ("first", "second", "logits")]
        *by_bias, by_beta = tape.gradient(y, [*(layer.bias.value for layer in layers_), norm.beta.value])
        for layer, gradient in zip(layers_, by_bias, strict=True):
            expected = np.sum(layer.bias * gradient)
            np.testing.assert_allclose(e.absorbed[layer.name][i], expected, rtol=1e-9, atol=1e-14)
        gamma, beta, mean, variance = norm.get_weights()
        implicit = beta - gamma * mean / np.sqrt(variance + norm.epsilon)
        np.testing.assert_allclose(e.absorbed["norm"][i], np.sum(implicit * by_beta), rtol=1e-9)
    silent = set(e.absorbed) - {"first", "second", "logits", "norm"}
    assert silent
    np.testing.assert_allclose([e.absorbed[path] for path in silent], 0, atol=1e-14)


@pytest.mark.parametrize(
    ("activation", "function", "slope"),
    [
        ("tanh", np.tanh, lambda n: 1 - np.tanh(n) ** 2),
        ("softplus", lambda n: np.log1p(np.exp(n)), lambda n: 1 / (1 + np.exp(-n))),
        ("relu6", lambda n: np.clip(n, 0, 6), lambda n: (n > 0) * (n < 6)),
        ("leaky_relu", lambda n: np.where(n > 0, n, 0.2 * n), lambda n: np.where(n > 0, 1, 0.2)),
    ],
)
def test_implicit_biases_of_activations(double, activation, function, slope):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Activation(activation, name="phi"), layers.Dense(1, name="sum")]
    )
    w = np.array([[1.0], [2.0], [-1.0], [0.5]])
    model.set_weights([w, np.zeros(1)])
    n = np.array([[-2.0, -0.3, 0.7, 9.0]])
    e = kxai.FullGrad(model, psi=None).explain(n)
    np.testing.assert_allclose(e.absorbed["phi"], (function(n) - slope(n) * n) @ w[:, 0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["fer_mini_xception", pytest.param("efficientnet_lite0", marks=pytest.mark.slow)])
def test_terms_of_trained_networks(name):
    model = kxai.load(existing("models", f"{name}.keras"))
    x = models.numbers(*model.input_shape[1:], samples=2)
    e = kxai.FullGrad(model, psi=None).explain(x)
    # Float32: the terms of some hundred layers are up to a hundred times as large as their sum.
    np.testing.assert_allclose(e.residual - terms(e), 0, atol=1e-4)
    assert np.abs(terms(e)).max() > 0.1


def psi_channel(m):
    m = np.abs(m)
    m = m - m.min(axis=(1, 2), keepdims=True)
    return m / (1e-7 + m.max(axis=(1, 2), keepdims=True))


def psi_layer(m):
    m = np.abs(m)
    m = m - m.min(axis=(1, 2, 3), keepdims=True)
    return m / (1e-7 + m.max(axis=(1, 2, 3), keepdims=True))


def resized(m, size):
    for axis in (1, 2):
        old = m.shape[axis]
        at = (np.arange(size) + 0.5) * old / size - 0.5
        m = np.apply_along_axis(lambda v, at=at, old=old: np.interp(at, np.arange(old), v), axis, m)
    return m


@pytest.mark.parametrize(("name", "psi"), [("channel", psi_channel), ("layer", psi_layer), ("magnitude", np.abs)])
def test_map(double, name, psi):
    """Channel by channel: scaled, resized, added up."""
    model, x = small(), models.numbers(6, 6, 2).astype("float64")
    gradient = kxai.Gradient(model).explain(x, 0, layers=["first", "norm", "second"])
    gamma, beta, mean, variance = model.get_layer("norm").get_weights()
    biases = {
        "first": model.get_layer("first").get_weights()[1],
        "norm": beta - gamma * mean / np.sqrt(variance + model.get_layer("norm").epsilon),
        "second": model.get_layer("second").get_weights()[1],
    }
    expected = psi(gradient.relevance * x).sum(axis=-1, keepdims=True)
    for path, bias in biases.items():
        expected = expected + resized(psi(gradient.layers[path] * bias), 6).sum(axis=-1, keepdims=True)
    e = kxai.FullGrad(model, psi=name).explain(x, 0)
    np.testing.assert_allclose(e.relevance, expected, rtol=1e-9, atol=1e-12)
    assert "the map leaves out the bias terms of nodes without positions, see absorbed: logits" in e.config["notes"]
    whole = kxai.FullGrad(model, psi=None).explain(x, 0)
    np.testing.assert_allclose(terms(e), terms(whole), atol=1e-13)


def test_maps_of_sequences_and_volumes():
    """One and three spatial axes; attention and recurrent layers have no place."""
    volume = keras.Sequential([keras.Input((4, 3, 5, 2)), layers.Conv3D(2, 2, strides=2), layers.Flatten(),
                               layers.Dense(2)])  # fmt: skip
    e = kxai.FullGrad(models.seeded(volume)).explain(models.numbers(4, 3, 5, 2))
    assert e.relevance.shape == (4, 4, 3, 5, 1)
    case = models.gru()
    assert "see absorbed: gru" in kxai.FullGrad(case.model).explain(case.inputs).config["notes"][-1]
    case = models.vision_transformer()
    assert "attention_0/query" in kxai.FullGrad(case.model).explain(case.inputs).config["notes"][-1]


def test_a_step_by_step_run_is_the_same():
    case = models.residual()
    compiled = kxai.FullGrad(case.model).explain(case.inputs, 1)
    with backend.eagerly():
        slow = kxai.FullGrad(case.model).explain(case.inputs, 1)
    # Float32; min-max scaling divides differences of small numbers.
    np.testing.assert_allclose(slow.relevance, compiled.relevance, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [models.mlp, models.tokens, models.list_inputs])
def test_no_positions(build):
    case = build()
    with pytest.raises(RuleError, match="needs positions") as error:
        kxai.FullGrad(case.model).explain(case.inputs)
    assert "psi=None gives the exact decomposition of any model" in str(error.value)


def test_channels_first():
    conv = layers.Conv2D(2, 1, data_format="channels_first")
    model = keras.Sequential([keras.Input((2, 3, 3)), conv, layers.Flatten(), layers.Dense(1)])
    with pytest.raises(RuleError, match="channels on the last axis"):
        kxai.FullGrad(model).explain(np.ones((1, 2, 3, 3)))


@pytest.mark.parametrize("psi", ["minmax", "", 1, True])
def test_unknown_psi(psi):
    with pytest.raises(ArgumentError, match="psi is out of range") as error:
        kxai.FullGrad(xor(), psi=psi)
    assert "'channel', 'layer', 'magnitude' or None" in str(error.value)


def test_decomposition_is_an_analyzer():
    case = (models.mlp, models.multi_output)
    check_analyzer(partial(kxai.FullGrad, psi=None), cases=case, alternatives={"psi": "channel"})
