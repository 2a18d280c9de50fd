"""What is evaluated at many points per sample: a gradient, or another analyzer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, final

import keras
import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.analyzer import Analyzer, Step, Stepwise
from kxai.analyzers.backward import chosen_target
from kxai.analyzers.references import References
from kxai.analyzers.sampling.calls import Calls, chunks
from kxai.analyzers.sampling.cuts import Cut
from kxai.analyzers.sampling.either import cast, dtype_of, length, take
from kxai.analyzers.sampling.slopes import Slopes
from kxai.analyzers.scores import Scorer, Spec, input_spec
from kxai.composites import Plan
from kxai.explanation import Explanation
from kxai.graph.canonize import prune
from kxai.graph.graph import Graph
from kxai.targets import Part, Target

Arrays = list[np.ndarray]


@final
@dataclass(frozen=True, eq=False)
class Clean:
    """A batch as it was given, before anything is changed: of arrays, or of tensors where it is recorded.

    Attributes:
        inputs: the model's inputs.
        rows: which samples of the whole call they are; None where it is recorded.
        values: what will be changed: the inputs, or outputs of layers.
        data: the target, fixed at these inputs, one row per sample.
        outputs, target, score, base: as of an explanation.
        chosen: what was explained, per part of the target; where it is recorded.
        notes: of an explanation.
    """

    inputs: list[Any]
    rows: Any
    values: list[Any]
    data: list[Any]
    outputs: Any
    target: Any
    score: Any
    base: Any
    chosen: list[Any] = field(default_factory=list)
    notes: Sequence[str] = field(default=())


class Field(ABC):
    """A function of points that is evaluated for every sample at many of them.

    Attributes:
        structure: nested like the results of one point, one leaf per array.
    """

    structure: Any

    @abstractmethod
    def clean(self, batch: list[Any], data: list[Any], rows: Any, calls: Calls) -> Clean:
        """Look at a batch; fixes the target."""

    @abstractmethod
    def at(self, points: list[Any], samples: Any, clean: Clean, calls: Calls) -> list[Any]:
        """Results at points, one row each.

        Args:
            points: values in place of ``clean.values``, one row per point.
            samples: per point, which sample of the batch it belongs to.
            clean: the batch.
            calls: how functions are called.
        """


class TensorField(Field):
    """One that can be part of a function that is recorded.

    Attributes:
        graph: names and structures of the inputs and outputs.
    """

    graph: Graph

    @abstractmethod
    def results(self, clean: Clean) -> list[Spec]:
        """Specs of the results."""


@final
class GradientField(TensorField):
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
        self.cut, self.structure, self.graph = cut, cut.specs, plan.graph
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

    def clean(self, batch: list[Any], data: list[Any], rows: Any, calls: Calls) -> Clean:
        if calls.looks:
            self._plan.check_inputs(batch)
        else:
            batch = self._plan.checked(batch)
        found = calls(self._scorer, batch, data)
        graph = self._plan.graph
        return Clean(
            inputs=batch,
            rows=rows,
            values=self._typed(found["read"]) if self._read else batch,
            data=[cast(x, "float32") for x in found["weights"]],
            outputs=tree.pack_sequence_as(graph.output_structure, found["outputs"]),
            target=chosen_target(found["chosen"], self._target, graph, self._asked),
            score=found["score"],
            base=np.zeros(length(batch[0])) if calls.looks else ops.zeros(ops.shape(batch[0])[:1], "float64"),
            chosen=found["chosen"],
            notes=self._plan.notes,
        )

    def at(self, points: list[Any], samples: Any, clean: Clean, calls: Calls) -> list[Any]:
        found: list[Any] = calls(
            self._slopes, [*self._constants(clean, samples), *points], [take(t, samples) for t in clean.data]
        )
        return found

    def results(self, clean: Clean) -> list[Spec]:
        return [input_spec(edge) for edge in self.cut.edges]

    def _constants(self, clean: Clean, samples: Any) -> list[Any]:
        return [take(clean.inputs[i], samples) for i in self._held]

    def _typed(self, values: list[Any]) -> list[Any]:
        return [cast(x, input_spec(edge).dtype) for x, edge in zip(values, self._read, strict=True)]

    def base(self, references: list[Any], clean: Clean, calls: Calls) -> Any:
        """The explained quantity at references, averaged over them, per sample; float64.

        Args:
            references: per changed array (R, 1 or samples, ...).
            clean: the batch.
            calls: how functions are called.
        """
        count = max(array.shape[0] for array in references)
        zeros = ops.zeros(ops.shape(clean.inputs[0])[:1], "float64")
        if not self._held and all(array.shape[1] == 1 for array in references):
            return calls.given(zeros + self._common_base([array[:, 0] for array in references], count, clean, calls))

        def score(index: Any) -> list[Any]:
            points = [array[index % array.shape[0]] for array in references]
            points = [r + ops.zeros_like(x, dtype=dtype_of(r)) for r, x in zip(points, clean.values, strict=True)]
            constants = [clean.inputs[i] for i in self._held]
            return [ops.cast(calls(self._scores, [*constants, *points], clean.data)["score"], "float64")]

        return calls.total(score, count, [zeros])[0] / count

    def _common_base(self, references: list[Any], count: int, clean: Clean, calls: Calls) -> Any:
        """The same where references are the same for all samples: so are their outputs; what is explained of them need
        not be."""
        whole = [ops.broadcast_to(array, (count, *array.shape[1:])) for array in references]
        called = self._target.function is not None
        zeros = [ops.zeros((), "float64")] if called else [ops.zeros_like(t[0], dtype="float64") for t in clean.data]

        def sums(index: Any) -> list[Any]:
            points = [array[index * calls.size : (index + 1) * calls.size] for array in whole]
            rows = ops.shape(points[0])[0]
            data = [ops.broadcast_to(t[:1], (rows, *t.shape[1:])) for t in clean.data]
            found = calls(self._scores, points, data)
            several = [found["score"]] if called else [found["outputs"][part.output] for part in self._target.parts]
            return [ops.sum(ops.cast(y, "float64"), axis=0) for y in several]

        means = [total / count for total in calls.total(sums, -(-count // calls.size), zeros)]
        if called:
            return means[0]
        pairs = zip(clean.data, means, strict=True)
        return sum(ops.sum(ops.reshape(ops.cast(t, "float64") * y, (length(t), -1)), axis=1) for t, y in pairs)

    def encoded(self, references: References, clean: Clean, calls: Calls) -> list[Any]:
        """References that are inputs of the model, as what is changed: per array (R, 1 or samples, ...)."""
        found = calls.references(references, clean.inputs, clean.rows)
        if not self._read:
            return found
        count = max(array.shape[0] for array in found)
        own = any(array.shape[1] != 1 for array in found)
        rows = ops.shape(clean.inputs[0])[0] if own else 1
        groups = [ops.broadcast_to(array, (count, rows, *array.shape[2:])) for array in found]

        def values(inputs: list[Any]) -> list[Any]:
            # The target has no influence on them.
            data = [
                ops.zeros((length(inputs[0]),), "int32")
                if part.form == "index"
                else ops.zeros((length(inputs[0]), *t.shape[1:]), "float32")
                for part, t in zip(self._target.parts, clean.data, strict=True)
            ]
            return self._typed(calls(self._scorer, inputs, data)["read"])

        return calls.each(values, calls.given(groups), [input_spec(edge) for edge in self._read])


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

    def clean(self, batch: list[Any], data: list[Any], rows: Any, calls: Calls) -> Clean:
        parts = [_last(self._run(*part)) for part in chunks((batch, data, rows), calls.size)]
        whole = self._analyzer._finished(Explanation.concatenate(parts))
        outputs, target = tree.flatten(whole.outputs), whole.target
        several = list(target.values()) if isinstance(target, Mapping) else [target]
        chosen = [np.asarray(one) for one in several]
        return Clean(
            inputs=batch,
            rows=rows,
            values=batch,
            data=[np.asarray(x) for x in fixed_data(self.resolved, chosen, outputs)],
            outputs=whole.outputs,
            target=whole.target,
            score=whole.score,
            base=whole.base,
            notes=list(whole.config["notes"]),
        )

    def at(self, points: list[Any], samples: Any, clean: Clean, calls: Calls) -> list[Any]:
        if self._fixed is None:
            self._fixed, _ = self._prepared(target=fixed_target(self.resolved, [t[:1] for t in clean.data]))
        found = _last(self._fixed(points, [t[samples] for t in clean.data], clean.rows[samples]))
        return [np.asarray(array) for array in tree.flatten(found.relevance)]


@final
class RecordedField(TensorField):
    """The same inside of a function that is being recorded.

    Args:
        analyzer: the other analyzer.
        specs, target: of the call.
    """

    def __init__(self, analyzer: Analyzer, specs: Any, target: Any) -> None:
        self.structure = specs
        self._whole = analyzer.recorded(specs, target)
        self.graph, self.resolved = self._whole.graph, self._whole.target
        self._fixed = analyzer.recorded(specs, fixed_target(self.resolved, [part.data for part in self.resolved.parts]))

    def clean(self, batch: list[Any], data: list[Any], rows: Any, calls: Calls) -> Clean:
        found = self._whole.run(batch, data)
        return Clean(
            inputs=batch,
            rows=rows,
            values=batch,
            data=fixed_data(self.resolved, found["chosen"], found["outputs"]),
            outputs=found["outputs"],
            target=None,
            score=found["score"],
            base=found["base"],
            chosen=found["chosen"],
        )

    def at(self, points: list[Any], samples: Any, clean: Clean, calls: Calls) -> list[Any]:
        found: list[Any] = self._fixed.run(points, [take(t, samples) for t in clean.data])["relevance"]
        return found

    def results(self, clean: Clean) -> list[Spec]:
        symbols = [[keras.KerasTensor(x.shape, x.dtype) for x in part] for part in (clean.values, clean.data)]
        found = backend.output_spec(lambda points, data: self._fixed.run(points, data)["relevance"], symbols)
        return [Spec(tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in found]


def fixed_target(resolved: Target, data: Sequence[Any]) -> Target:
    """The target as weights over the outputs: what was predicted for the clean input stays."""
    pairs = zip(resolved.parts, data, strict=True)
    return replace(resolved, parts=tuple(replace(part, form="weights", data=t) for part, t in pairs))


def fixed_data(resolved: Target, chosen: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """What was chosen, per part, as weights over the model's outputs."""
    # A callable target has no parts.
    pairs = zip(resolved.parts, chosen, strict=True) if resolved.parts else ()
    return [_weights(one, outputs[part.output], part) for part, one in pairs]


def _weights(chosen: Any, output: Any, part: Part) -> Any:
    if part.form == "weights":
        return cast(chosen, "float32")
    if len(output.shape) == 1:
        return ops.ones_like(output, dtype="float32")
    return ops.one_hot(chosen, output.shape[-1])


def _last(steps: Iterator[Step]) -> Explanation:
    found = [explanation for _, explanation in steps if explanation is not None]
    return found[-1]
