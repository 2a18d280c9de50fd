"""Arrays as JSON text: short, and the same numbers when they are read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kxai.serving.notation import text


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint64"])
def test_numbers_are_read_as_they_were(dtype):
    wanted = np.dtype(dtype)
    bits = np.random.default_rng(0).integers(0, 256, 20_000 * wanted.itemsize, dtype=np.uint8).view(wanted)
    array = bits[np.isfinite(bits)]
    edges = np.finfo(wanted) if wanted.kind == "f" else np.iinfo(wanted)
    # -0.0 and whole numbers above 2^24, too: TensorFlow Serving takes those for float32 with a point or an exponent.
    array = np.concatenate([array, np.array([edges.min, edges.max, 0], wanted), -np.zeros(1, wanted)])
    read = np.array(json.loads(text(array)), wanted)
    np.testing.assert_array_equal(read.view(np.uint8), array.view(np.uint8))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_stay_floats_and_words_are_those_of_json(dtype):
    written = text(np.array([1, 2**15, np.nan, np.inf, -np.inf], dtype))
    assert [type(value) for value in json.loads(written)] == [float] * 5
    assert written.endswith("NaN,Infinity,-Infinity]")


def test_single_precision_is_no_longer_than_it_needs_to_be():
    array = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    assert len(text(array)) < 0.8 * len(json.dumps(array.tolist()))


@pytest.mark.parametrize("shape", [(0,), (2, 0), (2, 1, 3), (1,)])
def test_shapes_and_other_types(shape):
    for array in (np.zeros(shape, np.float32), np.ones(shape, bool), np.full(shape, -3), np.full(shape, b"a", object)):
        expected = array.tolist() if array.dtype != object else np.full(shape, {"b64": "YQ=="}, object).tolist()
        assert json.loads(text(array)) == expected
