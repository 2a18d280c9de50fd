"""The derivative of the explained quantity at a cut, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
from keras import ops

from kxai import backend
from kxai.analyzers.sampling.cuts import Cut
from kxai.analyzers.scores import Explained, input_spec
from kxai.graph.cut import upto
from kxai.reverse import backward, forward
from kxai.targets import Target


@final
class Slopes:
    """``dF/dh`` at points, compiled once for all numbers of points.

    Args:
        cut: where the derivative is taken, at the values h.
        target: gives the form of F; its numbers are arguments of each call.
        inner: whether points are inputs x of the model, of which h(x) is computed; else they are values of h (after the
            model's inputs that count as constants).
        along: for inner points: each comes with a direction v, and ``dF/dh`` times ``dh/dx v`` is returned.
        traced: called whenever the function is traced.
        jit: compile with XLA.
    """

    def __init__(
        self, cut: Cut, target: Target, *, inner: bool, along: bool, traced: Callable[[], None], jit: bool
    ) -> None:
        self._cut, self._explained, self._traced = cut, Explained(cut.plan.graph, target), traced
        self._before = upto(cut.graph, cut.edges) if inner else None
        self._along = along
        edges = cut.graph.inputs if inner else cut.plan.graph.inputs
        inputs = [input_spec(edge) for edge in (*edges, *(edges if along else ()))]
        self._function: Callable[..., Any] = backend.compile(self.run, (inputs, self._explained.specs), jit)

    def __call__(self, inputs: list[np.ndarray], data: list[np.ndarray]) -> list[np.ndarray]:
        """One array per edge of the cut.

        Args:
            inputs: points (and directions), one row each.
            data: the target's numbers, one row per point.
        """
        return [backend.to_numpy(tensor) for tensor in self._function(inputs, data)]

    def run(self, inputs: list[Any], data: list[Any]) -> list[Any]:
        """The same, of tensors, inside whatever compiled function calls it."""
        self._traced()
        plan, slopes = self._cut.plan, None
        if self._before is not None:
            inputs, slopes = self._moved_in(inputs)
        run = forward(plan, inputs)
        weights, _, _ = self._explained.weights([run.values[edge] for edge in plan.graph.explained], data)
        arrived = backward(plan, run, {plan.graph.explained[i]: t for i, t in weights.items()}).inputs
        found = arrived[len(self._cut.held) :]
        return found if slopes is None else [ops.multiply(a, b) for a, b in zip(found, slopes, strict=True)]

    def _moved_in(self, inputs: list[Any]) -> tuple[list[Any], list[Any] | None]:
        """From inputs of the model to what the plan of the cut takes, and dh/dx v."""
        before: Any = self._before

        def values(*tensors: Any) -> list[Any]:
            found = before.values(tensors)
            return [found[edge] for edge in before.outputs]

        count = len(before.inputs)
        points, directions = inputs[:count], inputs[count:]
        inner, slopes = backend.jvp(values, points, directions) if self._along else (values(*points), None)
        return [*(points[i] for i in self._cut.held), *inner], slopes
