"""Random numbers that depend on a sample's content alone, not on its place in a batch or a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def generator(seed: int, sample: Sequence[np.ndarray], stream: int = 0) -> np.random.Generator:
    """A generator of random numbers for one sample.

    Args:
        seed: chosen by the user, >= 0.
        sample: its arrays; other content, other numbers.
        stream: tells generators of one sample apart.

    Example:
        >>> one, two = (generator(0, [np.ones(3)]).normal() for _ in range(2))
        >>> one == two
        True
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in sample:
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.random.default_rng([seed, stream, *np.frombuffer(digest.digest(), "uint32")])
