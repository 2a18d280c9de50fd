"""Pictures as uint8 arrays: a heatmap by itself, and a heatmap over the image that it explains."""

from __future__ import annotations

import numpy as np

from kxai.arguments import check_number
from kxai.errors import ArgumentError
from kxai.plots.color import diverging
from kxai.plots.scale import chosen, scaled

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
    return diverging(scaled(_checked(heatmap), chosen(heatmap, clip, bound)[0]))


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
    check_number("opacity", opacity, least=0, most=1)
    rgb, heatmap = to_rgb(image), _checked(heatmap)
    if heatmap.shape != rgb.shape[:2]:
        raise ArgumentError(
            "Image and heatmap differ in size.",
            expected=f"a heatmap {rgb.shape[:2]}",
            received=str(heatmap.shape),
            fix="resize the image to the model's input; relevance must not be resized, it would no longer add up.",
        )
    share = scaled(heatmap, chosen(heatmap, clip, bound)[0])
    weight = (opacity * np.sqrt(np.abs(share)))[..., np.newaxis]
    gray = (rgb @ LUMINANCE)[..., np.newaxis]
    # Half the map's range at the least, so that a faint value is tinted and does not whiten a dark image.
    colour = diverging(np.sign(share) * (FAINTEST + STRONGER * np.abs(share)))
    return np.rint((1 - weight) * gray + weight * colour).astype(np.uint8)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Brings an image, or a batch of them, to uint8 RGB.

    pixel = 255 (value - low) / (high - low), with the range of ``value_range``.

    Args:
        image: ``(..., height, width)`` or ``(..., height, width, 1|3)``, finite, of any real dtype and range; a batch
            is shown on one range. A rank of 2 is a gray image.

    Returns:
        uint8 array ``(..., height, width, 3)``.

    Raises:
        ArgumentError: another shape (channels first, other numbers of channels) or dtype, or not finite.

    Example:
        >>> to_rgb(np.array([[0.0, 1.0]]))[0, :, 0]
        array([  0, 255], dtype=uint8)
        >>> to_rgb(np.array([[-1.0, 0.0, 1.0]]))[0, :, 0]
        array([  0, 128, 255], dtype=uint8)
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim < 3 or image.shape[-1] not in (1, 3) or image.size == 0:
        first = image.ndim > 2 and image.shape[-3] in (1, 3)
        raise ArgumentError(
            "This is no image.",
            expected="(height, width) or (..., height, width, 1|3)",
            received=f"{image.shape}, channels first" if first else str(image.shape),
            fix="move the channels to the end: np.moveaxis(images, -3, -1)."
            if first
            else "show one or three of the channels, for example images[..., [3, 2, 1]].",
        )
    low, high = value_range(image)
    if image.dtype != np.uint8:
        image = np.rint(255 * (image.astype(np.float64) - low) / ((high - low) or 1.0)).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:-1], 3))


def value_range(image: np.ndarray) -> tuple[float, float]:
    """Says which values of an image are shown black and white.

    Args:
        image: array of any shape, a real dtype, finite.

    Returns:
        (0, 255) for uint8; else (0, 1) or (0, 255), the first that holds all values; else (as after a preprocessing)
        their minimum and maximum.

    Raises:
        ArgumentError: another dtype, or not finite.

    Example:
        >>> value_range(np.array([0.2, 0.4])), value_range(np.array([0.2, 4.0])), value_range(np.array([-2.0, 2.5]))
        ((0.0, 1.0), (0.0, 255.0), (-2.0, 2.5))
    """
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return 0.0, 255.0
    if image.dtype.kind not in "fiub" or not np.isfinite(image).all():
        received = f"{image.dtype} with NaN or infinity" if image.dtype.kind == "f" else str(image.dtype)
        raise ArgumentError("The image has no range.", expected="real numbers, all finite", received=received)
    low, high = float(image.min()), float(image.max())
    return next(((0.0, top) for top in (1.0, 255.0) if low >= 0 and high <= top), (low, high))


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
