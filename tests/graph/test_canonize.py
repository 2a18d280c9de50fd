"""Canonizers change the form of a graph and nothing of what it computes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai.graph.canonize import canonize, drop_identities, merge_scales, strip_heads
from kxai.graph.graph import Kind
from kxai.graph.trace import input_specs, trace
from tests.weights import signed

pytestmark = pytest.mark.usefixtures("double_policy")


def values(graph, x):
    found = dict(zip(graph.inputs, [ops.convert_to_tensor(x)], strict=True))
    for node in graph.nodes:
        found.update(zip(node.outputs, node.run(*(found[edge] for edge in node.inputs)), strict=True))
    return [np.asarray(found[edge]) for edge in graph.outputs]


def merged(model):
    return canonize(trace(model, input_specs(model)), drop_identities, merge_scales)


def sequential(shape, *net):
    return signed(keras.Sequential([layers.Input(shape, dtype="float64"), *net]))


def norm(**options):
    return layers.BatchNormalization(name="norm", dtype="float64", **options)


AFTER = {
    "dense": ((5,), lambda: [layers.Dense(4), norm()]),
    "dense without bias": ((5,), lambda: [layers.Dense(4, use_bias=False), norm()]),
    "no gamma": ((5,), lambda: [layers.Dense(4), norm(scale=False)]),
    "no beta": ((5,), lambda: [layers.Dense(4), norm(center=False)]),
    "sequence of dense": ((7, 5), lambda: [layers.Dense(4), norm()]),
    "conv1d": ((9, 3), lambda: [layers.Conv1D(4, 3, padding="causal"), norm()]),
    "conv2d same": ((8, 8, 3), lambda: [layers.Conv2D(4, 3, padding="same", strides=2), norm()]),
    "grouped": ((8, 8, 4), lambda: [layers.Conv2D(6, 3, groups=2), norm()]),
    "depthwise": ((8, 8, 3), lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2), norm()]),
    "separable": ((8, 8, 3), lambda: [layers.SeparableConv2D(4, 3, depth_multiplier=2), norm()]),
    "transposed": ((4, 4, 3), lambda: [layers.Conv2DTranspose(5, 3, strides=2, padding="same"), norm()]),
    "conv3d": ((5, 5, 5, 2), lambda: [layers.Conv3D(3, 2), norm()]),
    "twice": ((5,), lambda: [layers.Dense(4), norm(), layers.Rescaling(2.0)]),
}
BEFORE = {
    "dense": ((6,), lambda: [layers.Dense(5, activation="relu"), norm(), layers.Dense(4)]),
    "conv valid": ((8, 8, 3), lambda: [layers.Conv2D(4, 3, activation="relu"), norm(), layers.Conv2D(5, 3)]),
    "depthwise": ((8, 8, 3), lambda: [layers.Conv2D(4, 3, activation="relu"), norm(), layers.DepthwiseConv2D(3)]),
    "conv same without shift": (
        (8, 8, 3),
        lambda: [layers.Conv2D(4, 3, activation="relu"), layers.Lambda(lambda x: x * 2.0, name="norm"),
                 layers.Conv2D(5, 3, padding="same")],
    ),
}  # fmt: skip
LEFT = {
    # At a zero-padded border the next layer sees 0, not the shift.
    "conv same": (
        (8, 8, 3),
        lambda: [layers.Conv2D(4, 3, activation="relu"), norm(), layers.Conv2D(5, 3, padding="same")],
    ),
    "grouped": ((8, 8, 4), lambda: [layers.Conv2D(4, 3, activation="relu"), norm(), layers.Conv2D(6, 3, groups=2)]),
    "between activations": ((6,), lambda: [layers.Dense(5, activation="relu"), norm(), layers.ReLU(), layers.Dense(2)]),
    "at the input": ((6,), lambda: [norm(), layers.Dense(5)]),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=f"after {name}") for name, case in AFTER.items()])
def test_merged_into_the_map_before(case):
    _check(case, gone=True)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"before {name}") for name, case in BEFORE.items()])
def test_merged_into_the_map_after(case):
    _check(case, gone=True)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in LEFT.items()])
def test_left_alone(case):
    _check(case, gone=False)


def _check(case, gone):
    shape, net = case
    model = sequential(shape, *net())
    graph = merged(model)
    owners = [node.path for node in graph.nodes if any("norm" in path for path in (node.path, *node.merged))]
    alone = any(node.kind is Kind.SCALE and "norm" in node.path for node in graph.nodes)
    assert owners
    assert alone is not gone
    x = np.random.default_rng(1).normal(size=(3, *shape))
    expected = np.asarray(model(x, training=False))
    # Sums in another order: a few roundings of float64.
    np.testing.assert_allclose(values(graph, x)[0], expected, rtol=1e-10, atol=1e-10)


def test_shared_output_is_not_merged():
    x = layers.Input((5,))
    hidden = layers.Dense(4)(x)
    model = signed(keras.Model(x, layers.Add()([norm()(hidden), hidden])))
    assert any(node.kind is Kind.SCALE for node in merged(model).nodes)


def test_weights_stay_live_after_merging():
    model = sequential((5,), layers.Dense(4), norm())
    graph = merged(model)
    x = np.ones((2, 5))
    before = values(graph, x)[0]
    signed(model, seed=7)
    after = values(graph, x)[0]
    assert np.abs(before - after).max() > 0.1
    np.testing.assert_allclose(after, np.asarray(model(x, training=False)), rtol=1e-10)


def test_bias_made_of_operations_is_merged():
    class Own(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 3))
            self.bias = self.add_weight(shape=(3,))

        def call(self, x):
            return ops.matmul(x, self.kernel) + self.bias

    model = sequential((5,), Own(name="own"))
    (node,) = merged(model).nodes
    assert node.path == "own/matmul"
    assert node.merged == ("own/add",)
    x = np.random.default_rng(1).normal(size=(3, 5))
    np.testing.assert_allclose(values(merged(model), x)[0], np.asarray(model(x)), rtol=1e-12)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("form", ["argument", "layer", "operation"])
def test_heads_are_stripped(head, form):
    x = layers.Input((5,))
    logits = layers.Dense(3, activation=head if form == "argument" else None, name="scores")(x)
    if form == "layer":
        logits = layers.Activation(head)(logits)
    elif form == "operation":
        logits = getattr(ops, head)(logits)
    model = keras.Model(x, logits)
    graph = canonize(trace(model, input_specs(model)), drop_identities, strip_heads)
    assert graph.explained[0] is graph.find("scores").outputs[0]
    assert graph.outputs[0] is not graph.explained[0]
    assert f"its {head} is left out" in graph.notes[0]


def test_inner_sigmoid_is_not_a_head():
    model = sequential((5,), layers.Dense(3, activation="sigmoid"), layers.Dense(2))
    graph = canonize(trace(model, input_specs(model)), drop_identities, strip_heads)
    assert graph.explained == graph.outputs
    assert not graph.notes


@pytest.mark.parametrize("stable", [False, True, "stopped"])
def test_a_written_softmax_is_a_softmax(stable):
    def softmax(scores):
        if stable:
            top = ops.max(scores, axis=-1, keepdims=True)
            scores = scores - (ops.stop_gradient(top) if stable == "stopped" else top)
        weights = ops.exp(scores)
        return weights / ops.sum(weights, axis=-1, keepdims=True)

    def attention(softmax):
        x = layers.Input((4, 3), dtype="float64")
        return keras.Model(
            x, layers.Flatten(dtype="float64")(ops.matmul(softmax(ops.matmul(x, ops.swapaxes(x, 1, 2))), x))
        )

    written, plain = attention(softmax), attention(ops.softmax)
    x = np.random.default_rng(0).normal(size=(3, 4, 3))
    for composite in ("attn", "cp"):
        explanations = [kxai.LRP(model, composite).explain(x, target=2) for model in (written, plain)]
        np.testing.assert_allclose(explanations[0].outputs, explanations[1].outputs, rtol=1e-12)
        np.testing.assert_allclose(explanations[0].relevance, explanations[1].relevance, rtol=1e-9, atol=1e-12)
    assert "softmax" in {kind for _, kind, _ in kxai.plan(written, "lrp.cp").rows}
    assert "softmax" not in {kind for _, kind, _ in kxai.plan(written, "gradient").rows}
