"""Fourier transforms are sums with constant weights, so relevance is shared like at a dense layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kxai
from kxai.graph.graph import Kind
from scripts import tape

TRANSFORMS = {
    "fft": lambda x: ops.fft((x, ops.zeros_like(x))),
    "fft of two": lambda x: ops.fft((x, ops.square(x))),
    "fft2": lambda x: ops.fft2((x, ops.zeros_like(x))),
    "ifft2": lambda x: ops.ifft2((x, ops.square(x))),
    "rfft": ops.rfft,
    "irfft": lambda x: (ops.irfft((x, ops.square(x))),),
    "stft": lambda x: ops.stft(x, 4, 2, 4),
    "istft": lambda x: (ops.istft((x, ops.square(x)), 4, 2, 6),),
}
SHAPE = (3, 4)


def model_of(function):
    class Transform(keras.Layer):
        def call(self, x):
            return ops.concatenate([ops.reshape(part, (-1, int(np.prod(part.shape[1:])))) for part in function(x)], 1)

    inputs = keras.Input(SHAPE, dtype="float64")
    return keras.Model(inputs, Transform(dtype="float64")(inputs))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradient_is_tensorflows(name):
    model, x = model_of(TRANSFORMS[name]), np.random.default_rng(0).normal(size=(2, *SHAPE))
    found, expected = tape.both(model, x, lambda y: ops.sum(y * ops.cos(ops.cumsum(ops.ones_like(y), axis=1)), axis=1))
    # float64 throughout: 1e-16 per operation.
    assert tape.error(found, expected) < 1e-12
    assert not [node.path for node in kxai.plan(model, "gradient", x).graph.nodes if node.kind is Kind.OPAQUE]


@pytest.mark.parametrize("part", [0, 1])
def test_relevance_is_shared_by_sines_and_cosines(part):
    model, x = model_of(TRANSFORMS["fft"]), np.random.default_rng(1).normal(size=(1, *SHAPE))
    row, frequency, length = 2, 1, SHAPE[1]
    unit = part * x[0].size + row * length + frequency
    angles = 2 * np.pi * frequency * np.arange(length) / length
    weights = np.cos(angles) if part == 0 else -np.sin(angles)
    expected = np.zeros(SHAPE)
    expected[row] = x[0, row] * weights  # x w / z of the relevance z
    explanation = kxai.LRP(model, "epsilon", epsilon=1e-12).explain(x, target=unit)
    np.testing.assert_allclose(explanation.score, expected.sum(), rtol=1e-12)
    # The stabiliser of sums is 1e-6 of z at least.
    np.testing.assert_allclose(explanation.relevance[0], expected, rtol=1e-5, atol=1e-6)
