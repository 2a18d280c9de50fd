"""Cuts a graph in two at the output of a layer: what computes it, and what is computed from it."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from kxai.errors import ArgumentError, UnknownNameError
from kxai.graph.canonize import prune
from kxai.graph.graph import Edge, Graph, Node


def layer_output(graph: Graph, layer: Any) -> Edge:
    """The edge that a layer (with its activation), a nested model, or a single node hands to what follows.

    Args:
        graph: the graph.
        layer: a path ("conv1"; "backbone/conv1" in a nested model; "conv1#2" for its second call), a glob that matches
            one node, or a Keras layer.

    Raises:
        UnknownNameError: nothing of that name. ArgumentError: several outputs match, or no path, glob or layer.
    """
    edges = layer_outputs(graph, layer)
    if len(edges) > 1:
        found = ", ".join(graph.producer[edge].path for edge in edges)
        raise ArgumentError(
            f"{_shown(layer)!r} has {len(edges)} outputs.",
            expected="one",
            received=found,
            fix="name one of them by its path.",
        )
    return edges[0]


def layer_outputs(graph: Graph, layer: Any) -> list[Edge]:
    """As :func:`layer_output`, for layers that are called several times and globs that match several nodes: all edges.

    Args:
        graph, layer: as there.

    Raises:
        UnknownNameError: nothing of that name. ArgumentError: no path, glob or layer.
    """
    if not isinstance(layer, (str, keras.Layer)):
        raise ArgumentError(
            "This is no layer.", expected="a path, a glob or a Keras layer of the model", received=repr(layer)
        )
    groups = _named(graph, layer) if isinstance(layer, str) else _of_layer(graph, layer)
    edges = list(dict.fromkeys(edge for group in groups for edge in _outputs(graph, group)))
    if not edges:
        # What ends in its activation or in a nested model has the path of the whole, too.
        known = [path[:end] for path in graph.paths() for end in range(1, len(path) + 1) if path[end : end + 1] in "/"]
        inner = [path for path in dict.fromkeys(known) if path.endswith(f"/{_shown(layer)}")]
        raise UnknownNameError(
            "layer", _shown(layer), inner or dict.fromkeys(known), fix='print(kxai.plan(model, "gradient")) helps.'
        )
    return edges


def _shown(layer: Any) -> str:
    return layer if isinstance(layer, str) else str(layer.name)


def _named(graph: Graph, name: str) -> list[list[Node]]:
    """Groups of nodes of which each has the name: by path, or else by glob."""
    group = [node for node in graph.nodes if any(_within(path, name) for path in (node.path, *node.merged))]
    if group:
        return [group]
    return [[node] for node in graph.nodes if fnmatch.fnmatchcase(node.path, name)]


def _of_layer(graph: Graph, layer: keras.Layer) -> list[list[Node]]:
    """Groups of nodes, one per call of the layer (or nested model)."""
    calls: dict[str, list[Node]] = {}
    for node in graph.nodes:
        parts = node.path.split("/")
        depth = next((i for i, part in enumerate(parts) if part.partition("#")[0] == layer.name), None)
        if depth is not None and (node.layer is layer or isinstance(layer, keras.Model) or depth < len(parts) - 1):
            calls.setdefault("/".join(parts[: depth + 1]), []).append(node)
    own = [group for group in calls.values() if any(node.layer is layer for node in group)]
    return own or ([] if not isinstance(layer, keras.Model) else list(calls.values()))


def _within(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}/")


def _outputs(graph: Graph, group: Sequence[Node]) -> list[Edge]:
    """Edges that a group of nodes makes and that others read, or that are outputs.

    Of a layer that ends in a softmax before which the logit is explained, that is the logit.
    """
    members = set(group)
    pairs = zip(graph.outputs, graph.explained, strict=True)
    ends = {*graph.explained, *(output for output, logit in pairs if graph.producer.get(logit) not in members)}
    return [
        edge
        for node in group
        for edge in node.outputs
        if edge in ends or any(reader not in members for reader in graph.consumers.get(edge, ()))
    ]


def upto(graph: Graph, edges: Sequence[Edge]) -> Graph:
    """The part that computes ``edges`` from the model's inputs; they are its outputs."""
    names = tuple(graph.producer[edge].path if edge in graph.producer else edge.name for edge in edges)
    return prune(
        replace(
            graph,
            outputs=tuple(edges),
            explained=tuple(edges),
            output_structure=list(range(len(edges))),
            output_names=names,
        )
    )


def beyond(graph: Graph, edges: Sequence[Edge]) -> Graph:
    """The part that computes the outputs from ``edges``: they are its last inputs, the model's own count as constants.

    Args:
        graph: the graph.
        edges: inner edges, none of which is computed from another.
    """
    cut = set(edges)
    # A node with several outputs may have to stay for the others: what it computes of the cut edges is not read.
    nodes = [
        replace(node, outputs=tuple(replace(e) if e in cut else e for e in node.outputs))
        if cut.intersection(node.outputs)
        else node
        for node in graph.nodes
    ]
    inputs = (*graph.inputs, *edges)
    rest = replace(
        graph,
        nodes=tuple(nodes),
        inputs=inputs,
        held=frozenset(graph.inputs),
        input_structure=list(range(len(inputs))),
    )
    return prune(rest)
