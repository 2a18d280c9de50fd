"""Derivatives forward and backward agree: <u, J v> = <J^T u, v>."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops, tree

import kxai
from kxai import backend
from kxai.testing import models


@pytest.mark.parametrize("build", [models.cnn, models.list_inputs, models.gru, models.gated])
def test_forward_is_the_transpose_of_backward(build):
    case = build()
    graph = kxai.plan(case.model, "gradient").graph
    random = np.random.default_rng(0)
    inputs = [ops.convert_to_tensor(x) for x in tree.flatten(case.inputs)]
    along = [ops.convert_to_tensor(random.normal(size=x.shape).astype("float32")) for x in inputs]

    def function(*tensors):
        return [graph.values(tensors)[edge] for edge in graph.explained]

    def both(*tensors):
        outputs, pull = backend.vjp(function, *tensors[: len(inputs)])
        values, slopes = backend.jvp(function, tensors[: len(inputs)], tensors[len(inputs) :])
        return outputs, values, slopes, pull([ops.ones_like(y) for y in outputs])

    outputs, values, slopes, back = both(*inputs, *along)
    np.testing.assert_array_equal(outputs[0], values[0])
    expected = sum(float(ops.sum(b * v)) for b, v in zip(back, along, strict=True))
    assert abs(expected) > 0.01
    # Sums of a few hundred float32 products of order 1.
    assert float(ops.sum(slopes[0])) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_what_does_not_depend_has_slope_zero():
    _, slopes = backend.jvp(lambda x: [x, ops.ones((2, 3))], [ops.ones((2,))], [ops.ones((2,))])
    np.testing.assert_array_equal(slopes[0], [1, 1])
    np.testing.assert_array_equal(slopes[1], np.zeros((2, 3)))
