"""TensorFlow's own derivative of a model's score: what the tracer's self-test compares with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import kxai
from kxai.graph.graph import Kind

Score = Callable[[Any], Any]


def weighted_sum(outputs: Any) -> Any:
    """A score that depends on every output differently: one number per sample."""
    rows = [ops.reshape(y, (ops.shape(y)[0], -1)) for y in tf.nest.flatten(outputs)]
    return sum(ops.sum(y * ops.cos(ops.cumsum(ops.ones_like(y), axis=1)), axis=1) for y in rows)


def both(model: Any, x: Any, score: Score) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The gradient of a score by kxai, and by TensorFlow.

    Both list it at the inputs of floating-point numbers and, for ids, at the vectors that they are embedded as.

    Args:
        model: a Keras model.
        x: a batch of its inputs; no two inputs hold the same ids.
        score: outputs -> one number per sample.
    """
    analyzer = kxai.Gradient(model, strip_softmax=False)
    graph = analyzer.plan(x).graph
    embedding = [node for node in graph.nodes if node.kind is Kind.LOOKUP and node.inputs[0] in graph.inputs]
    lookups = [(graph.inputs.index(node.inputs[0]), node.path) for node in embedding]
    explanation = analyzer.explain(x, target=score, layers=[path for _, path in lookups])
    relevance = zip(tf.nest.flatten(explanation.relevance), graph.inputs, strict=True)
    found = [array for array, edge in relevance if edge.is_float]
    found += [explanation.layers[path] for _, path in sorted(lookups)]
    inputs = tf.nest.map_structure(tf.constant, x)
    floating = all(tensor.dtype.is_floating for tensor in tf.nest.flatten(inputs))
    return found, _gradients(model, inputs, score) if floating else _gradients_of_vectors(model, inputs, score)


def error(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Largest difference relative to the largest entry of each gradient; infinite where their number differs."""
    if len(found) != len(expected):
        return float("inf")
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True))


def _gradients(model: Any, inputs: Any, score: Score) -> list[np.ndarray]:
    """In a graph, because eager TensorFlow also computes the kernel's gradient, and on CPUs that of a strided 1x1
    convolution writes beyond its memory (seen with 2.21).
    """

    @tf.function
    def gradient(tensors: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            value = score(model(tensors, training=False))
        return tape.gradient(value, tensors)

    return [slope.numpy() for slope in tf.nest.flatten(gradient(inputs))]


def _gradients_of_vectors(model: Any, inputs: Any, score: Score) -> list[np.ndarray]:
    """Step by step, so that the ids that an embedding is called with tell which input they are."""
    flat = tf.nest.flatten(inputs)
    floats = [tensor for tensor in flat if tensor.dtype.is_floating]
    with tf.GradientTape(watch_accessed_variables=False) as tape, _lookups(tape) as found:
        tape.watch(floats)
        value = score(model(inputs, training=False))
    origins = [next((i for i, x in enumerate(flat) if np.array_equal(ids, x)), None) for ids, _ in found]
    embedded = [(i, vectors) for i, (_, vectors) in zip(origins, found, strict=True) if i is not None]
    vectors = [tensor for _, tensor in sorted(embedded, key=lambda pair: pair[0])]
    return [slope.numpy() for slope in tape.gradient(value, floats + vectors, unconnected_gradients="zero")]


@contextlib.contextmanager
def _lookups(tape: Any) -> Iterator[list[tuple[np.ndarray, Any]]]:
    """Inside, (ids, vectors) of every embedding that is called; the vectors are watched."""
    found: list[tuple[np.ndarray, Any]] = []
    plain = keras.layers.Embedding.call

    def call(layer: Any, ids: Any) -> Any:
        vectors = plain(layer, ids)
        tape.watch(vectors)
        found.append((np.asarray(ids), vectors))
        return vectors

    with mock.patch.object(keras.layers.Embedding, "call", call):
        yield found
