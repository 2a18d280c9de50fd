"""kxai against tf-keras-vis: its saliency is the gradient, its scores are targets."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai.errors import TargetError
from kxai.testing import models
from kxai.testing.models import seeded
from tests import oracle_tf_keras_vis as oracle

oracle.package()

from tf_keras_vis.utils.scores import BinaryScore, CategoricalScore, InactiveScore, Score  # noqa: E402

X = np.random.default_rng(0).normal(size=(3, 12, 12, 3)).astype("float32")


def chain(*rows):
    return seeded(keras.Sequential([keras.Input((12, 12, 3)), *rows]), 3)


def body():
    return [layers.Conv2D(4, 3, activation="relu", name="conv"), layers.MaxPooling2D(2), layers.Flatten()]


NETWORKS = {
    "linear head": lambda: chain(*body(), layers.Dense(4)),
    "softmax in the last layer": lambda: chain(*body(), layers.Dense(4, activation="softmax")),
    "softmax layer": lambda: chain(*body(), layers.Dense(4), layers.Softmax()),
    "silu, strides, average": lambda: chain(
        layers.Conv2D(5, 3, strides=2, padding="same", activation="silu"),
        layers.DepthwiseConv2D(3, activation="tanh"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("classes", [[1], [2, 0, 1]], ids=["one class", "a class per sample"])
def test_saliency_is_the_gradient(name, classes):
    model = NETWORKS[name]()
    theirs = oracle.saliency(model, X, CategoricalScore(classes))
    ours = kxai.Gradient(model).explain(X, classes if len(classes) > 1 else classes[0]).relevance
    assert np.abs(theirs).max() > 1e-2
    # The same derivative in float32; sums may run in another order.
    np.testing.assert_allclose(np.abs(ours).max(axis=-1), theirs, rtol=1e-5, atol=1e-6)


def test_the_oracle_for_maps_is_raw():
    """Grad-CAM and LayerCAM by their formulas, in the size of the layer, from TensorFlow's own derivative."""
    import tensorflow as tf

    model = NETWORKS["linear head"]()
    a = ops.convert_to_tensor(model.layers[0](X))
    with tf.GradientTape() as tape:
        tape.watch(a)
        y = model.layers[3](model.layers[2](model.layers[1](a)))[:, 1]
    a, g = np.asarray(a), np.asarray(tape.gradient(y, a))
    grad_cam = (a * g.mean(axis=(1, 2), keepdims=True)).sum(axis=-1)
    assert grad_cam.min() < -1e-3
    score = oracle.categorical([1])
    raw = oracle.cam("Gradcam", model, X, score, "conv", activation_modifier=None)
    np.testing.assert_allclose(raw, grad_cam, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(oracle.cam("Gradcam", model, X, score, "conv"), np.maximum(grad_cam, 0), atol=1e-6)
    layer_cam = (a * np.maximum(g, 0)).sum(axis=-1)
    np.testing.assert_allclose(oracle.cam("Layercam", model, X, score, "conv"), layer_cam, rtol=1e-5, atol=1e-6)


# Scores as targets.


def assert_same(analyzer, x, score, target, **options):
    ours, theirs = analyzer.explain(x, target, **options), analyzer.explain(x, score, **options)
    np.testing.assert_array_equal(theirs.score, ours.score)
    for mine, other in zip(keras.tree.flatten(ours.relevance), keras.tree.flatten(theirs.relevance), strict=True):
        assert np.abs(mine).max() > 0
        np.testing.assert_array_equal(other, mine)
    return theirs


@pytest.mark.parametrize("batch_size", [2, 32])
@pytest.mark.parametrize(
    ("score", "target"),
    [
        (CategoricalScore(2), 2),
        (CategoricalScore([2]), 2),
        ([CategoricalScore([2])], 2),
        (CategoricalScore([2, 0, 1]), [2, 0, 1]),
    ],
)
def test_categorical_score_is_a_class(score, target, batch_size):
    model = NETWORKS["softmax in the last layer"]()
    result = assert_same(kxai.Gradient(model), X, score, target, batch_size=batch_size)
    np.testing.assert_array_equal(result.target, np.broadcast_to(target, 3))


def test_binary_score_signs_the_logit():
    model = chain(*body(), layers.Dense(1, activation="sigmoid"))
    gradient = kxai.Gradient(model)
    assert_same(gradient, X, BinaryScore(True), 0)
    assert_same(gradient, X, BinaryScore([False]), [-1.0])
    assert_same(gradient, X, BinaryScore([True, False, True]), np.array([[1.0], [-1.0], [1.0]]))


def test_scores_are_what_the_package_computes():
    y = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    model = seeded(keras.Sequential([keras.Input((4,)), layers.Dense(4, use_bias=False)]))
    model.set_weights([np.eye(4, dtype="float32")])
    for score in (CategoricalScore(3), CategoricalScore([3, 1, 1])):
        np.testing.assert_array_equal(kxai.Gradient(model).explain(y, score).score, score(ops.convert_to_tensor(y)))
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.eye(1, dtype="float32")])
    for score in (BinaryScore(False), BinaryScore([True, False, False])):
        ours = kxai.Gradient(model).explain(y[:, :1], score).score
        np.testing.assert_array_equal(ours, score(ops.convert_to_tensor(y[:, :1])))


def test_categorical_score_averages_over_positions():
    model = seeded(keras.Sequential([keras.Input((12, 12, 3)), layers.Conv2D(4, 3)]))
    for score in (CategoricalScore(3), CategoricalScore([3, 0, 1])):
        explanation = kxai.Gradient(model).explain(X, score)
        # Sums of 100 float32 numbers in another order.
        np.testing.assert_allclose(explanation.score, score(ops.convert_to_tensor(model(X))), rtol=1e-5, atol=1e-6)
    with pytest.raises(TargetError, match=r"not a unit(.|\n)*from 0 to 3(.|\n)*4"):
        kxai.Gradient(model).explain(X, CategoricalScore(4))


def test_several_outputs_take_one_score_each():
    case = models.multi_output()
    gradient = kxai.Gradient(case.model)
    first, second = case.model.output_names
    assert_same(gradient, case.inputs, [CategoricalScore(1), InactiveScore()], {first: 1})
    assert_same(gradient, case.inputs, (InactiveScore(), CategoricalScore(0)), {second: 0})
    assert_same(gradient, case.inputs, [CategoricalScore(1), CategoricalScore(0)], {first: 1, second: 0})
    assert_same(gradient, case.inputs, {first: CategoricalScore(1)}, {first: 1})
    with pytest.raises(TargetError, match=r"not one score per output(.|\n)*Expected: 2, for(.|\n)*Received: 1"):
        gradient.explain(case.inputs, CategoricalScore(1))
    with pytest.raises(TargetError, match="nothing is left to explain"):
        gradient.explain(case.inputs, [InactiveScore(), InactiveScore()])


class Margin(Score):
    """Class 0 against the mean of all, one number per sample and class."""

    def __call__(self, output):
        return output[:, :1] - output


class Tied(Score):
    """Bound to positions in a batch, as the package's own examples are."""

    def __call__(self, output):
        return output[0, 1], output[1, 2]


def test_scores_of_ones_own_are_averaged_and_compiled_once():
    gradient = kxai.Gradient(NETWORKS["linear head"]())
    margin = Margin("margin")
    want = gradient.explain(X, [0.75, -0.25, -0.25, -0.25])
    got = gradient.explain(X, margin)
    np.testing.assert_allclose(got.score, want.score, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.relevance, want.relevance, rtol=1e-5, atol=1e-6)
    traces = gradient.traces
    gradient.explain(X[:1], margin)
    assert gradient.traces == traces
    with pytest.raises(TargetError, match="must return one number per sample"):
        gradient.explain(X, Tied("tied"))


def test_scores_that_do_not_fit_are_refused():
    gradient = kxai.Gradient(NETWORKS["linear head"]())
    for score, text in [
        (CategoricalScore(4), r"not a unit(.|\n)*from 0 to 3"),
        # The package leaves the third map at zero and says nothing.
        (CategoricalScore([1, 2]), r"wrong length(.|\n)*one per sample \(3\)"),
        (BinaryScore(True), r"A BinaryScore does not apply to output(.|\n)*CategoricalScore(.|\n)*\(None, 4\)"),
        (InactiveScore(), "nothing is left to explain"),
    ]:
        with pytest.raises(TargetError, match=text):
            gradient.explain(X, score)
    case = models.multi_output()
    with pytest.raises(TargetError, match="A Margin does not apply"):
        kxai.Gradient(case.model).explain(case.inputs, [Margin("margin"), InactiveScore()])
    binary = chain(*body(), layers.Dense(1, activation="sigmoid"))
    with pytest.raises(TargetError, match=r"weights(.|\n)*wrong shape"):
        kxai.Gradient(binary).explain(X, BinaryScore([True, False]))
