"""What activation maximisation returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

import numpy as np

from kxai import files, nest
from kxai.errors import ArgumentError
from kxai.nest import Nest
from kxai.plots.pictures import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@final
@dataclass(frozen=True, eq=False, repr=False)
class Maximization:
    """Inputs that maximise a score.

    All arrays are read-only copies.

    Args:
        images: ``(n, ...)``, in the units of the model's input, structured like the model's inputs.
        score: ``(n,)``, the maximised quantity at ``images``, without regularisation.
        history: ``(num_steps, n)``, its values before every step.
        low, high: the range of the inputs, structured like ``images``, ``(...)`` each without a batch axis.
        config: JSON-able facts about how they were made; default empty.

    Raises:
        ArgumentError: ``config`` is not JSON-able.

    Example:
        >>> found = Maximization(np.ones((2, 4, 4, 1)), np.ones(2), np.zeros((5, 2)), np.zeros(()), np.ones(()))
        >>> found
        Maximization(images=(2, 4, 4, 1), score=[1.0, 1.0])
        >>> len(found.plot().axes)
        2
    """

    images: Nest
    score: np.ndarray
    history: np.ndarray
    low: Nest
    high: Nest
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("images", "score", "history", "low", "high"):
            object.__setattr__(self, name, nest.map_leaves(nest.frozen, getattr(self, name)))
        object.__setattr__(self, "config", MappingProxyType(files.json_copy(dict(self.config))))

    def __len__(self) -> int:
        return len(self.score)

    def __repr__(self) -> str:
        scores = ", ".join(f"{value:.4}" for value in self.score[:5]) + (", ..." if len(self) > 5 else "")
        return f"Maximization(images={nest.describe(self.images)}, score=[{scores}])"

    def __reduce__(self) -> tuple:
        return Maximization, (self.images, self.score, self.history, self.low, self.high, dict(self.config))

    def pixels(self, input: str | int | None = None) -> np.ndarray:
        """The images as pictures: the range of the inputs becomes black to white.

        Args:
            input: which of several inputs, by its key; default the only one.

        Returns:
            uint8 array ``(n, height, width, 1 or 3)``.

        Raises:
            ArgumentError: several inputs and none chosen, or it is not an image.
            UnknownNameError: no such input.
        """
        images, low, high = (nest.pick(part, input) for part in (self.images, self.low, self.high))
        if images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise ArgumentError(
                "This input is no image; there is no picture of it.",
                expected="(n, height, width, 1 or 3)",
                received=str(images.shape),
                fix="look at its numbers, in .images.",
            )
        pixels: np.ndarray = np.rint(255 * (images.astype(np.float64) - low) / (high - low)).astype(np.uint8)
        return pixels

    def plot(
        self,
        input: str | int | None = None,
        *,
        titles: Sequence[str] | None = None,
        columns: int = 5,
        size: float = 2.0,
    ) -> Figure:
        """Draws the images with their scores.

        Args:
            input: which of several inputs, by its key; default the only one.
            titles: a line per image; default the scores.
            columns: images in a row, >= 1; default 5.
            size: height of an image in inches, > 0; default 2.

        Returns:
            A matplotlib ``Figure``, not shown.

        Raises:
            ArgumentError: it is not an image, or an argument is out of range. UnknownNameError: no such input.
        """
        lines = [f"score {value:.4g}" for value in self.score] if titles is None else titles
        return pictures(self.pixels(input), lines, columns, size)
