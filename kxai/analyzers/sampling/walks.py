"""Points on straight paths from baselines to the inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from kxai.analyzers.references import resolve_references
from kxai.analyzers.sampling.base import Walk, weighted_sum
from kxai.analyzers.sampling.fields import Arrays, Clean, GradientField
from kxai.errors import KxaiWarning
from kxai.references import Inputs

Baselines = Callable[[GradientField, Clean, int], Arrays]


@final
@dataclass(frozen=True, eq=False)
class Draw:
    """Points of one sample: ``baseline + alpha (x - baseline)``.

    Attributes:
        baselines: per point, which baseline.
        alphas: per point, how far from it.
        weights: per point.
    """

    baselines: np.ndarray
    alphas: np.ndarray
    weights: np.ndarray


def every_baseline(count: int, alphas: np.ndarray, weights: np.ndarray) -> Draw:
    """The same grid from each of ``count`` baselines."""
    return Draw(np.repeat(np.arange(count), len(alphas)), np.tile(alphas, count), np.tile(weights / count, count))


@final
class PathWalk(Walk):
    """Points between baselines and inputs.

    Args:
        values: per changed array, the inputs (samples, ...).
        baselines: per changed array (R, 1 or samples, ...).
        draw: sample -> its points.
        times: "difference": results are multiplied by (x - baseline); "direction": it is given with each point;
            "": neither.
        base: of the explanation.
    """

    def __init__(
        self, values: Arrays, baselines: Arrays, draw: Callable[[int], Draw], times: str, base: np.ndarray
    ) -> None:
        self._values, self._baselines, self._times, self.base = values, baselines, times, base
        self._draw, self._drawn = draw, (-1, draw(0))
        self.count = len(self._drawn[1].alphas)
        self.like = [*values, *values] if times == "direction" else values

    def _points(self, sample: int) -> Draw:
        if self._drawn[0] != sample:
            self._drawn = (sample, self._draw(sample))
        return self._drawn[1]

    def _ends(self, sample: int, which: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per changed array (input, baselines of these points); one baseline where all points have the same."""
        same = bool((which == which[0]).all())
        found = []
        for x, r in zip(self._values, self._baselines, strict=True):
            own = r[:, sample if r.shape[1] > 1 else 0]
            found.append((x[sample], own[which[0] % len(own)] if same else own[which % len(own)]))
        return found

    def put(self, sample: int, start: int, stop: int, out: Arrays) -> None:
        drawn = self._points(sample)
        alphas = drawn.alphas[start:stop]
        for i, (x, r) in enumerate(self._ends(sample, drawn.baselines[start:stop])):
            a = alphas.astype(x.dtype if x.dtype.kind == "f" else float).reshape(-1, *(1,) * x.ndim)
            if x.dtype.kind != "f":  # only one end or the other
                out[i][...] = np.where(a > 0, x, r)
            else:
                # So the ends are met exactly.
                np.multiply(a, x, out=out[i])
                out[i] += (1 - a) * r
            if self._times == "direction":
                out[len(self._values) + i][...] = x - r

    def fold(self, sample: int, start: int, stop: int, results: Arrays) -> Arrays:
        drawn = self._points(sample)
        weights, which = drawn.weights[start:stop], drawn.baselines[start:stop]
        if self._times != "difference":
            return [weighted_sum(weights, array) for array in results]
        found = []
        for array, (x, r) in zip(results, self._ends(sample, which), strict=True):
            difference = np.subtract(x, r, dtype=np.float64)
            same = difference.ndim == x.ndim
            found.append(
                weighted_sum(weights, array) * difference.ravel() if same else weighted_sum(weights, array * difference)
            )
        return found


def resolve_baselines(value: Any, moved: Any, inputs: Any, count: int | None, name: str = "baseline") -> Baselines:
    """Check baselines.

    Args:
        value: as :func:`resolve_references` takes them, in the units of what is changed; or :class:`Inputs`.
        moved: nested specs of what is changed.
        inputs: nested specs of the model's inputs.
        count: number of samples of the call, None if not known.
        name: of the argument, for messages.
    """
    if isinstance(value, Inputs):
        found = resolve_references(value.value, inputs, count, name)
        return lambda field, clean, size: field.encoded(found, clean, size)
    found = resolve_references(value, moved, count, name)
    return lambda field, clean, size: found.of(clean.values, clean.rows)


def warn_of_equals(values: Arrays, baselines: Arrays) -> None:
    """Warn if a sample is its own baseline."""
    samples = range(len(values[0]))
    equal = [i for i in samples if all(_equal(x, r, i) for x, r in zip(values, baselines, strict=True))]
    if equal:
        warnings.warn(
            f"The baseline of {len(equal)} of {len(samples)} samples of a batch is the sample itself: nothing changes "
            "on the way, and the relevance is zero. Choose another baseline if that is not what you mean.",
            KxaiWarning,
            stacklevel=2,
        )


def _equal(x: np.ndarray, baselines: np.ndarray, sample: int) -> bool:
    own = baselines[:, sample if baselines.shape[1] > 1 else 0]
    return all(np.array_equal(x[sample], r) for r in own)
