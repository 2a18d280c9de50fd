"""DeepLIFT for entries that share a statistic: softmax, logsumexp, norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from keras import ops

from kxai import backend
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.rules.differences import WholeRule, before, refusal
from kxai.rules.rule import Step, quotient


@final
@dataclass(frozen=True)
class RescaleSoftmax(WholeRule):
    """The softmax as ``exp(x_i - L)`` with ``L = log sum exp(x)``: Rescale at each exponential and at the logarithm.

    With the logarithmic mean ``lm(a, b) = (a - b) / log(a / b)``: ``M_i = m_i lm(y_i, y0_i)``,
    ``w_i = lm(exp x_i, exp x0_i) / lm(S, S0)`` where S is the sum of the exponentials, and
    ``m_in,i = M_i - w_i sum_k M_k``. Of the log-softmax, ``M_i = m_i``; of the logsumexp, ``m_in,i = w_i m``. The
    shares w are positive and sum up to 1 at most, so that nothing explodes; masked entries receive nothing.

    DeepSHAP takes the row's maximum off first instead, and then corrects each multiplier by the quotient of two
    differences, with and without the maximum; that quotient has no bound.

    Raises:
        RuleError: (at plan time) the node is another function of that family (sparsemax).

    Example:
        >>> RescaleSoftmax()
        RescaleSoftmax()

    Source: Shrikumar et al. 2017 (Rescale), applied to exp and log.
    """

    kinds: ClassVar = frozenset({Kind.SOFTMAX, Kind.MAX})

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        known = node.op == "logsumexp" or (node.op in ("softmax", "log_softmax") and node.group is not None)
        if not known:
            raise refusal(self, node, "softmax, log_softmax or logsumexp")

    def whole(self, step: Step, multiplier: Any) -> Sequence[Any]:
        to_x = self._of_sum(step, multiplier) if step.node.op == "logsumexp" else self._of_softmax(step, multiplier)
        return [to_x if i == 0 else None for i, _ in enumerate(step.inputs)]

    def _of_softmax(self, step: Step, multiplier: Any) -> Any:
        pool = step.group.pool
        logarithmic = step.node.op == "log_softmax"
        (x, y), (x0, y0) = ((s.inputs[0], s.outputs[0]) for s in (step, before(step)))
        # Only masked entries are -inf; of the others some have a probability that is too small for a number.
        present = ops.logical_or(ops.isfinite(y), ops.isfinite(y0)) if logarithmic else ops.logical_or(y > 0, y0 > 0)
        if logarithmic:
            y, y0 = ops.exp(y), ops.exp(y0)
        total, total0 = _log_sum(x, y, pool), _log_sum(x0, y0, pool)
        a, a0 = _where(present, x - total), _where(present, x0 - total0)
        mean = 1.0 if logarithmic else ops.exp((a + a0) / 2 + _log_sinhc((a - a0) / 2))
        arriving = _where(present, multiplier * mean)
        shift = total - total0
        share = _where(present, ops.exp((a + a0) / 2 + _log_sinhc((a - a0 + shift) / 2) - _log_sinhc(shift / 2)))
        return arriving - share * pool(arriving)

    def _of_sum(self, step: Step, multiplier: Any) -> Any:
        x, x0 = step.inputs[0], before(step).inputs[0]
        # Where all entries are equal, each has the share 1 / n: that repeats a value for each entry of its group.
        (count,), pull = backend.vjp(step.node.call, ops.zeros_like(x + x0), *step.inputs[1:])
        repeat = lambda v: pull([v * ops.exp(count)])[0]  # noqa: E731
        zeros = ops.zeros_like(count)
        total, total0 = repeat(step.outputs[0] + zeros), repeat(before(step).outputs[0] + zeros)
        present = ops.logical_or(ops.isfinite(x), ops.isfinite(x0))
        a, a0, shift = _where(present, x - total), _where(present, x0 - total0), total - total0
        share = ops.exp((a + a0) / 2 + _log_sinhc((a - a0 + shift) / 2) - _log_sinhc(shift / 2))
        return _where(present, share) * repeat(multiplier)


def _log_sum(x: Any, y: Any, pool: Any) -> Any:
    """log sum exp(x) of each group: x - log y, which is the same for all entries that are not masked."""
    seen = y > 0
    return pool(_where(seen, y * (_where(seen, x) - ops.log(ops.where(seen, y, ops.ones_like(y))))))


def _where(mask: Any, value: Any) -> Any:
    return ops.where(mask, value, ops.zeros_like(value))


def _log_sinhc(z: Any) -> Any:
    """``log(sinh(z) / z)``, without overflow."""
    size = ops.abs(z)
    square = ops.square(ops.minimum(size, 0.1))
    series = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800)))
    large = ops.maximum(size, 0.1)
    return ops.where(size < 0.1, series, large - ops.log(2 * large) + ops.log1p(-ops.exp(-2 * large)))


@final
@dataclass(frozen=True)
class RescaleNorm(WholeRule):
    """A norm y = x / l, read as x = y l: two players, y and the length l; squares and their root by Rescale.

    With ``u = pool(x^2) + epsilon`` (a mean, or a sum), ``l = sqrt(u)`` and multipliers m of x / l:
    ``Dx = Dy (l + l0) / 2 + Dl (y + y0) / 2``, therefore
    ``m_in = (2 m - (x + x0) pool(m (y + y0)) / (l + l0)) / (l + l0)``.

    x and 1 / l as players would have a share x / l0, without bound where the reference has no length (it is 0, or the
    same everywhere); here both shares are at most of the size of y.

    Raises:
        RuleError: (at plan time) the node does not divide by the root of a sum of squares.

    Example:
        >>> RescaleNorm()
        RescaleNorm()

    Source: Shrikumar et al. 2017 (Rescale); Lundberg & Lee 2017 (products).
    """

    kinds: ClassVar = frozenset({Kind.NORM})

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if node.group is None or node.group.epsilon + node.group.least <= 0:
            raise refusal(self, node, "division by the root of a sum of squares plus an epsilon > 0")

    def whole(self, step: Step, multiplier: Any) -> Sequence[Any]:
        group = step.group
        x, x0 = step.inputs[0], before(step).inputs[0]
        square, square0 = group.pool(ops.square(x)), group.pool(ops.square(x0))
        u, u0 = ops.maximum(square, group.least), ops.maximum(square0, group.least)
        length, length0 = ops.sqrt(u + group.epsilon), ops.sqrt(u0 + group.epsilon)
        lengths = length + length0
        arriving = self._unscaled(step, multiplier)
        shared = group.pool(arriving * (x / length + x0 / length0)) / lengths
        if group.least:
            bounded = ops.minimum(square, square0) < group.least
            shared = shared * ops.where(bounded, quotient(u - u0, square - square0), ops.ones_like(shared))
        to_x = (2 * arriving - (x + x0) * shared) / lengths
        return [to_x if i == 0 else None for i, _ in enumerate(step.inputs)]

    @staticmethod
    def _unscaled(step: Step, multiplier: Any) -> Any:
        """What arrives, in units of x / l: the norm may scale its output.

        At x = 0 the length has no derivative, so the node's is that of the scaling, divided by the root of epsilon.
        """
        group = step.group
        if group.least:
            return multiplier
        zero = ops.zeros_like(multiplier)
        _, pull = backend.vjp(lambda x: step.node.run(x, *step.inputs[1:])[0], zero)
        return pull([multiplier])[0] * group.epsilon**0.5
