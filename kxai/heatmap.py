"""From relevance with channels to one number per position."""

from __future__ import annotations

import numpy as np

from kxai.arguments import check_choice
from kxai.errors import ArgumentError

_REDUCE = {
    "sum": lambda relevance: relevance.sum(axis=-1),
    "abs_max": lambda relevance: np.abs(relevance).max(axis=-1),
    "l2": lambda relevance: np.sqrt(np.square(relevance).sum(axis=-1)),
}


def heatmap(relevance: np.ndarray, reduce: str = "sum", patch: int = 1) -> np.ndarray:
    """Reduces the channels of relevance (the last axis, from three axes on), and patches, to one number each.

    Args:
        relevance: ``(batch, *sizes, channels)``, or ``(batch, features)``, which has one channel.
        reduce: ``"sum"`` (default), ``"abs_max"`` (largest magnitude) or ``"l2"`` (Euclidean norm).
        patch: side of the squares that become one number each; must divide every size. Default 1.

    Returns:
        ``(batch, *sizes / patch)``; float64 for float64 relevance, else float32.

    Raises:
        ArgumentError: ``reduce`` is unknown, or ``patch`` does not fit.

    Example:
        >>> heatmap(np.array([[[3.0, -4.0]]]), "l2")
        array([[5.]])
    """
    check_choice("reduce", reduce, _REDUCE)
    if relevance.ndim < 3:
        relevance = relevance[..., np.newaxis]
    relevance = _in_patches(relevance, patch)
    dtype = np.result_type(relevance.dtype, np.float32)
    return _REDUCE[reduce](relevance.astype(np.float64)).astype(dtype)


def _in_patches(relevance: np.ndarray, patch: int) -> np.ndarray:
    """``(batch, *sizes, channels)`` with the values of each patch as its channels."""
    sizes = relevance.shape[1:-1]
    if isinstance(patch, bool) or not isinstance(patch, int) or patch < 1 or any(size % patch for size in sizes):
        raise ArgumentError(
            "Patches of this size do not tile the input.",
            expected=f"a whole number that divides every one of {sizes}",
            received=f"patch={patch!r}",
        )
    if patch == 1:
        return relevance
    split = relevance.reshape(len(relevance), *(n for size in sizes for n in (size // patch, patch)), -1)
    outer, inner = range(1, 2 * len(sizes), 2), range(2, 2 * len(sizes) + 1, 2)
    split = split.transpose(0, *outer, *inner, split.ndim - 1)
    return split.reshape(*split.shape[: len(sizes) + 1], -1)
