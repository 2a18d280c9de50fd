"""What rules of differences from a reference share: multipliers by sign, and differences in two parts.

A difference Dx = x - x0 may be known as the sum of a positive and a negative part, P + N = Dx: what pushed the value up
and what pushed it down. Each part then has a multiplier of its own. Rescale and its kin treat both alike; then the two
multipliers are one tensor, and everything is computed once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from keras import ops

from kxai import backend
from kxai.errors import RuleError
from kxai.graph.graph import Node
from kxai.rules.rule import Rule, Step


@final
@dataclass(frozen=True, eq=False)
class Multipliers:
    """Contributions to the explained difference per unit of the positive and of the negative part of a difference.

    Attributes:
        positive: multiplier of the positive part.
        negative: multiplier of the negative part; the same object if both are equal.
    """

    positive: Any
    negative: Any

    @classmethod
    def of(cls, signal: Any) -> Multipliers:
        """A pair as it is; a tensor as a pair of equals."""
        return signal if isinstance(signal, Multipliers) else cls(signal, signal)

    @property
    def equal(self) -> bool:
        """Whether both are known to be the same."""
        return self.positive is self.negative

    def __add__(self, other: Multipliers) -> Multipliers:
        if self.equal and other.equal:
            return Multipliers.of(self.positive + other.positive)
        return Multipliers(self.positive + other.positive, self.negative + other.negative)

    def map(self, function: Callable[[Any], Any]) -> Multipliers:
        """``function`` of both, once if they are equal."""
        if self.equal:
            return Multipliers.of(function(self.positive))
        return Multipliers(function(self.positive), function(self.negative))

    def swapped(self, negative: Any = True) -> Multipliers:
        """Exchanged, everywhere or where ``negative`` is true: a negative factor turns one part into the other."""
        if self.equal:
            return self
        if negative is True:
            return Multipliers(self.negative, self.positive)
        return Multipliers(
            ops.where(negative, self.negative, self.positive), ops.where(negative, self.positive, self.negative)
        )

    def collapsed(self, difference: Any) -> Any:
        """One multiplier for a difference that is known as a whole: by its sign, the mean of both where it is 0."""
        if self.equal:
            return self.positive
        mean = (self.positive + self.negative) / 2
        return ops.where(difference > 0, self.positive, ops.where(difference < 0, self.negative, mean))


@final
@dataclass(frozen=True, eq=False)
class Parts:
    """A difference as the sum of a positive and a negative part.

    Attributes:
        positive: what pushes the value up.
        negative: what pushes it down.
    """

    positive: Any
    negative: Any

    @classmethod
    def of(cls, difference: Any) -> Parts:
        """A difference that is known as a whole has one part."""
        return cls(ops.relu(difference), ops.minimum(difference, 0.0))


class DifferenceRule(Rule):
    """A rule that hands down multipliers: contributions to the explained difference per unit of a node's difference.

    It reads ``step.reference``. What arrives and what is sent are :class:`Multipliers`, per output and input. A plain
    tensor that arrives stands for a pair of equals; what is sent is then collapsed by the sign of each input's
    difference.

    Class attributes:
        reads_parts: whether the multipliers depend on the parts of the input's difference.
    """

    reads_parts: ClassVar[bool] = False

    def moves_parts(self, node: Node) -> bool:
        """Whether the parts of the outputs are made of the parts of the inputs."""
        return False

    def parts(self, step: Step) -> list[Parts | None]:
        """Parts of the outputs; None: of the difference as a whole."""
        return [None] * len(step.outputs)

    @abstractmethod
    def multipliers(self, step: Step, arrived: list[Multipliers | None]) -> Sequence[Multipliers | None]:
        """Multipliers of the inputs, shaped like them; None for inputs that receive nothing.

        Args:
            step: the node and its values, with those of the reference.
            arrived: multipliers of the outputs; None where nothing arrived.
        """

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        if step.reference is None:
            raise RuleError(
                f"Rule {self!r} compares node {step.node.path!r} with a reference, and there is none.",
                expected="an analysis with a reference",
                fix="use kxai.DeepLIFT(model, reference, rule=composite).",
            )
        arrived = list(relevance) if isinstance(relevance, (list, tuple)) else [relevance]
        pairs = [None if signal is None else Multipliers.of(signal) for signal in arrived]
        sent = self.multipliers(step, pairs)
        if any(isinstance(signal, Multipliers) for signal in arrived):
            return sent
        return [None if m is None else m.collapsed(difference(step, i)) for i, m in enumerate(sent)]


class WholeRule(DifferenceRule):
    """A rule for nodes of one output whose differences are known as wholes, so that there is one multiplier."""

    @abstractmethod
    def whole(self, step: Step, multiplier: Any) -> Sequence[Any]:
        """Multiplier per input, shaped like it; None for inputs that receive nothing."""

    def multipliers(self, step: Step, arrived: list[Multipliers | None]) -> Sequence[Multipliers | None]:
        (multiplier,) = collapsed(step, arrived)
        return [None if m is None else Multipliers.of(m) for m in self.whole(step, multiplier)]


def collapsed(step: Step, arrived: Sequence[Multipliers | None]) -> list[Any]:
    """One multiplier per output, by the sign of its difference."""
    outputs = zip(arrived, step.outputs, before(step).outputs, strict=True)
    return [None if m is None else m.positive if m.equal else m.collapsed(y - y0) for m, y, y0 in outputs]


def before(step: Step) -> Step:
    """The node in the run of the reference."""
    if step.reference is None:
        raise RuleError(f"Node {step.node.path!r} has no reference.", expected="an analysis with a reference")
    return step.reference


def difference(step: Step, position: int) -> Any:
    """An input minus its reference."""
    return step.inputs[position] - before(step).inputs[position]


def pull_at_reference(step: Step, cotangent: Any) -> Sequence[Any]:
    """The vector-Jacobian product at the reference, whose batch may be smaller than that of the cotangent."""
    reference = before(step)
    if all(x.shape[0] == r.shape[0] for x, r in zip(step.inputs, reference.inputs, strict=True) if len(x.shape)):
        return reference.pullback(cotangent)
    operands = zip(step.inputs, reference.inputs, step.active, strict=True)
    repeated = [r + ops.zeros_like(x) if active else x for x, r, active in operands]
    _, pull = backend.vjp(step.node.call, *repeated)
    return pull([cotangent])


def refusal(rule: Rule, node: Node, expected: str) -> RuleError:
    """The error that a rule is not defined for a node."""
    return RuleError(
        f"{type(rule).__name__} is not defined for node {node.path!r}.",
        expected=expected,
        received=node.op,
        fix=f'accept the plain gradient there: rule=[("{node.path}", kxai.rules.Gradient())].',
    )


def vanishes(difference: Any, threshold: float) -> Any:
    """Where a difference is too small to be divided by: below the threshold, or 0."""
    return ops.abs(difference) < threshold if threshold > 0 else difference == 0
