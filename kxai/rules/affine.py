"""The LRP and deep Taylor rules of affine nodes, z_j = sum_i x_i w_ij + b_j, each a few lines of its formula.

``pos(u) = max(u, 0)``, ``neg(u) = min(u, 0)``; c+, c-, z+, z- are the positive and negative contributions and their
sums, see ``affine_base.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from keras import ops

from kxai.arguments import check_choice, check_number
from kxai.errors import ArgumentError, InputError
from kxai.graph.graph import Kind
from kxai.rules.affine_base import ContributionRule, Share, TermRule, Where, combine
from kxai.rules.rule import Stabilizer, Step, quotient, times


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
    kinds: ClassVar = frozenset({Kind.AFFINE, Kind.SUM, Kind.SCALE, Kind.NORM})

    def __post_init__(self) -> None:
        if self.relative is not None:
            check_choice("relative", self.relative, ["rms"], also="None")
        self.stabilize()

    def shares(self) -> tuple[Share, ...]:
        return (Share(1, positive=1, negative=1),)

    def stabilize(self) -> Stabilizer:
        return Stabilizer(self.epsilon, self.relative == "rms", self.clip)

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        if step.node.kind is not Kind.SUM:
            return super().propagate(step, relevance)
        ratio = quotient(relevance, self.stabilize()(step.outputs[0]))
        return times(step.inputs, step.pullback(ratio))


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
        check_number("gamma", self.gamma, least=0)
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
        if not (abs(self.alpha - self.beta - 1) <= 1e-9 and self.alpha >= 1 and self.beta >= 0):
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
        check_number("gamma", self.gamma, least=0)
        Stabilizer(self.epsilon)

    def terms(self, step: Step) -> list[tuple[Any, Any]]:
        return [(step.inputs[0], combine(step.kernel, 1 + self.gamma, 1.0))]

    def offset(self, step: Step) -> Any:
        return combine(step.bias, 1 + self.gamma, 1.0) if self.bias and step.bias is not None else None


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


def _fits(shape: tuple[int, ...], sample: tuple[int, ...]) -> bool:
    """Whether an array of ``shape`` can be broadcast to one sample."""
    sizes = zip(shape[::-1], sample[::-1], strict=False)
    return len(shape) <= len(sample) and all(size in (1, wanted) for size, wanted in sizes)


def _ones(step: Step) -> Any:
    """Ones of the input's shape, so that zero padding does not count as an input; one sample serves all."""
    present = step.present()
    return ops.ones_like(step.inputs[0][:1]) if present is None else present


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
        super().__post_init__()
        fit = _fits(np.shape(self.low), np.shape(self.high)) or _fits(np.shape(self.high), np.shape(self.low))
        if not fit or not bool(np.all(np.asarray(self.low) <= np.asarray(self.high))):
            raise ArgumentError(
                "The box is empty.", expected="low <= high everywhere", received=f"low={self.low}, high={self.high}"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZBox) and all(
            np.array_equal(value, vars(other)[name]) for name, value in vars(self).items()
        )

    def __hash__(self) -> int:
        return hash((ZBox, self.epsilon))  # arrays have none

    def check_inputs(self, values: np.ndarray) -> None:
        for name, bound in (("low", self.low), ("high", self.high)):
            if not _fits(np.shape(bound), values.shape[1:]):
                raise ArgumentError(
                    f"The bound {name} does not fit the input.",
                    expected=f"a number, one per channel, or an array of shape {values.shape[1:]}",
                    received=f"shape {np.shape(bound)}",
                )
        lowest, highest = float(values.min()), float(values.max())
        low, high = self.bounds()
        if bool(np.any(values < low)) or bool(np.any(values > high)):
            raise InputError(
                "An input lies outside the box of the z^B rule, where its relevance would not be defined.",
                expected=f"low <= x <= high with low={self.low}, high={self.high}",
                received=f"values from {lowest:.6g} to {highest:.6g}",
                fix="pass the bounds of your preprocessed inputs as low= and high=.",
            )

    def bounds(self) -> tuple[Any, Any]:
        # One rounding step of the input's precision is not "outside".
        slack = 1e-6 * max(1.0, float(np.max(np.abs(self.low))), float(np.max(np.abs(self.high))))
        return np.asarray(self.low) - slack, np.asarray(self.high) + slack

    def terms(self, step: Step) -> list[tuple[Any, Any]]:
        # x w - l pos(w) - h neg(w) = (x - l) pos(w) + (x - h) neg(w): both terms are non-negative.
        x, w = step.inputs[0], step.kernel
        one, other = step.from_input(self.low), step.from_input(self.high)
        low, high = ops.minimum(one, other), ops.maximum(one, other)
        return [(x - low, ops.relu(w)), (x - high, ops.minimum(w, 0.0))]
