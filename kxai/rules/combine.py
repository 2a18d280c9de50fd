"""Rules for nodes that join several values: sums, maxima and products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from keras import ops

from kxai import backend
from kxai.arguments import check_choice
from kxai.errors import RuleError
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.rules.elementwise import sum_to_shape
from kxai.rules.rule import Rule, Stabilizer, Step, quotient, times


@final
@dataclass(frozen=True)
class Proportional(Rule):
    """Relevance in proportion to the summands: ``R_i = x_i / stab(sum x) R``.

    For Add, Subtract, averages and average pooling; on max-pooling it uses the average over the same windows.

    Args:
        epsilon: stabilizer, >= 0, default 1e-6, in units of the sum.
        relative: None, or "rms": epsilon is then in units of the root mean square of the sum over each sample.

    Example:
        >>> Proportional()
        Proportional(epsilon=1e-06, relative=None)

    Source: Bach et al. 2015, section 2.3; Montavon et al. 2017, section 4.
    """

    epsilon: float = 1e-6
    relative: str | None = None
    kinds: ClassVar = frozenset({Kind.SUM, Kind.MAX})
    keeps_zeros: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.relative is not None:
            check_choice("relative", self.relative, ["rms"], also="None")
        Stabilizer(self.epsilon)

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if node.kind is Kind.MAX and node.average is None:
            raise RuleError(
                f"Proportional is not defined for the maximum {node.path!r}: it has no windows to average over.",
                expected="a max-pooling layer",
                received=node.op,
                fix="use kxai.rules.WinnerTakesAll() there.",
            )

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        total, pull = step.outputs[0], step.pull
        if step.node.kind is Kind.MAX and step.node.average is not None:
            (total,), pull = backend.vjp(step.node.average, *step.inputs)
        ratio = quotient(relevance, Stabilizer(self.epsilon, self.relative == "rms")(total))
        return times(step.inputs, pull([ratio]))


@final
@dataclass(frozen=True)
class WinnerTakesAll(Rule):
    """All relevance to the winner of a maximum (or minimum).

    In a pooling window one winner is taken (TensorFlow's choice); between whole tensors, ties share equally. The
    smooth maximum ``logsumexp(x)`` has no winner: each element receives its share ``softmax(x)_i R``.

    Example:
        >>> WinnerTakesAll()
        WinnerTakesAll()

    Source: Bach et al. 2015, section 2.4.
    """

    kinds: ClassVar = frozenset({Kind.MAX})
    moves: ClassVar[bool] = True

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        if len(step.inputs) == 1:
            return step.pullback(relevance)
        wins = [ops.cast(x == step.outputs[0], relevance.dtype) for x in step.inputs]
        share = quotient(relevance, sum(wins[1:], wins[0]))
        return [sum_to_shape(win * share, x) for win, x in zip(wins, step.inputs, strict=True)]


class GatedRule(Rule):
    """A rule for products of two operands of which one, the gate, receives nothing."""

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if facts.gate(node) is None:
            attention = node.kind is Kind.BILINEAR
            raise RuleError(
                f"The product {node.path!r} has no operand that is recognisable as a gate.",
                expected=f"an operand that comes from a {'softmax' if attention else 'sigmoid or is broadcast'}",
                received=f"shapes {', '.join(str(edge.shape) for edge in node.inputs)}",
                fix=f"use kxai.rules.{'Bilinear' if attention else 'Uniform'}() there.",
            )

    def reaches(self, node: Node, facts: Facts) -> tuple[bool, ...]:
        return tuple(i != facts.gate(node) for i in range(len(node.inputs)))


@final
@dataclass(frozen=True)
class SignalTakesAll(GatedRule):
    """At a gated product all relevance goes to the signal, none to the gate: ``R_signal = R, R_gate = 0``.

    The gate is the operand that comes from a sigmoid or is broadcast over the signal's axes; the divisor of a
    quotient counts as one.

    Raises:
        RuleError: (at plan time) no operand is recognisable as the gate.

    Example:
        >>> SignalTakesAll()
        SignalTakesAll()

    Source: Arras et al. 2017.
    """

    kinds: ClassVar = frozenset({Kind.PRODUCT})
    moves: ClassVar[bool] = True

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        return [None if i == step.gate else sum_to_shape(relevance, x) for i, x in enumerate(step.inputs)]


@final
@dataclass(frozen=True)
class Uniform(Rule):
    """At a product of N active tensors each receives ``R / N``.

    Example:
        >>> Uniform()
        Uniform()

    Source: Achtibat et al. 2024, Proposition 3.2.
    """

    kinds: ClassVar = frozenset({Kind.PRODUCT})
    moves: ClassVar[bool] = True

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        share = relevance / len(step.inputs)
        return [sum_to_shape(share, x) for x in step.inputs]
