"""Random numbers that depend on a seed and on a sample's content alone, the same step by step and in a graph."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
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
        keys: (rows,), of :func:`keys`.
        points: (rows,) integers >= 0.
        shape: of one row.
        dtype: "float32" or "float64".
        stream: tells numbers of one key apart.

    Returns:
        (rows, *shape): an array if the keys are one, else a tensor.
    """
    counts = -(-math.prod(shape) // _PER_COUNT[dtype])  # of the counter, per point
    padded = counts * _PER_COUNT[dtype]

    def draw(key: Any, start: Any, rows: list[int]) -> Any:
        counter = tf.stack([start, tf.constant(stream, tf.uint64)])
        return tf.raw_ops.StatelessRandomNormalV2(
            shape=[*rows, padded], key=key[None], counter=counter, alg=_PHILOX, dtype=dtype
        )

    if not isinstance(keys, np.ndarray):
        starts = tf.cast(points, tf.uint64) * tf.constant(counts, tf.uint64)
        found = _rows(lambda key, start: draw(key, start, []), keys, starts, dtype)
    else:
        # A point begins where the one before it ends: those that follow each other are drawn at once.
        runs = [draw(keys[at], np.uint64(points[at] * counts), [size]) for at, size in _runs(keys, points)]
        found = np.concatenate([run.numpy() for run in runs])
    found = found[:, : math.prod(shape)]
    return found.reshape(-1, *shape) if isinstance(found, np.ndarray) else tf.reshape(found, (-1, *shape))


def uniform(keys: Any, shape: Sequence[int], stream: int = 0) -> Any:
    """Numbers from [0, 1), float64, one array (*shape) per key of a tensor.

    Args:
        keys: (samples,), of :func:`keys`.
        shape: of one row.
        stream: tells numbers of one key apart.
    """

    def draw(key: Any, start: Any) -> Any:
        counter = tf.stack([start, tf.constant(stream, tf.uint64)])
        return tf.raw_ops.StatelessRandomUniformV2(
            shape=list(shape), key=key[None], counter=counter, alg=_PHILOX, dtype="float64"
        )

    return tf.reshape(_rows(draw, keys, tf.zeros_like(keys), "float64"), (-1, *shape))


def _rows(draw: Callable[[Any, Any], Any], keys: Any, starts: Any, dtype: str) -> Any:
    return tf.map_fn(lambda pair: draw(pair[0], pair[1]), tf.stack([keys, starts], axis=1), fn_output_signature=dtype)


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
