"""The nouns: a metric, and what it measured."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, final

import numpy as np

from kxai import nest
from kxai.errors import ArgumentError
from kxai.explanation import Explanation


@final
@dataclass(frozen=True, eq=False)
class Measurement:
    """One number per sample, and how it was measured.

    Args:
        name: of the metric.
        values: ``(batch,)``; NaN where the number does not exist.
        chance: ``(batch,)``, what an explanation that knows nothing reaches; default None, not known.
        config: the metric's hyperparameters; default none.

    Raises:
        ArgumentError: values are not one finite number, or NaN, per sample.

    Example:
        >>> measured = Measurement("mass", np.array([0.5, np.nan, 1.0]))
        >>> measured.mean, measured.standard_error, measured.undefined
        (0.75, 0.25, 1)
    """

    name: str
    values: np.ndarray
    chance: np.ndarray | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("values", "chance"):
            given = getattr(self, name)
            if given is None:
                continue
            array = nest.frozen(np.asarray(given, np.float64))
            if array.ndim != 1 or np.isinf(array).any() or len(array) != len(np.atleast_1d(self.values)):
                raise ArgumentError(
                    f"{name} of a measurement are one number per sample.",
                    expected="(batch,), finite or NaN",
                    received=f"{array.shape}" + (", some infinite" if np.isinf(array).any() else ""),
                )
            object.__setattr__(self, name, array)
        object.__setattr__(self, "config", MappingProxyType(dict(self.config)))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def undefined(self) -> int:
        """How many samples have no number."""
        return int(np.isnan(self.values).sum())

    @property
    def mean(self) -> float:
        """Of the samples that have a number; NaN if none has."""
        return float(self._defined.mean()) if len(self._defined) else float("nan")

    @property
    def standard_error(self) -> float:
        """Of the mean: the sample standard deviation by the root of the count; NaN for fewer than two numbers."""
        found = self._defined
        return float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else float("nan")

    @property
    def _defined(self) -> np.ndarray:
        return self.values[~np.isnan(self.values)]

    def __reduce__(self) -> tuple:
        return Measurement, (self.name, self.values, self.chance, dict(self.config))

    def __repr__(self) -> str:
        undefined = f", undefined={self.undefined}" if self.undefined else ""
        return f"Measurement({self.name!r}, samples={len(self)}, mean={self.mean:.4g}{undefined})"


class Metric(ABC):
    """A question to an explanation that has one number per sample as its answer.

    Metrics are frozen: their hyperparameters are arguments of the constructor, and what differs from batch to batch is
    given with the explanation, by the names in :attr:`needs`.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """One word, such as "entropy": names the number in tables, logs and files."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What must be given beside the explanation: "masks", "other"; default nothing."""
        return ()

    def __call__(self, explanation: Explanation, **given: Any) -> Measurement:
        """Measure a batch.

        Args:
            explanation: of the batch.
            given: what the metric needs beside it: ``masks``, arrays of 0 and 1, one per sample; ``other``, another
                explanation of the same samples.

        Returns:
            One number per sample.

        Raises:
            ArgumentError: something needed is missing, something not needed is given, or the two do not fit.
        """
        missing = [name for name in self.needs if given.get(name) is None]
        unknown = [name for name in given if name not in self.needs]
        if missing or unknown:
            problem = f"needs {', '.join(missing)}" if missing else f"does not take {', '.join(unknown)}"
            raise ArgumentError(
                f"The metric {self.name} {problem}.",
                expected=", ".join(f"{name}=" for name in self.needs) or "an explanation alone",
                received=", ".join(f"{name}=" for name in given) or "an explanation alone",
            )
        for what in (explanation, given.get("other", explanation)):
            if not isinstance(what, Explanation):
                raise ArgumentError(
                    f"The metric {self.name} measures explanations.",
                    expected="a kxai.Explanation",
                    received=type(what).__name__,
                    fix="for arrays, the functions of kxai.metrics, such as kxai.metrics.entropy.",
                )
        return self._measured(explanation, **given)

    @abstractmethod
    def _measured(self, explanation: Explanation, **given: Any) -> Measurement:
        """What :meth:`__call__` returns; what is needed is there."""

    def _measurement(self, values: np.ndarray, chance: np.ndarray | None = None) -> Measurement:
        return Measurement(self.name, values, chance, vars(self))


def flat(relevance: nest.Nest) -> np.ndarray:
    """All relevance of each sample in one row.

    Args:
        relevance: array, or list, tuple or dict of arrays, ``(batch, ...)`` each.

    Returns:
        float64 array ``(batch, values)``.

    Raises:
        ArgumentError: no array, or arrays of different numbers of samples; something is not finite.

    Example:
        >>> flat([np.ones((2, 3)), np.zeros((2, 2, 2))]).shape
        (2, 7)
    """
    given = [np.asarray(part) for part in nest.leaves(relevance)]
    if not given or any(p.dtype.kind not in "biuf" or p.ndim == 0 or len(p) != len(given[0]) for p in given):
        raise ArgumentError(
            "This is no relevance of a batch.",
            expected="real numbers (batch, ...) throughout",
            received=f"{nest.describe(relevance)} of {', '.join(str(part.dtype) for part in given) or 'nothing'}",
        )
    parts = [part.astype(np.float64).reshape(len(part), math.prod(part.shape[1:])) for part in given]
    rows = np.concatenate(parts, axis=1)
    if not np.isfinite(rows).all():
        raise ArgumentError("Relevance is not finite.", expected="finite numbers", received="NaN or infinity")
    return rows
