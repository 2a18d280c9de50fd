"""The graph of a SavedModel within a model: one node, of whose layers nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from kxai import backend
from kxai.errors import RuleError
from kxai.graph.graph import Edge, Graph, Node


def is_black_box(node: Node) -> bool:
    """Whether a node is a SavedModel's graph.

    Args:
        node: any.
    """
    return _is_closed(node.layer)


def _is_closed(layer: Any) -> bool:
    return isinstance(layer, keras.layers.TFSMLayer)


def held(layer: Any, call: Callable[..., Any], inputs: Sequence[Edge]) -> frozenset[int]:
    """The inputs of a layer's call that no derivative reaches: integers, and what it only rounds or compares.

    Args:
        layer: the layer, or None.
        call: one tensor per input -> tensor or tuple of tensors.
        inputs: edges.

    Returns:
        Positions of these inputs; none if the layer is no black box: then its own nodes say it.
    """
    if not _is_closed(layer):
        return frozenset()
    found = backend.reached(call, [(edge.shape, edge.dtype) for edge in inputs])
    return frozenset(position for position, there in enumerate(found) if not there)


def closed(node: Node, purpose: str) -> RuleError:
    """The error of a method that needs the layers within.

    Args:
        node: a black box.
        purpose: what the layers are needed for.
    """
    return RuleError(
        f"Node {node.path!r} is the graph of a SavedModel, which does not say what layers it is made of.",
        expected=f"a model of layers, for {purpose}",
        received=f"one layer of class {type(node.layer).__name__}",
        fix="save the model with model.save('name.keras') where it was built and load that file. On this one, "
        "gradient methods work: gradient, integrated_gradients, smoothgrad and their like.",
    )


def check_open(graph: Graph, purpose: str) -> None:
    """Refuses a graph with a black box in it.

    Args:
        graph: any.
        purpose: what its layers are needed for.

    Raises:
        RuleError: it has one.
    """
    for node in graph.nodes:
        if is_black_box(node):
            raise closed(node, purpose)
