"""References as a user gives them -> checked arrays for every batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from keras import tree

from kxai.analyzers.inputs import split_inputs, to_array
from kxai.errors import ArgumentError
from kxai.graph.trace import InputSpec
from kxai.references import Background


@final
@dataclass(frozen=True, eq=False)
class References:
    """Checked references of one call.

    Attributes:
        arrays: per input (R, 1 or samples, ...), or None if a function makes them.
        function: inputs of some samples -> arrays (samples, R, ...) per input, or None.
    """

    arrays: list[np.ndarray] | None
    function: Callable[[list[np.ndarray]], list[np.ndarray]] | None = None

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


def resolve_references(value: Any, specs: Any, samples: int | None, name: str = "reference") -> References:
    """Check references against the model's inputs.

    Args:
        value: a number; an array shaped like one sample (or like its last axes); one per sample; a
            :class:`Background` of several; a callable that takes inputs as the model does and returns such inputs,
            one (samples, ...) or several (samples, count, ...) references per sample; or a list or dict of any but the
            last two, structured like the model's inputs.
        specs: nested structure of specs, sizes known.
        samples: number of samples of the whole call, None if not known.
        name: of the argument, for messages.

    Raises:
        ArgumentError: wrong shape, wrong number of samples, not finite, fractions for integers.
    """
    flat: list[InputSpec] = tree.flatten(specs)
    if callable(value):
        return References(None, _from_function(value, specs, flat, name))
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
    return array.astype("float32" if "float16" in spec.dtype else spec.dtype, copy=False)


def _sizes(spec: InputSpec) -> tuple[int, ...]:
    return tuple(size for size in spec.shape[1:] if size is not None)


def _broadcasts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    ending = wanted[len(wanted) - len(shape) :]
    return all(size in (1, want) for size, want in zip(shape, ending, strict=True))
