"""References as a user gives them -> checked arrays for every batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.inputs import split_inputs, to_array
from kxai.errors import ArgumentError, ExportError, KxaiError
from kxai.graph.trace import InputSpec
from kxai.references import Background

SERVED = -1
"""The number of samples of a call that is being recorded: whatever will be asked."""


@final
@dataclass(frozen=True, eq=False)
class References:
    """Checked references of one call.

    Attributes:
        arrays: per input (R, 1 or samples, ...), or None if a function makes them.
        function: inputs of some samples -> arrays (R, samples, ...) per input, or None.
        on_tensors: the same of tensors, or None.
    """

    arrays: list[np.ndarray] | None
    function: Callable[[list[np.ndarray]], list[np.ndarray]] | None = None
    on_tensors: Callable[[list[Any]], list[Any]] | None = None

    @property
    def single(self) -> bool:
        """Whether all samples have one and the same."""
        return self.arrays is not None and all(array.shape[:2] == (1, 1) for array in self.arrays)

    def of(self, batch: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """References of a batch: per input (R, 1 or samples of the batch, ...); R is 1 or the same for all inputs.

        Args:
            batch: the inputs, one array each.
            rows: which samples of the whole call they are.
        """
        if self.function is not None:
            return self.function(batch)
        if self.arrays is None:
            raise ArgumentError("There is no reference.", expected="arrays or a function")
        return [array if array.shape[1] == 1 else array[:, rows] for array in self.arrays]

    def tensors(self, batch: list[Any]) -> list[Any]:
        """The same, of tensors: inside of a function that is being recorded."""
        if self.on_tensors is not None:
            return self.on_tensors(batch)
        return [_constant(array) for array in self.of([], np.arange(0))]


def _constant(array: np.ndarray) -> Any:
    """A tensor; one number throughout is not written out for every value."""
    dtype, first = array.dtype.name, array[(0,) * array.ndim]
    if (array == first).all():
        return ops.broadcast_to(ops.convert_to_tensor(first, dtype), array.shape)
    return ops.convert_to_tensor(array, dtype)


def resolve_references(value: Any, specs: Any, samples: int | None, name: str = "reference") -> References:
    """Check references against the model's inputs.

    Args:
        value: a number; an array shaped like one sample (or like its last axes); one per sample; a
            :class:`Background` of several; a callable that takes inputs as the model does and returns such inputs,
            one (samples, ...) or several (samples, count, ...) references per sample; or a list or dict of any but the
            last two, structured like the model's inputs.
        specs: nested structure of specs, sizes known.
        samples: number of samples of the whole call, None if not known, SERVED if it is recorded.
        name: of the argument, for messages.

    Raises:
        ArgumentError: wrong shape, wrong number of samples, not finite, fractions for integers.
        ExportError: the call is recorded, and they are one per sample, or a function that tensors do not pass.
    """
    flat: list[InputSpec] = tree.flatten(specs)
    if callable(value):
        on_tensors = _on_tensors(value, specs, flat, name)
        if samples == SERVED:
            # Whether tensors pass is tried out: else it would show when somebody compiles what is recorded.
            backend.output_spec(on_tensors, [[keras.KerasTensor(spec.shape, _dtype(spec)) for spec in flat]])
        return References(None, _from_function(value, specs, flat, name), on_tensors)
    if isinstance(value, Background):
        parts = split_inputs(value.data, specs)
        arrays = [_background(part, spec, name) for part, spec in zip(parts, flat, strict=True)]
        if len({len(array) for array in arrays}) > 1:
            raise ArgumentError(
                f"The {name}s of the inputs are not equally many.",
                expected="the same number of samples for every input",
                received=", ".join(f"{spec.name}: {len(array)}" for spec, array in zip(flat, arrays, strict=True)),
            )
        return References(arrays)
    # A number counts for all inputs.
    number = not isinstance(value, (Mapping, list, tuple)) and np.ndim(value) == 0
    parts = [value] * len(flat) if number else split_inputs(value, specs)
    return References([_single(part, spec, samples, name) for part, spec in zip(parts, flat, strict=True)])


def _single(value: Any, spec: InputSpec, samples: int | None, name: str) -> np.ndarray:
    """(1, 1 or samples, ...) of one input."""
    array = _typed(value, spec, name)
    shape = _sizes(spec)
    per_sample = array.ndim == len(shape) + 1
    fits = array.ndim <= len(shape) + 1 and _broadcasts(array.shape[1:] if per_sample else array.shape, shape)
    if fits and per_sample and len(array) != 1 and samples == SERVED:
        raise ExportError(
            f"The {name} for input {spec.name!r} is one per sample, and a graph does not know its samples.",
            expected=f"a number, {shape}, a kxai.references.Background, or a function of tensors",
            received=f"{array.shape}",
        )
    if not fits or (per_sample and len(array) != 1 and len(array) != samples):
        count = "one per sample of the dataset cannot be given" if samples is None else f"or ({samples}, ...), one each"
        raise ArgumentError(
            f"The {name} for input {spec.name!r} has the wrong shape.",
            expected=f"a number, {shape}, {count}",
            received=f"{array.shape}",
            fix="several references for every sample, averaged: kxai.references.Background(array).",
        )
    if not per_sample:
        array = array[None]
    missing = len(shape) + 1 - array.ndim
    array = array.reshape(len(array), *(1,) * missing, *array.shape[1:])
    return np.broadcast_to(array, (len(array), *shape))[None]


def _background(value: Any, spec: InputSpec, name: str) -> np.ndarray:
    """(R, 1, ...) of one input."""
    array = _typed(value, spec, name)
    shape = _sizes(spec)
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        raise ArgumentError(
            f"The background for input {spec.name!r} has the wrong shape.",
            expected=f"(count, {', '.join(map(str, shape))}), count >= 1",
            received=f"{array.shape}",
        )
    return array[:, None]


def _from_function(
    function: Callable[[Any], Any], specs: Any, flat: list[InputSpec], name: str
) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    def of(batch: list[np.ndarray]) -> list[np.ndarray]:
        given = batch[0].copy() if len(flat) == 1 else tree.pack_sequence_as(specs, [x.copy() for x in batch])
        parts = split_inputs(function(given), specs)
        found = []
        for part, spec, x in zip(parts, flat, batch, strict=True):
            array = _typed(part, spec, name)
            several = array.ndim == x.ndim + 1
            fits = several and array.shape[:1] + array.shape[2:] == x.shape and array.shape[1] > 0
            if array.shape != x.shape and not fits:
                raise ArgumentError(
                    f"The {name} that a function returned for input {spec.name!r} has the wrong shape.",
                    expected=f"{x.shape}, or several per sample: ({len(x)}, count, ...)",
                    received=f"{array.shape}",
                )
            found.append(np.moveaxis(array, 1, 0) if several else array[None])
        if len({len(array) for array in found} - {1}) > 1:
            raise ArgumentError(
                f"The {name}s that a function returned are not equally many for all inputs.",
                expected="one count",
                received=", ".join(str(len(array)) for array in found),
            )
        return found

    return of


def _on_tensors(
    function: Callable[[Any], Any], specs: Any, flat: list[InputSpec], name: str
) -> Callable[[list[Any]], list[Any]]:
    def refused(reason: str) -> ExportError:
        return ExportError(
            f"The {name} {function!r} cannot be part of a graph.",
            expected="a function that keras.ops or TensorFlow compute, of a batch of any size, such as "
            "kxai.references.Blur; or arrays",
            received=reason,
        )

    def of(batch: list[Any]) -> list[Any]:
        try:
            found = function(batch[0] if len(flat) == 1 else tree.pack_sequence_as(specs, batch))
        except KxaiError:
            raise
        except Exception as error:
            raise refused(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
        result = []
        for part, spec, x in zip(split_inputs(found, specs), flat, batch, strict=True):
            several = len(getattr(part, "shape", ())) == len(x.shape) + 1
            if not ops.is_tensor(part) or tuple(part.shape) != _asked(x, part.shape[1] if several else None):
                raise refused(f"for input {spec.name!r} it returned {_described(part)}")
            typed = _typed_tensor(part, spec, name)
            result.append(ops.moveaxis(typed, 1, 0) if several else typed[None])
        if len({int(array.shape[0]) for array in result} - {1}) > 1:
            raise refused("references that are not equally many for all inputs")
        return result

    return of


def _asked(x: Any, count: int | None) -> tuple[Any, ...]:
    """The shape of references of inputs x in a graph: any number of samples, of each one or ``count``."""
    return (None, *x.shape[1:]) if count is None else (None, count, *x.shape[1:])


def _described(part: Any) -> str:
    kind = "tensor" if ops.is_tensor(part) else "array" if isinstance(part, np.ndarray) else type(part).__name__
    return f"a {kind} of shape {tuple(getattr(part, 'shape', ()))}".replace("a array", "an array")


def _dtype(spec: InputSpec) -> str:
    return "float32" if "float16" in spec.dtype else spec.dtype


def _typed(value: Any, spec: InputSpec, name: str) -> np.ndarray:
    array = to_array(value)
    if array.dtype.kind not in "biuf":
        raise ArgumentError(
            f"The {name} for input {spec.name!r} does not hold numbers.",
            expected="a number, an array, a Background or a callable",
            received=f"{type(value).__name__}",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ArgumentError(f"The {name} for input {spec.name!r} is not finite.", received="NaN or infinity")
    if "int" in spec.dtype and array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        raise ArgumentError(
            f"The {name} for input {spec.name!r} must be integers, as the input is.",
            expected=spec.dtype,
            received=f"{array.dtype} with fractions",
        )
    return array.astype(_dtype(spec), copy=False)


def _typed_tensor(part: Any, spec: InputSpec, name: str) -> Any:
    """What :func:`_typed` refuses fails when the graph runs."""
    if "float" in keras.backend.standardize_dtype(part.dtype):
        part = backend.asserted(part, ops.isfinite(part), f"the {name} for input {spec.name} is not finite")
        if "int" in spec.dtype:
            whole = ops.equal(part, ops.round(part))
            part = backend.asserted(part, whole, f"the {name} for input {spec.name} must be integers")
    return ops.cast(part, _dtype(spec))


def _sizes(spec: InputSpec) -> tuple[int, ...]:
    return tuple(size for size in spec.shape[1:] if size is not None)


def _broadcasts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    ending = wanted[len(wanted) - len(shape) :]
    return all(size in (1, want) for size, want in zip(shape, ending, strict=True))
