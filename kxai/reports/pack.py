"""Arrays as text within a page, at a precision that is stated and within a size that is bounded."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, final

import numpy as np


@final
@dataclass(frozen=True)
class Precision:
    """How numbers are kept in a page.

    Args:
        name: "single", "half" or "maps".
        size: bytes per number, 4 or 2.
        channels: whether relevance keeps its channels, or only their sum and their largest magnitude.
        stated: what a reader is told.
    """

    name: str
    size: int
    channels: bool
    stated: str


_HALF = "to within 0.05 % of each number, or 1e-11 of the largest of its heatmap, if that is more (half precision)"
PRECISIONS = (
    Precision("single", 4, True, "in single precision"),
    Precision("half", 2, True, _HALF),
    Precision("maps", 2, False, f"{_HALF}; of relevance only the sum over channels and the largest magnitude"),
)
"""From the finest to the smallest."""


@final
class Blobs:
    """Arrays that have become text; a page finds them by their number.

    Example:
        >>> blobs = Blobs()
        >>> blobs.numbers(np.array([1.0, -0.5]), 2)
        {'blob': 0, 'type': 'f2', 'shape': [2], 'shift': -14}
        >>> blobs.texts
        ['AHQA8A==']
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def numbers(self, array: np.ndarray, size: int) -> dict[str, Any]:
        """Keeps floating-point numbers: value = stored * 2**shift.

        In half precision the power of two brings the largest magnitude to [2**14, 2**15), so that the relative error
        of a number is at most 2**-11, unless it is smaller than 2**-28 of the largest.

        Args:
            array: any shape, finite.
            size: bytes per number, 4 or 2.

        Returns:
            What finds and reads them: the number of the blob, its type, shape and shift.
        """
        if size == 4:
            return self._kept(array.astype("<f4"), "f4")
        _, exponent = np.frexp(np.abs(array.astype(np.float64)).max(initial=0.0))
        shift = int(exponent) - 15
        return {**self._kept(np.ldexp(array.astype(np.float64), -shift).astype("<f2"), "f2"), "shift": shift}

    def bytes(self, array: np.ndarray) -> dict[str, Any]:
        """Keeps uint8 numbers.

        Args:
            array: any shape.

        Returns:
            What finds and reads them.
        """
        return self._kept(array.astype(np.uint8), "u1")

    def _kept(self, array: np.ndarray, kind: str) -> dict[str, Any]:
        self.texts.append(base64.b64encode(array.tobytes()).decode("ascii"))
        return {"blob": len(self.texts) - 1, "type": kind, "shape": list(array.shape)}


def maps(relevance: np.ndarray) -> np.ndarray:
    """Sum and largest magnitude over the channels of one sample.

    Args:
        relevance: ``(..., channels)``.

    Returns:
        ``(..., 2)``.

    Example:
        >>> maps(np.array([[3.0, -4.0, 0.5]]))
        array([[-0.5,  4. ]])
    """
    exact = relevance.astype(np.float64)
    return np.stack([exact.sum(axis=-1), np.abs(exact).max(axis=-1)], axis=-1)
