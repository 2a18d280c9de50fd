"""Which tensors lie on an image's axes, and which nodes everything passes."""

from __future__ import annotations

import keras
import pytest
from keras import layers

import kxai
from kxai.graph.bottlenecks import bottlenecks
from kxai.graph.positions import positioned
from kxai.testing import models


def graph(model):
    return kxai.plan(model, "gradient").graph


def placed(model):
    found = graph(model)
    there = positioned(found, found.inputs[0])
    return {node.path for node in found.nodes if node.outputs[0] in there}


def test_what_stays_on_the_axes():
    x = keras.Input((8, 8, 2))
    y = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(layers.ZeroPadding2D(name="pad")(x))
    gate = layers.Dense(4, "sigmoid", name="gate")(layers.GlobalAveragePooling2D(keepdims=True, name="mean")(y))
    y = layers.Multiply(name="gated")([y, gate])
    y = layers.Concatenate(name="channels")([y, layers.MaxPooling2D(2, padding="same", name="pool")(x)])
    turned = layers.Permute((2, 1, 3), name="turned")(y)
    stacked = layers.Concatenate(axis=1, name="rows")([y, y])
    outputs = [layers.Flatten(name=f"flat_{i}")(t) for i, t in enumerate((turned, stacked))]
    assert placed(keras.Model(x, outputs)) == {"pad", "conv", "conv/relu", "gated", "channels", "pool"}


def test_attention_and_recurrence_leave():
    assert len(placed(models.vision_transformer().model)) == 1  # its convolution
    assert not any("gru" in path for path in placed(models.gru().model))


def test_bottlenecks():
    x = keras.Input((4,))
    trunk = layers.Dense(3, name="trunk")(x)
    joined = layers.Add(name="join")([layers.Dense(3, name="a")(trunk), layers.Dense(3, name="b")(trunk)])
    model = keras.Model(x, layers.Dense(2, name="head")(joined))
    assert {node.path for node in bottlenecks(graph(model))} == {"trunk", "join", "head"}


@pytest.mark.parametrize("build", [models.list_inputs, models.multi_output])
def test_no_bottlenecks_beside_other_ways(build):
    """After an input has its share, or before all outputs have given theirs, a number per sample would tilt the sum."""
    found = graph(build().model)
    narrow = bottlenecks(found)
    order = [node.path for node in found.nodes]
    for node in narrow:
        later = found.nodes[order.index(node.path) + 1 :]
        earlier = found.nodes[: order.index(node.path)]
        made = {edge for other in earlier for edge in other.outputs} | set(found.inputs)
        assert not any(edge in made for other in later for edge in other.inputs)
    assert len(narrow) < len(found.nodes)
