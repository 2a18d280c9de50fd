"""Networks with squeeze-and-excitation: the signal takes all, so nothing is lost in the gates."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

import kxai
from kxai import Kind, rules
from kxai.composites import gated
from scripts import architectures


def without_biases(name):
    """An application whose weights absorb nothing: no biases, no shifts, no preprocessing."""
    with pytest.MonkeyPatch.context() as patch:
        build = getattr(keras.applications, name)
        options = {"include_preprocessing": False} if "include_preprocessing" in build.__code__.co_varnames else {}
        patch.setattr(keras.applications, name, functools.partial(build, **options))
        model = architectures.build(name, dtype="float64")
    for variable in model.variables:
        if variable.name in ("bias", "beta", "moving_mean"):
            variable.assign(np.zeros(variable.shape))
    return model


@pytest.mark.parametrize(
    "name",
    ["MobileNetV3Small", *(pytest.param(n, marks=pytest.mark.slow) for n in ("EfficientNetB0", "EfficientNetV2B0"))],
)
def test_networks_with_gates_conserve(name):
    model = without_biases(name)
    x = np.random.default_rng(1).normal(size=(2, 64, 64, 3))
    explanation = kxai.LRP(model, "epsilon", epsilon=1e-9).explain(x, target=3)
    ratio = explanation.relevance.sum((1, 2, 3)) / explanation.score
    np.testing.assert_allclose(ratio, 1.0, atol=1e-4)
    plan = kxai.plan(model, "lrp.epsilon")
    products = {rule for _, kind, rule in plan.rows if kind == "product"}
    assert products == {"SignalTakesAll()"}


def test_uniform_split_on_request():
    x = keras.Input((4,), dtype="float32")
    model = keras.Model(x, keras.layers.Multiply()([x, keras.layers.Activation("sigmoid")(x)]))
    inputs = np.array([[1.0, -2.0, 3.0, 0.5]], "float32")
    composite = kxai.preset("epsilon").but((gated, rules.Uniform()))
    for table in (kxai.preset("epsilon"), composite):
        relevance = kxai.LRP(model, table).explain(inputs, target=2).relevance
        # Both operands are functions of the same input here: half and half comes to the same sum.
        np.testing.assert_allclose(relevance.sum(1), model(inputs)[:, 2], rtol=1e-5)
    rule = {rule for _, kind, rule in kxai.LRP(model, composite).plan().rows if kind == Kind.PRODUCT.value}
    assert rule == {"Uniform()"}
