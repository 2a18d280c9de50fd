"""Localisation: does relevance lie where the object is?"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from kxai.arguments import check_choice
from kxai.errors import ArgumentError
from kxai.explanation import Explanation
from kxai.metrics.metric import Measurement, Metric

POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sum_pos": lambda relevance: np.maximum(relevance.sum(axis=-1), 0.0),
    "sum_abs": lambda relevance: np.abs(relevance.sum(axis=-1)),
    "max_abs": lambda relevance: np.abs(relevance).max(axis=-1),
    "l1": lambda relevance: np.abs(relevance).sum(axis=-1),
    "l2": lambda relevance: np.sqrt(np.square(relevance).sum(axis=-1)),
    "l2_squared": lambda relevance: np.square(relevance).sum(axis=-1),
}
"""From the channels of a position to one number >= 0."""


def mass_accuracy(relevance: np.ndarray, masks: np.ndarray, pooling: str = "sum_pos") -> np.ndarray:
    """The share of relevance that lies within a mask.

    ``RMA = sum_{i in mask} P_i / sum_i P_i``, P the relevance of a position, its channels pooled.

    Args:
        relevance: ``(batch, *sizes, channels)``, or ``(batch, features)``, which has one channel; finite.
        masks: ``(batch, *sizes)``, booleans or numbers 0 and 1.
        pooling: one of ``POOLINGS``: ``"sum_pos"`` (default: max(sum, 0)), ``"sum_abs"``, ``"max_abs"``, ``"l1"``,
            ``"l2"``, ``"l2_squared"``.

    Returns:
        float64 ``(batch,)``, in [0, 1]; NaN where the mask is empty or P is 0 everywhere.

    Raises:
        ArgumentError: masks do not fit or hold something else, or ``pooling`` is unknown.

    Example:
        >>> mass_accuracy(np.array([[3.0, 1.0, -2.0]]), np.array([[True, False, True]]))
        array([0.75])

    Source: Arras et al., "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural network
    explanations" (2022), equation of the relevance mass accuracy.
    """
    pooled, inside = _pooled(relevance, masks, pooling)
    largest = pooled.max(axis=1, keepdims=True, initial=0.0)
    shares = pooled / np.where(largest > 0, largest, 1.0)
    totals = shares.sum(axis=1)
    found = np.where(inside, shares, 0.0).sum(axis=1) / np.where(totals > 0, totals, 1.0)
    return np.where((totals > 0) & inside.any(axis=1), np.minimum(found, 1.0), np.nan)


def rank_accuracy(relevance: np.ndarray, masks: np.ndarray, pooling: str = "sum_pos") -> np.ndarray:
    """The share of the K most relevant positions that lie within a mask of K positions.

    ``RRA = |top-K(P) and mask| / K``; of equal positions, the first counts as more relevant.

    Args:
        relevance: see :func:`mass_accuracy`.
        masks: see :func:`mass_accuracy`.
        pooling: see :func:`mass_accuracy`.

    Returns:
        float64 ``(batch,)``, in [0, 1]; NaN where the mask is empty or P is 0 everywhere.

    Raises:
        ArgumentError: masks do not fit or hold something else, or ``pooling`` is unknown.

    Example:
        >>> rank_accuracy(np.array([[3.0, 1.0, -2.0]]), np.array([[True, False, True]]))
        array([0.5])

    Source: Arras et al. (2022), equation of the relevance rank accuracy.
    """
    pooled, inside = _pooled(relevance, masks, pooling)
    sizes = inside.sum(axis=1, keepdims=True)
    order = np.argsort(-pooled, axis=1, kind="stable")
    top = np.arange(pooled.shape[1]) < sizes
    hits = (np.take_along_axis(inside, order, axis=1) & top).sum(axis=1)
    found = hits / np.maximum(sizes[:, 0], 1)
    return np.where((pooled > 0).any(axis=1) & (sizes[:, 0] > 0), found, np.nan)


def chance(masks: np.ndarray) -> np.ndarray:
    """What relevance that knows nothing reaches in both: the share of the positions that the mask covers.

    Args:
        masks: ``(batch, *sizes)``, booleans or numbers 0 and 1.

    Returns:
        float64 ``(batch,)``; NaN for empty masks, as in the accuracies.

    Raises:
        ArgumentError: masks hold something else.

    Example:
        >>> chance(np.array([[1, 0, 0, 0]]))
        array([0.25])
    """
    inside = checked_masks(masks).reshape(len(masks), -1)
    share = inside.mean(axis=1)
    return np.where(share > 0, share, np.nan)


def checked_masks(masks: Any) -> np.ndarray:
    """Masks as booleans.

    Args:
        masks: ``(batch, *sizes)``, booleans or numbers 0 and 1.

    Raises:
        ArgumentError: they hold something else.

    Example:
        >>> checked_masks([[0, 1]])
        array([[False,  True]])
    """
    try:
        array = np.asarray(masks)
    except ValueError as error:
        raise ArgumentError("Masks have rows of different lengths.", received=str(error)) from error
    binary = array.dtype.kind in "biuf" and array.ndim >= 2 and array.size > 0
    if not binary or not ((array == 0) | (array == 1)).all():
        raise ArgumentError(
            "Masks say which positions are meant.",
            expected="(batch, *sizes) of booleans, or of the numbers 0 and 1",
            received=f"{array.dtype} of shape {array.shape}" + (" with other numbers" if binary else ""),
        )
    return array.astype(bool)


def _pooled(relevance: np.ndarray, masks: np.ndarray, pooling: str) -> tuple[np.ndarray, np.ndarray]:
    """P and the masks, (batch, positions) each."""
    check_choice("pooling", pooling, POOLINGS)
    relevance, inside = np.asarray(relevance, np.float64), checked_masks(masks)
    if relevance.ndim == 2:
        relevance = relevance[..., np.newaxis]
    if relevance.ndim < 3 or inside.shape != relevance.shape[:-1] or not np.isfinite(relevance).all():
        raise ArgumentError(
            "Relevance and masks do not fit.",
            expected="finite relevance (batch, *sizes, channels) and masks (batch, *sizes)",
            received=f"relevance {relevance.shape} and masks {inside.shape}",
        )
    # Shares do not depend on the scale: a power of two takes it off exactly, then no square over- or underflows.
    largest = np.abs(relevance).max(axis=tuple(range(1, relevance.ndim)), keepdims=True, initial=0.0)
    pooled = POOLINGS[pooling](np.ldexp(relevance, -np.frexp(largest)[1]))
    return pooled.reshape(len(relevance), -1), inside.reshape(len(inside), -1)


@dataclass(frozen=True)
class _Localisation(Metric):
    """What the two accuracies share."""

    pooling: str = "sum_pos"
    input: str | int | None = None

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, POOLINGS)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("masks",)

    def _measured(self, explanation: Explanation, **given: Any) -> Measurement:
        masks = given["masks"]
        return self._measurement(self._accuracy(explanation.of_input(self.input), masks), chance(masks))

    @abstractmethod
    def _accuracy(self, relevance: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """One number per sample."""


@final
@dataclass(frozen=True)
class RelevanceMass(_Localisation):
    """The share of relevance within masks; see :func:`mass_accuracy`. Chance is the share of the positions.

    Args:
        pooling: how the channels of a position become one number; default ``"sum_pos"``.
        input: which input of the model: a key or an index; None (default) for the only one.

    Example:
        >>> explanation = Explanation(np.array([[3.0, 1.0]]), np.zeros((1, 1)), "sum", np.array([4.0]))
        >>> RelevanceMass()(explanation, masks=np.array([[1, 0]])).values
        array([0.75])
    """

    @property
    def name(self) -> str:
        return "relevance_mass"

    def _accuracy(self, relevance: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return mass_accuracy(relevance, masks, self.pooling)


@final
@dataclass(frozen=True)
class RelevanceRank(_Localisation):
    """The share of the most relevant positions within masks; see :func:`rank_accuracy`.

    Args:
        pooling: how the channels of a position become one number; default ``"sum_pos"``.
        input: which input of the model: a key or an index; None (default) for the only one.

    Example:
        >>> explanation = Explanation(np.array([[3.0, 1.0]]), np.zeros((1, 1)), "sum", np.array([4.0]))
        >>> RelevanceRank()(explanation, masks=np.array([[0, 1]])).values
        array([0.])
    """

    @property
    def name(self) -> str:
        return "relevance_rank"

    def _accuracy(self, relevance: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return rank_accuracy(relevance, masks, self.pooling)
