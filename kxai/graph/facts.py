"""Facts of the data flow that hold for every input: computed once per graph, used by all rules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

from kxai.graph.graph import Edge, Graph, Kind, Node

# Activations that are never negative, whatever their input.
_NONNEGATIVE = frozenset(
    "relu relu6 sigmoid hard_sigmoid softplus softmax exp square squareplus abs absolute fabs sparse_sigmoid "
    "sparse_plus exponential sqrt".split()
)
# ReLUs: 0 on all negative inputs, nowhere negative.
RECTIFIERS = frozenset({"relu", "relu6"})
DIVISIONS = frozenset({"divide", "true_divide", "divide_no_nan"})
_SOFTMAX = frozenset({"softmax"})
_GATES = frozenset({"sigmoid", "hard_sigmoid", "sparse_sigmoid", "softmax"})
_GATING_ACTIVATIONS = frozenset({"relu", "relu6", "silu", "gelu", "tanh", "elu", "selu", "hard_silu", "mish"})
_INVERSES = frozenset({"rsqrt", "reciprocal"})
# f(0) = 0: a zero pre-activation is a zero activation.
_FIXES_ZERO = frozenset(
    "relu relu6 leaky_relu prelu elu selu celu silu gelu tanh softsign hard_tanh hard_silu mish tanh_shrink "
    "soft_shrink hard_shrink".split()
)


def reached_from_inputs(graph: Graph) -> frozenset[Edge]:
    """Edges that hold the input itself, up to reshaping, padding, rescaling and normalisation by constants."""
    reached: set[Edge] = set() if graph.inner else set(graph.inputs)
    for node in graph.nodes:
        if node.kind in (Kind.ROUTE, Kind.SCALE) and all(
            edge in reached for edge in node.inputs if edge in graph.active
        ):
            reached.update(node.outputs)
    return frozenset(reached)


@final
@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of a graph.

    Attributes:
        graph: the graph.
        nonnegative_inputs: the caller's word that no model input is negative.
    """

    graph: Graph
    nonnegative_inputs: bool = False

    @cached_property
    def reached(self) -> frozenset[Edge]:
        """Edges that hold the input itself, see :func:`reached_from_inputs`."""
        return reached_from_inputs(self.graph)

    @cached_property
    def affine_layers(self) -> frozenset[int]:
        """Identities of layers that have an affine node: an activation of theirs was split off."""
        return frozenset(id(node.layer) for node in self.graph.nodes if node.kind is Kind.AFFINE)

    def is_first(self, node: Node) -> bool:
        """Whether an affine node is the first that the input meets."""
        return node.kind is Kind.AFFINE and all(
            edge in self.reached for edge in node.inputs if edge in self.graph.active
        )

    @cached_property
    def nonnegative(self) -> frozenset[Edge]:
        """Edges whose values can be proved to be >= 0."""
        known: set[Edge] = set(self.graph.inputs) if self.nonnegative_inputs else set()
        known.update(edge for edge in self.graph.inputs if _unsigned(edge))
        for node in self.graph.nodes:
            known.update(node.outputs if self._stays_nonnegative(node, known) else filter(_unsigned, node.outputs))
        return frozenset(known)

    def _stays_nonnegative(self, node: Node, known: set[Edge]) -> bool:
        if node.op in _NONNEGATIVE:
            return True
        # Constants count, too: those that are edges by their own sign, those that are not (held) as unknown.
        inputs = all(edge in known for edge in node.inputs) and not node.holds_constants
        if node.kind in (Kind.MAX, Kind.PRODUCT):
            return inputs
        if node.kind is Kind.ROUTE:
            # Anything but a relocation of values (a fill value, a scatter) might be negative.
            return inputs and node.op in _RELOCATIONS
        if node.kind is Kind.SUM:
            return inputs and node.op in ("add", "average", "average_pool", "global_average_pool", "mean", "sum")
        return False

    def gate(self, node: Node) -> int | None:
        """Position of the gate among the two operands of a product, or None.

        Of a matrix product, the attention weights: the operand that comes from a softmax. Of an elementwise product,
        in this order: the statistic that a norm divides by; the operand that comes from a sigmoid or softmax; the one
        that is broadcast over axes in which the other varies; the one that comes from another activation function.
        """
        if node.kind not in (Kind.PRODUCT, Kind.BILINEAR) or len(node.inputs) != 2:
            return None
        if node.kind is Kind.BILINEAR:
            return _only([self._comes_from(edge, _SOFTMAX) for edge in node.inputs])
        found = self.switch(node)
        return _only([self._comes_from(edge, _GATING_ACTIVATIONS) for edge in node.inputs]) if found is None else found

    def switch(self, node: Node) -> int | None:
        """Position of the gate of an elementwise product that is more than an activated tensor, as :meth:`gate`."""
        if node.kind is not Kind.PRODUCT or len(node.inputs) != 2:
            return None
        found = self.statistic(node)
        if found is None:
            found = _only([self._comes_from(edge, _GATES) for edge in node.inputs])
        return _broadcast(*(edge.shape for edge in node.inputs)) if found is None else found

    def statistic(self, node: Node) -> int | None:
        """Position of the operand that a norm divides by (a divisor, an inverse root), or None."""
        if node.kind is not Kind.PRODUCT or len(node.inputs) != 2:
            return None
        if node.op in DIVISIONS:
            return 1
        return _only([self._comes_from(edge, _INVERSES) for edge in node.inputs])

    def _comes_from(self, edge: Edge, ops: frozenset[str]) -> bool:
        """Whether the edge is the result of one of ``ops``, up to routing and scaling by constants."""
        node = self.graph.producer.get(edge)
        while node is not None and node.op not in ops and node.kind in (Kind.ROUTE, Kind.SCALE):
            sources = [source for source in node.inputs if source in self.graph.active]
            if len(sources) != 1:
                return False
            node = self.graph.producer.get(sources[0])
        # An inverse may be written 1 / x.
        inverted = node is not None and node.kind is Kind.ELEMENTWISE and node.op in DIVISIONS and ops is _INVERSES
        return inverted or (node is not None and node.op in ops)

    def rectifier_after(self, node: Node) -> Node | None:
        """The ReLU that is the only reader of this node's output, or None."""
        edge = node.outputs[0]
        consumers = self.graph.consumers.get(edge, ())
        if len(consumers) != 1 or edge in self.graph.explained or edge in self.graph.outputs:
            return None
        return consumers[0] if consumers[0].op in RECTIFIERS else None

    @staticmethod
    def fixes_zero(node: Node) -> bool:
        """Whether a zero input of the node means a zero output at the same place."""
        if node.op == "logsumexp":  # it shares with all, zeros included
            return False
        return node.kind in (Kind.ROUTE, Kind.MAX, Kind.PRODUCT) or node.op in _FIXES_ZERO


def _only(found: list[bool]) -> int | None:
    """Position of the only True."""
    return found.index(True) if sum(found) == 1 else None


def _broadcast(first: tuple[int | None, ...], second: tuple[int | None, ...]) -> int | None:
    """Which of two shapes is broadcast to the other; the batch axis does not count."""
    if len(first) != len(second):
        return int(len(second) < len(first))
    return _only([any(a == 1 != b for a, b in _zip(one, two)) for one, two in ((first, second), (second, first))])


def _unsigned(edge: Edge) -> bool:
    return edge.dtype.startswith(("uint", "bool"))


def _zip(first: tuple[int | None, ...], second: tuple[int | None, ...]) -> list[tuple[int | None, int | None]]:
    return list(zip(first[1:], second[1:], strict=True))


_RELOCATIONS = frozenset(
    "flatten reshape transpose repeat concatenate crop up_sample squeeze expand_dims stack get_item slice split take "
    "tile broadcast_to swapaxes moveaxis flip cast zero_pad ravel".split()
)
