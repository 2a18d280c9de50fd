"""Score objects of tf-keras-vis, told by their class and read without importing the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from keras import ops

_HOME = "tf_keras_vis.utils.scores"


def is_score(value: Any) -> bool:
    """Whether ``value`` is an instance of tf-keras-vis' ``Score`` or of a class derived from it.

    Example:
        >>> is_score(lambda output: output[:, 0])
        False
    """
    return any((kind.__module__, kind.__qualname__) == (_HOME, "Score") for kind in type(value).__mro__)


def name_of(score: Any) -> str:
    """Name of one of the three classes that the package brings, or "" for a class of the user's own."""
    kind = type(score)
    return kind.__qualname__ if kind.__module__ == _HOME else ""


@final
@dataclass(frozen=True)
class Averaged:
    """A score of the user's own as a callable target.

    Scores may return several numbers per sample, ``(samples, ...)``; their mean counts, as it does in tf-keras-vis.
    Equal for equal scores, so that what is compiled for one is found again.

    Args:
        score: a callable from the output ``(samples, ...)`` to a tensor.
    """

    score: Any

    def __call__(self, output: Any) -> Any:
        value = self.score(output)
        if not ops.is_tensor(value) or len(value.shape) < 2:
            return value
        return ops.mean(value, axis=tuple(range(1, len(value.shape))))
