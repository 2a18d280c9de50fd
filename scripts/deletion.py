"""Does a ranking of words name those that a network uses? Delete them in its order and watch the score.

Deleting the most relevant words first should make the score fall at once, deleting the least relevant first should
leave it alone; the area between the two curves is the larger, the better the ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Score = Callable[[np.ndarray], np.ndarray]
"""(rows, length) of ids -> (rows, classes)."""


@dataclass(frozen=True)
class Curves:
    """Scores of one sentence after 0, 1, ..., n deletions.

    Attributes:
        most: most relevant words first.
        least: least relevant words first.
    """

    most: np.ndarray
    least: np.ndarray

    @property
    def area(self) -> float:
        """The area between the curves over the share of deleted words, by the trapezoidal rule."""
        difference = self.least - self.most
        return float((difference[1:] + difference[:-1]).mean() / 2)


def curves(
    score: Score,
    ids: np.ndarray,
    words: Sequence[int],
    target: np.ndarray,
    relevance: np.ndarray,
    empty: int,
    seed: int,
) -> list[Curves]:
    """Curves of every sentence.

    Args:
        score: the network.
        ids: (sentences, length).
        words: how many tokens of a sentence, from position 1 on, are words that may be deleted; at least 1 each.
        target: (sentences, classes), weights of the sum of scores that is watched.
        relevance: (sentences, length); words of equal relevance are put in an order by chance.
        empty: the id that deletes a word.
        seed: of that chance.
    """
    random = np.random.default_rng(seed)
    variants, sizes = [], []
    for row, count, values in zip(ids, words, relevance, strict=True):
        places = 1 + random.permutation(count)
        order = places[np.argsort(-values[places], kind="stable")]
        variants += [_deleted(row, order, empty), _deleted(row, order[::-1], empty)]
        sizes += [count + 1, count + 1]
    scores = score(np.concatenate(variants))
    watched = (scores * np.repeat(target, 2 * np.add(words, 1), axis=0)).sum(axis=1)
    found = np.split(watched, np.cumsum(sizes)[:-1])
    return [Curves(most, least) for most, least in zip(found[::2], found[1::2], strict=True)]


def _deleted(row: np.ndarray, order: np.ndarray, empty: int) -> np.ndarray:
    """(n + 1, length): the sentence after 0, 1, ..., n deletions."""
    rows = np.repeat(row[np.newaxis], len(order) + 1, axis=0)
    for step, place in enumerate(order, start=1):
        rows[step:, place] = empty
    return rows


def mean_curve(found: Sequence[np.ndarray], points: int = 21) -> np.ndarray:
    """The mean of curves of different length, at equal shares of deleted words."""
    shares = np.linspace(0, 1, points)
    return np.mean([np.interp(shares, np.linspace(0, 1, len(curve)), curve) for curve in found], axis=0)


def interval(values: np.ndarray, seed: int, draws: int = 10_000) -> tuple[float, float, float]:
    """The mean, and the bounds of its 95 % bootstrap interval (percentiles of the means of resampled sentences)."""
    values = np.asarray(values, np.float64)
    random = np.random.default_rng(seed)
    means = np.array([values[random.integers(0, len(values), len(values))].mean() for _ in range(draws)])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
