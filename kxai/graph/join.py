"""A value that was recorded at two batch sizes: the same, or one that follows the batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np
from keras import ops, tree

from kxai import backend


@final
class Unjoinable(Exception):
    """A call whose two recordings do not agree; the message says why.

    Attributes:
        within: path of the innermost custom layer that makes the call, None if there is none.
    """

    def __init__(self, call: Any, reason: str) -> None:
        super().__init__(reason)
        self.path, self.within = call.path, call.within


@final
@dataclass(frozen=True)
class PerBatch:
    """Stands for ``factor * batch size``."""

    factor: int


@final
@dataclass(frozen=True)
class PerSample:
    """Stands for a constant whose block is repeated, along the first axis, once per sample."""

    block: Any


def mapped(function: Callable[[Any, Any], Any], first: Any, second: Any, call: Any) -> Any:
    """``tree.map_structure`` over both recordings of a call."""
    try:
        tree.assert_same_structure(first, second)
    except ValueError:
        raise Unjoinable(call, "the number of its arguments depends on the batch size") from None
    return tree.map_structure(function, first, second)


def join(a: Any, b: Any, sizes: tuple[int, int], call: Any) -> Any:
    """A constant of both recordings: itself where they agree, a multiple of the batch size where they do not."""
    if a is b:
        return a
    if isinstance(a, slice) and isinstance(b, slice):
        return slice(*(join(x, y, sizes, call) for x, y in zip(_fields(a), _fields(b), strict=True)))
    if is_array(a):
        if np.array_equal(backend.to_numpy(a), backend.to_numpy(b)):
            return a
        block = _repeated_block(a, b, sizes)
        if block is None:
            raise Unjoinable(call, "it uses a constant that depends on the batch size; make it with batch size 1")
        return PerSample(block)
    if type(a) is type(b) and a == b:
        return a
    if isinstance(a, int) and isinstance(b, int) and a % sizes[0] == 0 and a * sizes[1] == b * sizes[0]:
        return PerBatch(a // sizes[0])
    raise Unjoinable(call, f"it uses a value that depends on the batch size ({a!r}, {b!r})")


def _repeated_block(a: Any, b: Any, sizes: tuple[int, int]) -> Any:
    """The block of which ``a`` holds ``sizes[0]`` copies and ``b`` ``sizes[1]``, along the first axis; else None."""
    one, two = backend.to_numpy(a), backend.to_numpy(b)
    if one.ndim == 0 or one.ndim != two.ndim or len(one) % sizes[0]:
        return None
    block = one[: len(one) // sizes[0]]
    copies = [np.concatenate([block] * size) for size in sizes]
    return block if np.array_equal(one, copies[0]) and np.array_equal(two, copies[1]) else None


def tiled(block: Any, batch: Any) -> Any:
    """``batch`` copies of a block along its first axis."""
    return ops.tile(block, (batch, *(1,) * (len(block.shape) - 1)))


def is_array(leaf: Any) -> bool:
    """Whether a leaf of a call's arguments is a tensor, an array or a variable."""
    return ops.is_tensor(leaf) or isinstance(leaf, (np.ndarray, keras.Variable))


def _fields(value: slice) -> tuple[Any, Any, Any]:
    return value.start, value.stop, value.step


def follows_batch(leaf: Any) -> bool:
    """Whether a joined value depends on the batch size."""
    if isinstance(leaf, slice):
        return any(map(follows_batch, _fields(leaf)))
    return isinstance(leaf, (PerBatch, PerSample))


def resolve(leaf: Any, batch: Any) -> Any:
    """A joined value at a batch size."""
    if isinstance(leaf, slice) and follows_batch(leaf):
        return slice(*(resolve(field, batch) for field in _fields(leaf)))
    if isinstance(leaf, PerSample):
        return tiled(leaf.block, batch)
    return leaf.factor * batch if isinstance(leaf, PerBatch) else leaf
