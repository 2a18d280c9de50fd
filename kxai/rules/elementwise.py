"""Rules for nodes with one output per input, and the plain derivative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from keras import ops

from kxai.arguments import check_choice
from kxai.errors import RuleError
from kxai.graph.facts import RECTIFIERS, Facts
from kxai.graph.graph import Kind, Node
from kxai.rules.rule import Rule, Step


@final
@dataclass(frozen=True)
class Gradient(Rule):
    """The vector-Jacobian product: ``R_in = J^T R_out``. For a ROUTE node this moves relevance to where it came from.

    Example:
        >>> Gradient()
        Gradient()
    """

    moves: ClassVar[bool] = True

    def check(self, node: Node, facts: Facts) -> None:
        """Defined for every node."""

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        return step.pullback(relevance)


@final
@dataclass(frozen=True)
class Pass(Rule):
    """Relevance passes unchanged: ``R_in = R_out``. The LRP rule of activations, scalings and norms.

    Example:
        >>> Pass()
        Pass()
    """

    kinds: ClassVar = frozenset({Kind.ELEMENTWISE, Kind.SCALE, Kind.NORM})
    moves: ClassVar[bool] = True

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if sum(edge in facts.graph.active for edge in node.inputs) > 1:
            raise RuleError(
                f"Node {node.path!r} computes one value from several tensors; relevance cannot pass to all of them.",
                expected="one operand that depends on the input",
                received=f"{node.op} of {len(node.inputs)} such tensors",
                fix=f'give it another rule: composite.but(("{node.path}", kxai.rules.Gradient())).',
            )

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        return to_active(step, relevance)


@dataclass(frozen=True)
class RectifierRule(Rule):
    """A rule of ReLUs.

    Args:
        other_activations: what to do at other activations: "error" (default), or "gradient" for their plain derivative.
    """

    other_activations: str = "error"
    kinds: ClassVar = frozenset({Kind.ELEMENTWISE})

    def __post_init__(self) -> None:
        check_choice("other_activations", self.other_activations, ["error", "gradient"])

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if node.op not in RECTIFIERS and self.other_activations == "error":
            raise RuleError(
                f"{type(self).__name__} is defined for ReLUs only; node {node.path!r} is none.",
                expected="relu or relu6 activations",
                received=node.op,
                fix='pass other_activations="gradient" to use the plain derivative there.',
            )


@final
@dataclass(frozen=True)
class GuidedReLU(RectifierRule):
    """Guided backprop at a ReLU: ``R_in = f'(n) pos(R_out)``, with f' = 1 for 0 < n (< the upper bound).

    Args:
        other_activations: what to do at other activations: "error" (default), or "gradient" for their plain derivative.

    Raises:
        RuleError: (at plan time) the activation is no ReLU and ``other_activations`` is "error".

    Example:
        >>> GuidedReLU()
        GuidedReLU(other_activations='error')

    Source: Springenberg et al. 2015.
    """

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        if step.node.op in RECTIFIERS:
            relevance = ops.relu(relevance)
        return step.pullback(relevance)


@final
@dataclass(frozen=True)
class DeconvReLU(RectifierRule):
    """Deconvnet at a ReLU: ``R_in = pos(R_out)``; the forward mask is ignored.

    Args:
        other_activations: what to do at other activations: "error" (default), or "gradient" for their plain derivative.

    Raises:
        RuleError: (at plan time) the activation is no ReLU and ``other_activations`` is "error".

    Example:
        >>> DeconvReLU()
        DeconvReLU(other_activations='error')

    Source: Zeiler & Fergus 2014.
    """

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        return [ops.relu(relevance)] if step.node.op in RECTIFIERS else step.pullback(relevance)


def to_active(step: Step, relevance: Any) -> list[Any]:
    """All relevance to the operand that carries it; constants (a mask, say) receive nothing."""
    operands = zip(step.inputs, step.active, strict=True)
    return [sum_to_shape(relevance, x) if active else None for x, active in operands]


def sum_to_shape(tensor: Any, like: Any) -> Any:
    """Sum ``tensor`` over the axes along which ``like`` is broadcast to it."""
    extra = len(tensor.shape) - len(like.shape)
    if extra:
        tensor = ops.sum(tensor, axis=list(range(extra)))
    axes = [i for i, (a, b) in enumerate(zip(tensor.shape, like.shape, strict=True)) if b == 1 and a != 1 and i > 0]
    return ops.sum(tensor, axis=axes, keepdims=True) if axes else tensor
