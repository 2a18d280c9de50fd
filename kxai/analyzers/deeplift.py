"""DeepLIFT and DeepSHAP: contributions to the difference from a reference."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import keras
import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.analyzer import Step, Stepwise
from kxai.analyzers.backward import BackwardAnalyzer, expand_globs, remembered
from kxai.analyzers.program import Program, ReferenceValues, Start
from kxai.analyzers.recorded import Recorded
from kxai.analyzers.references import SERVED, References, resolve_references
from kxai.analyzers.scores import Scorer, Spec, input_spec
from kxai.arguments import check_flags
from kxai.composites import Composite, Plan
from kxai.composites.composite import Row
from kxai.composites.differences import deeplift
from kxai.errors import RuleError
from kxai.graph.graph import Node
from kxai.references import Background
from kxai.reverse import Finish, broadcasts
from kxai.rules import DifferenceRule, Gradient, Rule, Stop
from kxai.targets import Target

# (inputs, target data, references) of one call of the compiled function
_Call = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]


class DifferenceAnalyzer(BackwardAnalyzer):
    """A method that compares each input with references, and averages over them.

    Args:
        model: a built Keras model.
        jit: compile with XLA. Default False.
    """

    def __init__(self, model: Any, *, jit: bool = False) -> None:
        super().__init__(model, jit=jit)
        self._comparisons: dict[Any, Program] = {}
        self._references: dict[Any, ReferenceValues] = {}

    @abstractmethod
    def references(self, specs: Any, samples: int | None) -> References:
        """The references of a call, checked.

        Args:
            specs: nested structure of specs of the model's inputs, sizes known.
            samples: number of samples of the call, None if it is not known.
        """

    def start(self) -> Start:
        return Start.ONE

    def finish(self) -> Finish | None:
        return lambda difference, multiplier: difference * multiplier

    def accounts(self) -> bool:
        return self.finish() is not None

    @property
    def conserves(self) -> bool:
        return self.accounts()

    def _check_rule(self, node: Node, rule: Rule) -> None:
        if not isinstance(rule, (DifferenceRule, Gradient, Stop)):
            raise RuleError(
                f"Rule {rule!r} of node {node.path!r} hands down relevance, not multipliers.",
                expected="rules of differences from a reference, such as kxai.rules.Rescale, or kxai.rules.Gradient",
                received=type(rule).__name__,
            )

    def stepwise(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool, batch_size: int
    ) -> tuple[Stepwise, Target]:
        self._check_audit(audit)
        plan = self._plan_for(specs)
        resolved = self._targeted(plan.graph, target, count)
        keep, references = expand_globs(globs, plan), self.references(specs, count)
        once: list[list[Any]] = []

        def known(reference: list[np.ndarray]) -> list[Any]:
            """The reference and, where all samples have the same, what the network makes of it."""
            if not (references.single and broadcasts(plan)):
                return list(reference)
            if not once:
                once.append(self._values(plan)(reference))
            return once[0]

        def run(batch: list[np.ndarray], data: list[np.ndarray], rows: np.ndarray) -> Iterator[Step]:
            given = references.of(batch, rows)
            plan.check_inputs(batch)
            plan.check_values([array.reshape(-1, *array.shape[2:]) for array in given])
            calls = list(_calls(plan, batch, data, given, batch_size))
            mean = _Mean(len(batch[0]))
            for inputs, numbers, reference in calls:
                values = known(reference)
                mean.add(self._program(plan, resolved, keep, audit, values)(inputs, numbers, values))
                yield 1 / len(calls), None
            yield 0.0, self._explanation(mean.result(), plan, resolved, target)

        return run, resolved

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        plan = self._plan_for(specs)
        resolved = self._targeted(plan.graph, target, None)
        references = self.references(specs, SERVED)
        program = self.program(plan, resolved, [])
        scorer = Scorer(plan.graph, resolved, self._count_trace)
        if references.arrays is not None:
            plan.check_values([array.reshape(-1, *array.shape[2:]) for array in references.arrays])

        def run(inputs: list[Any], data: list[Any]) -> dict[str, Any]:
            inputs = plan.checked(inputs)
            given = references.tensors(inputs)
            if references.arrays is None:
                given = plan.checked(given)
            count = max(int(array.shape[0]) for array in given)
            if count == 1:
                return program.run(inputs, data, [array[0] for array in given])
            return {**scorer.run(inputs, data), **_averaged(program, inputs, data, given, count)}

        return Recorded(plan.graph, resolved, run)

    def _program(
        self, plan: Plan, target: Target, keep: tuple[str, ...], audit: bool, references: list[Any]
    ) -> Program:
        """For a reference of one sample, whatever the batch, or for as many references as samples."""
        one = len(references[0]) == 1
        specs = _reference_specs(plan, 1 if one else None)
        known = references[len(specs) :]
        specs += [Spec(tuple(value.shape), keras.backend.standardize_dtype(value.dtype)) for value in known]

        def make() -> Program:
            return Program(
                plan, target, start=self.start(), finish=self.finish(), keep=keep, readout=None, audit=audit,
                jit=self._jit, traced=self._count_trace, references=specs,
            )  # fmt: skip

        key = (plan, target.form, keep, audit, one, bool(known))
        with self._lock:
            return remembered(self._comparisons, key, make)

    def _values(self, plan: Plan) -> ReferenceValues:
        def make() -> ReferenceValues:
            return ReferenceValues(plan, _reference_specs(plan, 1), jit=self._jit, traced=self._count_trace)

        with self._lock:
            return remembered(self._references, plan, make)


def _reference_specs(plan: Plan, samples: int | None) -> list[Spec]:
    return [Spec((samples, *spec.shape[1:]), spec.dtype) for spec in map(input_spec, plan.graph.inputs)]


def _calls(
    plan: Plan, batch: list[np.ndarray], data: list[np.ndarray], given: list[np.ndarray], batch_size: int
) -> Iterator[_Call]:
    """The batch with one reference after the other; many references of a single sample are batches themselves."""
    samples, count = len(batch[0]), max(len(array) for array in given)
    fixed = any(node.loop is not None and node.loop.order.batch is not None for node in plan.graph.nodes)
    if samples == 1 and not fixed:
        for start in range(0, count, batch_size):
            size = min(batch_size, count - start)
            repeated = [[np.repeat(x, size, axis=0) for x in arrays] for arrays in (batch, data)]
            yield repeated[0], repeated[1], [_chunk(array[:, 0], start, size) for array in given]
        return
    for index in range(count):
        references = [array[index if len(array) > 1 else 0] for array in given]
        size = max(map(len, references))
        yield batch, data, [np.broadcast_to(array, (size, *array.shape[1:])) for array in references]


def _chunk(array: np.ndarray, start: int, size: int) -> np.ndarray:
    return array[start : start + size] if len(array) > 1 else np.repeat(array, size, axis=0)


def _averaged(
    program: Program, inputs: list[Any], data: list[Any], references: list[Any], count: int
) -> dict[str, Any]:
    """Relevance and base, averaged in a loop: each step compares all samples with one reference.

    Args:
        program, inputs, data: see :meth:`Program.run`.
        references: per input (1 or count, 1 or samples, ...).
        count: how many there are.
    """

    def compared(inputs: list[Any], data: list[Any], rows: list[Any]) -> list[Any]:
        found = program.run(inputs, data, rows)
        return [found["base"], *found["relevance"]]

    def step(index: Any, sums: list[Any]) -> list[Any]:
        rows = [array[index if array.shape[0] > 1 else 0] for array in references]
        if any(array.shape[0] != 1 for array in rows):
            rows = [r + ops.zeros_like(x, dtype=r.dtype) for r, x in zip(rows, inputs, strict=True)]
        return [a + ops.cast(x, "float64") for a, x in zip(sums, compared(inputs, data, rows), strict=True)]

    symbols = [[keras.KerasTensor((None, *x.shape[1:]), x.dtype) for x in part] for part in (inputs, data, inputs)]
    specs = backend.output_spec(compared, symbols)
    samples = ops.shape(inputs[0])[0]
    sums = backend.repeat(step, count, [ops.zeros((samples, *spec.shape[1:]), "float64") for spec in specs])
    base, *relevance = [ops.cast(total / count, spec.dtype) for total, spec in zip(sums, specs, strict=True)]
    return {"base": base, "relevance": relevance}


@final
class _Mean:
    """The mean of results over references: rows that are repetitions of one sample, and calls.

    Args:
        samples: rows of the result.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._first: dict[str, Any] = {}
        self._sums: Any = None
        self._count = 0

    def add(self, result: dict[str, Any]) -> None:
        """Count one more result."""
        averaged = {name: result[name] for name in ("relevance", "kept", "base", "absorbed")}
        times = len(result["score"]) // self._samples
        summed = tree.map_structure(lambda x: _sum(x, self._samples), averaged)
        if self._sums is None:
            self._first = {
                name: tree.map_structure(lambda x: x[: self._samples], value)
                for name, value in result.items()
                if name not in averaged
            }
            self._dtypes = tree.map_structure(lambda x: x.dtype, averaged)
            self._sums = summed
        else:
            self._sums = tree.map_structure(np.add, self._sums, summed)
        self._count += times

    def result(self) -> dict[str, Any]:
        """The mean."""
        means = tree.map_structure(lambda x, dtype: (x / self._count).astype(dtype), self._sums, self._dtypes)
        return {**self._first, **means}


def _sum(array: np.ndarray, samples: int) -> np.ndarray:
    """The sum over rows, if they are repetitions of one sample."""
    wide = array.astype(np.float64)
    return wide if len(wide) == samples else wide.sum(axis=0, keepdims=True)


@final
class DeepLIFT(DifferenceAnalyzer):
    """DeepLIFT: which inputs made the explained logit differ from that of a reference, ``sum C = f(x) - f(reference)``.

    Every node's difference from the reference is handed to its inputs; at functions such as the ReLU in proportion to
    their differences (Rescale), or with positive and negative parts as two players (RevealCancel). What carries no
    relevance, such as masks and positions, has the input's values in both runs. A callable target counts with its
    derivative at the outputs: only if it is linear the contributions add up.

    Args:
        model: a built Keras model.
        reference: a number for all inputs; an array like one sample; one per sample; a
            :class:`kxai.references.Background` of several, whose explanations are averaged; a callable that makes
            references from inputs; or a list or dict of arrays for several inputs. Default 0.0.
        rule: "rescale" (default), "reveal_cancel" (at functions that have a value everywhere: a root or a logarithm
            keeps Rescale), "genomics_default" (the same after dense layers, else Rescale); or rows (match, rule), or a
            :class:`Composite` of such, that come before the table of "rescale", for example
            ``[("head/*/relu", kxai.rules.RevealCancel())]``.
        max_pooling: "cross_max" (default, contributions add up), or "gradient": all to the winner among the inputs.
        threshold: where a difference is smaller, the derivative at the reference counts; >= 0, default 1e-7.
        multipliers: report contributions per unit of the input's difference instead. Default False.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError: an unknown rule, a negative threshold; (by ``explain``) a reference that does not fit.
        RuleError: (by ``explain`` and ``plan``) a node has no rule, such as a median or a sort.

    Example:
        >>> import keras, numpy as np
        >>> relu = keras.layers.Dense(1, activation="relu")
        >>> model = keras.Sequential([keras.Input((2,)), relu, keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.array([[-1.], [-1.]]), np.array([1.]), np.array([[-1.]])])
        >>> explanation = DeepLIFT(model).explain(np.array([[1., 1.]]))
        >>> explanation.relevance, explanation.score - explanation.base
        (array([[0.5, 0.5]], dtype=float32), array([1.], dtype=float32))

    Source: Shrikumar et al. 2017.
    """

    def __init__(
        self, model: Any, reference: Any = 0.0, rule: str | Composite | Sequence[Row] = "rescale", *,
        max_pooling: str = "cross_max", threshold: float = 1e-7, multipliers: bool = False, jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, jit=jit)
        self._reference, self._rule, self._max_pooling = reference, rule, max_pooling
        self._threshold, self._multipliers = threshold, multipliers
        self._table = deeplift(rule, max_pooling, threshold)
        check_flags(multipliers=multipliers)

    @property
    def name(self) -> str:
        if not isinstance(self._rule, str):
            return f"deeplift ({self._table.name})"
        return "deeplift" if self._rule == "rescale" else f"deeplift.{self._rule}"

    def composite_table(self) -> Composite:
        return self._table

    def references(self, specs: Any, samples: int | None) -> References:
        return resolve_references(self._reference, specs, samples)

    def finish(self) -> Finish | None:
        return None if self._multipliers else super().finish()


@final
class DeepSHAP(DifferenceAnalyzer):
    """DeepSHAP: the mean of Rescale contributions over background samples, ``sum C = f(x) - mean f(background)``.

    Args:
        model: a built Keras model.
        background: array (count, ...) of samples; a list or dict of them for several inputs; or a number, a
            :class:`kxai.references.Background`, or a callable that makes one or several per sample.
        max_pooling: "cross_max" (default, contributions add up), or "gradient": all to the winner among the inputs.
        threshold: where a difference is smaller, the derivative at the reference counts; >= 0, default 1e-7.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError: a negative threshold; (by ``explain``) a background that does not fit.
        RuleError: (by ``explain`` and ``plan``) a node has no rule, such as a median or a sort.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.array([[2.], [3.]])])
        >>> DeepSHAP(model, np.array([[0., 0.], [2., 4.]])).explain(np.array([[5., 7.]])).relevance
        array([[ 8., 15.]], dtype=float32)

    Source: Lundberg & Lee 2017.
    """

    def __init__(
        self, model: Any, background: Any, *, max_pooling: str = "cross_max", threshold: float = 1e-7,
        jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, jit=jit)
        self._background, self._max_pooling, self._threshold = background, max_pooling, threshold
        self._table = deeplift("rescale", max_pooling, threshold)

    @property
    def name(self) -> str:
        return "deepshap"

    def composite_table(self) -> Composite:
        return self._table

    def references(self, specs: Any, samples: int | None) -> References:
        several = isinstance(self._background, (Mapping, list, tuple)) or getattr(self._background, "ndim", 0) > 0
        background = Background(self._background) if several else self._background
        return resolve_references(background, specs, samples, "background")
