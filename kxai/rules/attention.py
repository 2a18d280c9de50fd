"""Rules for attention: the softmax and the products of two tensors that both depend on the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from keras import ops

from kxai.errors import RuleError
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.rules.combine import GatedRule
from kxai.rules.rule import Rule, Stabilizer, Step, quotient


@final
@dataclass(frozen=True)
class SoftmaxTaylor(Rule):
    """Deep Taylor at the input, bias included: ``R_i = x_i (R_i - s_i sum_j R_j)``; masked entries receive nothing.

    It does not conserve relevance: the remainder belongs to the bias of the linearised softmax.

    Raises:
        RuleError: (at plan time) the node is another function of that family (log-softmax, sparsemax).

    Example:
        >>> SoftmaxTaylor()
        SoftmaxTaylor()

    Source: Achtibat et al. 2024, Proposition 3.1.
    """

    kinds: ClassVar = frozenset({Kind.SOFTMAX})
    keeps_zeros: ClassVar[bool] = True

    def check(self, node: Node, facts: Facts) -> None:
        super().check(node, facts)
        if node.op != "softmax":
            raise RuleError(
                f"SoftmaxTaylor is defined for the softmax; node {node.path!r} is none.",
                expected="softmax",
                received=node.op,
                fix=f'give it another rule: composite.but(("{node.path}", kxai.rules.Gradient())).',
            )

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        # The Jacobian of a softmax is s_i (delta_ij - s_j), so its pullback of R / s is R_i - s_i sum_j R_j.
        gradients = step.pullback(quotient(relevance, step.outputs[0]))
        operands = zip(step.inputs, gradients, step.active, strict=True)
        return [_masked_times(x, g) if active and g is not None else None for x, g, active in operands]


def _masked_times(x: Any, gradient: Any) -> Any:
    """``x * gradient``, and 0 where the gradient is 0: a masked entry is -infinity."""
    silent = gradient == 0
    return ops.where(silent, ops.zeros_like(x), ops.where(silent, ops.ones_like(x), x) * gradient)


@final
@dataclass(frozen=True)
class Bilinear(Rule):
    """At a matrix product of N active tensors each receives its share over N: ``R_a = a * (R / stab(N z)) b``.

    A tensor that does not depend on the input (N then counts the others) receives nothing.

    Args:
        epsilon: stabilizer, >= 0, default 1e-9, in units of z.

    Example:
        >>> Bilinear()
        Bilinear(epsilon=1e-09)

    Source: Achtibat et al. 2024, Proposition 3.3.
    """

    epsilon: float = 1e-9
    kinds: ClassVar = frozenset({Kind.BILINEAR})
    keeps_zeros: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Stabilizer(self.epsilon)

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        ratio = quotient(relevance, Stabilizer(self.epsilon)(sum(step.active) * step.outputs[0]))
        return _times_active(step, ratio)


@final
@dataclass(frozen=True)
class ValuesTakeAll(GatedRule):
    """Attention weights count as constants: ``R_v = v * A^T (R / stab(A v))``, and ``R_A = 0``.

    Args:
        epsilon: stabilizer, >= 0, default 1e-9, in units of the output.

    Raises:
        RuleError: (at plan time) no operand comes from a softmax.

    Example:
        >>> ValuesTakeAll()
        ValuesTakeAll(epsilon=1e-09)

    Source: Ali et al. 2022, Eq. 8 (the AH-rule).
    """

    epsilon: float = 1e-9
    kinds: ClassVar = frozenset({Kind.BILINEAR})
    keeps_zeros: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Stabilizer(self.epsilon)

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        ratio = quotient(relevance, Stabilizer(self.epsilon)(step.outputs[0]))
        return [None if i == step.gate else r for i, r in enumerate(_times_active(step, ratio))]


def _times_active(step: Step, ratio: Any) -> list[Any]:
    operands = zip(step.inputs, step.pullback(ratio), step.active, strict=True)
    return [x * g if active and g is not None else None for x, g, active in operands]


@final
@dataclass(frozen=True)
class Stop(Rule):
    """The node counts as a constant: nothing is handed to its inputs.

    Example:
        >>> Stop()
        Stop()
    """

    keeps_zeros: ClassVar[bool] = True

    def check(self, node: Node, facts: Facts) -> None:
        """Defined for every node."""

    def reaches(self, node: Node, facts: Facts) -> tuple[bool, ...]:
        return (False,) * len(node.inputs)

    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        return [None] * len(step.inputs)
