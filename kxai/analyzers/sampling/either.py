"""Functions of arrays and of tensors: one formula for what is computed at once and for what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def dtype_of(x: Any) -> str:
    """The dtype's name."""
    return str(keras.backend.standardize_dtype(x.dtype))


def is_float(x: Any) -> bool:
    """Whether it holds real numbers."""
    return "float" in dtype_of(x)


def length(x: Any) -> Any:
    """The size of the first axis."""
    return len(x) if isinstance(x, np.ndarray) else ops.shape(x)[0]


def cast(x: Any, dtype: str) -> Any:
    """The same numbers in another dtype."""
    return x.astype(dtype, copy=False) if isinstance(x, np.ndarray) else ops.cast(x, dtype)


def reshape(x: Any, shape: Sequence[int]) -> Any:
    """The same numbers in another shape."""
    return x.reshape(shape) if isinstance(x, np.ndarray) else ops.reshape(x, shape)


def take(x: Any, rows: Any) -> Any:
    """Rows by number."""
    return x[rows] if isinstance(x, np.ndarray) else ops.take(x, rows, axis=0)


def along(rows: Any, like: Any) -> Any:
    """Numbers (rows,) in a shape that broadcasts over rows ``like`` these."""
    return reshape(rows, (-1, *(1,) * (len(like.shape) - 1)))


def difference(x: Any, y: Any) -> Any:
    """x - y, in float64."""
    arrays = isinstance(x, np.ndarray)
    return np.subtract(x, y, dtype=np.float64) if arrays else ops.cast(x, "float64") - ops.cast(y, "float64")


def where(condition: Any, x: Any, y: Any) -> Any:
    """x or y."""
    arrays = isinstance(condition, np.ndarray)
    return np.where(condition, x, y) if arrays else ops.where(condition, x, y)


def positive(x: Any) -> Any:
    """max(x, 0)."""
    return np.maximum(x, 0) if isinstance(x, np.ndarray) else ops.maximum(x, 0)
