"""Fused attention, opened: scores, scaling, masks, softmax, weighted sum of the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops


def _dot_product_attention(
    record: Any, operation: Any, query: Any, key: Any, value: Any, bias: Any = None, mask: Any = None, scale: Any = None
) -> Any:
    """softmax(scale q k^T + bias) v, per head; shapes (B, T, N, H), with fewer key heads where heads are grouped."""
    heads, key_heads = query.shape[2], key.shape[2]
    if heads != key_heads:
        key, value = (ops.repeat(x, heads // key_heads, axis=2) for x in (key, value))
    scale = 1.0 / float(np.sqrt(query.shape[-1])) if scale is None else scale
    scores = ops.multiply(ops.einsum("btnh,bsnh->bnts", query, key), scale)
    if bias is not None:
        scores = ops.add(scores, bias)
    if mask is not None:
        scores = _masked(scores, mask)
    if operation.is_causal:
        scores = _masked(scores, np.tri(query.shape[1], key.shape[1], dtype=bool)[None, None])
    return ops.einsum("bnts,bsnh->btnh", ops.softmax(scores, axis=-1), value)


def _masked(scores: Any, mask: Any) -> Any:
    # Finite, as in Keras: a row without any key attends to all of them alike.
    return ops.where(mask, scores, -4.5e4 if scores.dtype == "float16" else -2.37e38)


ATTENTION_EXPANSIONS: dict[str, Callable[..., Any]] = {"DotProductAttention": _dot_product_attention}
