"""Rules for affine nodes, z_j = sum_i x_i w_ij + b_j.

Write c+ = pos(x_i w_ij) and c- = neg(x_i w_ij) for the positive and negative contributions of input i to output j, and
z+, z- for their sums over i, bias parts pos(b) and neg(b) included. Then most LRP rules are *data*: a few shares

    R_i = sum_shares  coefficient * sum_j (p c+ + n c-)_ij / stab(p z+ + n z-)_j * R_j

with two numbers p and n each. ``ContributionRule`` holds the speed: it uses z = z+ + z- from the forward pass, proves
parts to be empty where inputs cannot be negative, and runs at most one further forward pass. The other rules replace
input and kernel by something else (``TermRule``).
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import numpy as np
from keras import ops

from kxai import backend
from kxai.errors import ArgumentError, InputError
from kxai.graph.graph import Kind
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

    kinds: ClassVar = frozenset({Kind.AFFINE})
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
        contributions = _Contributions(step, self.bias, alone=sum(not s.plain for s in shares) == 1)
        stabilize = self.stabilize()
        for share in shares:
            arriving = relevance
            if share.where is not Where.ALL and not step.rectified:
                output = step.outputs[0]
                mask = output > 0 if share.where is Where.POSITIVE else output < 0
                arriving = ops.where(mask, relevance, ops.zeros_like(relevance))
            sign = share.sign
            if step.rectified and self.bias and share.positive > 0 and share.where is not Where.NEGATIVE:
                sign = sign or 1  # wherever relevance arrives, the output is positive, and so is this denominator
            ratio = quotient(arriving, stabilize(contributions.sum(share), sign))
            contributions.send_back(share, ratio if share.coefficient == 1 else share.coefficient * ratio)
        return contributions.relevance()


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
        # Rounding of the difference must not turn an empty negative part positive.
        return ops.minimum(self._total - self._positive, 0.0)

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
        return z if self._bias is None else ops.add(z, _combine(self._bias, p, n))

    def _forward(self, p: float, n: float) -> list[tuple[str, Any, Callable[..., Any]]]:
        """(part of the input, its p c+ + n c- summed, pullback); positive inputs meet p w+ + n w-, negative n w+ + p w-."""
        if (p, n) not in self._forwards:
            linear, w = self._step.node.affine.linear, self._step.kernel  # type: ignore[union-attr]
            if self._step.nonnegative[0]:
                pairs = [("all", _combine(w, p, n))]
            else:
                pairs = [("positive", _combine(w, p, n)), ("negative", _combine(w, n, p))]
            runs = []
            for part, kernel in pairs:
                (z,), pull = backend.vjp(lambda x, kernel=kernel: linear(x, kernel), self._part(part))
                runs.append((part, z, pull))
            self._forwards[p, n] = runs
        return self._forwards[p, n]


def _combine(w: Any, p: float, n: float) -> Any:
    """``p pos(w) + n neg(w)`` in as few passes over memory as possible."""
    if p == n:
        return p * w
    if n == 0:
        return ops.relu(w) if p == 1 else p * ops.relu(w)
    if p == 0:
        return ops.minimum(w, 0.0) if n == 1 else n * ops.minimum(w, 0.0)
    return n * w + (p - n) * ops.relu(w) if n != 1 else w + (p - 1) * ops.relu(w)


@final
@dataclass(frozen=True)
class Epsilon(ContributionRule):
    """LRP-epsilon; with ``epsilon=0`` LRP-0.

    ``R_i = x_i sum_j w_ij R_j / stab(z_j)``. Loses ``(b_j + epsilon sign(z_j)) / stab(z_j) R_j`` at each output.

    Args:
        epsilon: >= 0, default 1e-6, in units of z.
        relative: None, or "rms": epsilon is then in units of the root mean square of z over each sample.
        clip: raise abs(z) to at least epsilon instead of adding to it. Default False.
        bias: whether z includes the bias (True, the default) or the rule conserves (False).

    Example:
        >>> Epsilon(0.25, relative="rms")
        Epsilon(epsilon=0.25, relative='rms', clip=False, bias=True)

    Source: Bach et al. 2015, Eq. 58; relative form: Montavon et al. 2019.
    """

    epsilon: float = 1e-6
    relative: str | None = None
    clip: bool = False
    bias: bool = True
    kinds: ClassVar = frozenset({Kind.AFFINE, Kind.SUM, Kind.SCALE})

    def __post_init__(self) -> None:
        if self.relative not in (None, "rms"):
            raise ArgumentError("Unknown value of relative.", expected='None or "rms"', received=repr(self.relative))
        self.stabilize()

    def shares(self) -> tuple[Share, ...]:
        return (Share(1, positive=1, negative=1),)

    def stabilize(self) -> Stabilizer:
        return Stabilizer(self.epsilon, self.relative == "rms", self.clip)

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        if step.node.kind is Kind.AFFINE:
            return super().propagate(step, relevance)
        ratio = quotient(relevance, self.stabilize()(step.outputs[0] if self.bias else step.linear))
        return [x if g is None else x * g for x, g in zip(step.inputs, step.pullback(ratio), strict=True)]


@final
@dataclass(frozen=True)
class Gamma(ContributionRule):
    """LRP-gamma in its generalised form, which also covers negative inputs and outputs.

    Outputs z > 0: ``R_i = sum_j ((1+gamma) c+ + c-) / ((1+gamma) z+ + z-) R_j``; outputs z < 0 the same with the
    roles of c+ and c- exchanged; z = 0 sends nothing. For x >= 0 and z > 0 this is the original
    ``x_i (w_ij + gamma pos(w_ij))``.

    Args:
        gamma: >= 0, default 0.25.
        epsilon: stabilizer, >= 0, default 1e-6.
        bias: whether the denominators include the bias, treated like a weight. Default True.

    Example:
        >>> Gamma(0.1)
        Gamma(gamma=0.1, epsilon=1e-06, bias=True)

    Source: Montavon et al. 2019, section 10.2; generalised form: Andeol et al. 2023.
    """

    gamma: float = 0.25
    epsilon: float = 1e-6
    bias: bool = True

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise ArgumentError("gamma must not be negative.", expected="gamma >= 0", received=f"{self.gamma}")
        self.stabilize()

    def shares(self) -> tuple[Share, ...]:
        return (
            Share(1, positive=1 + self.gamma, negative=1, where=Where.POSITIVE),
            Share(1, positive=1, negative=1 + self.gamma, where=Where.NEGATIVE),
        )

    def stabilize(self) -> Stabilizer:
        return Stabilizer(self.epsilon)


@final
@dataclass(frozen=True)
class AlphaBeta(ContributionRule):
    """LRP-alpha-beta: ``R_i = sum_j (alpha c+ / (z+ + pos(b)) - beta c- / (z- + neg(b))) R_j``.

    Conserves where both parts of z are non-empty; a neuron without negative part hands down ``alpha R_j``.

    Args:
        alpha: >= 1, default 2.
        beta: >= 0, default 1; alpha - beta = 1.
        epsilon: stabilizer, >= 0, default 1e-6.
        bias: pos(b) in the alpha share and neg(b) in the beta share (True, the default), or no bias.

    Raises:
        ArgumentError: alpha - beta != 1, alpha < 1 or beta < 0.

    Example:
        >>> AlphaBeta(2, 1)
        AlphaBeta(alpha=2, beta=1, epsilon=1e-06, bias=True)

    Source: Bach et al. 2015, Eq. 60 (there beta has the opposite sign).
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float = 1e-6
    bias: bool = True

    def __post_init__(self) -> None:
        if abs(self.alpha - self.beta - 1) > 1e-9 or self.alpha < 1 or self.beta < 0:
            raise ArgumentError(
                "alpha and beta do not fit together.",
                expected="alpha - beta = 1, alpha >= 1, beta >= 0",
                received=f"alpha={self.alpha}, beta={self.beta}",
            )
        self.stabilize()

    def shares(self) -> tuple[Share, ...]:
        activating, inhibiting = Share(self.alpha, positive=1, negative=0), Share(-self.beta, positive=0, negative=1)
        return (activating, inhibiting) if self.beta else (activating,)

    def stabilize(self) -> Stabilizer:
        return Stabilizer(self.epsilon)


@final
@dataclass(frozen=True)
class ZPlus(ContributionRule):
    """The z+ rule: only positive contributions count, ``R_i = sum_j c+ / z+ R_j``.

    Conserves and, for non-negative relevance, stays non-negative. Equals alpha-beta with (1, 0).

    Args:
        epsilon: stabilizer, >= 0, default 1e-6.
        bias: whether z+ includes pos(b). Default False, the definition; True is what some composites use.

    Example:
        >>> ZPlus()
        ZPlus(epsilon=1e-06, bias=False)

    Source: Montavon et al. 2017, Eq. 14.
    """

    epsilon: float = 1e-6
    bias: bool = False

    def __post_init__(self) -> None:
        self.stabilize()

    def shares(self) -> tuple[Share, ...]:
        return (Share(1, positive=1, negative=0),)

    def stabilize(self) -> Stabilizer:
        return Stabilizer(self.epsilon)


class TermRule(Rule):
    """A rule that replaces input and kernel: ``R_i = sum_terms v_i sum_j k_ij R_j / stab(sum_terms (v k)_j)``."""

    kinds: ClassVar = frozenset({Kind.AFFINE})
    epsilon: float

    @abstractmethod
    def terms(self, step: Step) -> list[tuple[Any, Any]]:
        """Pairs (v, k); v may have batch size 1 if it is the same for all samples."""

    def offset(self, step: Step) -> Any:
        """What the denominator holds besides the terms, or None."""
        return None

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        linear, x = step.node.affine.linear, step.inputs[0]  # type: ignore[union-attr]
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


@final
@dataclass(frozen=True)
class GammaOriginal(TermRule):
    """LRP-gamma as first published: ``R_i = x_i sum_j (w + gamma pos(w))_ij / stab(z') R_j`` whatever the signs.

    Meant for x >= 0; :class:`Gamma` is the form that is also right for signed inputs.

    Args:
        gamma: >= 0, default 0.25.
        epsilon: stabilizer, >= 0, default 1e-6.
        bias: include ``b + gamma pos(b)`` in the denominator. Default True.

    Example:
        >>> GammaOriginal(0.25)
        GammaOriginal(gamma=0.25, epsilon=1e-06, bias=True)

    Source: Montavon et al. 2019, section 10.2.
    """

    gamma: float = 0.25
    epsilon: float = 1e-6
    bias: bool = True
    keeps_zeros: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise ArgumentError("gamma must not be negative.", expected="gamma >= 0", received=f"{self.gamma}")
        Stabilizer(self.epsilon)

    def terms(self, step: Step) -> list[tuple[Any, Any]]:
        return [(step.inputs[0], _combine(step.kernel, 1 + self.gamma, 1.0))]

    def offset(self, step: Step) -> Any:
        return _combine(step.bias, 1 + self.gamma, 1.0) if self.bias and step.bias is not None else None


@final
@dataclass(frozen=True)
class WSquare(TermRule):
    """The w^2 rule: ``R_i = sum_j w_ij^2 / sum_i' w_i'j^2 R_j``; the input's value plays no part. Conserves.

    Args:
        epsilon: stabilizer, >= 0, default 0 (the denominator cannot be negative).

    Example:
        >>> WSquare()
        WSquare(epsilon=0.0)

    Source: Montavon et al. 2017, Eq. 12.
    """

    epsilon: float = 0.0

    def terms(self, step: Step) -> list[tuple[Any, Any]]:
        return [(_ones(step), ops.square(step.kernel))]


@final
@dataclass(frozen=True)
class Flat(TermRule):
    """The flat rule: every connected input receives the same share; input and weights play no part. Conserves.

    Args:
        epsilon: stabilizer, >= 0, default 0 (the denominator counts inputs).

    Example:
        >>> Flat()
        Flat(epsilon=0.0)

    Source: Lapuschkin et al. 2019, methods.
    """

    epsilon: float = 0.0

    def terms(self, step: Step) -> list[tuple[Any, Any]]:
        return [(_ones(step), ops.ones_like(step.kernel))]


def _ones(step: Step) -> Any:
    """Ones of the input's shape, so that zero padding does not count as an input; one sample serves all."""
    return ops.ones_like(step.inputs[0][:1])


@final
@dataclass(frozen=True, eq=False)
class ZBox(TermRule):
    """The z^B rule for inputs in a box: ``R_i = sum_j (x_i w_ij - l_i pos(w_ij) - h_i neg(w_ij)) / (sum_i ...) R_j``.

    Every numerator is >= 0, so non-negative relevance stays non-negative. Conserves.

    Args:
        low: lowest possible input, in units of the *model's input*: number, one per channel, or array of the input's
            shape. Padding and rescaling between the input and the node are applied to it.
        high: highest possible input, likewise.
        epsilon: stabilizer, >= 0, default 0 (the denominator cannot be negative).

    Raises:
        ArgumentError: low > high somewhere. InputError (when explaining): an input outside [low, high].

    Example:
        >>> ZBox(-1.0, 1.0)
        ZBox(low=-1.0, high=1.0, epsilon=0.0)

    Source: Montavon et al. 2017, Eq. 15.
    """

    low: Any
    high: Any
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if bool(np.any(np.asarray(self.low) > np.asarray(self.high))):
            raise ArgumentError(
                "The box is empty.", expected="low <= high everywhere", received=f"low={self.low}, high={self.high}"
            )

    def check_inputs(self, values: np.ndarray) -> None:
        # One rounding step of the input's precision is not "outside".
        slack = 1e-6 * max(1.0, float(np.max(np.abs(self.low))), float(np.max(np.abs(self.high))))
        lowest, highest = float(values.min()), float(values.max())
        if bool(np.any(values < np.asarray(self.low) - slack)) or bool(np.any(values > np.asarray(self.high) + slack)):
            raise InputError(
                "An input lies outside the box of the z^B rule, where its relevance would not be defined.",
                expected=f"low <= x <= high with low={self.low}, high={self.high}",
                received=f"values from {lowest:.6g} to {highest:.6g}",
                fix="pass the bounds of your preprocessed inputs as low= and high=.",
            )

    def terms(self, step: Step) -> list[tuple[Any, Any]]:
        # x w - l pos(w) - h neg(w) = (x - l) pos(w) + (x - h) neg(w): both terms are non-negative.
        x, w = step.inputs[0], step.kernel
        one, other = step.from_input(self.low), step.from_input(self.high)  # type: ignore[misc]
        low, high = ops.minimum(one, other), ops.maximum(one, other)
        return [(x - low, ops.relu(w)), (x - high, ops.minimum(w, 0.0))]
