"""The colour map: blue for negative, white for zero, red for positive, equally light at equal magnitude."""

from __future__ import annotations

import functools

import numpy as np

# Anchors at magnitudes 0, 1/3, 2/3 and 1 in OKLab: lightness, and chroma along one hue per sign. Both signs share
# lightness, so no sign looks stronger than the other; blue against red stays apart for all common colour blindness.
_LIGHTNESS = (0.985, 0.80, 0.60, 0.38)
_CHROMA = (0.0, 0.095, 0.175, 0.125)
_HUE = {1: np.deg2rad(26.0), -1: np.deg2rad(255.0)}
_STEPS = 256


def diverging(values: np.ndarray) -> np.ndarray:
    """Colours signed values: white at 0, dark red at +1, dark blue at -1.

    The colours are interpolated in OKLab, in which equal steps look equal.

    Args:
        values: array of any shape; what lies outside [-1, 1] is clipped.

    Returns:
        uint8 array of shape ``(*values.shape, 3)``, sRGB.

    Example:
        >>> diverging(np.array([0.0, 1.0, -1.0])).shape
        (3, 3)
        >>> red, _, blue = diverging(np.array([0.5]))[0]
        >>> bool(red > blue)
        True

    Source: B. Ottosson, "A perceptual color space for image processing" (2020), the matrices of OKLab.
    """
    index = np.rint((np.clip(values, -1.0, 1.0) + 1.0) * _STEPS).astype(np.intp)
    return _table()[index]


@functools.cache
def _table() -> np.ndarray:
    magnitude = np.linspace(-1.0, 1.0, 2 * _STEPS + 1)
    sign = np.where(magnitude >= 0, 1, -1)
    anchors = np.linspace(0.0, 1.0, len(_LIGHTNESS))
    lightness = np.interp(np.abs(magnitude), anchors, _LIGHTNESS)
    chroma = np.interp(np.abs(magnitude), anchors, _CHROMA)
    hue = np.where(sign > 0, _HUE[1], _HUE[-1])
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    table = np.rint(255 * _srgb(lab)).astype(np.uint8)
    table.flags.writeable = False
    return table


def _srgb(oklab: np.ndarray) -> np.ndarray:
    to_lms = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((oklab @ to_lms.T) ** 3 @ to_linear.T, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
