"""Small models and slow definitions that the tests of path and noise methods share."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from kxai import backend


def dense(*kernels_and_biases, activation="relu", dtype="float64"):
    """A chain of dense layers in float64, an activation between them; every second argument is a bias or None."""
    pairs = list(zip(kernels_and_biases[::2], kernels_and_biases[1::2], strict=True))
    stack = [keras.Input((len(pairs[0][0]),), dtype=dtype)]
    for i, (kernel, bias) in enumerate(pairs):
        last = i == len(pairs) - 1
        name = "logits" if last else f"hidden_{i}"
        stack.append(layers.Dense(np.shape(kernel)[1], None if last else activation, bias is not None, name=name,
                                  dtype=dtype))  # fmt: skip
    model = keras.Sequential(stack)
    model.set_weights([np.asarray(w, dtype) for pair in pairs for w in pair if w is not None])
    return model


def xor():
    """The network that knows "either or": logits (a1 + a2 - 1, 1 - a1 - a2)."""
    return dense([[1, -1], [-1, 1]], [-0.5, -0.5], [[1, -1], [1, -1]], [-1, 1])


def product():
    """f = x1 x2, in float64."""
    x = keras.Input((2,), dtype="float64")
    return keras.Model(x, x[:, :1] * x[:, 1:])


def gradients(model, points, target):
    """Plain gradients of one output, point by point."""
    found = []
    for point in points:
        (_,), pull = backend.vjp(lambda x: model(x)[:, target], keras.ops.convert_to_tensor(point[None]))
        found.append(np.asarray(pull([keras.ops.ones((1,), "float64")])[0])[0])
    return np.array(found)


def integrated(model, x, baseline, alphas, weights, target):
    """Integrated gradients of one sample, by the formula."""
    points = [baseline + a * (x - baseline) for a in alphas]
    return (x - baseline) * sum(w * g for w, g in zip(weights, gradients(model, points, target), strict=True))
