"""Finds self-attention in a graph: softmax nodes whose rows say how much each token takes from each other token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from keras import ops

from kxai.errors import RuleError
from kxai.graph import black_box
from kxai.graph.graph import Edge, Graph, Kind, Node

# What may happen to attention weights before they meet the values.
_MOVES = (Kind.ROUTE, Kind.SCALE)
# What may happen to the scores of queries and keys before the softmax: scaling, biases, soft capping.
_SCORES = (Kind.ROUTE, Kind.SCALE, Kind.SUM, Kind.ELEMENTWISE)


def self_attention(graph: Graph) -> tuple[Node, ...]:
    """The softmax nodes of self-attention, in order of computation.

    A softmax is attention if its output, moved or scaled at most, is an operand of a matrix product (with the values).

    Args:
        graph: as traced, or canonized.

    Returns:
        At least one node; its output is (batch, heads..., queries, keys).

    Raises:
        RuleError: there is none, or one of them is not self-attention over the tokens of one input: queries and keys
            come from different inputs, differ in number, or lie in windows.

    Example:
        >>> from kxai.graph.trace import input_specs, trace
        >>> from kxai.testing.models import encoder
        >>> model = encoder().model
        >>> [node.path.split("/")[0] for node in self_attention(trace(model, input_specs(model)))]
        ['attention_0', 'attention_1']
    """
    found = {node: values for node in graph.nodes if (values := _values(graph, node)) is not None}
    if not found:
        black_box.check_open(graph, "their attention")
        raise RuleError(
            "The model has no attention that could be read.",
            expected="a softmax whose output is multiplied (matmul, einsum) with values",
            received=_closed(graph) or "none among its nodes",
            fix="use a gradient method or LRP.",
        )
    sources = _sources(graph)
    for node, values in found.items():
        _check(graph, node, values, sources)
    return tuple(found)


def inputs_of(graph: Graph, node: Node) -> tuple[int, ...]:
    """Positions of the model inputs that a node's operands depend on.

    Args:
        graph: the graph.
        node: of it.
    """
    sources = _sources(graph)
    return tuple(sorted(frozenset[int]().union(*(sources.get(edge, frozenset()) for edge in node.inputs))))


def _values(graph: Graph, node: Node) -> Edge | None:
    """What the softmax ``node`` weighs, or None if it weighs nothing."""
    if node.kind is not Kind.SOFTMAX:
        return None
    reached = set(node.outputs)
    for other in graph.nodes:
        meeting = reached.intersection(other.inputs)
        if meeting and other.kind in _MOVES:
            reached.update(other.outputs)
        if meeting and other.kind is Kind.BILINEAR:
            values = [edge for edge in other.inputs if edge not in reached]
            if values:
                return values[0]
    return None


def _closed(graph: Graph) -> str:
    paths = [repr(node.path) for node in graph.nodes if node.kind is Kind.OPAQUE and node.layer is not None]
    return f"none; not opened were {', '.join(paths[:5])}" if paths else ""


def _sources(graph: Graph) -> dict[Edge, frozenset[int]]:
    """Per edge that carries relevance, the model inputs that it depends on."""
    sources = {edge: frozenset([i]) for i, edge in enumerate(graph.inputs)}
    for node in graph.nodes:
        joined = frozenset[int]().union(*(sources.get(edge, frozenset()) for edge in node.inputs))
        sources.update((edge, joined) for edge in node.outputs if edge in graph.active)
    return sources


def _check(graph: Graph, node: Node, values: Edge, sources: dict[Edge, frozenset[int]]) -> None:
    shape, batch = node.outputs[0].shape, node.outputs[0].batch
    if len(shape) < 3 or (None not in shape[-2:] and shape[-1] != shape[-2]):
        raise _refused(node, "its queries and keys are not the same tokens", f"weights of shape {shape}")
    if batch not in (None, (0, 1)):
        raise _refused(node, "it attends within windows", f"{batch[1]} windows per sample, joined with the batch axis")
    if len(values.shape) > 4:  # (batch, tokens, heads, channels), in whatever order
        raise _refused(node, "it attends along one of several axes of positions", f"values of shape {values.shape}")
    if not _over_last_axis(node):
        raise _refused(node, "its softmax does not run over the keys", "a softmax over another axis than the last")
    read = [sources.get(edge, frozenset()) for edge in (*_operands(graph, node), values)]
    if any(inputs != read[0] for inputs in read):
        names = [[graph.inputs[i].name for i in sorted(inputs)] for inputs in read]
        listed = "; ".join(", ".join(group) or "none" for group in names)
        raise _refused(node, "it is cross-attention", f"queries, keys and values that depend on the inputs {listed}")


def _refused(node: Node, why: str, received: str) -> RuleError:
    return RuleError(
        f"The attention of node {node.path!r} cannot be chained token by token: {why}.",
        expected="self-attention: queries, keys and values of the same tokens in every layer",
        received=received,
        fix="use lrp.attn, lrp.cp or a gradient method.",
    )


def _operands(graph: Graph, node: Node) -> Iterator[Edge]:
    """Queries and keys: the operands of the nearest matrix products before a softmax; none for other scores."""
    waiting, seen = [node.inputs[0]], set[Edge]()
    while waiting:
        edge = waiting.pop()
        before = graph.producer.get(edge)
        if before is None or edge in seen:
            continue
        seen.add(edge)
        if before.kind is Kind.BILINEAR:
            yield from before.inputs
        elif before.kind in _SCORES:
            waiting.extend(before.inputs)


def _over_last_axis(node: Node) -> bool:
    """Whether weights add up to 1 over the last axis: tried out on scores that are all 0."""
    if node.holds_constants:
        return True  # A constant mask has a shape of its own; Keras' attention puts the keys last.
    rank = len(node.outputs[0].shape)
    scores = np.zeros(range(2, rank + 2), "float32")
    (weights,) = node.run(scores, *(np.ones((1,) * rank, edge.dtype) for edge in node.inputs[1:]))
    return bool(np.allclose(ops.convert_to_numpy(weights), 1 / (rank + 1)))
