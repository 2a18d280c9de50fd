"""Models of mixed precision are explained in float32, close to what the same weights give in a float32 model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from kxai.testing.models import numbers, seeded

IDS = np.array([[3, 4, 5, 0, 0, 0], [1, 2, 3, 4, 5, 6]])


def convolutional():
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(image))
    return keras.Model(image, layers.Dense(3, "softmax")(layers.Flatten()(layers.MaxPooling2D()(x))))


def recurrent(layer):
    ids = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True)(ids)
    return keras.Model(ids, layers.Dense(3)(layer()(x)))


def attending():
    ids = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True)(ids)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x)]))
    return keras.Model(ids, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


MODELS = {
    "convolutional": (convolutional, numbers(8, 8, 3)),
    "lstm": (lambda: recurrent(lambda: layers.LSTM(5)), IDS),
    "gru": (lambda: recurrent(lambda: layers.Bidirectional(layers.GRU(5))), IDS),
    "attending": (attending, IDS),
}


@pytest.fixture(autouse=True)
def policy():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", MODELS)
# The digits that the policy's numbers have: 11 and 8 bits, over a few layers.
@pytest.mark.parametrize(
    ("policy_name", "tolerance"),
    [("mixed_float16", 1e-2), pytest.param("mixed_bfloat16", 1e-1, marks=pytest.mark.slow)],
)
def test_close_to_single_precision(name, policy_name, tolerance):
    make, inputs = MODELS[name]
    keras.config.set_dtype_policy("float32")
    full = seeded(make())
    keras.config.set_dtype_policy(policy_name)
    mixed = make()
    mixed.set_weights(full.get_weights())
    for method in ("gradient", "gradient_x_input", "lrp.attn" if name != "convolutional" else "lrp.epsilon_plus"):
        expected = kxai.explain(full, inputs, method, target=1).relevance
        relevance = kxai.explain(mixed, inputs, method, target=1).relevance
        assert relevance.dtype == np.float32
        np.testing.assert_allclose(relevance, expected, atol=tolerance * np.abs(expected).max())
        assert np.abs(relevance).max() > 0


@pytest.mark.parametrize("method", ["grad_cam", "score_cam", "ablation_cam", "opti_cam", "smoothgrad"])
@pytest.mark.parametrize(("policy_name", "tolerance"), [("mixed_float16", 1e-2), ("mixed_bfloat16", 1e-1)])
def test_methods_of_many_evaluations(method, policy_name, tolerance):
    make, inputs = MODELS["convolutional"]
    keras.config.set_dtype_policy("float32")
    full = seeded(make())
    keras.config.set_dtype_policy(policy_name)
    mixed = make()
    mixed.set_weights(full.get_weights())
    # The noise of this seed leaves no ReLU so close to 0 that 8 or 11 bits switch it, and with it all that it sees.
    options = {"opti_cam": {"num_steps": 3}, "smoothgrad": {"num_samples": 3, "seed": 1}}.get(method, {})
    expected, found = (kxai.explain(model, inputs, method, target=1, **options).relevance for model in (full, mixed))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("norm", [layers.LayerNormalization, lambda: layers.GroupNormalization(2)])
def test_norms_before_recurrent_layers(norm):
    keras.config.set_dtype_policy("mixed_float16")
    steps = keras.Input((5, 6))
    model = keras.Model(steps, layers.Dense(3)(layers.GRU(3)(norm()(steps))))
    explanation = kxai.LRP(model, "epsilon").explain(numbers(5, 6), target=0, audit=True)
    lost = sum(explanation.absorbed.values())
    np.testing.assert_allclose(lost, explanation.residual, atol=1e-3 * np.abs(explanation.score).max())
