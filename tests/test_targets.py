"""What can be explained, and in which forms inputs may come: exact numbers on linear models."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kxai
from kxai import Contrast
from kxai.nest import map_leaves
from kxai.testing import models

W = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]], "float32")
B = np.array([0.5, 0.25, -1.0], "float32")
X = np.array([[1.0, 2.0], [3.0, -1.0], [-2.0, 0.5]], "float32")
Y = X @ W + B
BEST = Y.argmax(axis=1)


@pytest.fixture(scope="module")
def linear():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="logits")], name="linear")
    model.set_weights([W, B])
    return model


@pytest.fixture(scope="module")
def lrp(linear):
    return kxai.LRP(linear, "zero")


@pytest.fixture(scope="module")
def gradient(linear):
    return kxai.Gradient(linear)


def expected(t):
    """(LRP-0 relevance, gradient, score) for target weights t, one row per sample.

    LRP-0 of one linear layer: x_i w_ij t_j, as y_j in the start cancels y_j in the denominator.
    """
    t = np.broadcast_to(np.asarray(t, "float32"), Y.shape)
    return X * (t @ W.T), t @ W.T, (t * Y).sum(axis=1)


def one_hot(classes):
    return np.eye(3, dtype="float32")[classes]


SAME = {
    "predicted class": (None, one_hot(BEST), BEST),
    "index": (1, one_hot([1, 1, 1]), [1, 1, 1]),
    "NumPy index": (np.int64(2), one_hot([2, 2, 2]), [2, 2, 2]),
    "one per sample, list": ([2, 0, 1], one_hot([2, 0, 1]), [2, 0, 1]),
    "one per sample, array": (np.array([2, 0, 1], "uint8"), one_hot([2, 0, 1]), [2, 0, 1]),
    "one per sample, tensor": (tf.constant([2, 0, 1]), one_hot([2, 0, 1]), [2, 0, 1]),
    "weight vector": ([0.5, 0.0, -2.0], [[0.5, 0.0, -2.0]] * 3, [[0.5, 0.0, -2.0]] * 3),
    "weight matrix": (np.arange(9.0).reshape(3, 3), np.arange(9.0).reshape(3, 3), np.arange(9.0).reshape(3, 3)),
    "one row for all": (np.array([[1.0, 1.0, 0.0]]), [[1, 1, 0]] * 3, [[1, 1, 0]] * 3),
    "contrast": (Contrast(0, 2), [[1, 0, -1]] * 3, [[1, 0, -1]] * 3),
    "contrast with itself": (Contrast(1, 1), [[0, 0, 0]] * 3, [[0, 0, 0]] * 3),
    "output name": ("logits", one_hot(BEST), BEST),
    "dict": ({"logits": 1}, one_hot([1, 1, 1]), [1, 1, 1]),
    "dict of weights": ({"logits": [0.0, 2.0, 0.0]}, [[0, 2, 0]] * 3, [[0, 2, 0]] * 3),
}


@pytest.mark.parametrize("form", SAME)
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_target(lrp, gradient, form, batch_size):
    target, weights, chosen = SAME[form]
    relevance, slope, score = expected(weights)
    explanation = lrp.explain(X, target, batch_size)
    np.testing.assert_allclose(explanation.relevance, relevance, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(explanation.score, score, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(explanation.outputs, Y, rtol=1e-6)
    np.testing.assert_array_equal(explanation.target, chosen)
    np.testing.assert_allclose(gradient.explain(X, target, batch_size).relevance, slope, rtol=1e-6)


def test_callable(lrp, gradient):
    def target(y):
        return ops.square(y[:, 0]) + 3 * y[:, 2]

    # A callable counts with its derivative at the outputs.
    weights = np.stack([2 * Y[:, 0], np.zeros(3), np.full(3, 3.0)], axis=1)
    relevance, slope, _ = expected(weights)
    explanation = lrp.explain(X, target)
    np.testing.assert_allclose(explanation.relevance, relevance, rtol=1e-5)
    np.testing.assert_allclose(gradient.explain(X, target).relevance, slope, rtol=1e-5)
    np.testing.assert_allclose(explanation.score, Y[:, 0] ** 2 + 3 * Y[:, 2], rtol=1e-5)


def test_the_relevance_of_one_output_adds_up_to_it_and_the_bias(lrp):
    explanation = lrp.explain(X, 1, audit=True)
    np.testing.assert_allclose(explanation.residual, B[1] * np.ones(3), rtol=1e-4)
    np.testing.assert_allclose(explanation.absorbed["logits"], B[1] * np.ones(3), rtol=1e-4)
    assert set(explanation.absorbed) == {"logits"}


def test_the_logit_is_explained_where_a_softmax_follows(linear, lrp):
    model = keras.Sequential([linear, layers.Softmax(name="probabilities")])
    explanation = kxai.LRP(model, "zero").explain(X, 1)
    np.testing.assert_allclose(explanation.relevance, lrp.explain(X, 1).relevance, rtol=1e-5)
    np.testing.assert_allclose(explanation.score, Y[:, 1], rtol=1e-5)
    np.testing.assert_allclose(explanation.outputs, np.exp(Y) / np.exp(Y).sum(axis=1, keepdims=True), rtol=1e-5)


# --- several outputs


@pytest.fixture(scope="module")
def two():
    x = keras.Input((2,))
    outputs = [layers.Dense(3, name="label")(x), layers.Dense(1, name="value")(x)]
    model = keras.Model(x, outputs, name="two")
    model.set_weights([W, B, np.array([[10.0], [20.0]]), np.array([1.0])])
    return kxai.Gradient(model)


@pytest.mark.parametrize(
    ("target", "slope"),
    [
        ("label", W.T[BEST]),
        ("value", [[10, 20]] * 3),
        ({"value": 0}, [[10, 20]] * 3),
        ({"value": None}, [[10, 20]] * 3),
        ({"label": [0, 1, 2]}, W.T),
        ({"label": Contrast(0, 1)}, [W[:, 0] - W[:, 1]] * 3),
        ({"label": 0, "value": [-1.0]}, [W[:, 0] - [10, 20]] * 3),
        (lambda outputs: outputs[0][:, 2] + outputs[1][:, 0], [W[:, 2] + [10, 20]] * 3),
    ],
)
def test_several_outputs(two, target, slope):
    np.testing.assert_allclose(two.explain(X, target, batch_size=2).relevance, slope, rtol=1e-5)


def test_the_targets_of_several_outputs_are_reported_by_name(two):
    chosen = two.explain(X, {"label": [2, 1, 0], "value": 0}).target
    assert set(chosen) == {"label", "value"}
    np.testing.assert_array_equal(chosen["label"], [2, 1, 0])


# --- dense prediction


@pytest.fixture(scope="module")
def per_pixel():
    model = keras.Sequential([keras.Input((2, 2, 2)), layers.Dense(3, name="pixels")])
    model.set_weights([W, B])
    return kxai.Gradient(model)


PIXELS = np.arange(24.0, dtype="float32").reshape(3, 2, 2, 2) / 10


def test_one_unit_of_an_output_with_positions(per_pixel):
    found = per_pixel.explain(PIXELS, (1, 0, 2)).relevance
    wanted = np.zeros_like(PIXELS)
    wanted[:, 1, 0] = W[:, 2]
    np.testing.assert_allclose(found, wanted)


def test_one_class_at_all_positions(per_pixel):
    np.testing.assert_allclose(per_pixel.explain(PIXELS, 1).relevance, np.broadcast_to(W[:, 1], PIXELS.shape))


def test_the_predicted_class_at_each_position(per_pixel):
    best = (PIXELS @ W + B).argmax(axis=-1)
    np.testing.assert_allclose(per_pixel.explain(PIXELS).relevance, W.T[best])


def test_weights_over_an_output_with_positions(per_pixel):
    weights = np.zeros((2, 2, 3))
    weights[0, 1, 0], weights[1, 1, 2] = 2, -1
    np.testing.assert_allclose(
        per_pixel.explain(PIXELS, weights).relevance, np.broadcast_to(weights @ W.T, PIXELS.shape)
    )


# --- forms of inputs


def forms(case):
    """One batch of inputs in many forms."""
    inputs = case.inputs
    # As for model.fit, the first entry of a tuple is the inputs: several inputs without labels are a tuple in a tuple.
    alone = (tuple(inputs),) if isinstance(inputs, list) else inputs
    yield "tensors", map_leaves(tf.constant, inputs)
    yield "batched dataset", tf.data.Dataset.from_tensor_slices(alone).batch(3)
    labelled = tf.data.Dataset.from_tensor_slices((_tuples(inputs), np.zeros(models.SAMPLES)))
    yield "batched dataset with labels", labelled.batch(3)
    yield "dataset of single samples with labels", labelled
    if not isinstance(inputs, (list, dict)):
        yield "float64", inputs.astype("float64" if inputs.dtype.kind == "f" else "int64")
        yield "nested lists", inputs.tolist()
        yield "dataset of single samples", tf.data.Dataset.from_tensor_slices(inputs)


def _tuples(inputs):
    return tuple(inputs) if isinstance(inputs, list) else inputs


@pytest.mark.parametrize(
    "build", [models.mlp, models.tokens, models.list_inputs, models.dict_inputs, models.subclassed]
)
def test_inputs_in_other_forms(build):
    case = build()
    analyzer = kxai.Gradient(case.model)
    wanted = analyzer.explain(case.inputs, case.target)
    for name, inputs in forms(case):
        if build is models.subclassed and "single" in name:
            continue  # a model that does not declare its inputs takes batches only
        found = analyzer.explain(inputs, case.target, batch_size=2)
        map_leaves(
            lambda a, b, name=name: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name),
            wanted.relevance,
            found.relevance,
        )


def test_inputs_by_name():
    case = models.list_inputs()
    analyzer = kxai.Gradient(case.model)
    wanted = analyzer.explain(case.inputs, 0).relevance
    found = analyzer.explain({"b": case.inputs[1], "a": case.inputs[0]}, 0).relevance
    assert isinstance(found, list)
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(a, b)


@pytest.mark.parametrize("target", [[2, 0, 1], np.arange(9.0).reshape(3, 3)])
def test_targets_follow_the_batches_of_a_dataset(lrp, target):
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(2)
    np.testing.assert_allclose(lrp.explain(dataset, target).relevance, lrp.explain(X, target).relevance, rtol=1e-6)


# --- intermediate relevance


def test_relevance_of_inner_layers():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="first", use_bias=False),
            layers.Dense(1, name="second", use_bias=False),
        ]
    )
    head = np.array([[2.0], [-1.0], [0.5]], "float32")
    model.set_weights([W, head])
    analyzer = kxai.LRP(model, "zero")
    explanation = analyzer.explain(X, 0, layers="first", batch_size=2)
    np.testing.assert_allclose(explanation.layers["first"], (X @ W) * head[:, 0], rtol=1e-5)
    both = analyzer.explain(X, 0, layers=["f*", "second"])
    assert set(both.layers) == {"first", "second"}
    np.testing.assert_allclose(both.layers["second"], X @ W @ head, rtol=1e-5)
    for relevance in both.layers.values():
        np.testing.assert_allclose(relevance.sum(axis=1), both.score, rtol=1e-4)
    assert not analyzer.explain(X, 0).layers


@pytest.mark.parametrize("build", models.ALL)
def test_the_audit_accounts_for_everything(build):
    case = build()
    explanation = kxai.LRP(case.model, "epsilon_plus").explain(case.inputs, case.target, audit=True)
    accounted = np.sum(list(explanation.absorbed.values()), axis=0)
    np.testing.assert_allclose(explanation.residual, accounted, atol=1e-4)
    assert not kxai.LRP(case.model, "epsilon_plus").explain(case.inputs, case.target).absorbed


def test_layers_are_those_that_relevance_reaches():
    net = [layers.Dense(4, name="hidden"), layers.BatchNormalization(name="norm"), layers.ReLU()]
    model = keras.Sequential([keras.Input((3,)), *net, layers.Dense(2, activation="softmax", name="top")])
    analyzer = kxai.LRP(model, "epsilon")
    x = np.ones((2, 3), "float32")
    assert len(analyzer.explain(x, layers="*").layers) == 3  # hidden + norm, relu, top; no relevance reaches a softmax
    assert set(analyzer.explain(x, layers=["hidden", "top"]).layers) == {"hidden", "top"}
    assert set(analyzer.explain(x, layers="no*").layers) == {"norm"}  # a merged node answers to both names
    with pytest.raises(kxai.KxaiError, match="Unknown layer 'top/softmax'"):
        analyzer.explain(x, layers="top/softmax")


@pytest.mark.parametrize("function", [lambda x: ops.concatenate([x, x], axis=0), lambda x: ops.reshape(x, (-1, 1))])
def test_outputs_with_several_entries_per_sample(function):
    x = keras.Input((2,))
    model = keras.Model(x, layers.Dense(3, name="logits")(function(x)))
    for method in ("lrp.epsilon", "gradient"):
        with pytest.raises(
            kxai.errors.TargetError, match=r"(?s)has 2 entries per sample.*Fix: give the entries an axis"
        ):
            kxai.explain(model, X, method)


def test_one_unit_needs_no_target():
    for units, fix in ((1, r"(?s)from 0 to 0.*Received: 1.*give no target"), (3, r"(?s)from 0 to 2\n  Received: 5$")):
        model = keras.Sequential([keras.Input((2,)), layers.Dense(units)])
        with pytest.raises(kxai.errors.TargetError, match=fix):
            kxai.explain(model, X, "gradient", target=1 if units == 1 else 5)
