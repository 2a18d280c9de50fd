"""Random numbers that depend on a seed and on a sample's content alone, the same step by step and in a graph."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_WORD = 2**64 - 1
_PHILOX = 1
# How many numbers TensorFlow makes of one value of Philox's counter.
_PER_COUNT = {"float32": 4, "float64": 2}
_BITS = {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}


def keys(seed: int, tensors: Sequence[Any]) -> Any:
    """One key per sample, for :func:`normal` and :func:`uniform`: a hash of the seed and of every bit of the sample.

    Args:
        seed: >= 0.
        tensors: (samples, ...) each; their order, dtypes and sizes count, too.

    Returns:
        uint64 tensor (samples,).
    """
    state = _mixed(tf.constant(0, tf.uint64))
    for word in _words(seed):
        state = _mixed(state ^ tf.constant(word, tf.uint64))
    for tensor in map(tf.convert_to_tensor, tensors):
        words = tf.reshape(_bits(tensor), (tf.shape(tensor)[0], -1))
        size = tf.shape(words, tf.int64)[1]
        # Each word is mixed with its position, so that the sum, which knows no order, is that of this order.
        places = _mixed(tf.cast(tf.range(size), tf.uint64))
        content = tf.reduce_sum(_mixed(words ^ places), axis=1)
        kind = _mixed(tf.cast(size, tf.uint64) ^ tf.constant(zlib.crc32(tensor.dtype.name.encode()) << 32, tf.uint64))
        state = _mixed(_mixed(state ^ kind) ^ content)
    return state


def normal(keys: Any, points: Any, shape: Sequence[int], dtype: str, stream: int = 0) -> Any:
    """Standard normal numbers, one array per (key, point).

    Args:
        keys: (rows,), of :func:`keys`; an array of one counts for all points.
        points: (rows,) integers >= 0.
        shape: of one row.
        dtype: "float32" or "float64".
        stream: tells numbers of one key apart.

    Returns:
        (rows, *shape): an array if the keys are one, else a tensor.
    """
    counts = -(-math.prod(shape) // _PER_COUNT[dtype])  # of the counter, per point
    padded = counts * _PER_COUNT[dtype]
    op = tf.raw_ops.StatelessRandomNormalV2
    if isinstance(keys, np.ndarray):
        keys = np.broadcast_to(keys, points.shape)
        # A point begins where the one before it ends: those that follow each other are drawn at once.
        runs = [
            op(shape=(size, padded), key=keys[at : at + 1], counter=_counter(points[at] * counts, stream),
               alg=_PHILOX, dtype=dtype).numpy()
            for at, size in _runs(keys, points)
        ]  # fmt: skip
        found = runs[0] if len(runs) == 1 else np.concatenate(runs)
        return found[:, : math.prod(shape)].reshape(-1, *shape)

    def draw(row: Any) -> Any:
        counter = tf.stack([row[1], tf.constant(stream, tf.uint64)])
        return op(shape=(padded,), key=row[:1], counter=counter, alg=_PHILOX, dtype=dtype)

    starts = tf.cast(points, tf.uint64) * tf.constant(counts, tf.uint64)
    rows = tf.map_fn(draw, tf.stack([keys, starts], axis=1), fn_output_signature=dtype)
    return tf.reshape(rows[:, : math.prod(shape)], (-1, *shape))


def uniform(keys: Any, shape: Sequence[int], stream: int = 0) -> Any:
    """Numbers from [0, 1), float64, one array (*shape) per key.

    Args:
        keys: (samples,), of :func:`keys`.
        shape: of one row.
        stream: tells numbers of one key apart.
    """
    counter = _counter(0, stream)

    def draw(key: Any) -> Any:
        return tf.raw_ops.StatelessRandomUniformV2(
            shape=tuple(shape), key=key[None], counter=counter, alg=_PHILOX, dtype="float64"
        )

    if tf.executing_eagerly():
        return tf.stack([draw(key) for key in keys])
    return tf.reshape(tf.map_fn(draw, keys, fn_output_signature=tf.float64), (-1, *shape))


def _counter(start: int, stream: int) -> np.ndarray:
    return np.array([start, stream], np.uint64)


def _runs(keys: np.ndarray, points: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, length) of rows with one key whose points follow each other."""
    breaks = (keys[1:] != keys[:-1]) | (np.diff(points) != 1)
    edges = [0, *(np.flatnonzero(breaks) + 1), len(keys)]
    for start, stop in itertools.pairwise(edges):
        yield int(start), int(stop - start)


def _words(seed: int) -> Iterator[int]:
    """A number of any size, 64 bits at a time."""
    seed = int(seed)
    yield seed & _WORD
    while seed := seed >> 64:
        yield seed & _WORD


def _bits(tensor: Any) -> Any:
    """Every value as an unsigned integer of its own."""
    if tensor.dtype.is_floating:
        return tf.cast(tf.bitcast(tensor, _BITS[tensor.dtype.size]), tf.uint64)
    return tf.cast(tf.cast(tensor, tf.int64), tf.uint64)


def _mixed(x: Any) -> Any:
    """A bijection of 64 bits in which every bit of the result depends on every bit (the last steps of splitmix64)."""
    x = x + tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    x = (x ^ _shifted(x, 30)) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    x = (x ^ _shifted(x, 27)) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return x ^ _shifted(x, 31)


def _shifted(x: Any, bits: int) -> Any:
    return tf.bitwise.right_shift(x, tf.constant(bits, tf.uint64))
