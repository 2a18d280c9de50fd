"""Pictures as uint8 arrays: a heatmap by itself, and a heatmap over the image that it explains."""

from __future__ import annotations

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.color import diverging
from kxai.plots.scale import limit, scaled

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
"""What red, green and blue add to a gray version of an image."""
FAINTEST, STRONGER = 0.45, 0.35
"""Where in the colour map an overlay's smallest values lie, and how far above it its largest."""


def heatmap_rgb(heatmap: np.ndarray, clip: float = 99.5, bound: float | None = None) -> np.ndarray:
    """Colours a heatmap: red positive, blue negative, white zero.

    Args:
        heatmap: ``(..., height, width)``, finite.
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate; default 99.5.
        bound: the scale itself instead of a percentile, > 0, for example to share one; then ``clip`` must stay as it
            is. Default None.

    Returns:
        uint8 array ``(..., height, width, 3)``.

    Raises:
        ArgumentError: wrong rank, or ``clip`` or ``bound`` out of range.
        InputError: empty or not finite.

    Example:
        >>> heatmap_rgb(np.zeros((4, 5))).shape
        (4, 5, 3)
    """
    return diverging(scaled(_checked(heatmap), _bound(heatmap, clip, bound)))


def overlay(
    image: np.ndarray, heatmap: np.ndarray, opacity: float = 0.85, clip: float = 99.5, bound: float | None = None
) -> np.ndarray:
    """Lays a heatmap over a gray version of its image; a pixel is covered the more, the larger its magnitude.

    pixel = (1 - a) * gray + a * colour, with a = ``opacity`` * sqrt(min(``|relevance|`` / bound, 1)).

    Args:
        image: ``(height, width)`` or ``(height, width, 1|3)``; see ``to_rgb`` for its range.
        heatmap: ``(height, width)``, finite.
        opacity: how far the largest magnitudes cover the image, [0, 1]; default 0.85.
        clip: percentile of the magnitudes, (0, 100], from which on colours saturate; default 99.5.
        bound: the scale itself instead of a percentile, > 0; default None.

    Returns:
        uint8 array ``(height, width, 3)``.

    Raises:
        ArgumentError: the sizes differ, or an argument is out of range.
        InputError: heatmap or image empty or not finite.

    Example:
        >>> overlay(np.full((4, 5), 128, np.uint8), np.eye(4, 5)).shape
        (4, 5, 3)
    """
    if isinstance(opacity, bool) or not 0 <= opacity <= 1:
        raise ArgumentError("opacity is out of range.", expected="a number in [0, 1]", received=repr(opacity))
    rgb, heatmap = to_rgb(image), _checked(heatmap)
    if heatmap.shape != rgb.shape[:2]:
        raise ArgumentError(
            "Image and heatmap differ in size.",
            expected=f"a heatmap {rgb.shape[:2]}",
            received=str(heatmap.shape),
            fix="resize the image to the model's input; relevance must not be resized, it would no longer add up.",
        )
    share = scaled(heatmap, _bound(heatmap, clip, bound))
    weight = (opacity * np.sqrt(np.abs(share)))[..., np.newaxis]
    gray = (rgb @ LUMINANCE)[..., np.newaxis]
    # Half the map's range at the least, so that a faint value is tinted and does not whiten a dark image.
    colour = diverging(np.sign(share) * (FAINTEST + STRONGER * np.abs(share)))
    return np.rint((1 - weight) * gray + weight * colour).astype(np.uint8)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Brings an image to uint8 RGB.

    Args:
        image: ``(..., height, width)`` or ``(..., height, width, 1|3)``, uint8, or floating point in [0, 1] or
            [0, 255] (the latter if any value is above 1). A rank of 2 is a gray image.

    Returns:
        uint8 array ``(..., height, width, 3)``.

    Raises:
        ArgumentError: another shape, dtype or range (for example an image preprocessed to [-1, 1]).

    Example:
        >>> to_rgb(np.array([[0.0, 1.0]]))[0, :, 0]
        array([  0, 255], dtype=uint8)
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim < 3 or image.shape[-1] not in (1, 3) or image.size == 0:
        raise ArgumentError(
            "This is no image.", expected="(height, width) or (..., height, width, 1|3)", received=str(image.shape)
        )
    if image.dtype != np.uint8:
        # The comparison is false for NaN, too.
        if image.dtype.kind not in "fiu" or not (image.min() >= 0 and image.max() <= 255):
            raise ArgumentError(
                "The image has an unknown range.",
                expected="uint8, or numbers in [0, 1] or [0, 255]",
                received=f"{image.dtype} in [{image.min()}, {image.max()}]",
                fix="pass the image as it was before the model's preprocessing.",
            )
        image = image.astype(np.float64)
        image = np.rint(image * (255 if image.max() <= 1 else 1)).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:-1], 3))


def _checked(heatmap: np.ndarray) -> np.ndarray:
    heatmap = np.asarray(heatmap)
    if heatmap.ndim < 2:
        raise ArgumentError(
            "This is no heatmap.",
            expected="(..., height, width)",
            received=str(heatmap.shape),
            fix="sequences and tables are drawn by kxai.plots.strip and kxai.plots.bars.",
        )
    return heatmap


def _bound(heatmap: np.ndarray, clip: float, bound: float | None) -> float:
    percentile = limit(heatmap, clip)
    if bound is None:
        return percentile
    if not 0 < bound < np.inf:
        raise ArgumentError("bound is out of range.", expected="a finite number > 0, or None", received=repr(bound))
    return float(bound)
