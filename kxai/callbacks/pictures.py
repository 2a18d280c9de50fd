"""Pictures of explanations on one colour scale per run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from kxai import plots
from kxai.arguments import check_number
from kxai.errors import ArgumentError
from kxai.explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


CLIP = 99.5
"""The usual percentile."""


@final
@dataclass(frozen=True, eq=False)
class Panel:
    """One input of a model, its relevance beside it.

    Attributes:
        relevance: ``(batch, ...)``.
        values: what the model took, ``(batch, ...)``.
        images: how it is shown, ``(batch, height, width[, 1|3])``; None: as it is.
    """

    relevance: np.ndarray
    values: np.ndarray
    images: np.ndarray | None


@final
@dataclass(frozen=True)
class Bound:
    """The bound of a colour scale, and in words where it comes from."""

    value: float
    note: str


class Undrawable(Exception):
    """There is no picture of this; the message says why."""


@final
class Pictures:
    """Draws explanations; the scale of a name stays what it was in its first picture.

    Args:
        count: samples that are drawn, the first ones.
        scale: bound of the colours, or bounds by method; None: the percentile ``clip`` of the first picture's
            magnitudes.
        clip: a percentile in (0, 100].

    Raises:
        ArgumentError: an argument is out of range.
    """

    def __init__(self, count: int, scale: float | Mapping[str, float] | None, clip: float) -> None:
        for bound in scale.values() if isinstance(scale, Mapping) else [] if scale is None else [scale]:
            check_number("scale", bound, above=0, also="a dict of these by method")
        plots.limit(np.ones(1), clip)
        self._count, self._scale, self._clip = count, scale, clip
        self._bounds: dict[str, Bound] = {}

    @property
    def count(self) -> int:
        """Samples that are drawn."""
        return self._count

    def forget(self) -> None:
        """The next pictures are the first of a run."""
        self._bounds.clear()

    def draw(self, method: str, name: str, when: str, explanation: Explanation, panel: Panel) -> tuple[bytes, str]:
        """Draw one input.

        Args:
            method: for the heading and the scale.
            name: of the input, where there are several; else empty.
            when: such as "epoch 3".
            explanation: of all samples.
            panel: the input.

        Returns:
            The content of a PNG file, and what its scale is.

        Raises:
            Undrawable: there is no picture of such an input.
        """
        heatmaps = _heatmaps(panel)
        bound = self._bound(method, f"{method}/{name}", when, heatmaps)
        few = slice(0, self._count)
        titles = [f"{target}\nscore {score:.4g}" for target, score in _facts(explanation[few])]
        heading = f"{method}{f', {name}' if name else ''}, {when}"
        figure = _figure(panel, heatmaps[few], few, titles, heading, bound)
        buffer = io.BytesIO()
        # Level 6, the usual one, takes twice as long, for files that are no smaller where images are large.
        figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 3})
        return buffer.getvalue(), bound.note

    def _bound(self, method: str, key: str, when: str, heatmaps: np.ndarray) -> Bound:
        given = self._scale.get(method) if isinstance(self._scale, Mapping) else self._scale
        if given is not None:
            return Bound(float(given), f"scale ±{given:.3g}, given")
        if key not in self._bounds:
            value = plots.limit(heatmaps, self._clip)
            if not value:  # no relevance at all says nothing about the scale of what will come
                return Bound(1.0, "relevance is 0 throughout")
            which = "maximum" if self._clip == 100 else f"{self._clip:g}th percentile"
            self._bounds[key] = Bound(value, f"scale ±{value:.3g}, the {which} of |relevance| in {when}, for the run")
        return self._bounds[key]


def _heatmaps(panel: Panel) -> np.ndarray:
    """One number per position, (batch, height, width), (batch, steps) or (batch, features)."""
    relevance = panel.relevance
    if relevance.ndim not in (2, 3, 4):
        raise Undrawable(f"inputs of shape {relevance.shape[1:]} have no picture")
    if relevance.ndim == 4 and relevance.shape[1] * relevance.shape[2] < 2:
        raise Undrawable(f"inputs of one position, {relevance.shape[1:]}, have no picture")
    return np.asarray(relevance, np.float64) if relevance.ndim == 2 else relevance.sum(axis=-1, dtype=np.float64)


def _figure(panel: Panel, heatmaps: np.ndarray, few: slice, titles: list[str], heading: str, bound: Bound) -> Figure:
    if panel.images is not None and heatmaps.ndim != 3:
        raise ArgumentError(
            "images have no effect: the input is no image.",
            expected="images of inputs (batch, height, width, channels)",
            received=f"an input {panel.relevance.shape}",
        )
    if heatmaps.ndim == 3:
        images, range_ = shown(panel.values if panel.images is None else panel.images)
        note = bound.note + (f"; {range_}" if images is not None else "")
        few_images = None if images is None else images[few]
        return plots.sheet(heatmaps, few_images, titles, heading, bound=bound.value, note=note)
    lines = [f"{heading}: {title}".replace("\n", ", ") for title in titles]
    # Integers are tokens of a sequence, and a table has no channels.
    if panel.relevance.ndim == 3 or panel.values.dtype.kind in "iu":
        return plots.strip(heatmaps, titles=lines, bound=bound.value, note=bound.note)
    return plots.bars(heatmaps, titles=[f"{heading}\n{title}".replace("\nscore", ", score") for title in titles],
                      bound=bound.value)  # fmt: skip


def shown(values: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Inputs as images, and their range in words; None if they have neither one nor three channels.

    Args:
        values: ``(batch, height, width[, channels])``; uint8 and numbers in [0, 1] are shown as they are, others from
            their minimum to their maximum.

    Example:
        >>> images, text = shown(np.array([[[[-1.0], [3.0]]]]))
        >>> images.ravel().tolist(), text
        ([0.0, 1.0], 'input shown from -1 to 3')
    """
    if values.ndim == 4 and values.shape[-1] not in (1, 3):
        return None, ""
    low, high = float(values.min()), float(values.max())
    if values.dtype == np.uint8:
        return values, "input shown from 0 to 255"
    if low >= 0 and high <= 1:
        return np.asarray(values, np.float64), "input shown from 0 to 1"
    scaled = (np.asarray(values, np.float64) - low) / ((high - low) or 1.0)
    return scaled, f"input shown from {low:.3g} to {high:.3g}"


def _facts(explanation: Explanation) -> list[tuple[str, float]]:
    """The target in words and the score of each sample."""
    return [(_target(one.target), float(one.score[0])) for one in (explanation[i] for i in range(len(explanation)))]


def _target(target: Any) -> str:
    if isinstance(target, Mapping):
        return ", ".join(f"{name} {_target(part)}" for name, part in target.items())
    if isinstance(target, str):
        return target if len(target) <= 20 else f"{target[:19]}…"
    return f"target {int(target[0])}" if target.ndim == 1 else "weights"
