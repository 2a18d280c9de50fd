"""How compiled functions are called: at once, a few rows at a time, or inside of a function that is being recorded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, final

import numpy as np
from keras import ops, tree

from kxai import backend
from kxai.analyzers.references import References
from kxai.analyzers.scores import Spec

ROWS = 32
"""References of which a recorded function computes the score at once."""


class Calls(ABC):
    """How functions are called.

    Attributes:
        size: rows that are computed at once.
        looks: whether there are numbers that can be looked at, to warn of them.
    """

    size: int
    looks: bool

    @abstractmethod
    def __call__(self, function: Any, *arguments: Any) -> Any:
        """Nested results of a function, one row per row of its nested arguments."""

    @abstractmethod
    def each(self, function: Callable[[Any], Any], groups: list[Any], specs: Sequence[Spec]) -> list[Any]:
        """A function of lists of arrays (rows, ...), group by group.

        Args:
            function: list of arrays -> list of arrays.
            groups: (groups, rows, ...) each.
            specs: of what it returns.

        Returns:
            (groups, rows, ...) each.
        """

    @abstractmethod
    def total(self, term: Callable[[Any], Any], count: int, zeros: list[Any]) -> list[Any]:
        """``zeros`` plus term(0), ..., term(count - 1)."""

    @abstractmethod
    def given(self, value: Any) -> Any:
        """Nested arrays or tensors, as what is computed here takes them."""

    @abstractmethod
    def references(self, references: References, batch: list[Any], rows: Any) -> list[Any]:
        """References of a batch, see :meth:`References.of`."""


@final
class AtOnce(Calls):
    """Functions are called, and return arrays.

    Args:
        size: rows that are computed at once.
    """

    looks = True

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, function: Any, *arguments: Any) -> Any:
        return joined(function(*part) for part in chunks(arguments, self.size))

    def each(self, function: Callable[[Any], Any], groups: list[Any], specs: Sequence[Spec]) -> list[Any]:
        shape = groups[0].shape[:2]
        found = function([x.reshape(-1, *x.shape[2:]) for x in groups])
        return [x.reshape(*shape, *x.shape[1:]) for x in found]

    def total(self, term: Callable[[Any], Any], count: int, zeros: list[Any]) -> list[Any]:
        found = zeros
        for index in range(count):
            found = [a + b for a, b in zip(found, term(index), strict=True)]
        return [backend.to_numpy(x) for x in found]

    def given(self, value: Any) -> Any:
        return tree.map_structure(backend.to_numpy, value)

    def references(self, references: References, batch: list[Any], rows: Any) -> list[Any]:
        return references.of(batch, rows)


@final
class Recording(Calls):
    """Functions become part of the one that is being recorded."""

    size = ROWS
    looks = False

    def __call__(self, function: Any, *arguments: Any) -> Any:
        return function.run(*arguments)

    def each(self, function: Callable[[Any], Any], groups: list[Any], specs: Sequence[Spec]) -> list[Any]:
        written = [(spec.shape, spec.dtype) for spec in specs]
        _, found = backend.scan(lambda _, rows: ([], function(rows)), [], groups, written)
        shape = groups[0].shape[:2]
        return [backend.with_shape(x, (*shape, *x.shape[2:])) for x in found]

    def total(self, term: Callable[[Any], Any], count: int, zeros: list[Any]) -> list[Any]:
        def add(index: Any, found: Any) -> list[Any]:
            return [a + b for a, b in zip(found, term(index), strict=True)]

        result: list[Any] = backend.repeat(add, count, zeros)
        return result

    def given(self, value: Any) -> Any:
        return tree.map_structure(_tensor, value)

    def references(self, references: References, batch: list[Any], rows: Any) -> list[Any]:
        found: list[Any] = self.given(references.tensors(batch))
        return found


def _tensor(value: Any) -> Any:
    return ops.convert_to_tensor(value, value.dtype.name) if isinstance(value, np.ndarray) else value


def chunks(arrays: Any, size: int) -> Iterator[Any]:
    """Nested arrays of equal lengths, ``size`` rows at a time."""
    length = len(tree.flatten(arrays)[0])
    for start in range(0, length, size):
        whole = start == 0 and length <= size
        yield arrays if whole else tree.map_structure(lambda x, i=start: x[i : i + size], arrays)


def joined(parts: Iterable[Any]) -> Any:
    """Nested arrays, one row after the other."""
    collected = list(parts)
    return collected[0] if len(collected) == 1 else tree.map_structure(lambda *x: np.concatenate(x), *collected)
