"""From a map of a layer's size to the positions of the model's input: linear interpolation along every spatial axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from kxai.errors import ArgumentError


def upsample(x: Any, sizes: Sequence[int], align_corners: bool = False) -> Any:
    """Resize maps linearly: bilinear for images, trilinear for volumes. A constant map stays what it is.

    Along an axis of n values, position i of m lies at ``(i + 1/2) n / m - 1/2`` (half-pixel centres, clipped to the
    first and last value), or with aligned corners at ``i (n - 1) / (m - 1)``. When a map is made smaller, nothing is
    averaged.

    Args:
        x: floating point tensor (batch, *spatial, channels), its spatial sizes known, >= 1.
        sizes: one size >= 1 per spatial axis.
        align_corners: whether the first and last values stay at the borders. Default False.

    Returns:
        Tensor (batch, *sizes, channels) of the dtype of ``x``.

    Raises:
        ArgumentError: ``sizes`` does not fit ``x``, or a spatial size of ``x`` is not known.

    Example:
        >>> x = ops.reshape(ops.convert_to_tensor([0.0, 1.0]), (1, 2, 1))
        >>> ops.convert_to_numpy(upsample(x, [4]))[0, :, 0]
        array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
        >>> ops.convert_to_numpy(upsample(x, [3], align_corners=True))[0, :, 0]
        array([0. , 0.5, 1. ], dtype=float32)
    """
    before = tuple(x.shape[1:-1])
    if len(before) != len(sizes) or None in before or any(size < 1 for size in (*before, *sizes)):
        raise ArgumentError(
            "A map cannot be resized to this.",
            expected="one size >= 1 per spatial axis of (batch, *spatial, channels), all of them known",
            received=f"sizes {tuple(sizes)} for shape {tuple(x.shape)}",
        )
    for axis, (size, wanted) in enumerate(zip(before, sizes, strict=True), start=1):
        if size != wanted:
            x = _along(x, axis, _positions(size, wanted, align_corners), size)
    return x


def _positions(size: int, wanted: int, align_corners: bool) -> np.ndarray:
    """Where the wanted values lie among those that are there, in float64."""
    if align_corners:
        return np.arange(wanted) * ((size - 1) / max(wanted - 1, 1))
    return np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)


def _along(x: Any, axis: int, positions: np.ndarray, size: int) -> Any:
    left = np.minimum(positions.astype("int32"), size - 1)
    right = np.minimum(left + 1, size - 1)
    share = (positions - left).reshape(-1, *(1,) * (len(x.shape) - axis - 1))
    start = ops.take(x, left, axis=axis)
    return start + (ops.take(x, right, axis=axis) - start) * ops.cast(ops.convert_to_tensor(share), x.dtype)
