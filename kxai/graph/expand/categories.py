"""Categories that a sample has: which of them, or how often. One lookup per token, then the maximum or the sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from kxai.graph.classify import layers_named
from kxai.graph.graph import Kind


def _category_encoding(record: Any, layer: Any, ids: Any, count_weights: Any = None) -> Any:
    if layer.output_mode == "one_hot":
        single = len(ids.shape) > 1 and ids.shape[-1] == 1
        return ops.one_hot(ops.squeeze(ids, -1) if single else ids, layer.num_tokens, dtype=layer.compute_dtype)
    if len(ids.shape) < 2:
        # Keras takes the whole batch for one sample.
        outputs = layer.compute_output_spec(ids)
        reason = "it makes one sample of the whole batch"
        return record.emit("category_encoding", Kind.OPAQUE, layer.call, [ids], outputs, layer=layer, reason=reason)
    each = ops.one_hot(ids, layer.num_tokens, dtype=layer.compute_dtype)
    if layer.output_mode == "multi_hot":
        return ops.max(each, axis=1)
    if count_weights is not None:
        each = ops.multiply(each, ops.expand_dims(ops.cast(count_weights, layer.compute_dtype), -1))
    return ops.sum(each, axis=1)


def _multi_hot_op(record: Any, operation: Any, ids: Any) -> Any:
    if operation.axis != -1 or "float" not in operation.dtype or len(ids.shape) < 2:
        outputs = operation.compute_output_spec(ids)
        reason = "it has a derivative only as floats, with the classes on the last axis and a batch"
        return record.emit("multi_hot", Kind.OPAQUE, operation.call, [ids], outputs, operation=operation, reason=reason)
    return ops.max(ops.one_hot(ids, operation.num_classes, dtype=operation.dtype), axis=1)


CATEGORY_LAYERS: dict[type, Callable[..., Any]] = dict.fromkeys(layers_named("CategoryEncoding"), _category_encoding)
CATEGORY_OPERATIONS: dict[str, Callable[..., Any]] = {"MultiHot": _multi_hot_op}
