"""The units of scripts/bench: TensorFlow's own gradient and forward pass, compiled, from array to array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

CLASS = 0  # what is explained
FRAMEWORK = f"TensorFlow {tf.__version__}"

Run = Callable[[np.ndarray], np.ndarray]


def gradient(model: Any) -> Run:
    """The gradient of one output with respect to the input, compiled once for all batch sizes."""

    @tf.function(input_signature=[_signature(model)])
    def compiled(x: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            score = model(x, training=False)[:, CLASS]
        return tape.gradient(score, x)

    return lambda x: compiled(tf.constant(x)).numpy()


def forward(model: Any) -> Run:
    """The outputs, compiled once for all batch sizes."""

    @tf.function(input_signature=[_signature(model)])
    def compiled(x: Any) -> Any:
        return model(x, training=False)

    return lambda x: compiled(tf.constant(x)).numpy()


def _signature(model: Any) -> tf.TensorSpec:
    return tf.TensorSpec((None, *model.inputs[0].shape[1:]), "float32")
