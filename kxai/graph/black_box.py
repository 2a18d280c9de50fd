"""The graph of a SavedModel within a model: one node, of whose layers nothing is known."""

from __future__ import annotations

import keras

from kxai.errors import RuleError
from kxai.graph.graph import Graph, Node


def is_black_box(node: Node) -> bool:
    """Whether a node is a SavedModel's graph.

    Args:
        node: any.
    """
    return isinstance(node.layer, keras.layers.TFSMLayer)


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
