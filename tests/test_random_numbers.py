"""Random numbers of a sample: the same eagerly and in a graph, others for other content, seeds, points and streams."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kxai import backend
from kxai.testing import models

N = 20000


def keys(*arrays, seed=0):
    return backend.to_numpy(backend.keys(seed, arrays))


def numbers(key, point=0, count=N, dtype="float64", stream=0):
    return backend.normal(np.array([key]), np.array([point]), (count,), dtype, stream)[0]


def correlation(x, y):
    return abs(np.corrcoef(x, y)[0, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool", "float16"])
def test_a_key_is_that_of_the_sample_alone(dtype):
    x = (models.numbers(3, 2, samples=6) * 10).astype(dtype)
    found = keys(x)
    np.testing.assert_array_equal(found[2:], keys(x[2:]))
    np.testing.assert_array_equal(found[::-1], keys(x[::-1]))
    graph = tf.function(lambda t: backend.keys(0, [t]), input_signature=[tf.TensorSpec([None, 3, 2], dtype)])
    np.testing.assert_array_equal(graph(x).numpy(), found)


def test_every_bit_counts():
    x = np.zeros((1, 40), "float32")
    found = [keys(x)[0]]
    for word in range(40):
        for bit in range(32):
            changed = x.copy()
            changed.view("uint32")[0, word] ^= np.uint32(1) << np.uint32(bit)
            found.append(keys(changed)[0])
    assert len(set(found)) == len(found)
    # A changed bit turns over half of the bits of the key: 1280 times 64 coins.
    turned = np.mean([bin(int(found[0]) ^ int(other)).count("1") for other in found[1:]])
    assert abs(turned - 32) < 4 * 4 / 1280**0.5


def test_order_dtype_size_and_seed_count():
    x = np.array([[1.0, 2.0, 3.0]], "float32")
    zeros = np.zeros((1, 3), "float32")
    several = [
        keys(x), keys(x[:, ::-1]), keys(x.astype("float64")), keys(x.view("int32")), keys(x, x), keys(x, zeros),
        keys(zeros, x), keys(zeros), keys(zeros[:, :2]), keys(zeros[:, :1], zeros[:, :2]), keys(zeros, zeros),
        keys(x, seed=1), keys(x, seed=2**64), keys(x, seed=2**64 + 1), keys(x, seed=2**80),
    ]  # fmt: skip
    assert len({int(key[0]) for key in several}) == len(several)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (3,), (5, 3), (2, 2, 2)])
def test_in_a_graph_row_by_row_and_in_runs(dtype, shape):
    several = keys(models.numbers(4, samples=2))
    # Two samples of equal content side by side begin again at point 0.
    rows = several[[0, 0, 0, 0, 1, 1, 0]]
    points = np.array([48, 49, 0, 1, 7, 5, 3])
    found = backend.normal(rows, points, shape, dtype, 2)
    assert found.shape == (7, *shape)
    assert found.dtype == dtype
    for row, key, point in zip(found, rows, points, strict=True):
        np.testing.assert_array_equal(row, backend.normal(np.array([key]), np.array([point]), shape, dtype, 2)[0])
    graph = tf.function(lambda k, p: backend.normal(k, p, shape, dtype, 2), autograph=False)
    np.testing.assert_array_equal(graph(tf.constant(rows), tf.constant(points, tf.int32)).numpy(), found)
    np.testing.assert_array_equal(backend.normal(several[:1], np.arange(3), shape, dtype),
                                  backend.normal(several[[0, 0, 0]], np.arange(3), shape, dtype))  # fmt: skip


def test_they_are_normal_and_independent():
    x = np.zeros((2, 9), "float32")
    x[1, 3] = 1e-45  # one bit
    zero, bit = keys(x)
    samples = {
        "zero": numbers(zero), "next": numbers(zero, 1), "later": numbers(zero, 999), "bit": numbers(bit),
        "stream": numbers(zero, stream=1), "seed": numbers(keys(x, seed=1)[0]),
    }  # fmt: skip
    for values in samples.values():
        # Standard errors of N draws: of the mean, the variance, the third and fourth moment.
        for moment, error, power in ((0, 1, 1), (1, 2, 2), (0, 15, 3), (3, 96, 4)):
            assert abs((values**power).mean() - moment) < 4.5 * (error / N) ** 0.5
        assert correlation(values[1:], values[:-1]) < 4.5 / N**0.5
    names = list(samples)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert correlation(samples[one], samples[other]) < 4.5 / N**0.5
            assert correlation(samples[one] ** 2, samples[other] ** 2) < 4.5 / N**0.5
    single = numbers(zero, dtype="float32")
    assert abs(single.var() - 1) < 4.5 * (2 / N) ** 0.5


def test_neighbouring_points_do_not_share_numbers():
    found = backend.normal(keys(np.zeros((1, 2))), np.arange(500), (7,), "float32")
    assert len(np.unique(found)) > 0.999 * found.size  # float32 has a few equal ones by chance


def test_uniform_numbers():
    several = keys(models.numbers(4, samples=3))
    found = backend.to_numpy(backend.uniform(several, (2, N)))
    assert found.shape == (3, 2, N)
    assert found.dtype == np.float64
    assert found.min() >= 0
    assert found.max() < 1
    rows = found.reshape(6, N)
    for row in rows:
        assert abs(row.mean() - 0.5) < 4.5 * (1 / 12 / N) ** 0.5
        assert abs(row.var() - 1 / 12) < 4.5 * (1 / 180 / N) ** 0.5
    others = np.abs(np.corrcoef(rows) - np.eye(6))
    assert others.max() < 4.5 / N**0.5
    graph = tf.function(lambda k: backend.uniform(k, (2, N)), autograph=False)
    np.testing.assert_array_equal(graph(tf.constant(several)).numpy(), found)
    np.testing.assert_array_equal(backend.to_numpy(backend.uniform(several[1:], (2, N))), found[1:])


def test_repeat():
    found = backend.repeat(lambda i, c: [c[0] + keras.ops.cast(i, "float32"), c[1] * 2], 5, [np.zeros(3, "float32"), 1])
    np.testing.assert_array_equal(found[0], [10] * 3)
    assert int(found[1]) == 32
    stopped = backend.repeat(lambda i, c: [c[0] + 1], 5, [np.zeros(1)], going=lambda c: keras.ops.all(c[0] < 2))
    np.testing.assert_array_equal(stopped[0], [2])
