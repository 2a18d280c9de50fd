"""Operations that are compositions of simpler ones: statistics, norms, gates, two convolutions in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kxai.graph.graph import Kind
from kxai.graph.group import Group, mean_over, small


def _glu(record: Any, operation: Any, x: Any) -> Any:
    signal, gate = ops.split(x, 2, axis=operation.axis)
    return ops.multiply(signal, ops.sigmoid(gate))


def _squared_deviation(x: Any, axis: Any, keepdims: bool) -> Any:
    """The variance: a sum with constant weights of squares of a sum with constant weights."""
    centred = ops.subtract(x, ops.mean(x, axis=axis, keepdims=True))
    return ops.mean(ops.square(centred), axis=axis, keepdims=keepdims)


def _variance(record: Any, operation: Any, x: Any) -> Any:
    return _squared_deviation(x, operation.axis, operation.keepdims)


def _deviation(record: Any, operation: Any, x: Any) -> Any:
    return ops.sqrt(_squared_deviation(x, operation.axis, operation.keepdims))


def _moments(record: Any, operation: Any, x: Any) -> Any:
    axes, keepdims = operation.axes, operation.keepdims
    return ops.mean(x, axis=axes, keepdims=keepdims), _squared_deviation(x, axes, keepdims)


def _range(record: Any, operation: Any, x: Any) -> Any:
    axis, keepdims = operation.axis, operation.keepdims
    return ops.subtract(ops.max(x, axis=axis, keepdims=keepdims), ops.min(x, axis=axis, keepdims=keepdims))


def _norm(record: Any, operation: Any, x: Any) -> Any:
    axis, keepdims, order = operation.axis, operation.keepdims, operation.ord
    vectors = isinstance(axis, int) or (isinstance(axis, (tuple, list)) and len(axis) == 1)
    if order in (None, "fro") or (vectors and order == 2):
        return ops.sqrt(ops.sum(ops.square(x), axis=axis, keepdims=keepdims))
    if vectors and order == 1:
        return ops.sum(ops.abs(x), axis=axis, keepdims=keepdims)
    if vectors and order == float("inf"):
        return ops.max(ops.abs(x), axis=axis, keepdims=keepdims)
    outputs, reason = record.spec(operation, x), f"a norm of order {order!r} has no rule"
    return record.emit("norm", Kind.OPAQUE, operation.call, [x], outputs, operation=operation, reason=reason)


def _log_sum_exp(record: Any, operation: Any, x: Any) -> Any:
    """A maximum that is smooth: its derivative, the softmax, says how much each element has won."""
    outputs = keras.KerasTensor(record.spec(operation, x).shape, x.dtype)
    return record.emit("logsumexp", Kind.MAX, operation.call, [x], outputs, operation=operation)


def _separable_conv(record: Any, operation: Any, x: Any, depthwise_kernel: Any, pointwise_kernel: Any) -> Any:
    hidden = ops.depthwise_conv(
        x, depthwise_kernel, strides=operation.strides, padding=operation.padding,
        data_format=operation.data_format, dilation_rate=operation.dilation_rate,
    )  # fmt: skip
    return ops.conv(hidden, pointwise_kernel, padding="valid", data_format=operation.data_format)


def _layer_norm(record: Any, operation: Any, x: Any, gamma: Any = None, beta: Any = None) -> Any:
    """Centring, then the norm, which does not move centred values again."""
    outputs = record.spec(operation, x, gamma, beta)
    group = None
    if not operation.rms_scaling:
        x = ops.subtract(x, ops.mean(x, axis=operation.axis, keepdims=True))
        group = Group(mean_over(operation.axis), small(operation.epsilon))
    arguments = [x, gamma, beta]
    return record.emit("layer_norm", Kind.NORM, operation.call, arguments, outputs, operation=operation, group=group)


STATISTICS_EXPANSIONS: dict[str, Callable[..., Any]] = {
    "Glu": _glu,
    "LayerNorm": _layer_norm,
    "Logsumexp": _log_sum_exp,
    "Moments": _moments,
    "Norm": _norm,
    "Ptp": _range,
    "SeparableConv": _separable_conv,
    "Std": _deviation,
    "Var": _variance,
}
