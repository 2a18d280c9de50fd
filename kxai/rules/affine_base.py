"""What affine rules share: the algebra of contributions, and the speed.

Write c+ = pos(x_i w_ij) and c- = neg(x_i w_ij) for the positive and negative contributions of input i to output j, and
z+, z- for their sums over i, bias parts pos(b) and neg(b) included. Then most LRP rules are *data*: a few shares

    R_i = sum_shares  coefficient * sum_j (p c+ + n c-)_ij / stab(p z+ + n z-)_j * R_j

with two numbers p and n each. ``ContributionRule`` uses z = z+ + z- from the forward pass, proves parts to be empty
where inputs cannot be negative, and runs at most one further forward pass. The other rules replace input and kernel by
something else (``TermRule``).
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import keras
import numpy as np
from keras import ops

from kxai import backend
from kxai.graph.graph import Kind
from kxai.rules.elementwise import to_active
from kxai.rules.rule import Rule, Stabilizer, Step, quotient


@final
class Where(enum.Enum):
    """Outputs that a share applies to, by the sign of the node's true output."""

    ALL = "all"
    POSITIVE = "positive"
    NEGATIVE = "negative"


@final
@dataclass(frozen=True)
class Share:
    """``coefficient * (positive c+ + negative c-) / stab(positive z+ + negative z-)``."""

    coefficient: float
    positive: float
    negative: float
    where: Where = Where.ALL

    @property
    def plain(self) -> bool:
        """Whether it treats both signs alike, so that the node's own kernel serves."""
        return self.positive == self.negative

    @property
    def sign(self) -> int:
        """The sign that its denominator must have, 0 if it can have either."""
        return int(self.negative == 0) - int(self.positive == 0)


class ContributionRule(Rule):
    """A rule given by shares of the positive and negative contributions."""

    kinds: ClassVar = frozenset({Kind.AFFINE, Kind.SCALE, Kind.NORM})
    keeps_zeros: ClassVar[bool] = True
    bias: bool

    @abstractmethod
    def shares(self) -> tuple[Share, ...]:
        """The shares, straight from the formula."""

    @abstractmethod
    def stabilize(self) -> Stabilizer:
        """The stabilizer of all denominators."""

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        # Where the output was rectified, no relevance arrives at outputs <= 0.
        shares = [s for s in self.shares() if not (step.rectified and s.where is Where.NEGATIVE)]
        contributions: _Contributions | _OneContribution
        if step.node.kind is Kind.AFFINE:
            contributions = _Contributions(step, self.bias, alone=sum(not s.plain for s in shares) == 1)
        else:
            contributions = _OneContribution(step, self.bias)
        for share in shares:
            denominator = self.stabilize()(contributions.sum(share), self._sign(share, step))
            ratio = quotient(_arriving(share, step, relevance), denominator)
            contributions.send_back(share, ratio if share.coefficient == 1 else share.coefficient * ratio)
        return contributions.relevance()

    def _sign(self, share: Share, step: Step) -> int:
        """The sign of the share's denominator wherever relevance arrives, 0 if it is not known."""
        p, n = share.positive, share.negative
        # Where z+ + z- > 0, n (z+ + z-) + (p - n) z+ is positive, too; and the same with the signs exchanged.
        if self.bias and p >= n >= 0 and (step.rectified or share.where is Where.POSITIVE):
            return 1
        if self.bias and n >= p >= 0 and share.where is Where.NEGATIVE:
            return -1
        return share.sign


def _arriving(share: Share, step: Step, relevance: Any) -> Any:
    """The part of the relevance that a share is for."""
    if share.where is Where.ALL or step.rectified:
        return relevance
    output = step.outputs[0]
    mask = output > 0 if share.where is Where.POSITIVE else output < 0
    return ops.where(mask, relevance, ops.zeros_like(relevance))


@final
class _OneContribution:
    """A map of one output per input (a scaling, a norm with its statistic held fixed): c = y - y(0) is all of z."""

    def __init__(self, step: Step, bias: bool) -> None:
        self._step = step
        self._bias = step.outputs[0] - step.linear if bias else None
        self._sent: Any = None

    def sum(self, share: Share) -> Any:
        """``p z+ + n z-``, bias parts included."""
        z = combine(self._step.linear, share.positive, share.negative)
        return z if self._bias is None else z + combine(self._bias, share.positive, share.negative)

    def send_back(self, share: Share, ratio: Any) -> None:
        """Add ``(p c+ + n c-) ratio`` to the input's relevance."""
        sent = combine(self._step.linear, share.positive, share.negative) * ratio
        self._sent = sent if self._sent is None else self._sent + sent

    def relevance(self) -> list[Any]:
        """For the operands that carry it."""
        return to_active(self._step, self._sent)


@final
class _Contributions:
    """The contributions of one node in one run, computed as few times as possible."""

    def __init__(self, step: Step, bias: bool, alone: bool) -> None:
        self._step = step
        self._bias = step.bias if bias else None
        self._total = step.outputs[0] if bias else step.linear
        self._alone = alone
        self._forwards: dict[tuple[float, float], list[tuple[str, Any, Callable[..., Any]]]] = {}
        self._gradients: dict[str, Any] = {}

    def sum(self, share: Share) -> Any:
        """``p z+ + n z-``, bias parts included."""
        p, n = share.positive, share.negative
        if share.plain:
            return self._total if p == 1 else p * self._total
        if self._alone:
            return self._forward_sum(p, n)
        parts = [v if c == 1 else c * v for c, v in ((p, self._positive), (n, self._negative)) if c]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def send_back(self, share: Share, ratio: Any) -> None:
        """Add ``sum_j (p c+ + n c-)_ij ratio_j`` to the inputs' relevance."""
        p, n = share.positive, share.negative
        if share.plain:
            gradient = self._step.pullback(ratio)[0]
            self._add("all", gradient if p == 1 else p * gradient)
            return
        for part, _, pull in self._forward(p, n):
            self._add(part, pull([ratio])[0])

    def relevance(self) -> list[Any]:
        """Each part of the input times its gradient."""
        terms = [self._part(part) * gradient for part, gradient in self._gradients.items()]
        return [sum(terms[1:], terms[0])]

    @cached_property
    def _positive(self) -> Any:
        return self._forward_sum(1.0, 0.0)

    @cached_property
    def _negative(self) -> Any:
        # What is smaller than the rounding of the difference must not divide anything: it is raised to that.
        return ops.minimum(self._total - self._positive, -_rounding(self._positive) * self._positive)

    def _add(self, part: str, gradient: Any) -> None:
        self._gradients[part] = self._gradients[part] + gradient if part in self._gradients else gradient

    def _part(self, part: str) -> Any:
        x = self._step.inputs[0]
        if part == "all":
            return x
        return ops.relu(x) if part == "positive" else ops.minimum(x, 0.0)

    def _forward_sum(self, p: float, n: float) -> Any:
        z = None
        for _, value, _ in self._forward(p, n):
            z = value if z is None else z + value
        return z if self._bias is None else ops.add(z, combine(self._bias, p, n))

    def _forward(self, p: float, n: float) -> list[tuple[str, Any, Callable[..., Any]]]:
        """(part of x, sum of its p c+ + n c-, pullback); pos(x) meets p w+ + n w-, neg(x) meets n w+ + p w-."""
        if (p, n) not in self._forwards:
            linear, w = self._step.linear_map, self._step.kernel
            if self._step.nonnegative[0]:
                pairs = [("all", combine(w, p, n))]
            else:
                pairs = [("positive", combine(w, p, n)), ("negative", combine(w, n, p))]
            runs = []
            for part, kernel in pairs:
                (z,), pull = backend.vjp(lambda x, kernel=kernel: linear(x, kernel), self._part(part))
                runs.append((part, z, pull))
            self._forwards[p, n] = runs
        return self._forwards[p, n]


def combine(w: Any, p: float, n: float) -> Any:
    """``p pos(w) + n neg(w)`` in as few passes over memory as possible."""
    if p == n:
        return p * w
    if n == 0:
        return ops.relu(w) if p == 1 else p * ops.relu(w)
    if p == 0:
        return ops.minimum(w, 0.0) if n == 1 else n * ops.minimum(w, 0.0)
    # Not maximum(p w, n w): TensorFlow's graph optimiser takes that for a leaky ReLU, wrongly for p > 1.
    return n * w + (p - n) * ops.relu(w) if n != 1 else w + (p - 1) * ops.relu(w)


def _rounding(tensor: Any) -> float:
    """Relative rounding error of a long sum: 64 units in the last place."""
    return 64 * float(np.finfo(keras.backend.standardize_dtype(tensor.dtype)).eps)


class TermRule(Rule):
    """A rule that replaces input and kernel: ``R_i = sum_terms v_i sum_j k_ij R_j / stab(sum_terms (v k)_j)``."""

    kinds: ClassVar = frozenset({Kind.AFFINE})
    epsilon: float

    def __post_init__(self) -> None:
        Stabilizer(self.epsilon)

    @abstractmethod
    def terms(self, step: Step) -> list[tuple[Any, Any]]:
        """Pairs (v, k); v may have batch size 1 if it is the same for all samples."""

    def offset(self, step: Step) -> Any:
        """What the denominator holds besides the terms, or None."""
        return None

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        linear, x = step.linear_map, step.inputs[0]
        terms = self.terms(step)
        z = self.offset(step)
        for value, kernel in terms:
            part = linear(value, kernel)
            z = part if z is None else z + part
        ratio = quotient(relevance, Stabilizer(self.epsilon)(z))
        result = None
        for value, kernel in terms:
            _, pull = backend.vjp(lambda x, kernel=kernel: linear(x, kernel), x)
            part = value * pull([ratio])[0]
            result = part if result is None else result + part
        return [result]
