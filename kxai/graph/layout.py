"""Tensors of a graph with one entry per sample, and back: some edges have the batch elsewhere, or joined with time."""

from __future__ import annotations

from typing import Any

from keras import ops

from kxai.graph.graph import Edge


def sample_shape(edge: Edge) -> tuple[int | None, ...]:
    """The shape that :func:`per_sample` gives; its first size, of the batch, is None."""
    if edge.batch is None:
        return edge.shape
    axis, factor = edge.batch
    rest = tuple(size for i, size in enumerate(edge.shape) if i != axis)
    return (None, *((factor,) if factor != 1 else ()), *rest)


def batch_first(tensor: Any, edge: Edge) -> Any:
    """The batch axis first."""
    return tensor if edge.batch is None or edge.batch[0] == 0 else ops.moveaxis(tensor, edge.batch[0], 0)


def per_sample(tensor: Any, edge: Edge) -> Any:
    """The batch axis first; where time steps (say) had joined it, they get an axis of their own again."""
    tensor = batch_first(tensor, edge)
    if edge.batch is None or edge.batch[1] == 1:
        return tensor
    return ops.reshape(tensor, (-1, edge.batch[1], *tensor.shape[1:]))


def as_edge(tensor: Any, edge: Edge) -> Any:
    """What :func:`per_sample` undoes."""
    if edge.batch is not None and edge.batch[1] != 1:
        tensor = ops.reshape(tensor, (-1, *tensor.shape[2:]))
    return tensor if edge.batch is None or edge.batch[0] == 0 else ops.moveaxis(tensor, 0, edge.batch[0])
