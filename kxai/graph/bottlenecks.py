"""Nodes that everything passes on the way from the outputs back to the inputs."""

from __future__ import annotations

from kxai.graph.graph import Graph, Node


def bottlenecks(graph: Graph) -> frozenset[Node]:
    """Nodes of one output through which all relevance comes, whatever is explained: no branch leads around them.

    What such a node receives can be multiplied by a number per sample, and so is all that arrives at the inputs.

    Args:
        graph: the graph.
    """
    found, pending = set(), set(graph.explained)
    for node in reversed(graph.nodes):
        here = pending.intersection(node.outputs)
        if not here:
            continue
        pending -= here
        if not pending and len(node.outputs) == 1 and node.outputs[0].batch == (0, 1):
            found.add(node)
        pending.update(edge for edge in node.inputs if edge in graph.active)
    return frozenset(found)
