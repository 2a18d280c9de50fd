"""One call for any batch of heatmaps: images become a grid, sequences strips, tables bars."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kxai.errors import ArgumentError
from kxai.plots.bars import bars
from kxai.plots.figure import figure
from kxai.plots.strip import strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(
    heatmap: np.ndarray,
    images: np.ndarray | None = None,
    sequence: bool = False,
    name: str = "relevance",
    titles: Sequence[str] | None = None,
    **options: Any,
) -> Figure:
    """Draws one method's heatmaps in the way that their shape asks for.

    Args:
        heatmap: ``(batch, height, width)`` is drawn by ``figure``; ``(batch, n)`` by ``strip`` if ``sequence`` is True
            or ``tokens`` are given, else by ``bars``.
        images: for the image column, see ``figure``; default None.
        sequence: whether a rank of 2 means steps in order, not features; default False.
        name: of the method; default ``"relevance"``.
        titles: one line per sample; default none.
        **options: of the function that draws: ``scale``, ``clip``, ``opacity``, ``size``; ``tokens``, ``clip``;
            ``names``, ``top``.

    Returns:
        A matplotlib ``Figure``, not shown.

    Raises:
        ArgumentError: the rank is another one, or an option does not exist or does not apply.

    Example:
        >>> len(draw(np.ones((2, 4, 4))).axes), len(draw(np.ones((2, 4))).axes)
        (3, 2)
    """
    heatmap = np.asarray(heatmap)
    if heatmap.ndim == 3:
        _options(figure, options)
        return figure({name: heatmap}, images=images, titles=titles, **options)
    if heatmap.ndim != 2:
        raise ArgumentError(
            "Heatmaps of this rank cannot be drawn.",
            expected="(batch, height, width), (batch, steps) or (batch, features)",
            received=str(heatmap.shape),
            fix="draw slices of it with kxai.plots.figure.",
        )
    if images is not None:
        raise ArgumentError(
            "images does not apply.", expected="images only for (batch, height, width)", received=str(heatmap.shape)
        )
    drawer = strip if sequence or "tokens" in options else bars
    _options(drawer, options)
    lines = list(titles) if titles is not None else [""] * len(heatmap)
    return drawer(heatmap, titles=[f"{name}  {line}".strip() for line in lines], **options)


def _options(function: Any, options: dict[str, Any]) -> None:
    taken = [*inspect.signature(function).parameters][1:]
    unknown = sorted(set(options) - (set(taken) - {"images", "titles"}))
    if unknown:
        raise ArgumentError(
            f"The option {', '.join(unknown)} does not apply to this figure.",
            expected=f"options of {function.__name__}: {', '.join(o for o in taken if o not in ('images', 'titles'))}",
            received=", ".join(sorted(options)),
        )
