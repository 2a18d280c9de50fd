"""Facts hold for every input: signs, gates, first layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from kxai.composites import make_plan, preset
from kxai.graph.canonize import canonize, drop_identities, merge_scales
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind
from kxai.graph.trace import input_specs, trace
from kxai.rules import Pass


def facts_of(model, **options):
    return Facts(canonize(trace(model, input_specs(model)), drop_identities, merge_scales), **options)


def everything(x):
    """A bit of every kind of node."""
    a = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    b = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(a))
    c = layers.Add()([a, layers.ReLU(6.0)(b)])
    d = layers.Concatenate()([layers.MaxPooling2D()(c), layers.AveragePooling2D(2)(layers.ZeroPadding2D(0)(a))])
    e = layers.Multiply()([d, layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(d))])
    f = layers.Activation("gelu")(layers.Subtract()([e, layers.UpSampling2D()(layers.MaxPooling2D()(e))]))
    g = ops.maximum(ops.abs(f), ops.square(e))
    return layers.Dense(3)(layers.Flatten()(layers.LeakyReLU()(g - 1.0)))


@pytest.mark.parametrize("declared", [False, True])
def test_nonnegative_edges_are_never_negative(declared):
    keras.utils.set_random_seed(3)
    x = layers.Input((8, 8, 3))
    model = keras.Model(x, everything(x))
    facts = facts_of(model, nonnegative_inputs=declared)
    inputs = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    values = {facts.graph.inputs[0]: ops.convert_to_tensor(np.abs(inputs) if declared else inputs)}
    for node in facts.graph.nodes:
        values.update(zip(node.outputs, node.run(*(values[edge] for edge in node.inputs)), strict=True))
    for edge in facts.nonnegative:
        assert float(ops.min(values[edge])) >= 0
    # The claim is not empty: all that follows ReLUs by sums, pooling, routing and gates is known.
    known = {node.op for node in facts.graph.nodes if node.outputs[0] in facts.nonnegative}
    assert {
        "relu",
        "add",
        "max_pool",
        "average_pool",
        "concatenate",
        "zero_pad",
        "multiply",
        "sigmoid",
        "absolute",
    } <= known
    assert "subtract" not in known
    assert (facts.graph.inputs[0] in facts.nonnegative) is declared


def first_paths(model):
    facts = facts_of(model)
    return {node.path for node in facts.graph.nodes if facts.is_first(node)}


def test_first_layers_are_found_through_preprocessing():
    x = layers.Input((8, 8, 3))
    scaled = layers.Normalization(mean=0.5, variance=2.0)(layers.Rescaling(1 / 255)(x))
    padded = layers.ZeroPadding2D()(scaled)
    left, right = layers.Conv2D(2, 3, name="left")(padded), layers.Conv2D(2, 5, padding="same", name="right")(scaled)
    inner = layers.Conv2D(2, 3, name="inner")(layers.ReLU()(left))
    outputs = [layers.Flatten()(inner), layers.Dense(2, name="dense")(layers.Flatten()(x)), layers.Flatten()(right)]
    assert first_paths(keras.Model(x, outputs)) == {"left", "right", "dense"}


def test_pooled_or_activated_inputs_are_not_the_input():
    x = layers.Input((8, 8, 3))
    model = keras.Model(x, layers.Conv2D(2, 3)(layers.MaxPooling2D()(x)))
    assert first_paths(model) == set()


@pytest.mark.parametrize(
    ("make", "gate"),
    [
        (lambda x: layers.Multiply()([x, layers.Activation("sigmoid")(x)]), 1),
        (lambda x: layers.Multiply()([layers.Activation("hard_sigmoid")(x), x]), 0),
        (lambda x: layers.Multiply()([x, layers.Reshape((1, 1, 3))(layers.GlobalMaxPooling2D()(x))]), 1),
        (lambda x: layers.ReLU()(x) * layers.Dense(3)(x), 0),
        (lambda x: layers.ReLU()(x) * layers.Activation("silu")(x), None),
        (lambda x: layers.Dense(3)(x) * ops.rsqrt(layers.Activation("sigmoid")(x)), 1),
        (lambda x: x / layers.Dense(3)(x), 1),
    ],
)
def test_gates(make, gate):
    x = layers.Input((4, 4, 3))
    facts = facts_of(keras.Model(x, make(x)))
    (product,) = [node for node in facts.graph.nodes if node.kind.value == "product"]
    assert facts.gate(product) == gate


def rectified(model, composite):
    composite = preset(composite) if isinstance(composite, str) else composite
    return {node.path for node in make_plan(trace(model, input_specs(model)), composite).rectified}


def chain():
    net = [layers.Conv2D(2, 3, name=f"conv{i}", activation="relu", padding="same") for i in range(3)]
    return keras.Sequential([layers.Input((8, 8, 3)), *net, layers.MaxPooling2D(), layers.Flatten(), layers.Dense(2)])


def test_relevance_vanishes_before_relus():
    assert rectified(chain(), "epsilon") == {"conv0", "conv1", "conv2"}


def test_but_not_under_rules_that_ignore_the_input():
    # Flat hands relevance to inputs that are 0, so that some arrives where an output was rectified.
    assert rectified(chain(), "flat") == set()
    assert rectified(chain(), "epsilon_plus_flat") == {"conv0", "conv1", "conv2"}  # flat on conv0's own input only


def test_nor_where_the_output_is_read_twice():
    x = layers.Input((4,))
    hidden = layers.Dense(4, name="hidden")(x)
    model = keras.Model(x, layers.Add()([layers.ReLU()(hidden), hidden]))
    assert "hidden" not in rectified(model, "epsilon")


def test_nor_where_a_shift_is_passed():
    net = [layers.Dense(4, activation="relu", name="hidden"), layers.BatchNormalization(), layers.ReLU()]
    model = keras.Sequential([layers.Input((4,)), *net, layers.Dense(2)])
    assert "hidden" in rectified(model, "epsilon")  # the normalisation hands nothing to inputs that are 0
    assert "hidden" not in rectified(model, preset("epsilon").but((Kind.SCALE, Pass())))
