"""Correlation: do two explanations rank the same values high?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from kxai.arguments import check_flags
from kxai.errors import ArgumentError
from kxai.explanation import Explanation
from kxai.metrics.metric import Measurement, Metric, flat
from kxai.nest import Nest, describe, map_leaves


def spearman(first: Nest, second: Nest, absolute: bool = False) -> np.ndarray:
    """Spearman's rank correlation of two relevances, sample by sample.

    ``rho = cov(r, s) / (sd(r) sd(s))`` of the ranks r, s of a sample's values, over all inputs; values that are equal
    share the mean of their ranks.

    Args:
        first: array, or list, tuple or dict of arrays, ``(batch, ...)`` each, finite.
        second: of the same structure and shapes.
        absolute: whether magnitudes are ranked; default False, signed values.

    Returns:
        float64 ``(batch,)``, in [-1, 1]; NaN where all values of a sample are equal in one of the two.

    Raises:
        ArgumentError: structures or shapes differ, or this is no relevance of a batch.

    Example:
        >>> spearman(np.array([[1.0, 2.0, 9.0]]), np.array([[5.0, 5.0, 7.0]])).round(6)
        array([0.866025])

    Source: C. Spearman, "The proof and measurement of association between two things" (1904); with ties the product
    moment of mid-ranks.
    """
    return spearman_matrix([first, second], absolute)[:, 0, 1]


def spearman_matrix(relevances: Sequence[Nest], absolute: bool = False) -> np.ndarray:
    """Spearman's rank correlation of every two of several relevances; see :func:`spearman`.

    Args:
        relevances: at least one; each an array, or list, tuple or dict of arrays, ``(batch, ...)``, finite, of the same
            structure and shapes.
        absolute: whether magnitudes are ranked; default False, signed values.

    Returns:
        float64 ``(batch, n, n)`` for n relevances, in [-1, 1]; NaN where all values of a sample are equal in one of the
        two.

    Raises:
        ArgumentError: structures or shapes differ, or this is no relevance of a batch.

    Example:
        >>> spearman_matrix([np.array([[1.0, 2.0, 9.0]]), np.array([[5.0, 4.0, 3.0]])])
        array([[[ 1., -1.],
                [-1.,  1.]]])
    """
    check_flags(absolute=absolute)
    # Values are compared by the names of their inputs, in whatever order a dict holds these.
    ordered = [map_leaves(lambda _, part: part, relevances[0], relevance) for relevance in relevances]
    if len(set(map(describe, ordered))) != 1:
        raise ArgumentError(
            "The relevances do not fit.",
            expected="at least one, all of one structure and one shape",
            received=" and ".join(map(describe, ordered)) or "none",
        )
    rows = [flat(relevance) for relevance in ordered]
    ranks = np.stack([_centred_ranks(np.abs(row) if absolute else row) for row in rows], axis=1)
    products = ranks @ ranks.swapaxes(1, 2)
    squares = np.diagonal(products, axis1=1, axis2=2)
    spread = np.sqrt(squares[:, :, np.newaxis] * squares[:, np.newaxis])
    found = products / np.where(spread > 0, spread, 1.0)
    return np.where(spread > 0, np.clip(found, -1.0, 1.0), np.nan)


def _centred_ranks(rows: np.ndarray) -> np.ndarray:
    """Mid-ranks minus their mean (n + 1) / 2; halves of whole numbers, hence without rounding."""
    ranks = np.empty(rows.shape)
    for row, rank in zip(rows, ranks, strict=True):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        last = counts.cumsum()
        rank[:] = (last - (counts - 1) / 2)[inverse]
    return ranks - (rows.shape[1] + 1) / 2


@final
@dataclass(frozen=True)
class RankCorrelation(Metric):
    """Agreement with another explanation of the same samples; see :func:`spearman`.

    Args:
        absolute: whether magnitudes are ranked; default False, signed values.

    Example:
        >>> one = Explanation(np.array([[1.0, 2.0, 3.0]]), np.zeros((1, 1)), "sum", np.array([6.0]))
        >>> two = Explanation(np.array([[9.0, 5.0, 1.0]]), np.zeros((1, 1)), "sum", np.array([15.0]))
        >>> RankCorrelation()(one, other=two).values
        array([-1.])
    """

    absolute: bool = False

    def __post_init__(self) -> None:
        check_flags(absolute=self.absolute)

    @property
    def name(self) -> str:
        return "rank_correlation"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("other",)

    def _measured(self, explanation: Explanation, **given: Any) -> Measurement:
        other: Explanation = given["other"]
        return self._measurement(spearman(explanation.relevance, other.relevance, self.absolute))
