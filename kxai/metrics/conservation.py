"""Conservation: does relevance add up to what it explains?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from kxai.arguments import check_number
from kxai.errors import ArgumentError
from kxai.explanation import Explanation
from kxai.metrics.metric import Measurement, Metric

EPSILON = 1e-12
"""What a difference of scores counts at least, so that a score of 0 divides nothing by 0."""


def relative_residual(residual: np.ndarray, difference: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
    """What is missing, as a share of what was to be explained.

    ``|residual| / max(|difference|, epsilon)``, with ``difference = f(x) - f(b)``, ``residual = difference - sum R``;
    for methods without a reference b, ``f(b)`` is 0.

    Args:
        residual: ``(batch,)``, finite.
        difference: ``(batch,)``, finite.
        epsilon: > 0; default 1e-12.

    Returns:
        float64 ``(batch,)``, >= 0.

    Raises:
        ArgumentError: shapes differ, something is not finite, or ``epsilon`` is out of range.

    Example:
        >>> relative_residual(np.array([-1.0, 0.0]), np.array([4.0, 0.0]))
        array([0.25, 0.  ])

    Source: completeness of Sundararajan et al., "Axiomatic attribution for deep networks" (2017), proposition 1, as a
    relative gap.
    """
    check_number("epsilon", epsilon, above=0)
    residual, difference = np.asarray(residual, np.float64), np.asarray(difference, np.float64)
    fit = residual.ndim == 1 and residual.shape == difference.shape
    if not fit or not np.isfinite(residual).all() or not np.isfinite(difference).all():
        raise ArgumentError(
            "residual and difference do not fit.",
            expected="one finite number per sample each",
            received=f"{residual.shape} and {difference.shape}" + (", not all finite" if fit else ""),
        )
    return np.abs(residual) / np.maximum(np.abs(difference), epsilon)


@final
@dataclass(frozen=True)
class Residual(Metric):
    """The share of the explained score that relevance does not account for; see :func:`relative_residual`.

    0 for a method that conserves, such as LRP without biases. Of a gradient, which does not add up to anything, it says
    nothing.

    Args:
        epsilon: what the score counts at least, > 0; default 1e-12.

    Example:
        >>> explanation = Explanation(np.array([[1.0, 2.0]]), np.zeros((1, 1)), "sum", np.array([4.0]))
        >>> Residual()(explanation).values
        array([0.25])
    """

    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon, above=0)

    @property
    def name(self) -> str:
        return "residual"

    def _measured(self, explanation: Explanation, **given: Any) -> Measurement:
        difference = explanation.score.astype(np.float64) - explanation.base
        return self._measurement(relative_residual(explanation.residual, difference, self.epsilon))
