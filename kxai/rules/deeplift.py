"""DeepLIFT: linear maps, Rescale and RevealCancel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, final

import keras
import numpy as np
from keras import ops

from kxai import backend
from kxai.arguments import check_number
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.rules.differences import (
    DifferenceRule,
    Multipliers,
    Parts,
    before,
    collapsed,
    difference,
    refusal,
    vanishes,
)
from kxai.rules.elementwise import sum_to_shape
from kxai.rules.rule import Step

# Sums whose weights are never negative: each part of a summand stays on its side.
_POSITIVE_SUMS = frozenset(
    "add average average_pool adaptive_average_pool global_average_pool sum mean cumsum nansum nanmean nancumsum trace "
    "segment_sum rgb_to_grayscale".split()
)
# Moves whose places depend on the values: where a value went in one run, another went in the other.
_SORTING = frozenset({"sort", "top_k"})
# Functions whose pieces have slope 0, 1 or -1: floating-point numbers lose nothing in their differences.
_EXACT = frozenset("relu relu6 hard_tanh clip abs absolute fabs maximum minimum fmax fmin".split())


@final
@dataclass(frozen=True)
class Linear(DifferenceRule):
    """Linear maps: ``m_i = sum_j w_ij m_j``, with ``m_j = m+_j`` where ``w_ij Dx_i > 0`` and ``m-_j`` where it is < 0.

    Where Dx_i is 0, the mean of both counts. An affine map says anew what pushes its output up and what down; sums,
    scalings and moves hand on the parts of their inputs.

    Raises:
        RuleError: (at plan time) the node moves values to places that depend on them (sort, top_k).

    Example:
        >>> Linear()
        Linear()

    Source: Shrikumar et al. 2017, section 3.5.1.
    """

    kinds: ClassVar = frozenset({Kind.AFFINE, Kind.SCALE, Kind.SUM, Kind.ROUTE})

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if node.op in _SORTING:
            raise refusal(self, node, "moves to places that do not depend on the values")

    def moves_parts(self, node: Node) -> bool:
        return node.kind in (Kind.ROUTE, Kind.SCALE) or node.op in (*_POSITIVE_SUMS, "subtract")

    def parts(self, step: Step) -> list[Parts | None]:
        if step.node.kind is Kind.AFFINE:
            return [_affine_parts(step)]
        if not self.moves_parts(step.node):
            return [None] * len(step.outputs)
        if step.node.kind is Kind.SUM and step.node.op == "subtract":
            (a, b) = step.parts
            return [Parts(a.positive - b.negative, a.negative - b.positive)]
        zero = step.node.run(*_with(step, list(map(ops.zeros_like, step.inputs))))

        def image(parts: list[Any]) -> list[Any]:
            return [_minus(y, y0) for y, y0 in zip(step.node.run(*_with(step, parts)), zero, strict=True)]

        positive = image([part and part.positive for part in step.parts])
        negative = image([part and part.negative for part in step.parts])
        if step.node.kind is Kind.SCALE:
            swap, (p,), (n,) = _negative_factor(step), positive, negative
            return [Parts(ops.where(swap, n, p), ops.where(swap, p, n))]
        return [Parts(p, n) for p, n in zip(positive, negative, strict=True)]

    def multipliers(self, step: Step, arrived: list[Multipliers | None]) -> Sequence[Multipliers | None]:
        if all(m is None or m.equal for m in arrived):
            return _pairs(step.pullback([None if m is None else m.positive for m in arrived]))
        if step.node.kind is Kind.AFFINE:
            return [Multipliers.of(_affine_multiplier(step, arrived[0]))]
        if not self.moves_parts(step.node):
            return _pairs(step.pullback(collapsed(step, arrived)))
        if step.node.kind is Kind.SCALE:
            negative = _negative_factor(step)
            arrived = [None if m is None else m.swapped(negative) for m in arrived]
        positive = step.pullback([None if m is None else m.positive for m in arrived])
        negative = step.pullback([None if m is None else m.negative for m in arrived])
        sent = [None if p is None else Multipliers(p, n) for p, n in zip(positive, negative, strict=True)]
        if step.node.kind is Kind.SUM and step.node.op == "subtract":
            sent[1] = None if sent[1] is None else sent[1].swapped()
        return sent


def _pairs(tensors: Sequence[Any]) -> list[Multipliers | None]:
    return [None if tensor is None else Multipliers.of(tensor) for tensor in tensors]


def _with(step: Step, values: Sequence[Any]) -> list[Any]:
    """The node's inputs, with other values for those that carry a difference."""
    operands = zip(step.inputs, values, step.active, strict=True)
    return [value if active else x for x, value, active in operands]


def _minus(y: Any, zero: Any) -> Any:
    """``y - zero``, also where both are infinite (a mask)."""
    return ops.where(y == zero, ops.zeros_like(y), y - zero)


def _affine_parts(step: Step) -> Parts:
    """With A = W Dx and B = |W| |Dx|: P = (A + B) / 2 and N = (A - B) / 2."""
    total = step.outputs[0] - before(step).outputs[0]
    size, _ = _absolute(step)
    return Parts(ops.relu(total + size) / 2, ops.minimum(total - size, 0.0) / 2)


def _affine_multiplier(step: Step, arrived: Any) -> Any:
    """``W^T s + sign(Dx) |W|^T d``, with the half sum s and the half difference d of both multipliers."""
    total = (arrived.positive + arrived.negative) / 2
    split = (arrived.positive - arrived.negative) / 2
    _, pull = _absolute(step)
    return step.pullback(total)[0] + ops.sign(difference(step, 0)) * pull([split])[0]


def _absolute(step: Step) -> tuple[Any, Callable[[Sequence[Any]], list[Any]]]:
    """(|W| |Dx|, its pullback), computed once for the parts and the multipliers."""
    if "absolute" not in step.memo:
        linear, kernel = step.linear_map, ops.abs(step.kernel)
        step.memo["absolute"] = backend.vjp(lambda x: linear(x, kernel), ops.abs(difference(step, 0)))
    (size,), pull = step.memo["absolute"]
    return size, pull


def _negative_factor(step: Step) -> Any:
    """Where the factor of a scaling is negative, shaped like its output."""
    one, zero = (step.node.run(*_with(step, list(map(f, step.inputs))))[0] for f in (ops.ones_like, ops.zeros_like))
    return one < zero


class FunctionRule(DifferenceRule):
    """A rule for functions of one tensor, element by element.

    Its quotients ``(f(b) - f(a)) / (b - a)`` are exact to rounding however small b - a is: where the mean of the
    derivatives at both ends gives the same f(b) - f(a) to rounding, that mean is the quotient, without its noise.
    Where |b - a| is below ``threshold``, or 0, the quotient is the derivative at a.
    """

    kinds: ClassVar = frozenset({Kind.ELEMENTWISE})
    threshold: float

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, least=0)

    @abstractmethod
    def slopes(self, step: Step, function: Function) -> Multipliers:
        """``(Dy+ / P, Dy- / N)``, shaped like the output."""

    def multipliers(self, step: Step, arrived: list[Multipliers | None]) -> Sequence[Multipliers | None]:
        if arrived[0] is None:
            return [None] * len(step.inputs)
        function, m, slopes = Function(step), arrived[0], self._known_slopes(step)
        sent = Multipliers(m.positive * slopes.positive, m.negative * slopes.negative)
        if m.equal and slopes.equal:
            sent = Multipliers.of(sent.positive)
        x = step.inputs[function.operand]
        sent = sent.map(lambda m: sum_to_shape(m, x))
        return [sent if i == function.operand else None for i, _ in enumerate(step.inputs)]

    def _known_slopes(self, step: Step) -> Multipliers:
        """The slopes, computed once for the parts and the multipliers."""
        if "slopes" not in step.memo:
            step.memo["slopes"] = self.slopes(step, Function(step))
        slopes: Multipliers = step.memo["slopes"]
        return slopes

    def moves_parts(self, node: Node) -> bool:
        return True

    def parts(self, step: Step) -> list[Parts | None]:
        slopes, given = self._known_slopes(step), step.parts[Function(step).operand]
        return [Parts(slopes.positive * given.positive, slopes.negative * given.negative)]


@final
class Function:
    """The function of one tensor that a node applies to each element.

    Attributes:
        operand: position of the tensor among the node's inputs.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self.operand = step.active.index(True)
        self._same = step.inputs[self.operand].shape[1:] == step.outputs[0].shape[1:]

    def __call__(self, x: Any) -> Any:
        """The function."""
        operands = list(self._step.inputs)
        operands[self.operand] = x
        return self._step.node.run(*operands)[0]

    @property
    def ends(self) -> tuple[Point, Point]:
        """(reference, input)."""
        return self._end(before(self._step)), self._end(self._step)

    def at(self, x: Any) -> Point:
        """Another point."""
        return Point(x, self(x), cache(lambda: self._derivative(x)))

    def slope(self, a: Point, b: Point, threshold: float) -> Any:
        """``(f(b) - f(a)) / (b - a)``."""
        dx, dy = b.x - a.x, b.y - a.y
        quotient = dy / dx  # not read where dx vanishes; a division that looks for zeros takes twice the time
        at_a = a.derivative()
        if self._step.node.op not in _EXACT:
            mean = (at_a + b.derivative()) / 2
            rounding = 8 * _unit(dy) * ops.maximum(ops.abs(a.y), ops.abs(b.y))
            quotient = ops.where(ops.abs(mean * dx - dy) <= rounding, mean, quotient)
            # A root is infinitely steep at 0; a difference of 0 has no contribution whatever its multiplier.
            at_a = ops.where(ops.isfinite(at_a), at_a, ops.zeros_like(at_a))
        return ops.where(vanishes(dx, threshold), at_a, quotient)

    def _end(self, step: Step) -> Point:
        x, y = step.inputs[self.operand], step.outputs[0]
        if not self._same:
            return Point(x, y, cache(lambda: self._derivative(x)))
        return Point(x, y, cache(lambda: step.pullback(ops.ones_like(y))[self.operand]))

    def _derivative(self, x: Any) -> Any:
        """Shaped like the output, to which ``x`` may be broadcast."""
        (y,), pull = backend.vjp(self, x + ops.zeros_like(self(x)))
        return pull([ops.ones_like(y)])[0]


@final
@dataclass(frozen=True, eq=False)
class Point:
    """A value, the function there, and its derivative if somebody asks."""

    x: Any
    y: Any
    derivative: Callable[[], Any]


def _unit(tensor: Any) -> float:
    return float(np.finfo(keras.backend.standardize_dtype(tensor.dtype)).eps)


@final
@dataclass(frozen=True)
class Rescale(FunctionRule):
    """Rescale: ``m_in = m Dy / Dx``, for both signs.

    Args:
        threshold: differences smaller than that get the derivative at the reference, >= 0, default 1e-7.

    Example:
        >>> Rescale()
        Rescale(threshold=1e-07)

    Source: Shrikumar et al. 2017, section 3.5.2.
    """

    threshold: float = 1e-7

    def slopes(self, step: Step, function: Function) -> Multipliers:
        return Multipliers.of(function.slope(*function.ends, self.threshold))


@final
@dataclass(frozen=True)
class RevealCancel(FunctionRule):
    """RevealCancel: the two parts P and N of Dx are two players, each counted first and last (Shapley).

    With r the reference and x = r + P + N: ``Dy+ = ((f(r + P) - f(r)) + (f(x) - f(r + N))) / 2``, and the multiplier is
    ``m+_in = m+ Dy+ / P``; Dy- and m-_in likewise. Where P vanishes, the quotient is its limit, the mean of the
    derivatives at r and r + N.

    Args:
        threshold: parts smaller than that get derivatives, >= 0, default 1e-7.

    Example:
        >>> RevealCancel()
        RevealCancel(threshold=1e-07)

    Source: Shrikumar et al. 2017, section 3.5.3.
    """

    threshold: float = 1e-7
    reads_parts: ClassVar[bool] = True

    def slopes(self, step: Step, function: Function) -> Multipliers:
        (reference, x), parts = function.ends, step.parts[function.operand]
        up, down = function.at(reference.x + parts.positive), function.at(reference.x + parts.negative)
        pairs = ((reference, up), (down, x)), ((reference, down), (up, x))
        positive, negative = (sum(function.slope(a, b, self.threshold) for a, b in pair) / 2 for pair in pairs)
        return Multipliers(positive, negative)
