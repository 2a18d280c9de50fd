"""PatternNet and PatternAttribution: what the data say that a unit's signal looks like, in place of its weights."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, final

import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.analyzer import Compiled, concrete
from kxai.analyzers.backward import BackwardAnalyzer
from kxai.analyzers.inputs import to_arrays
from kxai.analyzers.pattern.moments import MomentsProgram, Running
from kxai.analyzers.pattern.patterns import Patterns
from kxai.analyzers.pattern.quality import rho, seen_by
from kxai.analyzers.pattern.table import pattern_table
from kxai.analyzers.program import Readout
from kxai.analyzers.recorded import Recorded
from kxai.arguments import check_choice, check_flags, check_integer
from kxai.composites import Composite, Plan
from kxai.errors import ArgumentError, InputError, LoadError, NumericalError
from kxai.explanation import Explanation
from kxai.graph.graph import Edge
from kxai.progress import track
from kxai.reverse import Forward
from kxai.targets import Target

ESTIMATORS = ("x", "w", "linear", "relu")
_FITTED = ("linear", "relu")
_AVERAGES = frozenset({"average_pool", "global_average_pool", "mean"})
A = TypeVar("A", bound="PatternAnalyzer")


class PatternAnalyzer(BackwardAnalyzer):
    """A method whose rules read patterns that were fitted to data.

    Args:
        model: a built Keras model.
        estimator: of the signal: "relu" (default), "linear", "w" or "x".
        jit: compile with XLA. Default False.
    """

    def __init__(self, model: Any, estimator: str = "relu", *, jit: bool = False) -> None:
        super().__init__(model, jit=jit)
        check_choice("estimator", estimator, ESTIMATORS)
        self._estimator = estimator
        self._patterns: Patterns | None = None

    @staticmethod
    @abstractmethod
    def weighted() -> bool:
        """Whether patterns are multiplied by the weights."""

    def normalizes(self) -> bool:
        """Whether only directions count."""
        return False

    @property
    def conserves(self) -> bool:
        # What units that are not active receive is dropped.
        return False

    def fit(self: A, x: Any, batch_size: int = 32, verbose: bool | None = None) -> A:
        """Fit the patterns to data, in one pass; earlier ones are replaced.

        Of a convolution every patch at every position is a sample; where it reaches over the border, the padding's
        zeros are part of the patch.

        Args:
            x: inputs as for :meth:`Analyzer.explain`: arrays, or a ``tf.data.Dataset``; such as the training data.
            batch_size: samples computed at once, >= 1, default 32; changes nothing but rounding.
            verbose: show a progress bar; None (default) shows one on a terminal if it takes long.

        Returns:
            The analyzer itself.

        Raises:
            ArgumentError: the estimator needs no data. InputError: the data are empty, not finite, or do not fit the
            model. RuleError: the method is not defined for a node. NumericalError: the model's values are not finite.
        """
        if self._estimator not in _FITTED:
            raise ArgumentError(
                f"The estimator {self._estimator!r} follows from the weights: there is nothing to fit.",
                expected='estimator="linear" or "relu"',
                received=f"estimator={self._estimator!r}",
            )
        batch_size = check_integer("batch_size", batch_size)
        running, programs = Running(), dict[Plan, MomentsProgram]()
        for plan, arrays in self._batches(x, batch_size, verbose):
            if plan not in programs:
                programs[plan] = MomentsProgram(plan, self._estimator == "relu", self._count_trace)
            running.add(programs[plan], arrays)
        if not running.samples:
            raise InputError("The dataset is empty.", expected="at least one batch", received="none")
        self._take(Patterns.of(running, self._estimator, self._model, plan))
        return self

    def _batches(self, x: Any, batch_size: int, verbose: bool | None) -> Iterator[tuple[Plan, list[np.ndarray]]]:
        title = f"fitting {self.name}"
        if backend.is_dataset(x):
            declared = tree.flatten(self._specs(None)) if self._declares_inputs() else None
            total = int(x.cardinality())
            batches = backend.dataset_batches(x, batch_size, len(declared[0].shape) if declared else None)
            for batch in track(batches, total if total > 0 else None, title, verbose):
                specs = self._specs(batch)
                arrays = to_arrays(batch, specs)
                yield self._plan_for(concrete(specs, arrays)), arrays
            return
        specs = self._specs(x)
        arrays = to_arrays(x, specs)
        plan = self._plan_for(concrete(specs, arrays))
        starts = range(0, len(arrays[0]), batch_size)
        for start in track(starts, len(starts), title, verbose):
            yield plan, [array[start : start + batch_size] for array in arrays]

    @property
    def patterns(self) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """Fitted patterns by node path: (a+, a-), or (a, None) of S_a; float64, shaped like the node's kernel."""
        return dict(self._fitted().arrays)

    def quality(self, x: Any, node: str) -> np.ndarray:
        """rho(S) of the estimator for the units of a dense or convolutional node, see :func:`rho`.

        Args:
            x: inputs as for ``fit``, other than those; arrays, held in memory as patches: some thousand samples.
            node: path of the node, as ``print(analyzer.plan())`` has it.

        Returns:
            (units,) numbers, at most 1, the higher the better; 1 for "x", which leaves no residual.

        Raises:
            UnknownNameError: no such node. ArgumentError: nothing was fitted, or the node is of another kind.
        """
        specs = self._specs(x)
        arrays = to_arrays(x, specs)
        plan = self._plan_for(concrete(specs, arrays))
        found = plan.node(node)
        seen, w, active = seen_by(plan, found, arrays)
        if self._estimator == "x":
            return np.ones(w.shape[1])
        if self._estimator == "w":
            positive = negative = w / np.maximum((w * w).sum(axis=0), np.finfo("float64").tiny)
        else:
            pair = self._fitted().arrays[found.path]
            positive, negative = (pair[0] if a is None else a for a in pair)
            positive, negative = positive.reshape(w.shape), negative.reshape(w.shape)
        result = []
        for unit in range(w.shape[1]):
            y = seen @ w[:, unit]
            a = np.where(active[:, unit, None], positive[:, unit], negative[:, unit])
            result.append(rho(seen, y, y[:, None] * a))
        return np.array(result)

    def _take(self, patterns: Patterns) -> None:
        """Use these patterns from now on; what was compiled reads those from before."""
        with self._lock:
            self._patterns = patterns
            self._plans.clear()
            self._programs.clear()

    def bind(self: A, model: Any) -> A:
        """The same analysis of another model: with the patterns if they fit it, weights included, else not fitted."""
        bound = super().bind(model)
        patterns = self._patterns
        if patterns is not None:
            try:
                patterns.check(model, bound._declared_plan())
            except ArgumentError:
                return bound
            bound._take(patterns)
        return bound

    def save(self, path: str | os.PathLike) -> None:
        """Write the patterns into one ``.npz`` file (arrays and JSON text, no pickles), all of it or nothing.

        Args:
            path: the file; its name ends in ``.npz``.

        Raises:
            ArgumentError: the name ends differently, or nothing was fitted.
        """
        self._fitted().save(path)

    @classmethod
    def load(cls: type[A], path: str | os.PathLike, model: Any, **hyperparameters: Any) -> A:
        """An analyzer with the patterns that were saved, of this method or of the other one.

        Args:
            path: the file.
            model: the model that they were fitted with; its weights must be the same.
            hyperparameters: of the method, but for the estimator, which is that of the patterns.

        Raises:
            LoadError: the file is missing, damaged, or holds no patterns. ArgumentError: the patterns belong to another
            model, or to other weights.
        """
        patterns = Patterns.load(path)
        if patterns.estimator not in _FITTED:
            raise LoadError(
                f"{os.fspath(path)} holds patterns of an unknown estimator.",
                expected=", ".join(_FITTED),
                received=repr(patterns.estimator),
            )
        analyzer = cls(model, patterns.estimator, **hyperparameters)
        patterns.check(model, analyzer._declared_plan())
        analyzer._take(patterns)
        return analyzer

    def _declared_plan(self) -> Plan | None:
        """The plan of the inputs that the model declares, None if it leaves their shapes open."""
        specs = tree.flatten(self._specs(None)) if self._declares_inputs() else []
        known = specs and all(size is not None for spec in specs for size in spec.shape[1:])
        return self.plan() if known else None

    def _fitted(self) -> Patterns:
        if self._patterns is None:
            follows = self._estimator not in _FITTED
            raise ArgumentError(
                f"{self.name} has no patterns.",
                expected='estimator="linear" or "relu"' if follows else "patterns that were fitted to data",
                received=f"estimator={self._estimator!r}" if follows else "an analyzer that was not fitted",
                fix="" if follows else f"analyzer.fit(data) first, or {type(self).__name__}.load(path, model).",
            )
        return self._patterns

    def composite_table(self) -> Composite:
        read = None if self._patterns is None else self._patterns.tensor
        return pattern_table(self.name, type(self).__name__, self._estimator, self.weighted(), self.normalizes(), read)

    def _prepare(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool
    ) -> tuple[Compiled, Target]:
        self._check_fitted(specs)
        return super()._prepare(specs, target, count, globs, audit)

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        self._check_fitted(specs)
        return super().recorded(specs, target)

    def _check_fitted(self, specs: Any) -> None:
        if self._estimator in _FITTED:
            self._fitted().check(self._model, self._plan_for(specs))


@final
class PatternNet(PatternAnalyzer):
    """PatternNet: an estimate of the signal in the input, ``R_i = sum_j a_ij R_j``.

    It starts with the value of the logit; a ReLU passes what its active units receive, max-pooling gives all to the
    winner. a is the pattern of a unit y = w.x: what a change of y looks like in its input, where w must also cancel
    distractors. With E+ over samples whose unit is active (bias included; y is without),

        S_x: a = x / y      S_w: a = w / w.w      S_a: a = cov[x, y] / var[y]
        S_a+-: a+ = (E+[x y] - E+[x] E[y]) / (w.E+[x y] - w.E+[x] E[y]) if active, a- over the other samples if not

    so that w.a = 1. Patterns of convolutions are shaped like their kernels; units that never vary, or were never
    active, have the pattern 0. Batch normalisation is merged. The values of an average are taken to be alike: a = 1. A
    sum of tensors is a unit per channel, its weights 1: it has patterns as well (the authors define none).
    Of token ids the signal is summed over the embedding.

    Args:
        model: a built Keras model of Dense, convolutions, ReLU, pooling, batch normalisation, sums, and layers that
            move values.
        estimator: "relu" (S_a+-, the default), "linear" (S_a): both need ``fit``; "w" (S_w), "x" (S_x).
        normalize: divide the signal of each sample by its largest magnitude, on the way at every node that all of it
            passes, so that only the direction counts: in deep networks its size means little, and may be beyond all
            numbers. Default False.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError: an argument is out of its range; (by ``explain``) nothing was fitted, or the weights changed
        since. RuleError: (at plan time) the model has a node that the method is not defined for.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[1.], [-1.]]), np.array([0.])])
        >>> y, e = np.array([1., -1., 1., -1.]), np.array([2., 2., -2., -2.])
        >>> analyzer = PatternNet(model, "linear").fit(np.stack([y + e, e], axis=1))
        >>> analyzer.explain(np.array([[3., 2.]])).relevance
        array([[1., 0.]], dtype=float32)

    Source: Kindermans et al. 2018, Eqs. 3 to 7.
    """

    def __init__(self, model: Any, estimator: str = "relu", *, normalize: bool = False, jit: bool = False) -> None:
        super().__init__(model, estimator, jit=jit)
        check_flags(normalize=normalize)
        self._normalize = normalize

    @property
    def name(self) -> str:
        return "pattern_net"

    @staticmethod
    def weighted() -> bool:
        return False

    def normalizes(self) -> bool:
        return self._normalize

    def readout(self, plan: Plan, explained: Sequence[Edge]) -> Readout | None:
        return Readout((), _directions) if self._normalize else None

    def _explanation(self, result: dict[str, Any], plan: Plan, resolved: Target, target: Any) -> Explanation:
        try:
            return super()._explanation(result, plan, resolved, target)
        except NumericalError as error:
            if self._normalize:
                raise
            raise NumericalError(
                "The signal is beyond all numbers.",
                expected="finite numbers",
                received=str(error).splitlines()[0],
                fix="normalize=True keeps its direction only. If that does not help: is model(x) finite?",
            ) from error


def _directions(run: Forward, kept: dict[str, Any], arrived: list[Any]) -> list[Any]:
    flat = ops.concatenate([ops.reshape(ops.abs(r), (ops.shape(r)[0], -1)) for r in arrived], axis=1)
    largest = ops.max(flat, axis=1)
    return [ops.divide_no_nan(r, ops.reshape(largest, (-1, *(1,) * (len(r.shape) - 1)))) for r in arrived]


@final
class PatternAttribution(PatternAnalyzer):
    """PatternAttribution: what the signal in the input contributes to the logit, ``R_i = sum_j w_ij a_ij R_j``.

    As :class:`PatternNet`, with patterns times weights. Since w.a = 1, a linear layer hands all relevance down; what
    units that are not active receive is dropped, and what falls on the padding of a convolution. With "x" it is
    LRP-0 without biases, with "w" the w^2 rule.

    Args:
        model: a built Keras model of Dense, convolutions, ReLU, pooling, batch normalisation, sums, and layers that
            move values.
        estimator: "relu" (S_a+-, the default), "linear" (S_a): both need ``fit``; "w" (S_w), "x" (S_x).
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError: an argument is out of its range; (by ``explain``) nothing was fitted, or the weights changed
        since. RuleError: (at plan time) the model has a node that the method is not defined for.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[1.], [-1.]]), np.array([0.])])
        >>> PatternAttribution(model).explain(np.array([[3., 2.]]))
        Traceback (most recent call last):
        ...
        kxai.errors.ArgumentError: pattern_attribution has no patterns.
          Expected: patterns that were fitted to data
          Received: an analyzer that was not fitted
          Fix: analyzer.fit(data) first, or PatternAttribution.load(path, model).

    Source: Kindermans et al. 2018, section 4.
    """

    @property
    def name(self) -> str:
        return "pattern_attribution"

    @staticmethod
    def weighted() -> bool:
        return True
