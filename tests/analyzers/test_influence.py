"""Internal influence and layer conductance: known values, slow definitions, completeness."""

from __future__ import annotations

import fnmatch

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from kxai import backend
from kxai.analyzers.sampling.grids import grid
from kxai.errors import ArgumentError, InputError, UnknownNameError
from kxai.references import Background
from kxai.testing import models
from tests.analyzers import paths

Influence, Conductance = kxai.InternalInfluence, kxai.LayerConductance
X = np.array([[0.0, 3.0]])


def test_influence_in_the_xor_network():
    """On the line from 0 to (0, 3) the second unit is active from 1/6 on."""
    model = paths.xor()
    # 600 midpoints, none on the kink: 500 of them beyond it.
    found = Influence(model, None, num_steps=600).explain(X, 0)
    np.testing.assert_allclose(found.relevance, [[-5 / 6, 5 / 6]], rtol=1e-12)
    inner = Influence(model, "hidden_0").explain(X, 0)
    np.testing.assert_allclose(inner.relevance, [[1, 1]], rtol=1e-12)
    np.testing.assert_allclose(Influence(model, "hidden_0").explain(X, 1).relevance, [[-1, -1]], rtol=1e-12)


def test_influence_is_integrated_gradients_without_the_factor():
    random = np.random.default_rng(1)
    model = paths.dense(random.normal(size=(3, 5)), random.normal(size=5), random.normal(size=(5, 2)), None,
                        activation="tanh")  # fmt: skip
    x, r = random.normal(size=(4, 3)), random.normal(size=3)
    for name in ("left", "gauss_legendre"):
        influence = Influence(model, None, baseline=r, num_steps=6, grid=name).explain(x, 1)
        ig = kxai.IntegratedGradients(model, r, 6, name).explain(x, 1)
        np.testing.assert_allclose(influence.relevance * (x - r), ig.relevance, rtol=1e-12)
        np.testing.assert_array_equal(influence.base, 0)
    point = Influence(model, None, "point").explain(x, 1)
    np.testing.assert_allclose(point.relevance, kxai.Gradient(model).explain(x, 1).relevance, rtol=1e-12)
    data = Influence(model, None, Background(x)).explain(x[:2], [0, 1], 3)
    for i in range(2):
        np.testing.assert_allclose(data.relevance[i], paths.gradients(model, x, i).mean(0), rtol=1e-12)


def halves(model, layer):
    """What comes up to a layer, and what follows."""
    inner = model.get_layer(layer).output
    return keras.Model(model.inputs[0], inner), keras.Model(inner, model.outputs[0])


def slow_conductance(model, layer, x, baseline, alphas, weights, target):
    """By the formula, with the derivative along the path as a sum over inputs."""
    up, down = halves(model, layer)
    total = 0
    for a, w in zip(alphas, weights, strict=True):
        point = keras.ops.convert_to_tensor((baseline + a * (x - baseline))[None])
        (h,), pull = backend.vjp(up, point)
        units = int(np.prod(h.shape[1:]))
        slopes = []
        for j in range(units):
            unit = np.zeros(units)
            unit[j] = 1
            (back,) = pull([keras.ops.convert_to_tensor(unit.reshape(h.shape))])
            slopes.append(float(np.sum(np.asarray(back)[0] * (x - baseline))))
        total = total + w * paths.gradients(down, np.asarray(h), target)[0] * np.reshape(slopes, h.shape[1:])
    return total


def test_conductance_equals_the_formula():
    x = keras.Input((5, 2), dtype="float64")
    h = layers.Conv1D(3, 2, activation="tanh", name="conv", dtype="float64")(x)
    h = layers.Dense(4, "relu", name="hidden", dtype="float64")(layers.Flatten(dtype="float64")(h))
    model = models.seeded(keras.Model(x, layers.Dense(2, dtype="float64")(h)))
    random = np.random.default_rng(0)
    inputs, r = random.normal(size=(3, 5, 2)), random.normal(size=(5, 2))
    for layer in ("conv", "hidden"):
        found = Conductance(model, layer, r, 4, "gauss_legendre").explain(inputs, 1, 5)
        for i in range(3):
            expected = slow_conductance(model, layer, inputs[i], r, *grid("gauss_legendre", 4), 1)
            np.testing.assert_allclose(found.relevance[i], expected, rtol=1e-11, atol=1e-13)
        influence = Influence(model, layer, baseline=r, num_steps=4, grid="left").explain(inputs, 1)
        up, down = halves(model, layer)
        for i in range(3):
            points = np.asarray(up(np.stack([r + a * (inputs[i] - r) for a in grid("left", 4)[0]])))
            np.testing.assert_allclose(influence.relevance[i], paths.gradients(down, points, 1).mean(0), rtol=1e-11)


def test_conductance_at_the_input_is_integrated_gradients():
    for case in (models.cnn(), models.list_inputs(), models.gru()):
        one = Conductance(case.model, None, 0.1, 5).explain(case.inputs, 0)
        two = kxai.IntegratedGradients(case.model, 0.1, 5).explain(case.inputs, 0)
        for a, b in zip(keras.tree.flatten(one.relevance), keras.tree.flatten(two.relevance), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one.base, two.base, rtol=1e-6)
    case = models.list_inputs()
    half = Conductance(case.model, "b", [0.1, 0.1], 5).explain(case.inputs, 0)
    whole = Conductance(case.model, None, 0.1, 5).explain(case.inputs, 0)
    np.testing.assert_allclose(half.relevance, whole.relevance[1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(half.residual, whole.relevance[0].sum(axis=1) + whole.residual, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (models.residual, "re_lu*"),
        (models.nested, "outer/inner"),
        (models.shared, "shared#2"),
        (models.vision_transformer, "conv2d*"),
        (models.gru, "gru*"),
        (models.sequence, "global_max*"),
    ],
)
def test_all_layers_that_everything_passes_share_out_the_same(build, layer):
    case = build()
    nodes = [node.path for node in kxai.plan(case.model, "gradient", inputs=case.inputs).graph.nodes]
    name = next((path for path in nodes if fnmatch.fnmatch(path, layer)), layer)
    found = Conductance(case.model, name, num_steps=200).explain(case.inputs, 1)
    # 200 steps over the kinks of a small network.
    np.testing.assert_allclose(found.residual, 0, atol=1e-2)
    assert np.abs(found.relevance).max() > 1e-3


def test_several_layers_side_by_side():
    x = keras.Input((4,))
    left, right = layers.Dense(3, "tanh", name="left")(x), layers.Dense(5, "tanh", name="right")(x)
    model = models.seeded(keras.Model(x, layers.Dense(2)(layers.Concatenate()([left, right]))))
    inputs = models.numbers(4)
    both = Conductance(model, ["left", "right"]).explain(inputs, 0)
    assert [part.shape for part in both.relevance] == [(4, 3), (4, 5)]
    np.testing.assert_allclose(both.residual, 0, atol=1e-3)
    one = Conductance(model, "left").explain(inputs, 0)
    np.testing.assert_allclose(one.relevance, both.relevance[0], rtol=1e-5, atol=1e-7)
    assert np.abs(one.residual).max() > 0.01


def test_token_models():
    case = models.lstm()
    layer = "bidirectional*/concatenate"
    point = Influence(case.model, layer, "point").explain(case.inputs)
    assert point.relevance.shape == (4, 8)
    data = Influence(case.model, layer, Background(case.inputs)).explain(case.inputs, 2)
    every = [Influence(case.model, layer, "point").explain(case.inputs, 2).relevance.mean(0)] * 4
    np.testing.assert_allclose(data.relevance, every, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match=r"a line of inputs needs values in between"):
        Influence(case.model, layer).explain(case.inputs)
    with pytest.raises(InputError, match=r"a line of inputs needs values in between"):
        Conductance(case.model, layer).explain(case.inputs)


def test_one_trace_and_batches():
    case = models.cnn()
    conductance = Conductance(case.model, "depthwise_conv2d*/relu", num_steps=3)
    whole = conductance.explain(case.inputs)
    before = backend.trace_count()
    parts = conductance.explain(case.inputs, batch_size=3)
    assert backend.trace_count() == before
    np.testing.assert_allclose(whole.relevance, parts.relevance, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"distribution": "dots"},
            ArgumentError,
            r"The distribution of interest is not known(.|\n)*line",
        ),
        ({"distribution": np.zeros((2, 6))}, ArgumentError, "The distribution of interest is not known"),
        ({"distribution": "point", "num_steps": 5}, ArgumentError, r"Only a line has a baseline and steps(.|\n)*=5"),
        ({"distribution": Background(np.zeros((2, 6))), "grid": "left"}, ArgumentError, "Only a line has"),
        ({"distribution": Background(np.zeros((2, 5)))}, ArgumentError, r"The background for input .* wrong shape"),
        ({"num_steps": 0}, ArgumentError, "num_steps is out of range"),
        ({"layer": "hiden"}, UnknownNameError, "Unknown layer 'hiden'"),
    ],
)
def test_bad_arguments(options, error, message):
    case = models.mlp()
    with pytest.raises(error, match=message):
        Influence(case.model, **{"layer": None, **options}).explain(case.inputs)


def test_layer_is_needed_by_name():
    case = models.mlp()
    for name in ("internal_influence", "layer_conductance"):
        with pytest.raises(ArgumentError, match="needs layer"):
            kxai.create_analyzer(name, case.model)
