"""A compiled plan: (inputs, target) -> outputs, score, relevance, in one function for all batch sizes."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.scores import Explained, Spec, input_spec, per_sample
from kxai.composites.plan import Plan
from kxai.reverse import Finish, Forward, backward, compared, compared_edges, forward
from kxai.targets import Target

TARGET = "(target)"
"""The entry of absorbed relevance that a callable target has of its own."""


@final
class Start(enum.Enum):
    """What relevance starts with at the explained output y, for target weights t."""

    VALUE = "value"  # t y
    ONE = "one"  # t
    POSITIVE_VALUE = "positive value"  # t max(0, y)

    def of(self, weights: Any, output: Any) -> Any:
        """The starting relevance."""
        if self is Start.ONE:
            return weights
        return weights * (ops.relu(output) if self is Start.POSITIVE_VALUE else output)


@final
@dataclass(frozen=True, eq=False)
class Readout:
    """Relevance that is not what arrives at the inputs.

    Attributes:
        keep: node paths whose signal is needed.
        read: (forward run, signal by node path, what arrived at the inputs) -> relevance per model input.
        layers: (forward run, signal by node path) -> what is returned in ``layers``, by path; None: nothing.
    """

    keep: tuple[str, ...]
    read: Callable[[Forward, dict[str, Any], list[Any]], list[Any]]
    layers: Callable[[Forward, dict[str, Any]], dict[str, Any]] | None = None


@final
class Program:
    """A plan compiled for one form of target.

    Args:
        plan: the plan.
        target: gives the form; its numbers are arguments of each call.
        start: what relevance starts with.
        finish: see :func:`kxai.reverse.backward`.
        keep: node paths whose relevance is returned.
        readout: how relevance is read off, None: as it arrives at the inputs.
        audit: whether absorbed relevance is returned per node.
        jit: compile with XLA.
        traced: called whenever the function is traced (once, whatever batch sizes follow).
        references: specs of references that the inputs are compared with, one per input; perhaps followed by those of
            the values that :class:`ReferenceValues` computed of them. Default: none.
    """

    def __init__(
        self, plan: Plan, target: Target, *, start: Start, finish: Finish | None, keep: tuple[str, ...],
        readout: Readout | None, audit: bool, jit: bool, traced: Callable[[], None], references: Sequence[Spec] = (),
    ) -> None:  # fmt: skip
        self._traced = traced
        self._plan, self._start, self._finish = plan, start, finish
        self._keep, self._readout, self._audit = keep, readout, audit
        self._explained = Explained(plan.graph, target)
        inputs = [input_spec(edge) for edge in plan.graph.inputs]
        self._function: Callable[..., Any] = backend.compile(
            self.run, (inputs, self._explained.specs, list(references)), jit
        )

    def __call__(
        self, inputs: list[np.ndarray], data: list[np.ndarray], references: Sequence[np.ndarray] = ()
    ) -> dict[str, Any]:
        """Run one batch; the result is a dict of arrays."""
        result = self._function(inputs, data, list(references))
        result = tree.map_structure(backend.to_numpy, result)
        return result

    def run(self, inputs: list[Any], data: list[Any], references: list[Any] | None = None) -> dict[str, Any]:
        """The same, of tensors, inside whatever compiled function calls it."""
        self._traced()
        graph = self._plan.graph
        count = len(inputs)
        if references:
            run = compared(self._plan, inputs, references[:count], known=references[count:])
        else:
            run = forward(self._plan, inputs)
        weights, score, chosen = self._explained.weights([run.values[edge] for edge in graph.explained], data)
        base = self._base(run, weights, score)
        explained = {graph.explained[i]: y for i, y in weights.items()}
        start = {edge: self._start.of(t, run.values[edge]) for edge, t in explained.items()}
        read = self._readout
        keep = self._keep if read is None else tuple(dict.fromkeys((*self._keep, *read.keep)))
        back = backward(self._plan, run, start, finish=self._finish, keep=keep, audit=self._audit)
        if self._audit and self._explained.target.function is not None:
            # A callable is linearised, too: what it adds does not come from the outputs.
            parts = [t * run.moved(edge) for edge, t in explained.items()]
            back.absorbed[TARGET] = score - base - sum(map(per_sample, parts))
        shown = {} if read is None or read.layers is None else read.layers(run, back.kept)
        return {
            "outputs": [run.values[edge] for edge in graph.outputs],
            "relevance": back.inputs if read is None else read.read(run, back.kept, back.inputs),
            "score": score,
            "base": base,
            "chosen": chosen,
            "kept": {**{path: back.kept[path] for path in self._keep}, **shown},
            "absorbed": back.absorbed,
        }

    def _base(self, run: Forward, weights: dict[int, Any], score: Any) -> Any:
        """The explained quantity at the reference."""
        if run.reference is None:
            return ops.zeros_like(score)
        outputs = [run.reference.values[edge] for edge in self._plan.graph.explained]
        return self._explained.value(outputs, weights) + ops.zeros_like(score)


@final
class ReferenceValues:
    """What a plan computes of a reference that is the same for all samples: once for any number of batches.

    Args:
        plan: the plan.
        specs: of the reference, one per input.
        jit: compile with XLA.
        traced: called whenever the function is traced.
    """

    def __init__(self, plan: Plan, specs: Sequence[Spec], *, jit: bool, traced: Callable[[], None]) -> None:
        self._plan, self._traced = plan, traced
        self._function: Callable[..., Any] = backend.compile(self._run, (list(specs),), jit)

    def __call__(self, references: Sequence[np.ndarray]) -> list[Any]:
        """The reference itself, followed by the values, as tensors."""
        return [*references, *self._function(list(references))]

    def _run(self, references: list[Any]) -> list[Any]:
        self._traced()
        values = forward(self._plan, references).values
        return [values[edge] for edge in compared_edges(self._plan)]
