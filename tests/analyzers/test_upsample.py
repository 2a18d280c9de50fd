"""Maps are resized as ``np.interp`` does it along every axis, and as Keras resizes images."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from kxai import backend
from kxai.analyzers.scores import Spec
from kxai.analyzers.upsample import upsample
from kxai.errors import ArgumentError


def numbers(*shape, dtype="float64"):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def naive(x, sizes, align_corners=False):
    """Axis by axis, vector by vector."""
    for axis, wanted in enumerate(sizes, start=1):
        size = x.shape[axis]
        aligned, centred = np.linspace(0, size - 1, wanted), (np.arange(wanted) + 0.5) * size / wanted - 0.5
        at = aligned if align_corners else centred
        x = np.apply_along_axis(lambda v, at=at, size=size: np.interp(at, np.arange(size), v), axis, x)
    return x


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((2, 5, 3), (11,)),
        ((2, 3, 4, 2), (7, 4)),
        ((2, 3, 4, 2), (12, 5)),
        ((1, 2, 3, 2, 2), (5, 3, 7)),
        ((2, 1, 1, 3), (4, 5)),
        ((2, 9, 8, 1), (4, 1)),
    ],
)
def test_is_linear_interpolation(shape, sizes, align_corners):
    x = numbers(*shape)
    result = ops.convert_to_numpy(upsample(ops.convert_to_tensor(x), sizes, align_corners))
    assert result.dtype == np.float64
    # Float64 throughout; the two place a position within a few roundings of each other.
    np.testing.assert_allclose(result, naive(x, sizes, align_corners), rtol=0, atol=1e-13)


@pytest.mark.parametrize("sizes", [(14, 28), (5, 9), (4, 3)])
def test_equals_keras(sizes):
    x = numbers(2, 4, 7, 3, dtype="float32")
    expected = ops.image.resize(x, sizes, interpolation="bilinear", data_format="channels_last")
    # Float32 on both sides.
    np.testing.assert_allclose(upsample(ops.convert_to_tensor(x), sizes), expected, rtol=0, atol=2e-6)


def test_values_by_hand():
    """Half-pixel weights 3/4 and 1/4, and 1 at the border."""
    x = ops.convert_to_tensor(np.array([[0.0, 4.0], [8.0, 12.0]]).reshape(1, 2, 2, 1))
    expected = [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    np.testing.assert_array_equal(ops.convert_to_numpy(upsample(x, (4, 4)))[0, :, :, 0], expected)
    aligned = ops.convert_to_numpy(upsample(x, (3, 3), align_corners=True))[0, :, :, 0]
    np.testing.assert_array_equal(aligned, [[0, 2, 4], [4, 6, 8], [8, 10, 12]])


@pytest.mark.parametrize("align_corners", [False, True])
def test_constants_and_equal_sizes_stay(align_corners):
    x = ops.convert_to_tensor(np.full((1, 3, 5, 2), 0.1, "float32"))
    assert np.unique(ops.convert_to_numpy(upsample(x, (17, 23), align_corners))) == np.float32(0.1)
    assert upsample(x, (3, 5), align_corners) is x


def test_derivative_is_the_transposed_map():
    """<up(x), y> = <x, up^T(y)>, also when compiled with the batch left open."""
    x, y = numbers(2, 3, 4, 1), numbers(2, 7, 5, 1)

    def run(x, y):
        (up,), pull = backend.vjp(lambda x: upsample(x, (7, 5)), x)
        return up, pull([y])[0]

    specs = [Spec((None, *a.shape[1:]), "float64") for a in (x, y)]
    up, back = map(backend.to_numpy, backend.compile(run, specs)(x, y))
    np.testing.assert_allclose((up * y).sum(), (x * back).sum(), rtol=1e-13)


@pytest.mark.parametrize(("shape", "sizes"), [((1, 3, 3, 1), (4,)), ((1, 3, 1), (0,)), ((1, 0, 1), (2,))])
def test_sizes_that_do_not_fit(shape, sizes):
    with pytest.raises(ArgumentError, match="A map cannot be resized to this") as error:
        upsample(ops.zeros(shape), sizes)
    assert f"sizes {sizes} for shape {shape}" in str(error.value)
