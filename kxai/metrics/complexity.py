"""Complexity: over how many values is relevance spread?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from kxai.explanation import Explanation
from kxai.metrics.metric import Measurement, Metric, flat
from kxai.nest import Nest


def entropy(relevance: Nest) -> np.ndarray:
    """The entropy of the magnitudes: 0 if all relevance is in one value, ln n if it is spread evenly over n.

    ``H = -sum_i p_i ln p_i`` with ``p_i = |R_i| / sum_j |R_j|`` and ``0 ln 0 = 0``, in nats; over all values of all
    inputs.

    Args:
        relevance: array, or list, tuple or dict of arrays, ``(batch, ...)`` each, finite.

    Returns:
        float64 ``(batch,)``, in [0, ln n]; NaN where all relevance is 0.

    Raises:
        ArgumentError: this is no relevance of a batch.

    Example:
        >>> entropy(np.array([[1.0, -3.0], [0.0, 2.0], [0.0, 0.0]])).round(6).tolist()
        [0.562335, 0.0, nan]

    Source: Bhatt et al., "Evaluating and aggregating feature-based model explanations" (2020), definition 3.
    """
    magnitudes = np.abs(flat(relevance))
    largest = magnitudes.max(axis=1, keepdims=True, initial=0.0)
    # The largest first becomes 1, so that no sum over- or underflows.
    shares = magnitudes / np.where(largest > 0, largest, 1.0)
    totals = shares.sum(axis=1, keepdims=True)
    p = shares / np.where(totals > 0, totals, 1.0)
    # max: an entropy of 0 is not written as -0.
    found = np.maximum(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1), 0.0)
    return np.where(totals[:, 0] > 0, found, np.nan)


@final
@dataclass(frozen=True)
class Entropy(Metric):
    """How widely relevance is spread; see :func:`entropy`.

    Example:
        >>> explanation = Explanation(np.array([[2.0, 2.0]]), np.zeros((1, 1)), "sum", np.array([4.0]))
        >>> Entropy()(explanation).values.round(6)  # ln 2
        array([0.693147])
    """

    @property
    def name(self) -> str:
        return "entropy"

    def _measured(self, explanation: Explanation, **given: Any) -> Measurement:
        return self._measurement(entropy(explanation.relevance))
