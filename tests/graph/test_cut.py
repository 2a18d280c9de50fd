"""A graph is cut at the output of a layer; both parts together compute what the whole does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai.errors import ArgumentError, UnknownNameError
from kxai.graph.cut import beyond, layer_output, upto
from kxai.testing import models


def graph_of(model, inputs=None):
    return kxai.plan(model, "gradient", inputs=inputs).graph


def nested():
    """A backbone, called twice, whose convolution has an activation of its own."""
    backbone = keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
        ],
        name="backbone",
    )
    a, b = keras.Input((6, 6, 2), name="a"), keras.Input((6, 6, 2), name="b")
    joined = layers.Concatenate()([layers.Flatten()(backbone(a)), layers.Flatten()(backbone(b))])
    return models.seeded(keras.Model([a, b], layers.Dense(2, name="head")(joined))), backbone


def test_a_layer_is_its_output_with_its_activation():
    model, backbone = nested()
    graph = graph_of(model)
    found = {
        "backbone/conv": "backbone/conv/relu",
        "backbone/conv#2": None,
        "backbone#2/conv": "backbone#2/conv/relu",
        "backbone": "backbone/pool",
        "backbone#2": "backbone#2/pool",
        "head": "head",
        "*#2/pool": "backbone#2/pool",
        "backbone/conv/relu": "backbone/conv/relu",
    }
    for name, path in found.items():
        if path is None:
            with pytest.raises(UnknownNameError, match="backbone#2/conv"):
                layer_output(graph, name)
        else:
            assert graph.producer[layer_output(graph, name)].path == path
    assert graph.producer[layer_output(graph, model.get_layer("head"))].path == "head"
    for layer in (backbone, backbone.get_layer("conv")):
        with pytest.raises(ArgumentError, match="has 2 outputs") as caught:
            layer_output(graph, layer)
        assert "backbone/" in str(caught.value)
        assert "backbone#2/" in str(caught.value)


def test_a_layer_that_ends_in_the_softmax_left_out_is_its_logit():
    inputs = keras.Input((3,))
    hidden = layers.Dense(4, activation="softmax", name="gate")(inputs)
    model = models.seeded(keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(hidden)))
    graph = graph_of(model)
    for layer, path in (("head", "head"), (model.get_layer("head"), "head"), ("head/softmax", "head/softmax")):
        assert graph.producer[layer_output(graph, layer)].path == path
    assert graph.producer[layer_output(graph, "gate")].path == "gate/softmax"
    whole = kxai.create_analyzer("gradient", model, strip_softmax=False).plan().graph
    assert whole.producer[layer_output(whole, "head")].path == "head/softmax"
    # With respect to the logits the gradient of one of them is one-hot.
    influence = kxai.InternalInfluence(model, "head", "point").explain(models.numbers(3)[:2], 1)
    np.testing.assert_array_equal(influence.relevance, [[0, 1], [0, 1]])


def test_a_layer_of_a_nested_model_needs_its_path():
    model, _ = nested()
    with pytest.raises(UnknownNameError, match=r"Unknown layer 'conv'(.|\n)*one of backbone#2/conv, backbone/conv\n"):
        layer_output(graph_of(model), "conv")


def test_a_layer_object_is_its_call():
    case = models.cnn()
    graph = graph_of(case.model)
    convolution = next(layer for layer in case.model.layers if isinstance(layer, layers.Conv2D))
    assert layer_output(graph, convolution) is layer_output(graph, convolution.name)


def test_what_is_no_layer():
    graph = graph_of(models.mlp().model)
    with pytest.raises(ArgumentError, match="This is no layer"):
        layer_output(graph, 3)
    with pytest.raises(UnknownNameError, match="nothing_like_it"):
        layer_output(graph, "nothing_like_it")
    with pytest.raises(UnknownNameError):
        layer_output(graph, layers.Dense(2, name="of_another_model"))


@pytest.mark.parametrize("build", models.ALL, ids=lambda build: build.__name__)
def test_both_parts_are_the_whole(build):
    case = build()
    graph = graph_of(case.model, case.inputs)
    inputs = [ops.convert_to_tensor(x) for x in keras.tree.flatten(case.inputs)]
    whole = graph.values(inputs)
    edges = [edge for node in graph.nodes for edge in node.outputs if edge.is_float and edge not in graph.outputs]
    for edge in edges[:: max(1, len(edges) // 5)]:
        head, tail = upto(graph, [edge]), beyond(graph, [edge])
        assert len(head.nodes) < len(graph.nodes)
        middle = head.values(inputs)[edge]
        np.testing.assert_array_equal(middle, whole[edge])
        found = tail.values([*inputs, middle])
        for output in graph.explained:
            np.testing.assert_array_equal(found[output], whole[output])
        # Nothing but the cut edge carries relevance from there on.
        assert not tail.active.intersection(graph.inputs)
        assert edge in tail.active


def test_several_edges_and_an_edge_of_a_call_with_two_outputs():
    x = keras.Input((4,))
    left, right = ops.split(layers.Dense(4, name="d")(x), 2, axis=1)
    model = models.seeded(keras.Model(x, layers.Dense(1)(ops.concatenate([ops.tanh(left), right], axis=1))))
    graph = graph_of(model)
    split = next(node for node in graph.nodes if node.op == "split")
    data = ops.convert_to_tensor(models.numbers(4))
    whole = graph.values([data])
    for edges in (split.outputs[:1], split.outputs):
        given = [2 * whole[edge] for edge in edges]
        found = beyond(graph, edges).values([data, *given])[graph.explained[0]]
        halves = [2 * whole[edge] if edge in edges else whole[edge] for edge in split.outputs]
        dense = model.layers[-1]
        expected = dense(ops.concatenate([ops.tanh(halves[0]), halves[1]], axis=1))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
