"""Points on straight paths from baselines to the inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from kxai.analyzers.references import resolve_references
from kxai.analyzers.sampling.base import MakeWalk, Walk
from kxai.analyzers.sampling.calls import Calls
from kxai.analyzers.sampling.either import (
    along,
    cast,
    difference,
    dtype_of,
    is_float,
    length,
    reshape,
    take,
    where,
)
from kxai.analyzers.sampling.fields import Clean, GradientField
from kxai.errors import KxaiWarning
from kxai.references import Inputs

Baselines = Callable[[GradientField, Clean, Calls], list[Any]]


@final
@dataclass(frozen=True, eq=False)
class Draw:
    """Points ``baseline + alpha (x - baseline)``: per sample, or the same for all; arrays or tensors.

    Attributes:
        baselines: (1 or samples, points), which baseline.
        alphas: (1 or samples, points), how far from it.
        weights: (points,), float64.
    """

    baselines: Any
    alphas: Any
    weights: Any


def every_baseline(count: int, alphas: np.ndarray, weights: np.ndarray, calls: Calls) -> Draw:
    """The same grid from each of ``count`` baselines."""
    which = np.repeat(np.arange(count, dtype="int32"), len(alphas))
    table = which[None], np.tile(alphas, count)[None], np.tile(weights / count, count)
    return Draw(*calls.given(table))


def counted(baselines: list[Any]) -> int:
    """How many baselines there are, of arrays (R, 1 or samples, ...)."""
    return max(int(array.shape[0]) for array in baselines)


@final
class PathWalk(Walk):
    """Points between baselines and inputs.

    Args:
        values: per changed array, the inputs (samples, ...).
        baselines: per changed array (R, 1 or samples, ...).
        draw: the points.
        times: "difference": results are multiplied by (x - baseline); "direction": it is given with each point;
            "": neither.
        base: of the explanation.
    """

    def __init__(self, values: list[Any], baselines: list[Any], draw: Draw, times: str, base: Any) -> None:
        self.weights, self.base = draw.weights, base
        self._values, self._draw, self._times = values, draw, times
        self._baselines = [(r.shape[:2], reshape(r, (-1, *r.shape[2:]))) for r in baselines]

    def _entry(self, table: Any, samples: Any, points: Any) -> Any:
        """Of a table (1 or samples, points), per row."""
        return take(reshape(table, (-1,)), points if table.shape[0] == 1 else samples * table.shape[1] + points)

    def _ends(self, samples: Any, points: Any) -> Iterator[tuple[Any, Any]]:
        """Per changed array (inputs, baselines), one row each; one baseline where there is only one."""
        which = self._entry(self._draw.baselines, samples, points)
        for x, ((count, own), flat) in zip(self._values, self._baselines, strict=True):
            rows = which % count
            rows = rows if own == 1 else rows * length(x) + samples
            yield take(x, samples), flat if (count, own) == (1, 1) else take(flat, rows)

    def at(self, samples: Any, points: Any) -> list[Any]:
        alphas = self._entry(self._draw.alphas, samples, points)
        found, directions = [], []
        for x, r in self._ends(samples, points):
            if is_float(x):
                # So the ends are met exactly.
                a = along(cast(alphas, dtype_of(x)), x)
                point = a * x
                point += (1 - a) * r
                found.append(point)
            else:  # only one end or the other
                found.append(where(along(alphas, x) > 0, x, r))
            if self._times == "direction":
                directions.append(x - r + point * 0)
        return [*found, *directions]

    def counted(self, samples: Any, points: Any, results: list[Any], first: list[Any]) -> list[Any]:
        if self._times != "difference":
            return results
        ends = self._ends(samples, points)
        return [cast(y, "float64") * difference(x, r) for y, (x, r) in zip(results, ends, strict=True)]


def resolve_baselines(value: Any, moved: Any, inputs: Any, count: int | None, name: str = "baseline") -> Baselines:
    """Check baselines.

    Args:
        value: as :func:`resolve_references` takes them, in the units of what is changed; or :class:`Inputs`.
        moved: nested specs of what is changed.
        inputs: nested specs of the model's inputs.
        count: number of samples of the call, see :func:`resolve_references`.
        name: of the argument, for messages.
    """
    if isinstance(value, Inputs):
        encoded = resolve_references(value.value, inputs, count, name)
        return lambda field, clean, calls: field.encoded(encoded, clean, calls)
    found = resolve_references(value, moved, count, name)
    return lambda field, clean, calls: calls.references(found, clean.values, clean.rows)


def straight(
    baseline: Any, points: tuple[np.ndarray, np.ndarray], times: str, moved: Any, inputs: Any, count: int | None
) -> MakeWalk:
    """Walks by one grid of points from every baseline.

    Args:
        baseline, moved, inputs, count: see :func:`resolve_baselines`.
        points: the grid, where and how much they count.
        times: see :class:`PathWalk`.
    """
    baselines = resolve_baselines(baseline, moved, inputs, count)

    def walk(field: GradientField, clean: Clean, calls: Calls) -> PathWalk:
        found = baselines(field, clean, calls)
        if calls.looks:
            warn_of_equals(clean.values, found)
        drawn = every_baseline(counted(found), *points, calls)
        return PathWalk(clean.values, found, drawn, times, field.base(found, clean, calls))

    return walk


def warn_of_equals(values: list[np.ndarray], baselines: list[np.ndarray]) -> None:
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
