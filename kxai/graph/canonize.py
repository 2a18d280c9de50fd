"""Canonizers: pure functions Graph -> Graph that bring a model into the form that rules are defined for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kxai.graph.affine import Affine
from kxai.graph.facts import DIVISIONS, reached_from_inputs
from kxai.graph.graph import Edge, Graph, Kind, Node

Canonizer = Callable[[Graph], Graph]


def drop_identities(graph: Graph) -> Graph:
    """Remove calls that return their input: conversions, copies, casts to and from 16-bit floats."""
    alias: dict[Edge, Edge] = {}
    nodes = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(alias.get(edge, edge) for edge in node.inputs))
        if _is_identity(node):
            alias[node.outputs[0]] = node.inputs[0]
        else:
            nodes.append(node)
    return replace(
        graph,
        nodes=tuple(nodes),
        outputs=tuple(alias.get(edge, edge) for edge in graph.outputs),
        explained=tuple(alias.get(edge, edge) for edge in graph.explained),
    )


def _is_identity(node: Node) -> bool:
    if node.op in ("convert_to_tensor", "copy"):
        return node.inputs[0].dtype == node.outputs[0].dtype
    before, after = node.inputs[0], node.outputs[0]
    return node.op == "cast" and before.is_float and after.is_float and "16" in before.dtype + after.dtype


def written_softmaxes(graph: Graph) -> Graph:
    """Replace ``exp(x) / sum(exp(x))``, with or without the maximum taken off x first, by the softmax that it is."""
    nodes = [_softmax(graph, node) or node for node in graph.nodes]
    return replace(graph, nodes=tuple(nodes))


def _softmax(graph: Graph, quotient: Node) -> Node | None:
    if quotient.op not in DIVISIONS or len(quotient.inputs) != 2:
        return None
    exponential, total = (graph.producer.get(edge) for edge in quotient.inputs)
    if exponential is None or total is None or (exponential.op, total.op) != ("exp", "sum"):
        return None
    if total.inputs != exponential.outputs:
        return None
    shift = _maximum_off(graph, exponential.inputs[0])
    chain = [*shift, exponential, total, quotient]
    source = chain[-4].inputs[0] if shift else exponential.inputs[0]

    def call(x: Any) -> Any:
        values = {source: x}
        for node in chain:
            values.update(zip(node.outputs, node.run(*(values[edge] for edge in node.inputs)), strict=True))
        return values[quotient.outputs[0]]

    merged = tuple(node.path for node in (exponential, total))
    return Node(
        quotient.path, "softmax", Kind.SOFTMAX, call, (source,), quotient.outputs, group=total.group, merged=merged
    )  # fmt: skip


def _maximum_off(graph: Graph, edge: Edge) -> list[Node]:
    """The calls of ``x - max(x)``, in order, if the edge is that."""
    shift = graph.producer.get(edge)
    if shift is None or shift.op != "subtract" or len(shift.inputs) != 2:
        return []
    chain, top = [shift], graph.producer.get(shift.inputs[1])
    while top is not None and top.op == "stop_gradient":
        chain, top = [top, *chain], graph.producer.get(top.inputs[0])
    return [top, *chain] if top is not None and top.op == "max" and top.inputs == shift.inputs[:1] else []


def merge_scales(graph: Graph) -> Graph:
    """Merge BatchNormalization and constant factors or shifts into the affine map before or after them.

    Decided by the graph alone: the scaled tensor has one consumer, and the scaling is per channel. A scaling that the
    input passes first stays (it is preprocessing, and its shift must not absorb relevance).
    """
    while (merged := _merge_once(graph)) is not None:
        graph = merged
    count = sum(len(node.merged) for node in graph.nodes)
    if not count:
        return graph
    note = f"batch normalisation, constant factors and shifts are merged into affine nodes ({count} of them)"
    return replace(graph, notes=(*graph.notes, note))


def _merge_once(graph: Graph) -> Graph | None:
    preprocessing = reached_from_inputs(graph)
    for node in graph.nodes:
        consumers = graph.consumers.get(node.outputs[0], ())
        if len(consumers) != 1 or node.outputs[0] in graph.outputs + graph.explained:
            continue
        following = consumers[0]
        affine = _followed(node, following)
        keep, gone = node, following
        if affine is None and node.outputs[0] not in preprocessing:
            affine = _preceded(following, node)
            keep, gone = following, node
        if affine is not None:
            merged = replace(
                keep,
                call=affine,
                affine=affine,
                inputs=node.inputs,
                outputs=following.outputs,
                merged=(*keep.merged, gone.path, *gone.merged),
            )
            nodes = (merged if other is following else other for other in graph.nodes if other is not node)
            return replace(graph, nodes=tuple(nodes))
    return None


def _followed(node: Node, scaling: Node) -> Affine | None:
    """The map of ``node`` followed by a scaling, None if that is no affine map of this form."""
    affine, scale = node.affine, scaling.scale
    if affine is None or scale is None or scaling.kind is not Kind.SCALE or not scale.fits(affine.axis):
        return None
    return affine.scaled_after(scale) if scale.factor is None or affine.kernel_out is not None else None


def _preceded(node: Node, scaling: Node) -> Affine | None:
    """The map of ``node`` preceded by a scaling, None if that is no affine map of this form."""
    affine, scale = node.affine, scaling.scale
    if affine is None or scale is None or scaling.kind is not Kind.SCALE or not scale.fits(affine.axis):
        return None
    known = all(size is not None for size in scaling.outputs[0].shape[1:])
    if affine.kernel_in is None or (scale.shift is not None and (affine.pads or not known)):
        return None
    return affine.scaled_before(scale, scaling.outputs[0].shape)


def strip_heads(graph: Graph) -> Graph:
    """Explain the logit: where an output is a softmax or sigmoid, targets refer to its input."""
    explained, notes = [], list(graph.notes)
    for edge, name in zip(graph.explained, graph.output_names, strict=True):
        logit, op = _head_input(graph, edge)
        if op:
            notes.append(f"output {name!r}: its {op} is left out, the logit before it is explained")
        explained.append(logit)
    return replace(graph, explained=tuple(explained), notes=tuple(notes))


def _head_input(graph: Graph, edge: Edge) -> tuple[Edge, str]:
    node = graph.producer.get(edge)
    if node is not None and (node.kind is Kind.SOFTMAX or node.op in ("sigmoid", "log_sigmoid")):
        return node.inputs[0], node.op
    return edge, ""


def prune(graph: Graph) -> Graph:
    """Drop calls that no output needs."""
    needed: set[Edge] = {*graph.outputs, *graph.explained}
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return replace(graph, nodes=tuple(reversed(kept)))


def canonize(graph: Graph, *canonizers: Canonizer) -> Graph:
    """Apply canonizers in order, then drop what is not needed any more."""
    for canonizer in canonizers:
        graph = canonizer(graph)
    return prune(graph)
