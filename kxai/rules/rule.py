"""What a rule is: how one node hands the relevance of its outputs down to its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, final

from keras import ops

from kxai.arguments import check_number
from kxai.errors import RuleError
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.graph.group import Group


@final
@dataclass(frozen=True, eq=False)
class Step:
    """One node during one run: what a rule may use.

    Attributes:
        node: the graph node.
        inputs: values of its inputs, in the order of ``node.inputs``.
        outputs: values of its outputs.
        pull: the pullback recorded in the forward pass, see :meth:`pullback`.
        from_input: maps a value in the units of the model's input to the units of this node's input, through the
            padding and rescaling between them.
        present: () -> mask of one sample, 0 where this node's input is padding of the model's input; None: all present.
        kernel: of an AFFINE node, else None.
        bias: of an AFFINE node, broadcastable to the output; None if there is none.
        linear_output: of an AFFINE node, the output without bias.
        active: per input, whether it carries relevance (masks and other constants do not).
        nonnegative: per input, whether it is known to be >= 0.
        rectified: whether the relevance of the output is known to be 0 wherever the output is <= 0.
        gate: of a gated PRODUCT node, the position of the gate.
        reference: the same node in the run of the reference, of as many samples or of one; None: there is none.
        parts: per input, the positive and the negative part of its difference from the reference, where a rule reads
            them (see :mod:`kxai.rules.differences`); None elsewhere.
        memo: what the node's rule has computed in this run and will read again.
    """

    node: Node
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    pull: Callable[[Sequence[Any]], list[Any]]
    from_input: Callable[[Any], Any]
    present: Callable[[], Any]
    kernel: Any = None
    bias: Any = None
    linear_output: Any = None
    active: tuple[bool, ...] = ()
    nonnegative: tuple[bool, ...] = ()
    rectified: bool = False
    gate: int | None = None
    reference: Step | None = None
    parts: tuple[Any, ...] = ()
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def linear_map(self) -> Callable[[Any, Any], Any]:
        """(x, kernel) -> the linear map of an AFFINE node; raises RuleError for nodes of other kinds."""
        if self.node.affine is None:
            raise RuleError(f"Node {self.node.path!r} has no linear map.", expected="an AFFINE node")
        return self.node.affine.linear

    @property
    def group(self) -> Group:
        """Which entries of a SOFTMAX or NORM node share a statistic; raises RuleError where that is not known."""
        if self.node.group is None:
            raise RuleError(
                f"Nothing says which entries node {self.node.path!r} computes with together.",
                expected="a SOFTMAX or NORM node whose groups are known",
            )
        return self.node.group

    def pullback(self, cotangent: Any) -> list[Any]:
        """The node's vector-Jacobian product, recorded in the forward pass: no forward computation is repeated.

        Args:
            cotangent: tensor shaped like the output (for several outputs: one tensor or None per output).

        Returns:
            One tensor per input, None for integer inputs.
        """
        return self.pull(cotangent if isinstance(cotangent, (tuple, list)) else (cotangent,))

    @cached_property
    def linear(self) -> Any:
        """The output without the part that no input is responsible for: z = x W, without bias."""
        if self.linear_output is not None:
            return self.linear_output
        if self.node.kind in (Kind.SCALE, Kind.NORM):
            operands = zip(self.inputs, self.active, strict=True)
            return self.outputs[0] - self.node.run(*[ops.zeros_like(x) if active else x for x, active in operands])[0]
        return self.outputs[0]


class Rule(ABC):
    """How one node hands relevance down. Rules are frozen dataclasses: their fields are their hyperparameters.

    Class attributes:
        kinds: kinds of nodes that the rule is defined for.
        keeps_zeros: whether an input of value 0 always receives relevance 0, whatever the output's relevance.
        moves: whether relevance only moves to where the value came from, so that an output without relevance hands
            none to the inputs that made it.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset(Kind)
    keeps_zeros: ClassVar[bool] = False
    moves: ClassVar[bool] = False

    def check(self, node: Node, facts: Facts) -> None:
        """Raise RuleError if the rule is not defined for this node."""
        if node.kind not in self.kinds or (node.kind is Kind.AFFINE and node.affine is None):
            names = ", ".join(sorted(kind.value for kind in self.kinds))
            raise RuleError(
                f"Rule {self!r} does not apply to node {node.path!r}.",
                expected=f"a node of kind {names}",
                received=f"{node.kind.value} ({node.op})",
                fix=f'give it another rule: composite.but(("{node.path}", kxai.rules.Gradient())).',
            )

    def check_inputs(self, values: Any) -> None:  # noqa: B027 - most rules accept any input
        """Raise InputError if the rule is not defined for these values of the model's input (a NumPy array)."""

    def bounds(self) -> tuple[Any, Any] | None:
        """Lowest and highest values that :meth:`check_inputs` accepts, as a graph compares them; None: any."""
        return None

    def reaches(self, node: Node, facts: Facts) -> tuple[bool, ...]:
        """Per input of the node, whether it may receive relevance; what only others read needs no rule."""
        return (True,) * len(node.inputs)

    @abstractmethod
    def propagate(self, step: Step, relevance: Any) -> Sequence[Any]:
        """Relevance of the inputs.

        Args:
            step: the node and its values.
            relevance: tensor shaped like the output (for several outputs: one tensor or None per output).

        Returns:
            One tensor per input, shaped like it; None for inputs that receive nothing.
        """


@final
@dataclass(frozen=True)
class Stabilizer:
    """Keeps a denominator away from 0: ``z + epsilon * sign(z)`` with sign(0) = +1 (Bach 2015, Eq. 58).

    Args:
        epsilon: >= 0, default 1e-6, in units of z.
        relative: if True, epsilon is in units of the root mean square of z over each sample.
        clip: if True, the magnitude of z is raised to at least epsilon instead of increased by it.
    """

    epsilon: float = 1e-6
    relative: bool = False
    clip: bool = False

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon, least=0)

    def __call__(self, z: Any, sign: int = 0) -> Any:
        """Stabilize ``z``; ``sign`` is +1 or -1 where the sign of z is known, 0 where it is not."""
        if self.epsilon == 0:
            return z
        epsilon: Any = self.epsilon
        if self.relative:
            axes = list(range(1, len(z.shape)))
            epsilon = epsilon * ops.sqrt(ops.mean(ops.square(z), axis=axes, keepdims=True))
        if self.clip:
            raised = ops.maximum(ops.abs(z), epsilon)
            return ops.where(z < 0, -raised, raised)
        if sign:
            return z + sign * epsilon
        return ops.where(z < 0, z - epsilon, z + epsilon)


def quotient(numerator: Any, denominator: Any) -> Any:
    """``numerator / denominator``, and 0 where the denominator is 0: a term without value sends nothing back."""
    return ops.divide_no_nan(numerator, denominator)


def times(inputs: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
    """Each input times its gradient; None where there is no gradient."""
    return [None if g is None else x * g for x, g in zip(inputs, gradients, strict=True)]
