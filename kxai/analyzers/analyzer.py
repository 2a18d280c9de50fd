"""An analyzer: a method bound to a model."""

from __future__ import annotations

import inspect
import threading
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
from keras import tree

from kxai import backend
from kxai.analyzers.inputs import as_example, to_arrays
from kxai.analyzers.recorded import Recorded
from kxai.arguments import check_integer
from kxai.composites import Plan
from kxai.errors import ArgumentError, ExportError, InputError, TargetError
from kxai.explanation import Explanation
from kxai.fingerprints import fingerprint
from kxai.graph.trace import InputSpec, check_model, input_specs
from kxai.progress import track
from kxai.references import Background, Inputs
from kxai.targets import OutputSpec, Target, resolve
from kxai.version import __version__

# (inputs, target data, rows) -> explanation; rows says which sample of the whole call each row of the batch is.
Compiled = Callable[[list[np.ndarray], list[np.ndarray], np.ndarray], Explanation]
# The same in steps: (share of the batch's work that this step did, None or, with the last step, the explanation).
Step = tuple[float, Explanation | None]
Stepwise = Callable[[list[np.ndarray], list[np.ndarray], np.ndarray], Iterator[Step]]
A = TypeVar("A", bound="Analyzer")

MAX_SHOWN = 1000
"""Entries of an array that are written out where a result says how it was made."""


class Analyzer(ABC):
    """A method bound to a model: ``explain(inputs, target)`` returns an :class:`Explanation`.

    The model is only read. Analyzers are thread-safe; what they compile is compiled once per input structure and
    follows the model's weights as they change.

    Args:
        model: a built Keras model.
    """

    def __init__(self, model: Any) -> None:
        check_model(model)
        self._model = model
        self._lock = threading.RLock()

    @property
    def model(self) -> Any:
        """The explained model."""
        return self._model

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the method, as :func:`kxai.create_analyzer` takes it."""

    @property
    def granularity(self) -> str:
        """What one number of the relevance stands for.

        "value": of an input, relevance is shaped like the inputs; "position": all channels there, relevance is
        ``(batch, *spatial, 1)``; "feature": a position of a layer's feature map, ``(batch, *sizes, 1)``. Inputs without
        spatial axes, such as tables, keep their shape in any case.
        """
        return "value"

    @property
    def conserves(self) -> bool:
        """Whether relevance shares out the score: it adds up to ``score - base``, up to what biases and stabilizers
        absorb and what the points of a path leave. Of other methods ``explanation.residual`` says nothing."""
        return False

    def plan(self, inputs: Any = None) -> Plan:
        """The table node | kind | rule of the propagation that the method uses; all errors of it are raised here.

        Args:
            inputs: an example batch. Needed for subclassed models, which do not say what their inputs look like, and
                for layers that compute with a size that the model leaves open, such as the length of a text.

        Raises:
            ArgumentError: the method hands nothing back through the model.
        """
        raise ArgumentError(
            f"{self.name} gives no rules to the nodes of a model, so it has no plan.",
            expected="a gradient or propagation method",
            received=repr(self),
        )

    def inputs(self, x: Any) -> dict[str, np.ndarray]:
        """Inputs as :meth:`explain` takes them, checked, by the names of the model's inputs and in its dtypes; in the
        order of ``keras.tree.flatten(explanation.relevance)``."""
        specs = self._specs(x)
        return dict(zip([spec.name for spec in tree.flatten(specs)], to_arrays(x, specs), strict=True))

    def hyperparameters(self) -> dict[str, Any]:
        """Arguments other than the model, by name."""
        names = list(inspect.signature(type(self).__init__).parameters)[2:]
        state = vars(self)
        return {name: state[f"_{name}"] for name in names if f"_{name}" in state}

    def bind(self: A, model: Any) -> A:
        """The same analysis of another model."""
        return type(self)(model, **self.hyperparameters())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model.name!r}{shown(self.hyperparameters())})"

    def config(self) -> dict[str, Any]:
        """What a reader of the result needs to know, in JSON's types."""
        return {
            "method": self.name,
            "hyperparameters": {key: _plain(value) for key, value in self.hyperparameters().items()},
            "model": self._model.name,
            "versions": {"kxai": __version__, "keras": keras.version()},
            "notes": [],
        }

    def explain(
        self, x: Any, target: Any = None, batch_size: int = 32, *, layers: str | Sequence[str] = (),
        audit: bool = False, verbose: bool | None = None,
    ) -> Explanation:  # fmt: skip
        """Explain the model's outputs for inputs ``x``.

        Args:
            x: arrays, tensors, lists or dicts of them, structured like the model's inputs, with a batch axis; or a
                ``tf.data.Dataset`` of inputs or of (inputs, ...) tuples.
            target: None (the predicted class), an int, ints (one per sample), floats (weights over the outputs), a
                :class:`Contrast`, an output's name, a dict {output name: target}, or a callable over the outputs;
                scores of tf-keras-vis mean what they mean there.
            batch_size: rows computed at once, >= 1, default 32; bounds the memory. A row is a sample, or one of
                the many points at which some methods look for each sample.
            layers: globs over node paths; the relevance of these nodes' outputs is returned in ``.layers``.
            audit: account per node for relevance that is not handed on, in ``.absorbed``. Default False.
            verbose: show a progress bar; None (default) shows one on a terminal if it takes long.

        Returns:
            Explanation: relevance structured like the inputs, and shaped like them unless the method explains positions
            (see :attr:`granularity`).

        Raises:
            InputError, TargetError, ModelError, RuleError, UnknownNameError, NumericalError: see their messages.
        """
        check_eager("explanations are computed")
        batch_size = check_integer("batch_size", batch_size)
        globs = (layers,) if isinstance(layers, str) else tuple(layers or ())
        if backend.is_dataset(x):
            return self._explain_dataset(x, target, batch_size, globs, audit, verbose)
        specs = self._specs(x)
        arrays = to_arrays(x, specs)
        count = len(arrays[0])
        run, resolved = self.stepwise(concrete(specs, arrays), target, count, globs, audit, batch_size)
        starts = range(0, count, batch_size)

        def steps() -> Iterator[Step]:
            for start in starts:
                stop = min(start + batch_size, count)
                data = [part.batch(start, stop) for part in resolved.parts]
                yield from run([a[start:stop] for a in arrays], data, np.arange(start, stop))

        return self._collected(steps(), len(starts), verbose)

    def _explain_dataset(
        self, dataset: Any, target: Any, batch_size: int, globs: tuple[str, ...], audit: bool, verbose: bool | None
    ) -> Explanation:
        declared = tree.flatten(self._specs(None)) if self._declares_inputs() else None
        rank = len(declared[0].shape) if declared else None
        total = int(dataset.cardinality())
        batches = backend.dataset_batches(dataset, batch_size, rank)

        def steps() -> Iterator[Step]:
            done = 0
            for batch in batches:
                specs = self._specs(batch)
                arrays = to_arrays(batch, specs)
                count = len(arrays[0])
                run, resolved = self.stepwise(concrete(specs, arrays), target, None, globs, audit, batch_size)
                if resolved.length is not None and resolved.length < done + count:
                    raise _length_error(resolved.length, f"at least {done + count}")
                data = [part.batch(done, done + count) for part in resolved.parts]
                yield from run(arrays, data, np.arange(done, done + count))
                done += count
            if not done:
                raise InputError("The dataset is empty.", expected="at least one batch", received="none")
            if resolved.length not in (None, done):
                raise _length_error(resolved.length, done)

        return self._collected(steps(), total if total > 0 else None, verbose)

    def _collected(self, steps: Iterator[Step], batches: int | None, verbose: bool | None) -> Explanation:
        shown = track(steps, batches, f"explaining with {self.name}", verbose, share=lambda step: step[0])
        return self._finished(Explanation.concatenate([part for _, part in shown if part is not None]))

    def _declares_inputs(self) -> bool:
        return isinstance(self._model, (keras.Sequential, keras.Function))

    def _specs(self, x: Any) -> Any:
        """Specs of the model's inputs, from ``x`` where the model does not declare them."""
        return input_specs(self._model, None if self._declares_inputs() or x is None else as_example(x))

    @abstractmethod
    def _prepare(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool
    ) -> tuple[Compiled, Target]:
        """(function of one batch, resolved target) for inputs of these concrete shapes."""

    def stepwise(
        self, specs: Any, target: Any, count: int | None, globs: tuple[str, ...], audit: bool, batch_size: int
    ) -> tuple[Stepwise, Target]:
        """(function of one batch, in steps; resolved target); computes no more than ``batch_size`` rows at once."""
        compiled, resolved = self._prepare(specs, target, count, globs, audit)

        def run(batch: list[np.ndarray], data: list[np.ndarray], rows: np.ndarray) -> Iterator[Step]:
            yield 1.0, compiled(batch, data, rows)

        return run, resolved

    def recorded(self, specs: Any, target: Any = None) -> Recorded:
        """The analysis as a function of tensors, to be compiled with others, as for a server.

        Args:
            specs: nested specs of the inputs, sizes known.
            target: gives the form of the target, and the output that it refers to.

        Raises:
            ExportError: the method takes steps that are none of TensorFlow's.
        """
        raise ExportError(
            f"{self.name} takes steps outside of TensorFlow, so it cannot be part of a graph.",
            expected="a gradient, propagation or CAM method",
            received=repr(self),
        )

    def _finished(self, explanation: Explanation) -> Explanation:
        """The last look at a result; methods add warnings here."""
        return explanation

    @staticmethod
    def _resolve(target: Any, outputs: Sequence[OutputSpec], count: int | None) -> Target:
        return target if isinstance(target, Target) else resolve(target, outputs, count)


def check_eager(what: str) -> None:
    """Raise ArgumentError where a graph is being built."""
    if not backend.is_eager():
        raise ArgumentError(
            f"A graph is being built here, and {what} at once.",
            expected="a call outside of tf.function and of tf.Graph().as_default()",
            fix="graphs hold explanations by kxai.export, or by Analyzer.recorded.",
        )


def concrete(specs: Any, arrays: list[np.ndarray]) -> Any:
    """Specs with the sizes of these arrays where the model leaves them open."""
    flat = [
        InputSpec((None, *array.shape[1:]), spec.dtype, spec.name)
        for spec, array in zip(tree.flatten(specs), arrays, strict=True)
    ]
    return tree.pack_sequence_as(specs, flat)


def _length_error(received: Any, expected: Any) -> TargetError:
    return TargetError(
        "The target has not one entry per sample.",
        expected=f"{expected} entries, one per sample of the dataset",
        received=f"{received}",
    )


def shown(hyperparameters: dict[str, Any]) -> str:
    """``, name=value`` for each; arrays by their shape."""
    return "".join(
        f", {key}={f'array of shape {value.shape}' if isinstance(value, np.ndarray) and value.ndim else repr(value)}"
        for key, value in hyperparameters.items()
    )


def _plain(value: Any) -> Any:
    """A value in JSON's types: numbers and text as they are, small arrays as lists, other data by what tells them
    apart, functions by name, the rest by its repr."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, (np.ndarray, np.generic)) or keras.ops.is_tensor(value):
        array = backend.to_numpy(value)
        if array.size <= MAX_SHOWN:
            return array.tolist()
        return f"array of shape {array.shape}, fingerprint {fingerprint([array], 12)}"
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, Background):
        return f"{value!r}, fingerprint {value.fingerprint}"
    if isinstance(value, Inputs):
        return f"Inputs({_plain(value.value)})"
    # The repr of a function holds its address, which would make each run's results differ.
    return f"function {value.__qualname__}" if isinstance(value, types.FunctionType) else repr(value)
