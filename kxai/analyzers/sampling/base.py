"""Methods that combine the results at many points per sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.analyzer import Compiled, Step, Stepwise
from kxai.analyzers.backward import remembered
from kxai.analyzers.gradient import GradientAnalyzer
from kxai.analyzers.recorded import Recorded
from kxai.analyzers.references import SERVED
from kxai.analyzers.sampling.calls import AtOnce, Calls, Recording
from kxai.analyzers.sampling.cuts import check_movable, cut_at, portable
from kxai.analyzers.sampling.fields import Arrays, Clean, Field, GradientField, TensorField
from kxai.composites import Plan
from kxai.errors import ArgumentError, InputError
from kxai.explanation import Explanation
from kxai.targets import Target

A = TypeVar("A", bound="SamplingAnalyzer")


class Walk(ABC):
    """The points of one batch, and how the results there add up; of arrays, or of tensors where it is recorded.

    Attributes:
        weights: of the points of a sample, (points,) in float64.
        base: of the explanation.
        sums: how many totals there are per array of results.
        relative: whether results are taken relative to that of the first point.
    """

    weights: Any
    base: Any
    sums: int = 1
    relative: bool = False

    @abstractmethod
    def at(self, samples: Any, points: Any) -> list[Any]:
        """Values at points, one row each.

        Args:
            samples: (rows,), which sample of the batch; or (1,), the same for all.
            points: (rows,), which of its points.
        """

    def counted(self, samples: Any, points: Any, results: list[Any], first: list[Any]) -> list[Any]:
        """What is summed of the results at these points, weighted; one row each.

        Args:
            samples, points: as of :meth:`at`.
            results: there.
            first: results at each sample's first point, as many rows as ``samples``; empty unless ``relative``.
        """
        return results

    def finish(self, totals: list[Any]) -> list[Any]:
        """Relevance, from the totals."""
        return totals


# (where results come from, a batch, how functions are called) -> its points.
MakeWalk = Callable[[Any, Clean, Calls], Walk]


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

    def bind(self: A, model: Any) -> A:
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
            count: number of samples of the call, None if not known, SERVED if it is recorded.
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
        return self._gradient_field(specs, target, count)

    def _gradient_field(self, specs: Any, target: Any, count: int | None) -> tuple[GradientField, Any, Target]:
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
            field = remembered(self._fields, (plan, resolved.form), make)
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
        make, calls = self._walks(moved, specs, count), AtOnce(batch_size)

        def run(batch: Arrays, data: Arrays, rows: np.ndarray) -> Iterator[Step]:
            clean = field.clean(batch, data, rows, calls)
            walk = make(field, clean, calls)
            finished: list[Arrays] = []
            for share, relevance in _walked(field, clean, walk, calls):
                finished += relevance
                done = len(finished) == len(rows)
                yield share, self._collect(field, clean, walk, finished) if done else None

        return run, resolved

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        field, moved, resolved = self._recorded_field(specs, target)
        make, calls = self._walks(moved, specs, SERVED), Recording()

        def run(inputs: list[Any], data: list[Any]) -> dict[str, Any]:
            clean = field.clean(inputs, data, None, calls)
            walk = make(field, clean, calls)
            return {
                "outputs": tree.flatten(clean.outputs),
                "relevance": _looped(field, clean, walk, calls),
                "score": clean.score,
                "base": walk.base,
                "chosen": clean.chosen,
            }

        layers = [spec.name for spec in tree.flatten(field.structure)] if self._layer is not None else []
        return Recorded(field.graph, resolved, run, tuple(layers))

    def _recorded_field(self, specs: Any, target: Any) -> tuple[TensorField, Any, Target]:
        """As :meth:`_field`, for a recorded function."""
        return self._gradient_field(specs, target, None)

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


def _walked(field: Field, clean: Clean, walk: Walk, calls: AtOnce) -> Iterator[tuple[float, list[Arrays]]]:
    """After every chunk of points: (its share of all, relevance of the samples that it completed)."""
    count = len(walk.weights)
    total = count * len(clean.rows)
    totals: Arrays = []
    first: Arrays = []
    for start in range(0, total, calls.size):
        stop = min(start + calls.size, total)
        pieces = [(begin // count, begin % count, end - begin) for begin, end in _pieces(start, stop, count)]
        points = [walk.at(np.array([sample]), np.arange(at, at + size)) for sample, at, size in pieces]
        rows = [column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*points, strict=True)]
        results = field.at(rows, np.arange(start, stop) // count, clean, calls)
        finished, place = [], 0
        for sample, at, size in pieces:
            own = [array[place : place + size] for array in results]
            place += size
            if at == 0:
                first = [array[:1] for array in own] if walk.relative else []
            found = walk.counted(np.array([sample]), np.arange(at, at + size), own, first)
            parts = [_summed(walk.weights[at : at + size], array) for array in found]
            totals = [a + b for a, b in zip(totals, parts, strict=True)] if at else parts
            if at + size == count:
                pairs = zip(walk.finish(totals), results, strict=True)
                finished.append([sums.astype(array.dtype) for sums, array in pairs])
        yield (stop - start) / total, finished


def _looped(field: TensorField, clean: Clean, walk: Walk, calls: Recording) -> list[Any]:
    """The same in a loop over the points; each step computes one of every sample."""
    count, weights = ops.shape(clean.inputs[0])[0], calls.given(walk.weights)
    samples = ops.arange(count, dtype="int32")
    results = field.results(clean)
    zeros = [ops.zeros((count, *spec.shape[1:]), "float64") for spec in [*results] * walk.sums]
    first = [ops.zeros((count, *spec.shape[1:]), spec.dtype) for spec in results] if walk.relative else []

    def step(index: Any, carried: Any) -> Any:
        totals, first = carried
        points = ops.zeros_like(samples) + index
        found = field.at(walk.at(samples, points), samples, clean, calls)
        first = [ops.where(index == 0, new, old) for new, old in zip(found, first, strict=False)]
        counted = walk.counted(samples, points, found, first)
        parts = [weights[index] * ops.cast(x, "float64") for x in counted]
        return [a + b for a, b in zip(totals, parts, strict=True)], first

    totals, _ = backend.repeat(step, walk.weights.shape[0], (zeros, first))
    return [ops.cast(total, spec.dtype) for total, spec in zip(walk.finish(totals), results, strict=True)]


def _pieces(start: int, stop: int, count: int) -> Iterator[tuple[int, int]]:
    """Parts of the rows ``start`` to ``stop`` that belong to one sample each."""
    while start < stop:
        end = min(stop, start - start % count + count)
        yield start, end
        start = end


def _summed(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The weighted sum, in float64."""
    flat = rows.reshape(len(rows), -1).astype(np.float64, copy=False)
    total: np.ndarray = weights @ flat
    return total.reshape(rows.shape[1:])
