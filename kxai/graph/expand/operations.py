"""Operations that become a node whose name or kind depends on their attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kxai.graph.expand.layers import relu_name
from kxai.graph.graph import Kind


def _relu_op(record: Any, operation: Any, x: Any) -> Any:
    op = relu_name(operation.negative_slope, operation.threshold)
    return record.emit(op, Kind.ELEMENTWISE, operation.call, [x], record.spec(operation, x), operation=operation)


def _one_hot_op(record: Any, operation: Any, x: Any) -> Any:
    last = operation.axis in (-1, len(x.shape))
    reason = "" if last else "one_hot does not put its classes on the last axis"
    kind = Kind.LOOKUP if last else Kind.OPAQUE
    outputs = record.spec(operation, x)
    return record.emit("one_hot", kind, operation.call, [x], outputs, operation=operation, reason=reason)


def _take_op(record: Any, operation: Any, x: Any, indices: Any) -> Any:
    """Rows of a table of weights are looked up; anything else is moved."""
    outputs = record.spec(operation, x, indices)
    table = not isinstance(x, keras.KerasTensor) and isinstance(indices, keras.KerasTensor)
    if not table or len(x.shape) != 2 or operation.axis not in (0, -2):
        return record.emit("take", Kind.ROUTE, operation.call, [x, indices], outputs, operation=operation)
    return record.emit(
        "take", Kind.LOOKUP, operation.call, [x, indices], outputs, operation=operation, entries=x.shape[0]
    )


def _where_op(record: Any, operation: Any, condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """The condition says which value is taken, and is none itself: numbers become truth values first."""
    outputs = operation.compute_output_spec(condition, x1, x2)
    if isinstance(condition, keras.KerasTensor) and keras.backend.standardize_dtype(condition.dtype) != "bool":
        condition = ops.not_equal(condition, 0)
    return record.emit("where", Kind.ROUTE, operation.call, [condition, x1, x2], outputs, operation=operation)


def _get_item_op(record: Any, operation: Any, x: Any, key: Any) -> Any:
    # A slice alone is fine for tensors; symbolic ones want a tuple, of which a file makes a list.
    key = (key,) if isinstance(key, slice) or key is None or key is Ellipsis else key
    key = tuple(key) if isinstance(key, list) else key
    outputs = record.spec(operation, x, key)
    return record.emit("get_item", Kind.ROUTE, operation.call, [x, key], outputs, operation=operation)


OPERATION_EXPANSIONS: dict[str, Callable[..., Any]] = {
    "GetItem": _get_item_op,
    "Take": _take_op,
    "OneHot": _one_hot_op,
    "ReLU": _relu_op,
    "Where": _where_op,
}
