"""Overlays as part of a graph: what :func:`kxai.plots.overlay` draws, in operations on tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from kxai.backend import saved_model
from kxai.plots.color import diverging
from kxai.plots.raster import FAINTEST, LUMINANCE, STRONGER

_HALF = 256  # steps of the colour map on each side of 0


def overlays(images: Any, relevance: Any, clip: float, opacity: float) -> Any:
    """Relevance over gray versions of the images, each on a scale of its own.

    Args:
        images: uint8 (batch, height, width, 1 or 3).
        relevance: (batch, height, width, channels).
        clip: percentile of the magnitudes from which on colours saturate.
        opacity: how far the largest magnitudes cover the image.

    Returns:
        uint8 (batch, height, width, 3).
    """
    # As heatmaps are: summed in 64 bits, kept in 32.
    heatmaps = ops.cast(ops.cast(ops.sum(ops.cast(relevance, "float64"), axis=-1), "float32"), "float64")
    bound = ops.reshape(_limits(ops.abs(heatmaps), clip), (-1, 1, 1))
    share = ops.clip(heatmaps / ops.where(bound > 0, bound, ops.ones_like(bound)), -1.0, 1.0)
    weight = (opacity * ops.sqrt(ops.abs(share)))[..., None]
    rgb = ops.cast(images, "float64")
    rgb = ops.repeat(rgb, 3, axis=-1) if images.shape[-1] == 1 else rgb
    gray = ops.sum(rgb * LUMINANCE, axis=-1, keepdims=True)
    colour = _coloured(ops.sign(share) * (FAINTEST + STRONGER * ops.abs(share)))
    return ops.cast(ops.round((1 - weight) * gray + weight * colour), "uint8")


def _coloured(values: Any) -> Any:
    table = diverging(np.arange(-_HALF, _HALF + 1) / _HALF).astype("float64")
    return ops.take(table, ops.cast(ops.round((values + 1.0) * _HALF), "int32"), axis=0)


def _limits(magnitudes: Any, clip: float) -> Any:
    """Per image the percentile of the magnitudes, interpolated as NumPy does; the maximum where that is 0."""
    count = math.prod(magnitudes.shape[1:])
    ordered = ops.sort(ops.reshape(magnitudes, (saved_model.rows(magnitudes), count)), axis=1)
    place = (count - 1) * (clip / 100)
    below = min(int(place), max(count - 2, 0))
    low, high = ordered[:, below], ordered[:, min(below + 1, count - 1)]
    share = place - below
    found = low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
    return ops.where(found > 0, found, ordered[:, -1])
