"""The nouns of a model's graph: edges are tensors, nodes are calls, loops are steps of recurrent calls. All frozen."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

from kxai.graph.affine import Affine, Scale
from kxai.graph.group import Group


@final
class Kind(enum.Enum):
    """What a call does, as far as propagation rules care. A closed vocabulary."""

    AFFINE = "affine"  # y = x W + b: Dense, EinsumDense, convolutions, matmul with weights
    SCALE = "scale"  # one output per input, y = x s + t: BatchNormalization, Rescaling, adding a constant
    ELEMENTWISE = "elementwise"  # an activation function
    ROUTE = "route"  # moves values: reshape, padding, concatenation, slicing
    MAX = "max"  # passes winners on: max-pooling, Maximum, Minimum
    SUM = "sum"  # adds with constant weights: Add, Subtract, average pooling, mean
    PRODUCT = "product"  # elementwise product or quotient of two active tensors
    BILINEAR = "bilinear"  # matrix product of two active tensors
    SOFTMAX = "softmax"
    NORM = "norm"  # division by a statistic of the same tensor
    LOOKUP = "lookup"  # embedding of integers
    RECURRENT = "recurrent"
    CONSTANT = "constant"  # computed from weights and shapes alone
    OPAQUE = "opaque"  # a call that could not be opened

    def __repr__(self) -> str:
        return f"Kind.{self.name}"


@final
@dataclass(frozen=True, eq=False)
class Edge:
    """A tensor of the graph, identified by object identity.

    Attributes:
        shape: static shape; None where the size follows the batch or is not known.
        dtype: Keras dtype name.
        name: the input's name for graph inputs, else "".
        batch: (axis, factor) such that ``shape[axis] == factor * batch size``, or None.
    """

    shape: tuple[int | None, ...]
    dtype: str
    name: str = ""
    batch: tuple[int, int] | None = None

    @property
    def is_float(self) -> bool:
        return "float" in self.dtype


@final
@dataclass(frozen=True, eq=False)
class Node:
    """One call of a layer or of an operation.

    Attributes:
        path: unique name, nested layers joined by "/"; the second call of a layer ends in "#2".
        op: canonical name of the operation, such as "conv", "relu", "add".
        kind: what rules need to know of it.
        call: pure function, one tensor per input edge -> tensor or tuple of tensors.
        inputs, outputs: edges; an AFFINE node's map is linear in the first input, the others make its kernel.
        affine: for AFFINE nodes, the linear map, its kernel and bias.
        scale: for SCALE nodes whose factor and shift are per channel.
        average: for MAX nodes, the averaging counterpart with the same windows.
        group: for SOFTMAX and NORM nodes, which entries share a statistic; None if that is not known.
        loop: for RECURRENT nodes, what they do at each step.
        entries: for LOOKUP nodes, how many rows the table has.
        layer: the user's Keras layer that was called, for matching and messages.
        merged: paths of nodes that were merged into this one.
        holds_constants: whether a constant tensor is among the operands (it is no edge, so nothing is known of it).
        reason: for OPAQUE nodes, why the call could not be opened.
        mixes: whether it makes an entry of a sample from those of others, though the batch axis stays.
        held: positions, among the inputs, of those that count as constants: no derivative reaches them.
    """

    path: str
    op: str
    kind: Kind
    call: Callable[..., Any]
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    affine: Affine | None = None
    scale: Scale | None = None
    average: Callable[..., Any] | None = None
    group: Group | None = None
    loop: Loop | None = None
    entries: int | None = None
    layer: Any = field(default=None, repr=False)
    merged: tuple[str, ...] = ()
    holds_constants: bool = False
    reason: str = ""
    mixes: bool = False
    held: frozenset[int] = frozenset()

    def run(self, *tensors: Any) -> tuple[Any, ...]:
        """Call the node; always a tuple, one tensor per output edge."""
        result = self.call(*tensors)
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)


@final
@dataclass(frozen=True, eq=False)
class Graph:
    """A model as a flat list of nodes in topological order.

    Attributes:
        nodes: every call that the outputs need.
        inputs, outputs: edges in flattened order.
        input_structure, output_structure: the nested structure, integers (positions in flattened order) as leaves.
        output_names: one name per output.
        explained: per output, the edge that a target refers to (the logit where a softmax was stripped).
        notes: what canonizers did, for people.
        inner: whether it is one step of a loop, so that its inputs are not the model's.
        held: inputs that count as constants.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    input_structure: Any
    output_structure: Any
    output_names: tuple[str, ...]
    explained: tuple[Edge, ...]
    notes: tuple[str, ...] = ()
    inner: bool = False
    held: frozenset[Edge] = frozenset()

    @cached_property
    def producer(self) -> dict[Edge, Node]:
        """The node that computes an edge."""
        return {edge: node for node in self.nodes for edge in node.outputs}

    @cached_property
    def consumers(self) -> dict[Edge, tuple[Node, ...]]:
        """The nodes that read an edge, each once per use."""
        found: dict[Edge, list[Node]] = {}
        for node in self.nodes:
            for edge in node.inputs:
                found.setdefault(edge, []).append(node)
        return {edge: tuple(nodes) for edge, nodes in found.items()}

    @cached_property
    def active(self) -> frozenset[Edge]:
        """Edges that carry relevance: they depend differentiably on an input, or on looked-up token ids."""
        active = set(self.inputs) - self.held
        ids = set(active)
        for node in self.nodes:
            carriers = {edge for i, edge in enumerate(node.inputs) if edge in active and i not in node.held}
            if node.kind is Kind.CONSTANT or node.op in _CONSTANT_OPS or not carriers:
                continue
            if node.kind is Kind.ROUTE and carriers <= ids:
                ids.update(node.outputs)
            # Integers next to floats say where those were found: they are positions, not values. Numbers that become
            # integers are rounded, unless they are the input itself: token ids may come as floats.
            rounded = any(edge.is_float and edge not in ids for edge in carriers)
            found = any(edge.is_float for edge in node.outputs)
            integers = node.kind in _INTEGER_KINDS and not found and not rounded
            for edge in node.outputs:
                if edge.is_float or (integers and edge.dtype != "bool"):
                    active.add(edge)
        return frozenset(active)

    def values(self, inputs: Sequence[Any]) -> dict[Edge, Any]:
        """Compute all edges from one tensor per input."""
        found = dict(zip(self.inputs, inputs, strict=True))
        for node in self.nodes:
            found.update(zip(node.outputs, node.run(*(found[edge] for edge in node.inputs)), strict=True))
        return found

    def find(self, path: str) -> Node | None:
        """The node of that path (or the node that it was merged into)."""
        for node in self.nodes:
            if node.path == path or path in node.merged:
                return node
        return None

    def paths(self) -> Iterator[str]:
        """All names by which nodes can be asked for."""
        for node in self.nodes:
            yield node.path
            yield from node.merged


@final
@dataclass(frozen=True, eq=False)
class Order:
    """How the steps of a loop follow each other.

    Attributes:
        start: batch size -> states before the first step, where none are given (flat).
        go_backwards: whether the last element of the sequence comes first.
        return_sequences: whether the first output holds every step, or the last alone.
        zero_masked: whether the output of a masked step is 0; else it is the output of the step before.
        batch: the only batch size that there are states for, or None.
    """

    start: Callable[[Any], list[Any]]
    go_backwards: bool = False
    return_sequences: bool = False
    zero_masked: bool = False
    batch: int | None = None


@final
@dataclass(frozen=True, eq=False)
class Loop:
    """What a recurrent node does at each step.

    Attributes:
        body: graph of one step, (x_t, *states) -> (y_t, *new states).
        order: how the steps follow each other.
        arguments: tensors of the node's inputs -> (sequence, mask or None, *given states).
        sources: positions, among the node's inputs, of the sequence and of each given state; None for constants.
    """

    body: Graph
    order: Order
    arguments: Callable[..., Sequence[Any]]
    sources: tuple[int | None, ...]

    def states(self, given: Sequence[Any], batch: Any) -> list[Any]:
        """The states before the first step."""
        return list(given) if given else self.order.start(batch)


# Kinds that map integers to integers place by place, so that relevance of token ids finds its way back.
_INTEGER_KINDS = (Kind.ROUTE, Kind.SCALE, Kind.ELEMENTWISE, Kind.MAX)

# Their derivative is zero by definition: what they return is a constant to every explanation.
_CONSTANT_OPS = frozenset(
    "stop_gradient sign round floor ceil trunc floor_divide heaviside zeros_like ones_like full_like empty_like "
    "shape".split()
)
