"""Methods that combine the results at many points per sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from kxai.analyzers.analyzer import Analyzer, Compiled, Step, Stepwise
from kxai.analyzers.backward import remembered
from kxai.analyzers.gradient import GradientAnalyzer
from kxai.analyzers.recorded import Recorded
from kxai.analyzers.sampling.cuts import check_movable, cut_at, portable
from kxai.analyzers.sampling.fields import Arrays, Clean, Field, GradientField
from kxai.composites import Plan
from kxai.errors import ArgumentError, InputError
from kxai.explanation import Explanation
from kxai.targets import Target


class Walk(ABC):
    """The points of one batch, and how the results there add up.

    Attributes:
        count: points per sample.
        like: per array of points, an array whose shape (after the first axis) and dtype are theirs.
        base: of the explanation.
    """

    count: int
    like: Arrays
    base: np.ndarray

    @abstractmethod
    def put(self, sample: int, start: int, stop: int, out: Arrays) -> None:
        """Write the points ``start`` to ``stop`` of a sample; every sample's points are asked for in order."""

    @abstractmethod
    def fold(self, sample: int, start: int, stop: int, results: Arrays) -> Arrays:
        """What the results at these points add to the sample's totals, flat and in float64."""

    def finish(self, totals: Arrays) -> Arrays:
        """Relevance of a sample, from its totals."""
        return totals


# (where results come from, a batch, rows at once) -> its points.
MakeWalk = Callable[[Any, Clean, int], Walk]


class SamplingAnalyzer(GradientAnalyzer):
    """A weighted combination of results at many points per sample; of the gradient, unless a subclass says otherwise.

    The target is fixed at the clean input. Points are made when they are needed and computed in chunks of
    ``batch_size`` rows, in which several samples may meet; sums are kept in float64. So the memory does not depend on
    the number of points, and the result not on the batch size.

    Args:
        model: a built Keras model.
        layer: where the gradient is taken, None: at the inputs.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        jit: compile with XLA. Default False.
    """

    def __init__(self, model: Any, *, layer: Any = None, strip_softmax: bool = True, jit: bool = False) -> None:
        super().__init__(model, strip_softmax=strip_softmax, jit=jit)
        self._layer = list(layer) if isinstance(layer, tuple) else layer
        self._fields: dict[Any, GradientField] = {}

    def bind(self, model: Any) -> Analyzer:
        return type(self)(model, **self._portable())

    def _portable(self) -> dict[str, Any]:
        """Hyperparameters that hold for other models: a layer of this one becomes its path."""
        given = self.hyperparameters()
        layers = self._layer if isinstance(self._layer, list) else [self._layer]
        own = any(isinstance(layer, keras.Layer) for layer in layers)
        return {**given, "layer": portable(self.plan(), self._layer)} if own else given

    @abstractmethod
    def _walks(self, moved: Any, inputs: Any, count: int | None) -> MakeWalk:
        """How to make the points of a batch; raises all errors of the arguments.

        Args:
            moved: nested specs of what is changed.
            inputs: nested specs of the model's inputs.
            count: number of samples of the call, None if not known.
        """

    def _inner(self) -> bool:
        """Whether the inputs are changed, though the gradient is taken at ``layer``."""
        return False

    def _along(self) -> bool:
        """Whether points come with directions."""
        return False

    def _between(self) -> str:
        """What values between two inputs are needed for; "" if they are not."""
        return self.name

    def _field(self, specs: Any, target: Any, count: int | None, size: int) -> tuple[Field, Any, Target]:
        """(what is evaluated, specs of what is changed, resolved target)."""
        plan = self._plan_for(specs)
        _check_stateless(plan)
        resolved = self._targeted(plan.graph, target, count)

        def make() -> GradientField:
            cut = cut_at(plan, self._layer, specs)
            return GradientField(
                plan, cut, resolved, target, inner=self._inner(), along=self._along(), traced=self._count_trace,
                jit=self._jit,
            )  # fmt: skip

        with self._lock:
            field = remembered(self._fields, (tuple(spec.shape for spec in tree.flatten(specs)), resolved.form), make)
        if self._between():
            moved = cut_at(plan, None, specs) if self._inner() else field.cut
            check_movable(moved, specs, self._between())
        return field, specs if self._inner() else field.structure, resolved

    def stepwise(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool, batch_size: int
    ) -> tuple[Stepwise, Target]:
        for name, given in (("layers", globs), ("audit", audit)):
            if given:
                raise ArgumentError(
                    f"{self.name} adds up many explanations; nothing is kept of what happens within.",
                    expected=f"no {name}=",
                    received=f"{name}={given!r}",
                )
        field, moved, resolved = self._field(specs, target, count, batch_size)
        make = self._walks(moved, specs, count)

        def run(batch: Arrays, data: Arrays, rows: np.ndarray) -> Iterator[Step]:
            clean = field.clean(batch, data, rows, batch_size)
            walk = make(field, clean, batch_size)
            finished: list[Arrays] = []
            for share, relevance in _walked(field, clean, walk, batch_size):
                finished += relevance
                done = len(finished) == len(rows)
                yield share, self._collect(field, clean, walk, finished) if done else None

        return run, resolved

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        # What the gradient alone is recorded as would be another method.
        return Analyzer.recorded(self, specs, target)

    def _collect(self, field: Field, clean: Clean, walk: Walk, finished: list[Arrays]) -> Explanation:
        arrays = [np.stack(column) for column in zip(*finished, strict=True)]
        return Explanation(
            relevance=tree.pack_sequence_as(field.structure, arrays),
            outputs=clean.outputs,
            target=clean.target,
            score=clean.score,
            base=walk.base,
            config={**self.config(), "notes": list(clean.notes)},
        )

    def _prepare(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool
    ) -> tuple[Compiled, Target]:
        run, resolved = self.stepwise(specs, target, count, globs, audit, batch_size=32)

        def whole(batch: Arrays, data: Arrays, rows: np.ndarray) -> Explanation:
            (explanation,) = (part for _, part in run(batch, data, rows) if part is not None)
            return explanation

        return whole, resolved


def _check_stateless(plan: Plan) -> None:
    for node in plan.graph.nodes:
        if node.loop is not None and node.loop.order.batch is not None:
            raise InputError(
                f"Layer {node.path!r} is stateful: it holds the states of {node.loop.order.batch} samples, and the "
                "points of one sample are not computed in batches of that size.",
                expected="a layer that is not stateful",
                received=f"stateful=True in {node.path!r}",
                fix="build the model again with stateful=False and give it the same weights.",
            )


def _walked(field: Field, clean: Clean, walk: Walk, size: int) -> Iterator[tuple[float, list[Arrays]]]:
    """After every chunk of points: (its share of all, relevance of the samples that it completed)."""
    total = walk.count * len(clean.rows)
    buffers = [np.empty((min(size, total), *array.shape[1:]), array.dtype) for array in walk.like]
    totals: Arrays = []
    for first in range(0, total, size):
        last = min(first + size, total)
        samples = np.arange(first, last) // walk.count
        points = [buffer[: last - first] for buffer in buffers]
        pieces = list(_pieces(first, last, walk.count))
        for sample, start, stop, at in pieces:
            walk.put(sample, start, stop, [array[at : at + stop - start] for array in points])
        results = field.at(points, samples, clean)
        finished = []
        for sample, start, stop, at in pieces:
            parts = walk.fold(sample, start, stop, [array[at : at + stop - start] for array in results])
            totals = [a + b for a, b in zip(totals, parts, strict=True)] if start else parts
            if stop == walk.count:
                pairs = zip(walk.finish(totals), results, strict=True)
                finished.append([flat.reshape(array.shape[1:]).astype(array.dtype) for flat, array in pairs])
        yield (last - first) / total, finished


def _pieces(first: int, last: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Parts of the rows ``first`` to ``last`` that belong to one sample each: (sample, its points' start and stop,
    place in the rows)."""
    row = first
    while row < last:
        sample, start = divmod(row, count)
        stop = min(count, start + last - row)
        yield sample, start, stop, row - first
        row += stop - start


def weighted_sum(weights: np.ndarray, results: np.ndarray) -> np.ndarray:
    """Sum over the first axis, flat, in float64."""
    flat = results.reshape(len(results), -1).astype(np.float64, copy=False)
    total: np.ndarray = weights @ flat
    return total
