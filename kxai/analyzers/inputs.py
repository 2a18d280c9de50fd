"""Inputs as a user gives them -> checked arrays, one per model input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.errors import InputError


def to_arrays(x: Any, specs: Any) -> list[np.ndarray]:
    """Check inputs against the model and flatten them.

    Args:
        x: array, tensor, or list / dict of them, structured like the model's inputs; a model of several inputs also
            takes a dict by input name.
        specs: nested structure of specs (shape with batch axis, dtype, name).

    Returns:
        One array per model input, all of the same length, in the model's dtypes.

    Raises:
        InputError: structure, shape, dtype, NaN, infinity, an empty batch, or different numbers of samples.
    """
    flat_specs = tree.flatten(specs)
    flat = split_inputs(x, specs)
    arrays = [_checked(value, spec) for value, spec in zip(flat, flat_specs, strict=True)]
    counts = {len(array) for array in arrays}
    if len(counts) > 1:
        raise InputError(
            "The inputs have different numbers of samples.",
            expected="the same first dimension everywhere",
            received=", ".join(f"{spec.name}: {len(a)}" for spec, a in zip(flat_specs, arrays, strict=True)),
        )
    return arrays


def as_example(x: Any) -> Any:
    """The inputs as arrays in their own structure, for models that do not declare any."""
    if isinstance(x, Mapping):
        return {key: as_example(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)) and x and not isinstance(x[0], (int, float, list)):
        return [as_example(value) for value in x]
    array = to_array(x)
    if array.dtype == np.float64 or array.dtype.kind == "b":
        array = array.astype("float32")
    if array.ndim == 0:
        raise InputError("The input has no batch axis.", expected="(samples, ...)", received="a single number")
    return array


def split_inputs(x: Any, specs: Any) -> list[Any]:
    """What is given for each input, unchecked, in flattened order.

    Args:
        x, specs: as of :func:`to_arrays`.

    Raises:
        InputError: the structure does not fit.
    """
    flat_specs = tree.flatten(specs)
    names = [spec.name for spec in flat_specs]
    if isinstance(x, Mapping):
        keys = list(specs) if isinstance(specs, Mapping) else names
        if set(x) != set(keys):
            raise InputError(
                "The inputs' names do not match.", expected=", ".join(keys), received=", ".join(map(str, x))
            )
        if isinstance(specs, Mapping):
            return list(tree.flatten({key: x[key] for key in specs}))
        return [x[name] for name in names]
    several = isinstance(x, (list, tuple)) and not isinstance(specs, Mapping)
    if several and len(flat_specs) > 1 and len(x) == len(flat_specs):
        return list(x)
    if len(flat_specs) == 1:
        _check_alike(x if several else [], flat_specs[0])
        one_array = several and len(x) == 1 and not np.isscalar(x[0]) and np.ndim(x[0]) == len(flat_specs[0].shape)
        return [x[0] if one_array else x]
    raise InputError(
        f"The model has {len(flat_specs)} inputs.",
        expected=f"a list of {len(flat_specs)} arrays, or a dict by name: {', '.join(names)}",
        received=f"a list of {len(x)}" if several else type(x).__name__,
    )


def _check_alike(parts: Any, spec: Any) -> None:
    """What was given in a list for the one input: arrays that make one array."""
    shapes = [tuple(part.shape) for part in parts if isinstance(part, np.ndarray) or ops.is_tensor(part)]
    distinct = [str(shape) for shape in dict.fromkeys(shapes)]
    if len(shapes) == len(parts) and len(distinct) > 1:
        shown = ", ".join(distinct[:4]) + (", ..." if len(distinct) > 4 else "")
        raise InputError(
            f"The model has one input, {spec.name!r}, and these arrays do not make one.",
            expected="one array (samples, ...)",
            received=f"a list of {len(shapes)} arrays of shapes {shown}",
            fix="labels do not belong to the inputs; samples that differ in shape are explained one by one.",
        )


def _checked(value: Any, spec: Any) -> np.ndarray:
    array = to_array(value)
    if spec.dtype == "string":
        raise InputError(
            f"Input {spec.name!r} takes text, in which nothing can be weighed.",
            expected="a model of numbers",
            received=f"{array.dtype}",
            fix="apply what turns text into numbers (TextVectorization, StringLookup) first and explain what follows.",
        )
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"Input {spec.name!r} does not hold numbers.",
            expected=f"an array of {spec.dtype}",
            received=f"{array.dtype}",
        )
    _check_shape(array, spec)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise InputError(
            f"Input {spec.name!r} is not finite.",
            expected="finite numbers",
            received=f"{bad} of {array.size} entries are NaN or infinite",
            fix="clean the data first: no explanation of such an input would mean anything.",
        )
    integers = "int" in spec.dtype
    if integers and array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        raise InputError(
            f"Input {spec.name!r} takes integers.", expected=spec.dtype, received=f"{array.dtype} with fractions"
        )
    # 16-bit models are explained in 32 bits.
    dtype = "float32" if spec.dtype in ("float16", "bfloat16") else spec.dtype
    return array.astype(dtype, copy=False)


def to_array(value: Any) -> np.ndarray:
    """A tensor, list or array as an array; InputError if its rows differ in length."""
    try:
        return np.asarray(value if isinstance(value, (list, tuple)) else backend.to_numpy(value))
    except ValueError as error:
        raise InputError(
            "The input is a list with rows of different lengths.",
            expected="numbers that fill an array",
            received=str(error),
            fix="pad the rows to one length, as the model was trained with.",
        ) from error


def _check_shape(array: np.ndarray, spec: Any) -> None:
    expected = tuple(spec.shape[1:])
    shown = f"(samples, {', '.join('any' if size is None else str(size) for size in expected)})"
    fits = array.ndim == len(expected) + 1 and all(
        want in (None, size) for size, want in zip(array.shape[1:], expected, strict=True)
    )
    if not fits:
        single = array.ndim == len(expected)
        raise InputError(
            f"Input {spec.name!r} has the wrong shape.",
            expected=shown,
            received=f"{array.shape}",
            fix="a single sample needs a batch axis: x[None]." if single else "",
        )
    if 0 in array.shape:
        raise InputError(f"Input {spec.name!r} is empty.", expected=shown, received=f"{array.shape}")
