"""What an input is compared with: references of DeepLIFT and baselines of path methods, besides plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True, eq=False)
class Background:
    """Several references for every sample; explanations are averaged over them.

    Args:
        data: array (count, ...) of samples; for a model of several inputs a list or dict of such arrays, of which the
            k-th samples belong together.

    Example:
        >>> import numpy as np
        >>> Background(np.zeros((10, 28, 28, 1)))
        Background(10 samples)
    """

    data: Any

    def __repr__(self) -> str:
        first: Any = self.data
        while isinstance(first, (dict, list, tuple)) and len(first):
            first = next(iter(first.values())) if isinstance(first, dict) else first[0]
        return f"Background({len(first) if getattr(first, 'ndim', 0) else '?'} samples)"


@final
@dataclass(frozen=True, eq=False)
class Inputs:
    """Baselines that are inputs of the model, for methods that change values at an inner layer.

    Args:
        value: an array shaped like one sample, such as padding ids; one per sample; a :class:`Background`; a callable.

    Example:
        >>> import numpy as np
        >>> Inputs(np.array([0, 0, 0]))
        Inputs(value=array([0, 0, 0]))
    """

    value: Any
