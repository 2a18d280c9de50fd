"""The nouns of recurrent layers: one step as a graph, and how the steps follow each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from kxai.graph.graph import Graph


@final
@dataclass(frozen=True, eq=False)
class Order:
    """How the steps of a loop follow each other.

    Attributes:
        start: batch size -> states before the first step, where none are given (flat).
        go_backwards: whether the last element of the sequence comes first.
        return_sequences: whether the first output holds every step, or the last alone.
        zero_masked: whether the output of a masked step is 0; else it is the output of the step before.
        batch: the only batch size that there are states for, or None.
    """

    start: Callable[[Any], list[Any]]
    go_backwards: bool = False
    return_sequences: bool = False
    zero_masked: bool = False
    batch: int | None = None


@final
@dataclass(frozen=True, eq=False)
class RecordedStep:
    """One step as it was recorded: (x_t, states) -> (y_t, states), with the order of the steps.

    The call that holds it has the arguments ``(sequence, mask or None, *given states)``.
    """

    inputs: list[Any]
    calls: list[Any]
    outputs: list[Any]
    order: Order


@final
@dataclass(frozen=True, eq=False)
class Loop:
    """What a recurrent node does at each step.

    Attributes:
        body: graph of one step, (x_t, *states) -> (y_t, *new states).
        order: how the steps follow each other.
        arguments: tensors of the node's inputs -> (sequence, mask or None, *given states).
        sources: positions, among the node's inputs, of the sequence and of each given state; None for constants.
    """

    body: Graph
    order: Order
    arguments: Callable[..., Sequence[Any]]
    sources: tuple[int | None, ...]

    def states(self, given: Sequence[Any], batch: Any) -> list[Any]:
        """The states before the first step."""
        return list(given) if given else self.order.start(batch)
