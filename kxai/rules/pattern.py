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
from kxai.rules.rule import Rule, Step, quotient

# (path of a node, whether the regime is the positive one, dtype) -> pattern, shaped like the node's kernel.
Read = Callable[[str, bool, str], Any]


def filter_axes(kernel_out: Sequence[int]) -> list[int]:
    """Axes of a kernel over which the weights of one output run, from ``Affine.kernel_out``."""
    return [axis for axis, size in enumerate(kernel_out) if size == 1]


@final
@dataclass(frozen=True)
class Pattern(Rule):
    """The signal of the inputs of an affine node: ``R_i = sum_j a_ij R_j``, or ``sum_j w_ij a_ij R_j`` if weighted.

    Attributes:
        estimator: which a: "x" (x_i / y_j), "w" (w_ij / sum_i w_ij^2), "linear" and "relu" (read).
        weighted: PatternAttribution's form.
        active: whether only units with a positive activation receive relevance, because a ReLU follows.
        read: the patterns that were fitted; "linear" has the positive regime only.
    """

    estimator: str
    weighted: bool
    active: bool = False
    read: Read | None = field(default=None, repr=False, compare=False)
    kinds: ClassVar = frozenset({Kind.AFFINE})

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if node.affine is None or node.affine.kernel_out is None or len(node.inputs) > 1:
            raise RuleError(
                f"Node {node.path!r} has no patterns: which of its weights belong to which output is not known.",
                expected="Dense or a convolution",
                received=node.op,
                fix="use LRP or a gradient method.",
            )

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        x, w = step.inputs[0], step.kernel
        if self.estimator == "x":
            kernel = w if self.weighted else ops.ones_like(w)
            return [x * self._sent(step, kernel, quotient(relevance, step.linear))]
        sent = [self._sent(step, w * a if self.weighted else a, part) for a, part in self._parts(step, relevance)]
        return [sum(sent[1:], sent[0])]

    def _parts(self, step: Step, relevance: Any) -> list[tuple[Any, Any]]:
        """Pairs of a pattern and the relevance of the outputs that it is for."""
        w = step.kernel
        if self.estimator == "w":
            axes = filter_axes(step.node.affine.kernel_out)  # type: ignore[union-attr, arg-type]
            return [(quotient(w, ops.sum(ops.square(w), axis=axes, keepdims=True)), relevance)]
        if self.estimator == "linear" or self.active:
            return [(self._read(step, True), relevance)]
        positive, zeros = step.outputs[0] > 0, ops.zeros_like(relevance)
        return [
            (self._read(step, True), ops.where(positive, relevance, zeros)),
            (self._read(step, False), ops.where(positive, zeros, relevance)),
        ]

    def _read(self, step: Step, positive: bool) -> Any:
        return self.read(step.node.path, positive, step.kernel.dtype)  # type: ignore[misc]

    @staticmethod
    def _sent(step: Step, kernel: Any, relevance: Any) -> Any:
        linear: Any = step.node.affine.linear  # type: ignore[union-attr]
        _, pull = backend.vjp(lambda x: linear(x, kernel), step.inputs[0])
        return pull([relevance])[0]


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
            expected="Dense, convolutions, ReLU, max- and average-pooling, batch normalisation, and layers that move "
            "values",
            received=f"{node.kind.value} ({node.op})",
            fix="use LRP or a gradient method.",
        )

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        raise AssertionError("no plan has this rule")
