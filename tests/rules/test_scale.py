"""Batch normalisation that cannot be merged, and norms: affine maps of one output per input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from kxai import Kind, rules
from tests import naive
from tests.weights import signed

RULES = [
    (rules.Epsilon(0.1), lambda x, m, R: naive.epsilon(x, m, R, epsilon=0.1)),
    (rules.Epsilon(0.1, bias=False), lambda x, m, R: naive.epsilon(x, m, R, epsilon=0.1, bias=False)),
    (rules.Gamma(0.5, 0.1), lambda x, m, R: naive.gamma(x, m, R, gamma=0.5, epsilon=0.1)),
    (rules.AlphaBeta(2, 1, 0.1), lambda x, m, R: naive.alpha_beta(x, m, R, alpha=2, beta=1, epsilon=0.1)),
    (rules.ZPlus(0.1), lambda x, m, R: naive.z_plus(x, m, R, epsilon=0.1)),
    (rules.ZPlus(0.1, bias=True), lambda x, m, R: naive.z_plus(x, m, R, epsilon=0.1, bias=True)),
]


@pytest.mark.parametrize(("rule", "definition"), RULES, ids=lambda value: repr(value) if hasattr(value, "bias") else "")
def test_normalisation_is_a_diagonal_map(rule, definition):
    norm = layers.BatchNormalization(dtype="float64")
    model = signed(keras.Sequential([keras.Input((6,), dtype="float64"), norm]))
    composite = kxai.Composite("one", ((Kind.SCALE, rule),))
    x, weights = np.random.default_rng(1).normal(size=(2, 3, 6))
    weights = weights.astype("float32")
    explanation = kxai.LRP(model, composite).explain(x, weights)
    s = np.asarray(norm.gamma) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    t = np.asarray(norm.beta) - np.asarray(norm.moving_mean) * s
    diagonal = naive.Affine(naive.dense, (np.diag(s),), (6,), t)
    expected = [definition(row, diagonal, weight * (row * s + t)) for row, weight in zip(x, weights, strict=True)]
    # Only the order of two additions differs; 0.1 keeps denominators away from cancellation.
    assert naive.distance(explanation.relevance, np.stack(expected)) <= 1e-9


def pre_activation_net():
    """Sums and concatenations whose batch normalisation has no affine neighbour."""
    x = keras.Input((8, 8, 2), dtype="float64")
    make = {"dtype": "float64"}
    h = layers.Conv2D(4, 3, padding="same", **make)(x)
    for i in range(3):
        branch = layers.ReLU(**make)(layers.BatchNormalization(**make)(h))
        branch = layers.Conv2D(4, 3, padding="same", **make)(branch)
        h = layers.Add(**make)([h, branch]) if i < 2 else layers.Concatenate(**make)([h, branch])
    h = layers.ReLU(**make)(layers.BatchNormalization(**make)(h))
    return signed(keras.Model(x, layers.Dense(3, **make)(layers.GlobalAveragePooling2D(**make)(h))), seed=3)


def test_lrp_0_is_gradient_times_input_there_too():
    model = pre_activation_net()
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 2))
    relevance = kxai.LRP(model, "epsilon", epsilon=1e-12).explain(x).relevance
    expected = kxai.GradientTimesInput(model).explain(x).relevance
    assert naive.distance(relevance, expected) <= 1e-9  # epsilon 1e-12 against sums down to about 1e-3


@pytest.mark.parametrize("method", ["lrp.gamma", "lrp.epsilon_plus", "lrp.z_plus", "deep_taylor"])
def test_relevance_does_not_explode(method):
    model = pre_activation_net()
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 2))
    explained = x[np.asarray(model(x)).max(axis=1) > 0][:8]
    assert len(explained)
    explanation = kxai.create_analyzer(method, model).explain(explained)
    assert np.abs(explanation.relevance).sum(axis=(1, 2, 3)).max() <= 3 * np.abs(explanation.score).max()


def test_norms_hand_nothing_to_their_shift():
    model = signed(keras.Sequential([keras.Input((6,), dtype="float64"), layers.LayerNormalization(dtype="float64")]))
    x = np.random.default_rng(1).normal(size=(2, 6))
    weights = np.ones(6, "float32")
    explanation = kxai.LRP(model, "zero").explain(x, weights, audit=True)
    beta = np.asarray(model.layers[0].beta)
    # y = c g r + beta: the share of beta is lost at the norm, nothing at the centring (0 is its only constant).
    np.testing.assert_allclose(explanation.residual, [beta.sum()] * 2, rtol=1e-10)


@pytest.mark.parametrize("rule", [rules.Flat(), rules.WSquare()], ids=repr)
def test_padding_of_the_input_is_no_input(rule):
    """A padding layer before a convolution is the same as the convolution's own padding."""
    conv = layers.Conv2D(3, 3, dtype="float64")
    net = [keras.Input((5, 5, 2), dtype="float64"), layers.Rescaling(0.5, offset=1.0, dtype="float64")]
    apart = signed(keras.Sequential([*net, layers.ZeroPadding2D(1, dtype="float64"), conv]))
    same = layers.Conv2D(3, 3, padding="same", dtype="float64")
    joined = keras.Sequential([*net, same])
    same.set_weights(conv.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2))
    weights = np.random.default_rng(1).normal(size=(5, 5, 3)).astype("float32")
    composite = kxai.Composite("one", ((Kind.AFFINE, rule), (Kind.SCALE, rules.Pass()), (Kind.ROUTE, rules.Gradient())))
    explanations = [kxai.LRP(model, composite).explain(x, weights) for model in (apart, joined)]
    np.testing.assert_allclose(explanations[0].relevance, explanations[1].relevance, rtol=1e-10)
    np.testing.assert_allclose(explanations[0].residual, 0, atol=1e-9)
