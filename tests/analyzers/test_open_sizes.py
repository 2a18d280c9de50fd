"""Sizes that a model leaves open, such as the length of a text, are those of the example or of what is explained."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kxai
from kxai.errors import RuleError


class Weighted(keras.layers.Layer):
    """The sum over steps, the later the more: it has to know how many there are."""

    def call(self, x):
        return ops.sum(x * ops.reshape(ops.arange(ops.shape(x)[1], dtype=x.dtype), (1, -1, 1)), axis=1)


@pytest.fixture(name="model")
def fixture_model():
    x = keras.Input((None, 2))
    return keras.Model(x, Weighted(name="weighted")(x))


def test_an_example_opens_the_layer(model):
    with pytest.raises(RuleError, match=r"'weighted'.* cannot be opened[\s\S]*pass an example batch \(inputs=x\)"):
        kxai.plan(model, "lrp.epsilon")
    plan = kxai.plan(model, "lrp.epsilon", np.ones((1, 5, 2)))
    assert [node.path for node in plan.graph.nodes if node.path.startswith("weighted/")]
    assert plan.graph.inputs[0].shape == (None, 5, 2)


def test_no_example_is_asked_for_where_no_size_is_open():
    class Closed(keras.layers.Layer):
        def call(self, x):
            return x * (2.0 if ops.any(x > 0) else 3.0)

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    x = keras.Input((4,))
    with pytest.raises(RuleError, match="cannot be opened") as raised:
        kxai.plan(keras.Model(x, Closed()(x)), "lrp.epsilon")
    assert "example batch" not in str(raised.value)


def test_each_length_is_explained_as_it_is(model):
    analyzer = kxai.LRP(model, "epsilon")
    for length in (3, 6, 3):
        x = np.random.default_rng(length).normal(size=(2, length, 2)).astype("float32")
        relevance = analyzer.explain(x, target=1).relevance
        expected = x * np.array([0.0, 1.0]) * np.arange(length)[:, None]
        # The stabiliser of sums is 1e-6 of the sum, which may be small against its terms.
        np.testing.assert_allclose(relevance, expected, atol=1e-4)
    assert analyzer.traces == 2


def test_an_example_is_checked(model):
    with pytest.raises(kxai.KxaiError, match="wrong shape"):
        kxai.plan(model, "lrp.epsilon", np.ones((1, 5, 3)))
