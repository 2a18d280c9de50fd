"""Two recordings of one model, at two batch sizes -> one graph for every batch size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import keras
from keras import ops, tree

from kxai import backend
from kxai.errors import ModelError
from kxai.graph import black_box
from kxai.graph.affine import Affine, Scale
from kxai.graph.classify import refine
from kxai.graph.foreign import Foreign
from kxai.graph.graph import Edge, Graph, Kind, Loop, Node
from kxai.graph.group import Group, group_of
from kxai.graph.join import PerSample, follows_batch, is_array, join, mapped, resolve, tiled
from kxai.graph.samples import mixes_samples

_BOOKKEEPING = ("name", "_inbound_nodes", "_outbound_nodes", "_remat_mode", "_lock", "_auto_config")


@final
@dataclass(frozen=True)
class _Slot:
    """Stands for the i-th tensor argument."""

    index: int


def assemble(specs: Any, names: tuple[str, ...], recordings: Sequence[Any], sizes: tuple[int, int]) -> Graph:
    """Join two recordings into a graph.

    Args:
        specs: nested structure of the inputs' specs.
        names: names of the outputs.
        recordings: of the same model, at the batch sizes ``sizes``.

    Raises:
        ModelError: the model's structure is not the same for the two batch sizes.
        Unjoinable: a call depends on the batch size in a way that cannot be followed.
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
        make = _constant_node if one.kind is Kind.CONSTANT else _node
        nodes.append(make(one, two, edges, sizes))
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
    # Of a matrix product of a tensor with itself, each operand is responsible for its part.
    operands = tensors if one.kind is Kind.BILINEAR else unique
    inputs = tuple(edges[id(tensor)] for tensor in operands)
    slots = {id(tensor): _Slot(i) for i, tensor in enumerate(unique)}
    positions = iter(range(len(tensors)))

    def slot(a: Any, b: Any) -> Any:
        if not isinstance(a, keras.KerasTensor):
            return join(a, b, sizes, one)
        return _Slot(next(positions)) if one.kind is Kind.BILINEAR else slots[id(a)]

    template = mapped(slot, (one.args, one.kwargs), (two.args, two.kwargs), one)
    function = _replayed(one, two, sizes)
    outputs = tuple(edges[id(tensor)] for tensor in one.outputs)
    affine, call = one.affine, _in_float32(_shaped(_filled(function, template, inputs), outputs))
    if affine is None and one.operation is not None and len(inputs) == 1:
        affine = _operation_affine(one, template, function)
    kind, reason = _kind(one, template, len(unique), affine)
    return Node(
        path=one.path,
        op=one.op,
        kind=kind,
        call=call if one.affine is None else affine,
        inputs=inputs,
        outputs=outputs,
        affine=affine,
        # A constant that broadcasts the tensor has no factor and shift per channel of it.
        scale=one.scale or (_operation_scale(one, template) if inputs[0].shape == outputs[0].shape else None),
        average=one.average,
        group=one.group or _group(one),
        entries=one.entries,
        loop=_loop(one, two, template, inputs, sizes),
        layer=one.layer,
        holds_constants=any(map(is_array, tree.flatten(template))),
        reason=reason,
        mixes=mixes_samples(one, two, edges),
        held=black_box.held(one.layer, call, inputs),
    )


def _group(call: Any) -> Group | None:
    source = call.operation if call.operation is not None else call.layer
    if isinstance(source, Foreign):
        return group_of(call.op, source.options)
    return group_of(call.op, {} if source is None else vars(source))


def _constant_node(one: Any, two: Any, edges: dict[int, Edge], sizes: tuple[int, int]) -> Node:
    """What a layer computes from weights and shapes; an output that follows the batch repeats the same for everyone."""
    joined = [join(a, b, sizes, one) for a, b in zip(one.values, two.values, strict=True)]
    inputs = tuple(edges[id(tensor)] for tensor in one.tensors())
    batch_size = _batch_size(inputs)

    def call(*tensors: Any) -> Any:
        batch, result = batch_size(tensors), []
        for value, how in zip(one.function(*tensors), joined, strict=True):
            block = value[: len(how.block)] if isinstance(how, PerSample) else value
            result.append(tiled(block, batch) if isinstance(how, PerSample) else block)
        return tuple(result)

    outputs = tuple(edges[id(tensor)] for tensor in one.outputs)
    return Node(one.path, one.op, one.kind, _in_float32(call), inputs, outputs)


def _loop(one: Any, two: Any, template: Any, inputs: tuple[Edge, ...], sizes: tuple[int, int]) -> Loop | None:
    if one.loop is None:
        return None
    names = tuple(f"output {i}" for i, _ in enumerate(one.loop.outputs))
    specs = [Edge(tuple(tensor.shape), tensor.dtype) for tensor in one.loop.inputs]
    body = replace(assemble(specs, names, (one.loop, two.loop), sizes), inner=True)
    sequence, _, *states = template[0]
    sources = tuple(slot.index if isinstance(slot, _Slot) else None for slot in (sequence, *states))
    return Loop(body, one.loop.order, _filled(lambda batch: lambda *args: args, template, inputs), sources)


def _kind(one: Any, template: Any, unique: int, affine: Affine | None) -> tuple[Kind, str]:
    """Kind of a call, given how its operands coincide, with the reason if it is OPAQUE."""
    repeats = unique < len(one.tensors())
    if one.kind is Kind.PRODUCT and unique == 1:
        # x * x and 1 / x are functions of one element, not products of two tensors; x / 2 and 2 * x are scalings.
        inverted = "divide" in one.op and not isinstance(template[0][0], _Slot)
        return (Kind.ELEMENTWISE if repeats or inverted else Kind.PRODUCT), one.reason
    if one.kind is Kind.PRODUCT and repeats:
        return Kind.OPAQUE, "one of several factors is repeated"
    if one.kind is Kind.BILINEAR and affine is not None:
        return Kind.AFFINE, one.reason
    return one.kind, one.reason


def _replayed(one: Any, two: Any, sizes: tuple[int, int]) -> Callable[[int], Callable[..., Any]]:
    """batch size -> function; operations keep shapes as attributes, which may hold the batch size."""
    if one.operation is None or one.operation is two.operation:
        return lambda batch: one.function
    first, second = (
        {key: value for key, value in vars(call.operation).items() if key not in _BOOKKEEPING} for call in (one, two)
    )
    joined = mapped(lambda a, b: join(a, b, sizes, one), first, second, one)
    changed = {key: value for key, value in joined.items() if any(map(follows_batch, tree.flatten(value)))}
    if not changed:
        return lambda batch: one.function

    def function(batch: Any) -> Callable[..., Any]:
        operation = copy.copy(one.operation)
        for key, value in changed.items():
            setattr(operation, key, tree.map_structure(lambda leaf: resolve(leaf, batch), value))
        return operation.call

    return function


def _filled(
    function: Callable[[Any], Callable[..., Any]], template: Any, inputs: tuple[Edge, ...]
) -> Callable[..., Any]:
    """The pure function of the node: tensors go into the slots, the batch size where it was recorded."""
    batch_size = _batch_size(inputs)

    def call(*tensors: Any) -> Any:
        batch = batch_size(tensors)

        def fill(leaf: Any) -> Any:
            return tensors[leaf.index] if isinstance(leaf, _Slot) else resolve(leaf, batch)

        args, kwargs = tree.map_structure(fill, template)
        result = function(batch)(*args, **kwargs)
        return result if ops.is_tensor(result) else tuple(tree.flatten(result))

    return call


def _shaped(call: Callable[..., Any], outputs: tuple[Edge, ...]) -> Callable[..., Any]:
    """Sizes that are known of the edges, and that TensorFlow has lost on the way, are known of the results again."""

    def known(*tensors: Any) -> Any:
        result = call(*tensors)
        several = isinstance(result, tuple)
        pairs = zip(result if several else (result,), outputs, strict=True)
        restored = tuple(backend.with_shape(tensor, edge.shape) for tensor, edge in pairs)
        return restored if several else restored[0]

    return known


def _batch_size(inputs: tuple[Edge, ...]) -> Callable[[Any], Any]:
    """Tensors of a node -> batch size, read off the first tensor that follows it; None if there is none."""
    carrier = next(((i, edge.batch) for i, edge in enumerate(inputs) if edge.batch is not None), None)
    if carrier is None:
        return lambda tensors: None
    position, (axis, factor) = carrier

    def batch_size(tensors: Any) -> Any:
        size = tensors[position].shape[axis]
        return (ops.shape(tensors[position])[axis] if size is None else size) // factor

    return batch_size


def _in_float32(call: Callable[..., Any]) -> Callable[..., Any]:
    """Models of mixed precision are explained in 32 bits: 16-bit results are widened at once."""

    def widen(tensor: Any) -> Any:
        return ops.cast(tensor, "float32") if "float16" in keras.backend.standardize_dtype(tensor.dtype) else tensor

    return lambda *tensors: tree.map_structure(widen, call(*tensors))


def _constant_argument(template: Any) -> tuple[int, Any] | None:
    """(position, value) of the only non-slot positional argument of a two-argument operation."""
    args, kwargs = template
    if len(args) != 2 or any(value is not None for value in kwargs.values()):
        return None
    constants = [(i, value) for i, value in enumerate(args) if not isinstance(value, _Slot)]
    return constants[0] if len(constants) == 1 and not follows_batch(constants[0][1]) else None


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

    dtype = keras.backend.standardize_dtype(one.outputs[0].dtype)

    def constant() -> Any:
        tensor = ops.cast(value, "float32" if "16" in dtype else dtype)
        return tensor if not shape else ops.reshape(tensor, (-1,))

    axis = -1 if shape and shape[-1] != 1 else None
    if shape and axis is None:
        return None
    return Scale(None, constant, axis) if one.op == "add" else Scale(constant, None, axis)


def _settle_kinds(graph: Graph) -> Graph:
    """Kinds that depend on which operands carry relevance."""
    nodes = []
    for node in graph.nodes:
        active = tuple(edge in graph.active for edge in node.inputs)
        kind = refine(node.op, node.kind, active)
        reason = "it is a function of two tensors" if kind is Kind.OPAQUE is not node.kind else node.reason
        settled = replace(node, kind=kind, reason=reason)
        nodes.append(_linear_in_one(settled, active.index(True)) if _has_kernel(settled, active) else settled)
    return replace(graph, nodes=tuple(nodes))


def _has_kernel(node: Node, active: tuple[bool, ...]) -> bool:
    """Whether a product is linear in its only operand that carries relevance, the other being a tensor, too."""
    products = node.kind is Kind.BILINEAR or (node.kind is Kind.AFFINE and node.affine is None)
    return products and len(active) == 2 and sum(active) == 1 and not node.holds_constants


def _linear_in_one(node: Node, position: int) -> Node:
    """The node as an affine map of the operand at ``position`` whose kernel is the other operand."""

    def linear(x: Any, kernel: Any) -> Any:
        return node.call(kernel, x) if position else node.call(x, kernel)

    affine = Affine(linear, kernel=lambda other: other, pads=True)
    inputs = (node.inputs[position], node.inputs[1 - position])
    return replace(node, kind=Kind.AFFINE, call=affine, affine=affine, inputs=inputs)
