"""Two recordings of one model, at two batch sizes -> one graph for every batch size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import keras
import numpy as np
from keras import ops, tree

from kxai.errors import ModelError
from kxai.graph.affine import Affine, Scale
from kxai.graph.classify import refine
from kxai.graph.graph import Edge, Graph, Kind, Node

_BOOKKEEPING = ("name", "_inbound_nodes", "_outbound_nodes", "_remat_mode", "_lock", "_auto_config")


@final
@dataclass(frozen=True)
class _Slot:
    """Stands for the i-th tensor argument."""

    index: int


@final
@dataclass(frozen=True)
class _PerBatch:
    """Stands for ``factor * batch size``."""

    factor: int


def assemble(specs: Any, names: tuple[str, ...], recordings: Sequence[Any], sizes: tuple[int, int]) -> Graph:
    """Join two recordings into a graph.

    Args:
        specs: nested structure of the inputs' specs.
        names: names of the outputs.
        recordings: of the same model, at the batch sizes ``sizes``.

    Raises:
        ModelError: the model computes differently for the two batch sizes.
    """
    first, second = recordings
    if [call.path for call in first.calls] != [call.path for call in second.calls]:
        raise ModelError(
            "The model's structure depends on the batch size, so no single graph describes it.",
            fix="remove Python branches and loops over the batch axis from the model's call methods.",
        )
    edges: dict[int, Edge] = {}
    flat_specs = tree.flatten(specs)
    for spec, one, two in zip(flat_specs, first.inputs, second.inputs, strict=True):
        edges[id(one)] = _edge(one, two, sizes, spec.name)
    nodes: list[Node] = []
    for one, two in zip(first.calls, second.calls, strict=True):
        for a, b in zip(one.outputs, two.outputs, strict=True):
            edges.setdefault(id(a), _edge(a, b, sizes))
        nodes.append(_node(one, two, edges, sizes))
    inputs = tuple(edges[id(tensor)] for tensor in first.inputs)
    flat_outputs = tree.flatten(first.outputs)
    outputs = tuple(edges[id(tensor)] for tensor in flat_outputs)
    graph = Graph(
        nodes=tuple(nodes),
        inputs=inputs,
        outputs=outputs,
        input_structure=tree.pack_sequence_as(specs, list(range(len(inputs)))),
        output_structure=tree.pack_sequence_as(first.outputs, list(range(len(outputs)))),
        output_names=names,
        explained=outputs,
    )
    return _settle_kinds(graph)


def _edge(one: Any, two: Any, sizes: tuple[int, int], name: str = "") -> Edge:
    shape = tuple(a if a == b else None for a, b in zip(one.shape, two.shape, strict=True))
    batch = None
    for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)):
        if a != b and a is not None and a * sizes[1] == b * sizes[0]:
            batch = (axis, a // sizes[0])
            break
    return Edge(shape, keras.backend.standardize_dtype(one.dtype), name, batch)


def _node(one: Any, two: Any, edges: dict[int, Edge], sizes: tuple[int, int]) -> Node:
    tensors = one.tensors()
    unique = list({id(tensor): tensor for tensor in tensors}.values())
    inputs = tuple(edges[id(tensor)] for tensor in unique)
    slots = {id(tensor): _Slot(i) for i, tensor in enumerate(unique)}

    def join(a: Any, b: Any) -> Any:
        return slots[id(a)] if isinstance(a, keras.KerasTensor) else _join(a, b, sizes, one.path)

    template = tree.map_structure(join, (one.args, one.kwargs), (two.args, two.kwargs))
    function = _replayed(one, two, sizes)
    outputs = tuple(edges[id(tensor)] for tensor in one.outputs)
    affine, call = one.affine, _filled(function, template, inputs)
    if any("float16" in edge.dtype for edge in outputs):
        call = _in_float32(call)
    if affine is None and one.operation is not None and len(inputs) == 1:
        affine = _operation_affine(one, template, function)
    return Node(
        path=one.path,
        op=one.op,
        # x * x is a function of one element, not a product of two tensors.
        kind=Kind.ELEMENTWISE if one.kind is Kind.PRODUCT and len(unique) < len(tensors) else one.kind,
        call=call if one.affine is None else affine,
        inputs=inputs,
        outputs=outputs,
        affine=affine,
        scale=one.scale or _operation_scale(one, template),
        average=one.average,
        layer=one.layer,
        reason=one.reason,
    )


def _join(a: Any, b: Any, sizes: tuple[int, int], path: str) -> Any:
    """A constant of both recordings: itself where they agree, a multiple of the batch size where they do not."""
    if a is b:
        return a
    if isinstance(a, (int, float, str, type(None), np.integer)) and a == b:
        return a
    if isinstance(a, int) and isinstance(b, int) and a % sizes[0] == 0 and a * sizes[1] == b * sizes[0]:
        return _PerBatch(a // sizes[0])
    if ops.is_tensor(a) or isinstance(a, np.ndarray):
        if a.shape == b.shape and bool(np.array_equal(np.asarray(a), np.asarray(b))):
            return a
        raise ModelError(
            f"Node {path!r} uses a constant that depends on the batch size.",
            fix="make the constant with batch size 1 and let it broadcast.",
        )
    return a


def _replayed(one: Any, two: Any, sizes: tuple[int, int]) -> Callable[[int], Callable[..., Any]]:
    """batch size -> function; operations keep shapes as attributes, which may hold the batch size."""
    if one.operation is None:
        return lambda batch: one.function
    changed = {}
    for key, value in vars(one.operation).items():
        if key in _BOOKKEEPING:
            continue
        other = vars(two.operation)[key]
        if not isinstance(value, (int, tuple, list)) or value == other:
            continue
        changed[key] = tree.map_structure(lambda a, b: _join(a, b, sizes, one.path), value, other)
    if not changed:
        return lambda batch: one.function

    def function(batch: Any) -> Callable[..., Any]:
        operation = copy.copy(one.operation)
        for key, value in changed.items():
            setattr(operation, key, tree.map_structure(lambda leaf: _resolve(leaf, batch), value))
        return operation.call

    return function


def _filled(
    function: Callable[[Any], Callable[..., Any]], template: Any, inputs: tuple[Edge, ...]
) -> Callable[..., Any]:
    """The pure function of the node: tensors go into the slots, the batch size where it was recorded."""
    carrier = next(((i, edge.batch) for i, edge in enumerate(inputs) if edge.batch is not None), None)

    def call(*tensors: Any) -> Any:
        batch = None
        if carrier is not None:
            position, (axis, factor) = carrier
            size = tensors[position].shape[axis]
            batch = (ops.shape(tensors[position])[axis] if size is None else size) // factor

        def fill(leaf: Any) -> Any:
            return tensors[leaf.index] if isinstance(leaf, _Slot) else _resolve(leaf, batch)

        args, kwargs = tree.map_structure(fill, template)
        return function(batch)(*args, **kwargs)

    return call


def _in_float32(call: Callable[..., Any]) -> Callable[..., Any]:
    """Models of mixed precision are explained in 32 bits: 16-bit results are widened at once."""

    def widen(tensor: Any) -> Any:
        return ops.cast(tensor, "float32") if "float16" in keras.backend.standardize_dtype(tensor.dtype) else tensor

    return lambda *tensors: tree.map_structure(widen, call(*tensors))


def _resolve(leaf: Any, batch: Any) -> Any:
    return leaf.factor * batch if isinstance(leaf, _PerBatch) else leaf


def _constant_argument(template: Any) -> tuple[int, Any] | None:
    """(position, value) of the only non-slot positional argument of a two-argument operation."""
    args, kwargs = template
    if len(args) != 2 or any(value is not None for value in kwargs.values()):
        return None
    constants = [(i, value) for i, value in enumerate(args) if not isinstance(value, _Slot)]
    return constants[0] if len(constants) == 1 else None


def _operation_affine(one: Any, template: Any, function: Callable[[Any], Callable[..., Any]]) -> Affine | None:
    """An operation of one tensor and one weight (matmul, conv, ...) as an affine map without bias."""
    found = _constant_argument(template)
    if one.kind not in (Kind.BILINEAR, Kind.AFFINE) or found is None or isinstance(found[1], (list, tuple)):
        return None
    position, weight = found

    def linear(x: Any, kernel: Any) -> Any:
        arguments = (kernel, x) if position == 0 else (x, kernel)
        return function(None)(*arguments)

    last = one.op == "matmul" and position == 1 and len(weight.shape) == 2
    return Affine(
        linear=linear,
        kernel=lambda: ops.convert_to_tensor(weight),
        kernel_out=(1, -1) if last else None,
        kernel_in=(-1, 1) if last else None,
        pads=True,
    )


def _operation_scale(one: Any, template: Any) -> Scale | None:
    """Adding or multiplying by a scalar or a vector over the last axis."""
    found = _constant_argument(template)
    if one.op not in ("add", "multiply") or one.operation is None or found is None:
        return None
    value = found[1]
    shape = tuple(ops.shape(value)) if not isinstance(value, (int, float)) else ()
    if any(size != 1 for size in shape[:-1]):
        return None

    def constant() -> Any:
        tensor = ops.convert_to_tensor(value)
        return tensor if not shape else ops.reshape(tensor, (-1,))

    axis = -1 if shape and shape[-1] != 1 else None
    if shape and axis is None:
        return None
    return Scale(None, constant, axis) if one.op == "add" else Scale(constant, None, axis)


def _settle_kinds(graph: Graph) -> Graph:
    """Kinds that depend on which operands carry relevance."""
    nodes = tuple(
        replace(node, kind=refine(node.op, node.kind, tuple(e in graph.active for e in node.inputs)))
        for node in graph.nodes
    )
    return replace(graph, nodes=nodes)
