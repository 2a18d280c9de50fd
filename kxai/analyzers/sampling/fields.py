"""What is evaluated at many points per sample: a gradient, or another analyzer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, final

import numpy as np
from keras import ops, tree

from kxai.analyzers.analyzer import Analyzer, Step, Stepwise
from kxai.analyzers.backward import chosen_target
from kxai.analyzers.references import References
from kxai.analyzers.sampling.cuts import Cut
from kxai.analyzers.sampling.slopes import Slopes
from kxai.analyzers.scores import Scorer, input_spec
from kxai.composites import Plan
from kxai.explanation import Explanation
from kxai.graph.canonize import prune
from kxai.targets import Part, Target

Arrays = list[np.ndarray]


@final
@dataclass(frozen=True, eq=False)
class Clean:
    """A batch as it was given, before anything is changed.

    Attributes:
        inputs: the model's inputs.
        rows: which samples of the whole call they are.
        values: what will be changed: the inputs, or outputs of layers.
        data: the target, fixed at these inputs, one row per sample.
        outputs, target, score, base: as of an explanation.
        notes: of an explanation.
    """

    inputs: Arrays
    rows: np.ndarray
    values: Arrays
    data: Arrays
    outputs: Any
    target: Any
    score: np.ndarray
    base: np.ndarray
    notes: Sequence[str] = field(default=())


class Field(ABC):
    """A function of points that is evaluated for every sample at many of them.

    Attributes:
        structure: nested like the results of one point, one leaf per array.
    """

    structure: Any

    @abstractmethod
    def clean(self, batch: Arrays, data: Arrays, rows: np.ndarray, size: int) -> Clean:
        """Look at a batch, no more than ``size`` samples at once; fixes the target."""

    @abstractmethod
    def at(self, points: Arrays, samples: np.ndarray, clean: Clean) -> Arrays:
        """Results at points, one row each.

        Args:
            points: values in place of ``clean.values``, one row per point.
            samples: per point, which sample of the batch it belongs to.
            clean: the batch.
        """


@final
class GradientField(Field):
    """The gradient at a cut. Compiles three functions, all of them for every number of rows.

    Args:
        plan: the gradient of the whole model.
        cut: where the gradient is taken.
        target: gives the form.
        asked: the target as the user gave it.
        inner: whether points are inputs of the model though the gradient is taken further in.
        along: whether points come with directions, see :class:`Slopes`.
        traced: called whenever a function is traced.
        jit: compile with XLA.
    """

    def __init__(
        self, plan: Plan, cut: Cut, target: Target, asked: Any, *, inner: bool, along: bool,
        traced: Callable[[], None], jit: bool,
    ) -> None:  # fmt: skip
        self.cut, self.structure = cut, cut.specs
        self._plan, self._target, self._asked = plan, target, asked
        fixed = replace(target, parts=tuple(replace(part, form="weights") for part in target.parts))
        self.moved = cut.graph.inputs if inner else cut.edges
        self._held = () if inner else cut.held
        self._slopes = Slopes(cut, fixed, inner=inner, along=along, traced=traced, jit=jit)
        graph = plan.graph
        self._read = () if self.moved == graph.inputs else self.moved
        self._scorer = Scorer(graph, target, traced, jit, read=self._read)
        graph = graph if inner else cut.plan.graph
        self._scores = Scorer(prune(replace(graph, outputs=graph.explained)), fixed, traced, jit)

    def clean(self, batch: Arrays, data: Arrays, rows: np.ndarray, size: int) -> Clean:
        self._plan.check_inputs(batch)
        found = _joined(self._scorer(*part) for part in _chunks((batch, data), size))
        graph = self._plan.graph
        return Clean(
            inputs=batch,
            rows=rows,
            values=self._typed(found["read"]) if self._read else batch,
            data=[_as(x, "float32") for x in found["weights"]],
            outputs=tree.pack_sequence_as(graph.output_structure, found["outputs"]),
            target=chosen_target(found["chosen"], self._target, graph, self._asked),
            score=found["score"],
            base=np.zeros(len(rows)),
            notes=self._plan.notes,
        )

    def at(self, points: Arrays, samples: np.ndarray, clean: Clean) -> Arrays:
        return self._slopes([*self._constants(clean, samples), *points], [t[samples] for t in clean.data])

    def _constants(self, clean: Clean, samples: np.ndarray) -> Arrays:
        return [clean.inputs[i][samples] for i in self._held]

    def values(self, inputs: Arrays, size: int) -> Arrays:
        """What is changed, for other inputs of the model, no more than ``size`` at once."""
        data = [np.repeat(part.data[:1], len(inputs[0]), axis=0) for part in self._target.parts]
        found = _joined(self._scorer(*part) for part in _chunks((inputs, data), size))
        return self._typed(found["read"]) if self._read else inputs

    def _typed(self, values: Arrays) -> Arrays:
        return [_as(x, input_spec(edge).dtype) for x, edge in zip(values, self._read, strict=True)]

    def base(self, references: Arrays, clean: Clean, size: int) -> np.ndarray:
        """The explained quantity at references, averaged over them, per sample.

        Args:
            references: per changed array (R, 1 or samples, ...).
            clean: the batch.
            size: rows computed at once.
        """
        count, samples = max(map(len, references)), len(clean.rows)
        if not self._held and all(array.shape[1] == 1 for array in references):
            # The outputs are the same for all samples; what is explained of them need not be.
            data = [np.repeat(t[:1], count, axis=0) for t in clean.data]
            points = [np.broadcast_to(array[:, 0], (count, *array.shape[2:])) for array in references]
            found = _joined(self._scores(*part) for part in _chunks((points, data), size))
            if self._target.function is not None:
                return np.full(samples, found["score"].mean(dtype=np.float64))
            outputs = [found["outputs"][part.output].mean(axis=0, dtype=np.float64) for part in self._target.parts]
            totals = [t.reshape(samples, -1) @ y.ravel() for t, y in zip(clean.data, outputs, strict=True)]
            return np.asarray(sum(totals))
        total = np.zeros(samples)
        for index in range(count):
            points = [np.broadcast_to(array[index % len(array)], (samples, *array.shape[2:])) for array in references]
            inputs = [*self._constants(clean, np.arange(samples)), *points]
            total += _joined(self._scores(*part) for part in _chunks((inputs, clean.data), size))["score"]
        return total / count

    def encoded(self, references: References, clean: Clean, size: int) -> Arrays:
        """References that are inputs of the model, as what is changed: per array (R, 1 or samples, ...)."""
        found = references.of(clean.inputs, clean.rows)
        count, samples = (max(array.shape[axis] for array in found) for axis in (0, 1))
        inputs = [
            np.broadcast_to(array, (count, samples, *array.shape[2:])).reshape(-1, *array.shape[2:]) for array in found
        ]
        return [x.reshape(count, samples, *x.shape[1:]) for x in self.values(inputs, size)]


@final
class AnalyzerField(Field):
    """Another analyzer's relevance; its target is fixed at the clean inputs.

    Args:
        analyzer: the other analyzer.
        specs, target, count, size: of the call.
    """

    def __init__(self, analyzer: Analyzer, specs: Any, target: Any, count: int | None, size: int) -> None:
        self.structure = specs
        self._analyzer = analyzer
        self._prepared = partial(analyzer.stepwise, specs, count=count, globs=(), audit=False, batch_size=size)
        self._run, self.resolved = self._prepared(target=target)
        self._fixed: Stepwise | None = None

    def clean(self, batch: Arrays, data: Arrays, rows: np.ndarray, size: int) -> Clean:
        parts = [_last(self._run(*part)) for part in _chunks((batch, data, rows), size)]
        whole = self._analyzer._finished(Explanation.concatenate(parts))
        outputs, target = tree.flatten(whole.outputs), whole.target
        several = list(target.values()) if isinstance(target, Mapping) else [target]
        given = zip(several, self.resolved.parts, strict=True) if self.resolved.parts else ()
        return Clean(
            inputs=batch,
            rows=rows,
            values=batch,
            data=[_weights(np.asarray(chosen), outputs[part.output], part) for chosen, part in given],
            outputs=whole.outputs,
            target=whole.target,
            score=whole.score,
            base=whole.base,
            notes=list(whole.config["notes"]),
        )

    def at(self, points: Arrays, samples: np.ndarray, clean: Clean) -> Arrays:
        if self._fixed is None:
            pairs = zip(self.resolved.parts, clean.data, strict=True)
            parts = tuple(replace(part, form="weights", data=t[:1]) for part, t in pairs)
            self._fixed, _ = self._prepared(target=replace(self.resolved, parts=parts))
        found = _last(self._fixed(points, [t[samples] for t in clean.data], clean.rows[samples]))
        return [np.asarray(array) for array in tree.flatten(found.relevance)]


def _weights(chosen: np.ndarray, output: np.ndarray, part: Part) -> np.ndarray:
    """What was chosen of an output, as weights over it."""
    if part.form == "weights":
        return _as(chosen, "float32")
    if output.ndim == 1:
        return np.ones_like(output, "float32")
    return np.asarray(ops.one_hot(chosen, output.shape[-1]))


def _chunks(arrays: Any, size: int) -> Iterator[Any]:
    """Nested arrays of equal lengths, ``size`` rows at a time."""
    length = len(tree.flatten(arrays)[0])
    for start in range(0, length, size):
        whole = start == 0 and length <= size
        yield arrays if whole else tree.map_structure(lambda x, i=start: x[i : i + size], arrays)


def _joined(parts: Iterable[Any]) -> Any:
    """Nested arrays, one row after the other."""
    collected = list(parts)
    return collected[0] if len(collected) == 1 else tree.map_structure(lambda *x: np.concatenate(x), *collected)


def _last(steps: Iterator[Step]) -> Explanation:
    found = [explanation for _, explanation in steps if explanation is not None]
    return found[-1]


def _as(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(dtype, copy=False)
