"""The cosine of two tensors: each is brought to length one, then they are multiplied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kxai.graph.classify import layers_named
from kxai.graph.graph import Kind
from kxai.graph.group import group_of


def _dot(record: Any, layer: Any, inputs: Any) -> Any:
    outputs = layer.compute_output_spec(inputs)
    if not layer.normalize:
        return record.emit("dot", Kind.BILINEAR, layer.call, [inputs], outputs, layer=layer)
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else layer.axes
    pairs = zip(inputs, axes, ("first", "second"), strict=True)
    lengths_one = [_unit(record, layer, *pair) for pair in pairs]
    plain = keras.layers.Dot(layer.axes, dtype=layer.dtype_policy)
    return record.emit("dot", Kind.BILINEAR, plain.call, [lengths_one], outputs, layer=layer)


def _unit(record: Any, layer: Any, x: Any, axis: int, name: str) -> Any:
    # Of the layer's nodes its product alone counts as the layer.
    spec = keras.KerasTensor(x.shape, x.dtype)
    group = group_of("normalize", {"axis": axis, "order": 2})
    call = lambda v: ops.normalize(v, axis=axis)  # noqa: E731
    return record.emit("normalize", Kind.NORM, call, [x], spec, suffix=name, group=group)


SIMILARITY_LAYERS: dict[type, Callable[..., Any]] = dict.fromkeys(layers_named("Dot"), _dot)
