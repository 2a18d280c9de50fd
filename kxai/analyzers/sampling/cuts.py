"""Where a method changes values: at the model's inputs, or at the outputs of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import keras
from keras import tree

from kxai.composites import Plan, make_plan
from kxai.composites.presets import gradient
from kxai.errors import ArgumentError, InputError
from kxai.graph.cut import beyond, layer_output
from kxai.graph.graph import Edge, Graph, Kind, Node
from kxai.graph.trace import InputSpec


@final
@dataclass(frozen=True, eq=False)
class Cut:
    """A model in two: what computes some values, and what is computed from them.

    Attributes:
        graph: the whole.
        edges: the values.
        plan: the gradient of what follows; its inputs are ``held`` and then ``edges``.
        held: positions of the model's inputs that what follows reads besides; they count as constants.
        specs: of the values, nested as the user named them.
    """

    graph: Graph
    edges: tuple[Edge, ...]
    plan: Plan
    held: tuple[int, ...]
    specs: Any


def cut_at(plan: Plan, layer: Any, specs: Any) -> Cut:
    """Cut a model.

    Args:
        plan: the gradient of the whole.
        layer: a path, glob or Keras layer, or the name of an input; several in a list; None: the inputs.
        specs: of the model's inputs, sizes known.

    Raises:
        UnknownNameError: no such layer.
        ArgumentError: the layer has several outputs, its output is no float tensor with one row per sample, one layer
            lies behind another, or what is explained does not depend on it.
    """
    graph = plan.graph
    if layer is None:
        return Cut(graph, graph.inputs, plan, (), specs)
    several = isinstance(layer, (list, tuple))
    given = list(layer) if several else [layer]
    if not given:
        raise ArgumentError("layer is an empty list.", expected="at least one layer", received=repr(layer))
    edges = [_edge(graph, one) for one in given]
    names = [one if isinstance(one, str) else one.name for one in given]
    _check_order(graph, edges, names)
    found = [InputSpec((None, *edge.shape[1:]), edge.dtype, name) for edge, name in zip(edges, names, strict=True)]
    rest, held = _beyond(graph, edges)
    try:
        following = make_plan(rest, gradient(), strip=False)
    except InputError:
        raise ArgumentError(
            f"What is explained does not depend on layer {', '.join(map(repr, names))}.",
            expected="a layer on the way from the inputs to the explained output",
            received=", ".join(_path(graph, edge) for edge in edges),
            fix="name an earlier layer; the output of a final softmax is explained with strip_softmax=False only.",
        ) from None
    return Cut(graph, tuple(edges), following, held, found if several else found[0])


def _edge(graph: Graph, layer: Any) -> Edge:
    name = layer.name if isinstance(layer, keras.layers.InputLayer) else layer
    edge = next((e for e in graph.inputs if isinstance(name, str) and e.name == name), None)
    edge = layer_output(graph, layer) if edge is None else edge
    known = all(size is not None for size in edge.shape[1:])
    if not (edge.is_float and edge.batch == (0, 1) and known):
        raise ArgumentError(
            f"The output of {_path(graph, edge)!r} cannot be changed per sample.",
            expected="a float tensor with one row per sample and known sizes",
            received=f"{edge.dtype} of shape {edge.shape}, batch {edge.batch}",
        )
    return edge


def _path(graph: Graph, edge: Edge) -> str:
    return graph.producer[edge].path if edge in graph.producer else edge.name


def _check_order(graph: Graph, edges: Sequence[Edge], names: Sequence[str]) -> None:
    for i, edge in enumerate(edges):
        before = ancestors(graph, edge)
        for j, other in enumerate(edges):
            if other in before or (other is edge and i != j):
                raise ArgumentError(
                    f"Layer {names[i]!r} is {'computed from' if other in before else 'the same as'} {names[j]!r}.",
                    expected="layers side by side",
                    received=", ".join(map(repr, names)),
                    fix="name one of the two.",
                )


def portable(plan: Plan, layer: Any) -> Any:
    """The same layers by their paths, which hold for other models of that structure."""
    if isinstance(layer, list):
        return [portable(plan, one) for one in layer]
    return _path(plan.graph, _edge(plan.graph, layer)) if isinstance(layer, keras.Layer) else layer


def ancestors(graph: Graph, edge: Edge) -> set[Edge]:
    """Edges from which an edge is computed, without itself."""
    found: set[Edge] = set()
    waiting = [edge]
    while waiting:
        node = graph.producer.get(waiting.pop())
        new = [] if node is None else [source for source in node.inputs if source not in found]
        found.update(new)
        waiting += new
    return found


def _beyond(graph: Graph, edges: Sequence[Edge]) -> tuple[Graph, tuple[int, ...]]:
    """What is computed from ``edges``; the model's other inputs are constants, and those not read are left out."""
    rest = beyond(graph, [edge for edge in edges if edge in graph.producer])
    read = {edge for node in rest.nodes for edge in node.inputs} | {*rest.outputs, *rest.explained}
    held = tuple(i for i, edge in enumerate(graph.inputs) if edge in read and edge not in edges)
    constants = [graph.inputs[i] for i in held]
    inputs = (*constants, *edges)
    return replace(rest, inputs=inputs, held=frozenset(constants), input_structure=list(range(len(inputs)))), held


def check_movable(cut: Cut, specs: Any, what: str) -> None:
    """Refuse to change token ids and other integers little by little.

    Args:
        cut: where values are changed.
        specs: of the model's inputs.
        what: what is done to the values, for the message.
    """
    graph = cut.plan.graph
    moved = set(cut.edges)
    whole = [edge for edge in cut.edges if not edge.is_float]
    lookups = [node for node in graph.nodes if node.kind is Kind.LOOKUP and graph.active.intersection(node.inputs)]
    if not whole and not lookups:
        return
    first = lookups or [node for edge in whole for node in _first_floats(graph, edge)]
    ids = {*whole, *(edge for node in first for edge in moved & _sources(graph, node))}
    names = list(dict.fromkeys(node.path for node in first))
    names += [edge.name for edge in cut.edges if edge not in ids and edge in graph.inputs]
    shown = [edge.name for edge in cut.edges if edge in ids]
    quoted = ", ".join(f'"{name}"' for name in names)
    raise InputError(
        f"Input {', '.join(map(repr, shown))} holds token ids or other integers; {what} needs values in between.",
        expected="inputs of real numbers, or a layer whose output holds them",
        received=", ".join(f"{spec.name}: {spec.dtype}" for spec in tree.flatten(specs)),
        fix=f"layer={quoted if len(names) == 1 else f'[{quoted}]'}: the values are changed there." if names else "",
    )


def _sources(graph: Graph, node: Node) -> set[Edge]:
    return {edge for source in node.inputs for edge in (source, *ancestors(graph, source))}


def _first_floats(graph: Graph, edge: Edge) -> list[Node]:
    """The first nodes that make real numbers of an integer input."""
    whole, found = {edge}, []
    for node in graph.nodes:
        if whole.intersection(node.inputs) and graph.active.intersection(node.outputs):
            if node.outputs[0].is_float:
                found.append(node)
            else:
                whole.update(node.outputs)
    return found
