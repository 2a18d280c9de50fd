"""Rules of PatternNet and PatternAttribution: patterns, what the signal of a unit looks like, in place of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from keras import ops

from kxai import backend
from kxai.errors import RuleError
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.rules.elementwise import sum_to_shape
from kxai.rules.rule import Rule, Step, quotient, times

# (path of a node, whether the regime is the positive one, dtype) -> pattern, shaped like the node's kernel.
Read = Callable[[str, bool, str], Any]


@final
@dataclass(frozen=True, eq=False)
class Units:
    """The linear part of a node's units, y = w.x.

    Attributes:
        linear: (inputs, kernel) -> y.
        kernel: () -> w.
        kernel_out, axis: see :class:`kxai.graph.affine.Affine`.
        inputs: how many of the node's inputs it reads.
    """

    linear: Callable[[Sequence[Any], Any], Any]
    kernel: Callable[[], Any]
    kernel_out: tuple[int, ...]
    axis: int
    inputs: int

    @property
    def axes(self) -> list[int]:
        """Axes of the kernel over which the weights of one output run."""
        return [axis for axis, size in enumerate(self.kernel_out) if size == 1]

    @property
    def channels(self) -> tuple[int, ...]:
        """Shape to which a vector over channels is reshaped to be added to y."""
        return (-1,) + (1,) * (-1 - self.axis)


# What joins tensors of one shape -> weight of each of n tensors.
_JOINS: dict[str, Callable[[int], list[float]]] = {
    "add": lambda n: [1.0] * n,
    "subtract": lambda n: [1.0, -1.0],
    "average": lambda n: [1 / n] * n,
}


def joins(node: Node) -> bool:
    """Whether a node adds several tensors."""
    return node.kind is Kind.SUM and node.op in _JOINS and len(node.inputs) > 1


def units_of(node: Node) -> Units | None:
    """The units of a dense or convolutional node, or of a sum: one per channel, alike at all positions."""
    affine, edge = node.affine, node.outputs[0]
    if node.kind is Kind.AFFINE and affine is not None:
        if affine.kernel_out is None or len(node.inputs) > 1:
            return None
        return Units(lambda xs, w: affine.linear(xs[0], w), affine.kernel, affine.kernel_out, affine.axis, 1)
    channels, count = edge.shape[-1], len(node.inputs)
    if not joins(node) or channels is None or any(other.shape != edge.shape for other in node.inputs):
        return None
    weights = _JOINS[node.op](count)

    def linear(xs: Sequence[Any], w: Any) -> Any:
        terms = [x * w[i] for i, x in enumerate(xs)]
        return sum(terms[1:], terms[0])

    def kernel() -> Any:
        return ops.ones((1, channels), dtype=edge.dtype) * ops.reshape(ops.cast(weights, edge.dtype), (-1, 1))

    return Units(linear, kernel, (1, -1), -1, count)


@final
@dataclass(frozen=True)
class Pattern(Rule):
    """The signal of what units read: ``R_i = sum_j a_ij R_j``, or ``sum_j w_ij a_ij R_j`` if weighted.

    Attributes:
        estimator: which a: "x" (x_i / y_j), "w" (w_ij / sum_i w_ij^2), "linear" and "relu" (read).
        weighted: PatternAttribution's form.
        active: whether only units with a positive activation receive relevance, because a ReLU follows.
        normalize: whether what arrives is first divided by its largest magnitude in each sample.
        read: the patterns that were fitted; "linear" has the positive regime only.
    """

    estimator: str
    weighted: bool
    active: bool = False
    normalize: bool = False
    read: Read | None = field(default=None, repr=False, compare=False)
    kinds: ClassVar = frozenset({Kind.AFFINE, Kind.SUM})

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        units = units_of(node)
        if units is None or not all(edge in facts.graph.active for edge in node.inputs[: units.inputs]):
            raise RuleError(
                f"Node {node.path!r} has no patterns: which of its weights belong to which output is not known.",
                expected="Dense, a convolution, or a sum of tensors of one shape that all depend on the input",
                received=f"{node.op} of {', '.join(str(edge.shape) for edge in node.inputs)}",
                fix="use LRP or a gradient method.",
            )

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        units: Any = units_of(step.node)
        w = units.kernel() if step.kernel is None else step.kernel
        if self.normalize:
            axes = list(range(1, len(relevance.shape)))
            relevance = quotient(relevance, ops.max(ops.abs(relevance), axis=axes, keepdims=True))
        if self.estimator == "x":
            kernel = w if self.weighted else ops.ones_like(w)
            return times(step.inputs, _sent(units, step, kernel, quotient(relevance, step.linear)))
        result: list[Any] = []
        for a, part in self._parts(step, units, w, relevance):
            sent = _sent(units, step, w * a if self.weighted else a, part)
            result = [one + other for one, other in zip(result, sent, strict=True)] if result else sent
        return result

    def _parts(self, step: Step, units: Units, w: Any, relevance: Any) -> list[tuple[Any, Any]]:
        """Pairs of a pattern and the relevance of the outputs that it is for."""
        if self.estimator == "w":
            return [(quotient(w, ops.sum(ops.square(w), axis=units.axes, keepdims=True)), relevance)]
        read: Any = self.read
        positive = read(step.node.path, True, w.dtype)
        if self.estimator == "linear" or self.active:
            return [(positive, relevance)]
        active, zeros = step.outputs[0] > 0, ops.zeros_like(relevance)
        return [
            (positive, ops.where(active, relevance, zeros)),
            (read(step.node.path, False, w.dtype), ops.where(active, zeros, relevance)),
        ]


def _sent(units: Units, step: Step, kernel: Any, relevance: Any) -> list[Any]:
    _, pull = backend.vjp(lambda *xs: units.linear(xs, kernel), *step.inputs)
    return pull([relevance])


@final
@dataclass(frozen=True)
class ScalePattern(Rule):
    """The signal of a scaling ``y = s x + t``: its pattern is exactly 1 / s, ``R_in = R_out / s``."""

    kinds: ClassVar = frozenset({Kind.SCALE})

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if any(len(edge.shape) != len(node.outputs[0].shape) for edge in node.inputs if edge in facts.graph.active):
            raise RuleError(
                f"Node {node.path!r} has no pattern: it makes several outputs of one input.",
                expected="a scaling of one output per input",
                received=f"{node.inputs[0].shape} -> {node.outputs[0].shape}",
            )

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        factors = step.pullback(ops.ones_like(step.outputs[0]))
        operands = zip(step.inputs, step.active, factors, strict=True)
        return [quotient(sum_to_shape(relevance, x), s) if active else None for x, active, s in operands]


@final
@dataclass(frozen=True)
class AveragePattern(Rule):
    """The signal of an average: the values of a window are alike, so that a = 1, ``R_i = sum over windows of R_j``."""

    kinds: ClassVar = frozenset({Kind.SUM})

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if node.op == "average_pool" and (node.layer is None or len(node.inputs[0].shape) < 3):
            raise RuleError(
                f"Node {node.path!r} has no pattern: the windows of its average are not known.",
                expected="an average pooling layer",
                received="keras.ops.average_pool",
                fix="use keras.layers.AveragePooling2D (1D, 3D), or PatternAttribution.",
            )

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        x, y, layer = step.inputs[0], step.outputs[0], step.node.layer
        if step.node.op != "average_pool":
            share = ops.cast(ops.size(x) / ops.size(y), relevance.dtype)
            return step.pullback(relevance * share)
        # How many values each window holds: at a border fewer than inside.
        first = layer.data_format == "channels_last"
        sizes = x.shape[1:-1] if first else x.shape[2:]
        ones = ops.ones((1, *sizes, 1), dtype=relevance.dtype)
        kernel = ops.ones((*layer.pool_size, 1, 1), dtype=relevance.dtype)
        count = ops.conv(ones, kernel, list(layer.strides), layer.padding, data_format="channels_last")
        return step.pullback(relevance * (count if first else ops.moveaxis(count, -1, 1)))


@final
@dataclass(frozen=True)
class Undefined(Rule):
    """No rule: the method is not defined for the node.

    Attributes:
        method: its name, for the message.
    """

    method: str

    def check(self, node: Node, facts: Facts) -> None:
        raise RuleError(
            f"{self.method} is not defined for node {node.path!r}.",
            expected="Dense, convolutions, ReLU, pooling, batch normalisation, sums, and layers that move values",
            received=f"{node.kind.value} ({node.op})",
            fix="use LRP or a gradient method.",
        )

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        raise AssertionError("no plan has this rule")
