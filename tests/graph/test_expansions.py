"""Layers and operations that become a few nodes: what the few nodes make of relevance."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812 - many layers
from keras import ops

import kxai


@pytest.mark.parametrize("composite", ["cp", "attn"])
def test_cosine_similarity(composite):
    """Relevance of the cosine: half of it for either side, a norm passes it on."""
    first, second = (keras.Input((4,), dtype="float64") for _ in range(2))
    shared = L.Dense(5, activation="relu", use_bias=False, dtype="float64")
    cosine = L.Dot(-1, normalize=True, dtype="float64")([shared(first), shared(second)])
    model = keras.Model([first, second], cosine)
    rng = np.random.default_rng(0)
    shared.set_weights([rng.normal(0.5, 1.0, size=(4, 5))])
    values = [rng.uniform(size=(6, 4)), rng.uniform(size=(6, 4))]
    explanation = kxai.LRP(model, composite).explain(values)
    (kernel,) = shared.get_weights()
    z = [x @ kernel for x in values]
    hidden = [np.maximum(v, 0) for v in z]
    units = [h / np.sqrt((h**2).sum(1, keepdims=True)) for h in hidden]
    products = units[0] * units[1]
    np.testing.assert_allclose(explanation.outputs[:, 0], products.sum(1), rtol=1e-12)
    for x, v, relevance in zip(values, z, explanation.relevance, strict=True):
        share = np.divide(products / 2, v, out=np.zeros_like(v), where=v > 0)
        # The stabilizers add 1e-9 to denominators of 0.1 and more.
        np.testing.assert_allclose(relevance, x * (share @ kernel.T), rtol=1e-6, atol=1e-7)


def test_the_product_alone_is_the_layer():
    """A row for the layer class meets the product, not the norms."""
    x = keras.Input((3, 4))
    dot = L.Dot((2, 2), normalize=True, name="dot")([x, L.Dense(4)(x)])
    composite = kxai.preset("epsilon").but((L.Dot, kxai.rules.Bilinear()))
    rows = {path: rule for path, _, rule in kxai.LRP(keras.Model(x, dot), composite).plan().rows}
    assert rows["dot"].startswith("Bilinear")
    assert rows["dot/first"].startswith("Epsilon")


def _multi_hot(mode):
    return L.CategoryEncoding(7, mode) if mode != "operation" else lambda ids: ops.multi_hot(ids, 7)


@pytest.mark.parametrize("method", ["gradient_x_input", "lrp.epsilon"])
@pytest.mark.parametrize("mode", ["multi_hot", "count", "operation"])
def test_categories(mode, method):
    """A category's relevance belongs to its tokens, in equal shares where there are several."""
    ids = keras.Input((5,), dtype="int32")
    model = keras.Model(ids, L.Dense(1, use_bias=False)(_multi_hot(mode)(ids)))
    tokens = np.array([[0, 1, 2, 0, 3], [4, 4, 4, 4, 4], [6, 5, 4, 3, 2]])
    got = kxai.explain(model, tokens, method, target=0)
    kernel = model.get_weights()[0][:, 0]
    expected = np.zeros((3, 5))
    for sample, row in enumerate(tokens):
        counts = np.bincount(row, minlength=7)
        for place, c in enumerate(row):
            expected[sample, place] = kernel[c] / (1 if mode == "count" else counts[c])
    # The stabilizer of the dense layer is 1e-6, its outputs are 0.1 and more.
    np.testing.assert_allclose(got.relevance, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["one_hot", "multi_hot", "count"])
def test_categories_are_computed_as_keras_does(mode):
    ids = keras.Input((1,) if mode == "one_hot" else (3, 5), dtype="int32")
    model = keras.Model(ids, L.Dense(2)(_encoded(mode, ids)))
    tokens = np.random.default_rng(0).integers(0, 7, (4, *ids.shape[1:]))
    np.testing.assert_allclose(kxai.explain(model, tokens, "gradient").outputs, model(tokens), rtol=1e-6)


def _encoded(mode, ids):
    return L.CategoryEncoding(7, mode)(ids if mode == "one_hot" else L.Flatten()(ids))


def test_counts_with_weights():
    ids, weights = keras.Input((5,), dtype="int32"), keras.Input((5,))
    counts = L.CategoryEncoding(7, "count")(ids, count_weights=weights)
    model = keras.Model([ids, weights], L.Dense(1, use_bias=False)(counts))
    tokens, values = np.random.default_rng(0).integers(0, 7, (4, 5)), np.random.default_rng(0).uniform(size=(4, 5))
    to_ids, to_weights = kxai.explain(model, [tokens, values], "gradient_x_input").relevance
    expected = model.get_weights()[0][:, 0][tokens] * values
    np.testing.assert_allclose(to_weights, expected, rtol=1e-5)
    np.testing.assert_allclose(to_ids, expected, rtol=1e-5)


def test_conditions_carry_no_relevance():
    """What only decides is constant: all relevance goes to what was chosen."""
    x = keras.Input((4,), dtype="float64")
    sign = ops.where(ops.clip(x, 0.0, 1.0), 1.0, -1.0)
    model = keras.Model(x, L.Dense(1, use_bias=False, dtype="float64")(x * sign))
    values = np.random.default_rng(0).normal(size=(3, 4))
    explanation = kxai.LRP(model, "cp").explain(values)
    expected = np.abs(values) * model.get_weights()[0][:, 0]
    # The stabilizers are 1e-9 of sums of about 1.
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-6)


def test_log_sum_exp_shares_by_softmax():
    x = keras.Input((4,), dtype="float64")
    model = keras.Model(x, ops.logsumexp(x, axis=-1, keepdims=True))
    values = np.random.default_rng(0).normal(size=(3, 4))
    explanation = kxai.LRP(model, "epsilon").explain(values)
    weights = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    np.testing.assert_allclose(explanation.relevance, weights * np.log(np.exp(values).sum(1, keepdims=True)), rtol=1e-9)
