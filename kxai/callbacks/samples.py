"""The samples that are explained again and again: copied once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np

from kxai import backend, nest
from kxai.errors import InputError, TargetError
from kxai.nest import Nest


@final
@dataclass(frozen=True, eq=False)
class Samples:
    """The first samples of validation data.

    Attributes:
        inputs: read-only copies, structured as they were given.
        labels: the same of the labels; None: there are none.
        total: how many samples there were; None if not all were read.
    """

    inputs: Nest
    labels: Nest | None
    total: int | None

    @classmethod
    def of(cls, data: Any, count: int) -> Samples:
        """Copy them.

        Args:
            data: inputs, or a tuple (inputs, labels[, weights]); or a batched ``tf.data.Dataset`` or Keras PyDataset
                of such.
            count: how many at most.

        Raises:
            InputError: there are none, or they are no arrays with one entry per sample.

        Example:
            >>> samples = Samples.of((np.zeros((9, 2)), np.arange(9)), 4)
            >>> len(samples), samples.labels, samples.total
            (4, array([0, 1, 2, 3]), 9)
        """
        if backend.is_dataset(data):
            return cls._read(data.as_numpy_iterator(), count)
        if isinstance(data, keras.utils.PyDataset):
            # None: there is no last batch.
            indices = itertools.count() if data.num_batches is None else range(data.num_batches)
            return cls._read((data[index] for index in indices), count)
        inputs, labels = _split(data)
        return cls(_first(inputs, count), None if labels is None else _first(labels, count), _length(inputs, labels))

    @classmethod
    def _read(cls, batches: Iterable[Any], count: int) -> Samples:
        parts, seen = [], 0
        for batch in batches:
            parts.append(_split(batch))
            seen += _length(*parts[-1])
            if seen >= count:
                break
        if not parts:
            raise InputError("validation_data is empty.", expected="at least one batch", received="none")
        inputs = nest.concatenate([part for part, _ in parts])
        labels = None if parts[0][1] is None else nest.concatenate([part for _, part in parts])
        return cls(_first(inputs, count), None if labels is None else _first(labels, count), None)

    def __len__(self) -> int:
        return len(nest.leaves(self.inputs)[0])

    def first(self, array: np.ndarray, what: str) -> np.ndarray:
        """What is given per sample, for these samples.

        Args:
            array: one entry per sample of the data, or per sample that is explained.
            what: its name, for the message.

        Raises:
            InputError: it has another length.
        """
        fits = len(array) >= len(self) if self.total is None else len(array) in (len(self), self.total)
        if not fits:
            also = "" if self.total in (None, len(self)) else f", or {self.total}"
            raise InputError(
                f"{what} has not one entry per sample.",
                expected=f"{len(self)} entries, as many as are explained{also}",
                received=str(len(array)),
            )
        return nest.frozen(np.array(array[: len(self)]))

    def classes(self, output: str | None = None) -> Nest:
        """The labels as class indices, per output if there are several.

        Args:
            output: its name, where labels are a dict; default None, all of them.

        Raises:
            TargetError: there are none, or they are no classes.
        """
        if self.labels is None:
            raise TargetError(
                "There are no labels to explain.",
                expected="validation_data=(inputs, labels)",
                received='target="label" and inputs alone',
            )
        if output is None:
            return _classes(self.labels)
        if not isinstance(self.labels, Mapping) or output not in self.labels:
            raise TargetError(
                f"There are no labels of output {output!r}.",
                expected="labels in a dict by the outputs' names",
                received=nest.describe(self.labels),
            )
        return _classes(self.labels[output])


def _split(data: Any) -> tuple[Nest, Nest | None]:
    """(inputs, labels) as arrays."""
    parts = data if isinstance(data, tuple) else (data,)
    if len(parts) not in (1, 2, 3):
        raise InputError(
            "validation_data is a tuple of another length.",
            expected="inputs, (inputs, labels) or (inputs, labels, weights)",
            received=f"{len(parts)} entries",
            fix="give several inputs as a list or a dict.",
        )
    inputs, labels = nest.map_leaves(_array, parts[0]), parts[1] if len(parts) > 1 else None
    return inputs, None if labels is None else nest.map_leaves(_array, labels)


def _array(value: Any) -> np.ndarray:
    array = np.asarray(backend.to_numpy(value))
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise InputError(
            "validation_data holds something that is no array of samples.",
            expected="arrays of numbers with a batch axis, in lists or dicts; or a batched tf.data.Dataset of them",
            received=f"{type(value).__name__} ({array.dtype}, shape {array.shape})",
            fix="of a generator give what it yields: next(generator)." if isinstance(value, Iterator) else "",
        )
    return array


def _length(inputs: Nest, labels: Nest | None) -> int:
    arrays = nest.leaves(inputs) + ([] if labels is None else nest.leaves(labels))
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or lengths == {0} or not nest.leaves(inputs):
        raise InputError(
            "validation_data has not one entry per sample.",
            expected="arrays of one length, at least 1",
            received=", ".join(str(array.shape) for array in arrays) or "no arrays",
        )
    return lengths.pop()


def _first(part: Nest, count: int) -> Nest:
    return nest.map_leaves(lambda array: nest.frozen(np.array(array[:count])), part)


def _classes(labels: Nest) -> Nest:
    if isinstance(labels, Mapping):
        return {name: _classes(part) for name, part in labels.items()}
    if isinstance(labels, np.ndarray):
        one_hot = labels.ndim == 2 and labels.shape[1] > 1
        if one_hot and ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all():
            return labels.argmax(axis=1).astype(np.int32)
        column = labels.reshape(len(labels), -1)
        if not one_hot and column.shape[1] == 1 and (column == np.round(column)).all() and column.min() >= 0:
            return column[:, 0].astype(np.int32)
    raise TargetError(
        "The labels are no classes.",
        expected="class indices (samples,) or (samples, 1), or one-hot rows; for several outputs a dict of these",
        received=f"{labels.dtype} of shape {labels.shape}" if isinstance(labels, np.ndarray) else "a list",
        fix="say what is explained: target= None, a class, an array, or {output's name: one of these}.",
    )
