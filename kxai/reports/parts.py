"""What the inputs of a model are to a reader: images, sequences, tables, texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from kxai.errors import ArgumentError, UnknownNameError
from kxai.plots.pieces import pieces
from kxai.plots.raster import to_rgb, value_range

IMAGE, SEQUENCE, TABLE, TEXT = "image", "sequence", "table", "text"


@final
@dataclass(frozen=True, eq=False)
class Part:
    """One input of the model, for all samples.

    Args:
        name: of the input.
        kind: "image", "sequence", "table" or "text".
        values: ``(batch, ...)``, as the model takes them.
        pictures: uint8 ``(batch, rows, columns, 3)`` of an image, or None.
        pictured: how the pictures came from the values, or "".
        words: (text, whether a space stands before it) per token and sample, of a text.
        features: names of a table's columns.
    """

    name: str
    kind: str
    values: np.ndarray
    pictures: np.ndarray | None = None
    pictured: str = ""
    words: Sequence[Sequence[tuple[str, bool]]] = ()
    features: Sequence[str] = ()


def parts(
    arrays: Mapping[str, np.ndarray], images: Any = None, tokens: Any = None, feature_names: Any = None
) -> list[Part]:
    """Finds out what every input is.

    ``(batch, ..., rows, columns, channels)`` is an image (slices below each other), ``(batch, steps, channels)`` a
    sequence, ``(batch, n)`` a table, or a text if the numbers are integers or tokens are given.

    Args:
        arrays: the inputs by name, as the model takes them.
        images: ``(batch, rows, columns[, 1|3])``, how images look to a person; or a dict of these by input.
        tokens: the tokens of every sample; or a dict of these by input.
        feature_names: a name per column of a table; or a dict of these by input.

    Returns:
        One part per input.

    Raises:
        ArgumentError: what was given fits no input, or not its size. UnknownNameError: there is no such input.

    Example:
        >>> found = parts({"a": np.zeros((1, 5)), "b": np.zeros((1, 8, 8, 3)), "c": np.zeros((1, 9, 2))})
        >>> [part.kind for part in found]
        ['table', 'image', 'sequence']
    """
    said = _by_input("tokens", tokens, [name for name, array in arrays.items() if array.ndim in (2, 3)])
    seen = _by_input("images", images, [name for name, array in arrays.items() if array.ndim == 4])
    tables = [name for name, array in arrays.items() if array.ndim <= 2 and name not in said]
    columns = _by_input("feature_names", feature_names, tables)
    found = []
    for name, array in arrays.items():
        array = array[:, np.newaxis] if array.ndim == 1 else array
        if name in said or (array.ndim == 2 and array.dtype.kind in "iu" and name not in columns):
            found.append(Part(name, TEXT, array, words=_words(array, said.get(name), name)))
        elif array.ndim == 2:
            found.append(Part(name, TABLE, array, features=_features(array, columns.get(name), name)))
        elif array.ndim == 3:
            found.append(Part(name, SEQUENCE, array))
        else:
            pictures, how = _pictures(array, seen.get(name), name)
            found.append(Part(name, IMAGE, array, pictures, how))
    return found


def _by_input(what: str, given: Any, fitting: Sequence[str]) -> dict[str, Any]:
    """What was given, by input; given alone, it belongs to the one input that it can belong to."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        for name in given:
            if name not in fitting:
                raise UnknownNameError(f"input of {what}", str(name), fitting)
        return dict(given)
    if len(fitting) != 1:
        raise ArgumentError(
            f"{what} fits {'no' if not fitting else 'more than one'} input.",
            expected=f"a dict by input: {', '.join(fitting)}" if fitting else f"a model whose inputs can have {what}",
            received=f"{what} without the name of an input" if fitting else what,
        )
    return {fitting[0]: given}


def _words(array: np.ndarray, tokens: Any, name: str) -> list[list[tuple[str, bool]]]:
    if tokens is None:
        return [[(str(number), True) for number in row] for row in array]
    listed = [[str(token) for token in one] for one in tokens]
    if len(listed) != len(array) or any(len(one) > array.shape[1] for one in listed):
        raise ArgumentError(
            f"The tokens do not fit the input {name!r}.",
            expected=f"{len(array)} lists of at most {array.shape[1]} tokens",
            received=f"{len(listed)} lists of {', '.join(map(str, sorted({len(one) for one in listed})))} tokens",
        )
    return [pieces(one) for one in listed]


def _features(array: np.ndarray, names: Any, name: str) -> list[str]:
    if names is None:
        return [str(index) for index in range(array.shape[1])]
    if len(names) != array.shape[1]:
        raise ArgumentError(
            f"feature_names does not fit the input {name!r}.",
            expected=f"{array.shape[1]} names",
            received=f"{len(names)} names",
        )
    return [str(one) for one in names]


def _pictures(array: np.ndarray, images: Any, name: str) -> tuple[np.ndarray | None, str]:
    if images is not None:
        images = np.asarray(images)
        if images.shape[:3] != array.shape[:3]:
            raise ArgumentError(
                f"images does not fit the input {name!r}.",
                expected=f"({', '.join(map(str, array.shape[:3]))}[, 1|3])",
                received=str(images.shape),
                fix="one image per sample, of the model's input size.",
            )
        return to_rgb(images[..., np.newaxis] if images.ndim == 3 else images), ""
    if array.shape[-1] not in (1, 3):
        return None, f"no picture of the input: it has {array.shape[-1]} channels"
    low, high = value_range(array)
    return to_rgb(array), f"pictures show input values from {low:.4g} (black) to {high:.4g} (white)"
