"""DeepLIFT where several tensors meet, or several entries of one: maxima, products, quotients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from keras import ops

from kxai import backend
from kxai.arguments import check_number
from kxai.graph.facts import DIVISIONS, Facts
from kxai.graph.graph import Kind, Node
from kxai.rules.differences import (
    WholeRule,
    before,
    difference,
    pull_at_reference,
    refusal,
    vanishes,
)
from kxai.rules.elementwise import sum_to_shape
from kxai.rules.rule import Step, quotient

_LARGEST = frozenset("max max_pool global_max_pool adaptive_max_pool nanmax".split())
_SMALLEST = frozenset({"min", "nanmin"})
_EXTREMES = frozenset({"maximum", "minimum", "fmax", "fmin"})
MAX_PLAYERS = 8


def is_extreme(node: Node) -> bool:
    """Whether a node takes the maximum, or the minimum, within one tensor."""
    return node.op in _LARGEST | _SMALLEST


@final
@dataclass(frozen=True)
class CrossMax(WholeRule):
    """The maximum of a window (of an axis): through c = max(y, y0), the larger of the two maxima.

    The winner among the inputs is credited with c - y0, the winner among the references with y - c, each in units of
    its own difference. This adds up to y - y0 whichever entries win. The same with a minimum.

    Args:
        threshold: differences smaller than that get the derivative at the reference, >= 0, default 1e-7.

    Raises:
        RuleError: (at plan time) the node is no maximum or minimum of one tensor (a median, say).

    Example:
        >>> CrossMax()
        CrossMax(threshold=1e-07)

    Source: Lundberg & Lee 2017 (DeepSHAP).
    """

    threshold: float = 1e-7
    kinds: ClassVar = frozenset({Kind.MAX})

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, least=0)

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if not is_extreme(node):
            raise refusal(self, node, "max-pooling, or the maximum or minimum of one tensor")

    def whole(self, step: Step, multiplier: Any) -> Sequence[Any]:
        y, y0 = step.outputs[0], before(step).outputs[0]
        middle = ops.maximum(y, y0) if step.node.op in _LARGEST else ops.minimum(y, y0)
        won = step.pullback((middle - y0) * multiplier)[0] + pull_at_reference(step, (y - middle) * multiplier)[0]
        dx = difference(step, 0)
        result = ops.where(vanishes(dx, self.threshold), pull_at_reference(step, multiplier)[0], quotient(won, dx))
        return [result if i == 0 else None for i, _ in enumerate(step.inputs)]


@final
@dataclass(frozen=True)
class ShapleyMax(WholeRule):
    """The larger (smaller) of several tensors: each is a player, ``m_a = m * Shapley value of a / Da``.

    Of two: ``C_a = (g(a, b) - g(a0, b) + g(a, b0) - g(a0, b0)) / 2``.

    Args:
        threshold: differences smaller than that get the derivative at the reference, >= 0, default 1e-7.

    Raises:
        RuleError: (at plan time) the node is another function, or has more than 8 operands.

    Example:
        >>> ShapleyMax()
        ShapleyMax(threshold=1e-07)

    Source: Lundberg & Lee 2017.
    """

    threshold: float = 1e-7
    kinds: ClassVar = frozenset({Kind.MAX})

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, least=0)

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if node.op not in _EXTREMES or len(node.inputs) > MAX_PLAYERS:
            raise refusal(self, node, f"the maximum or minimum of at most {MAX_PLAYERS} tensors")

    def whole(self, step: Step, multiplier: Any) -> Sequence[Any]:
        players = [i for i, active in enumerate(step.active) if active]
        values = {
            moved: step.node.run(*(x if i in moved else r for i, (x, r) in enumerate(_pairs(step))))[0]
            for count in range(len(players) + 1)
            for moved in itertools.combinations(players, count)
        }
        pulled = pull_at_reference(step, multiplier)
        sent: list[Any] = [None] * len(step.inputs)
        for i in players:
            value = sum(
                _weight(len(moved), len(players)) * (values[tuple(sorted((*moved, i)))] - before)
                for moved, before in values.items()
                if i not in moved
            )
            dx = difference(step, i)
            shared = sum_to_shape(multiplier * quotient(value, dx), dx)
            sent[i] = ops.where(vanishes(dx, self.threshold), pulled[i], shared)
        return sent


def _pairs(step: Step) -> list[tuple[Any, Any]]:
    """(input, reference) per operand."""
    return list(zip(step.inputs, before(step).inputs, strict=True))


def _weight(before: int, players: int) -> float:
    """Share of the orders in which ``before`` certain players come before one, and the others after it."""
    return math.factorial(before) * math.factorial(players - before - 1) / math.factorial(players)


@final
@dataclass(frozen=True)
class ShapleyProduct(WholeRule):
    """Products and quotients of several tensors: each operand is a player.

    Of two factors: ``m_a = m (b + b0) / 2``, the same per term of a matrix product; of more, the derivative averaged
    over the straight line from the reference to the input, exactly. Of a quotient a / b: ``m_a = m (1/b + 1/b0) / 2``
    and ``m_b = -m (a + a0) / (2 b b0)``.

    Example:
        >>> ShapleyProduct()
        ShapleyProduct()

    Source: Lundberg & Lee 2017; Owen 1972 (the line).
    """

    kinds: ClassVar = frozenset({Kind.PRODUCT, Kind.BILINEAR})

    def whole(self, step: Step, multiplier: Any) -> Sequence[Any]:
        if step.node.op in DIVISIONS:
            return _quotient(step, multiplier)
        # A product of n factors has a derivative of degree n - 1 along the line.
        points, weights = np.polynomial.legendre.leggauss((sum(step.active) + 1) // 2)
        sent: list[Any] = [None] * len(step.inputs)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            pairs = zip(_pairs(step), step.active, strict=True)
            on_line = [r + float(point) * (x - r) if active else x for (x, r), active in pairs]
            _, pull = backend.vjp(step.node.call, *on_line)
            for i, g in enumerate(pull([float(weight) * multiplier])):
                if step.active[i] and g is not None:
                    sent[i] = g if sent[i] is None else sent[i] + g
        return sent


def _quotient(step: Step, multiplier: Any) -> list[Any]:
    (a, a0), (b, b0) = _pairs(step)
    inverse, inverse0 = quotient(ops.ones_like(b), b), quotient(ops.ones_like(b0), b0)
    steep = -inverse * inverse0
    if step.node.op == "divide_no_nan":  # a / 0 is 0
        steep = ops.where(steep == 0, quotient(inverse - inverse0, b - b0), steep)
    to_a, to_b = multiplier * (inverse + inverse0) / 2, multiplier * steep * (a + a0) / 2
    return [sum_to_shape(to_a, a), sum_to_shape(to_b, b)]
