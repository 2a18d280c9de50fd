"""Nests: arrays in lists, tuples and dicts, as Keras models take and return them.

Pure functions. A nest is an array, or a list, tuple or dict (with string keys) of nests. The order of a dict's
leaves is its own key order, so that a nest and its written form agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from kxai.errors import ArgumentError, UnknownNameError

Nest: TypeAlias = Any
"""``np.ndarray``, or a list, tuple or dict of nests."""


def map_leaves(function: Callable[..., Any], nest: Nest, *others: Nest) -> Nest:
    """Applies a function to the leaves of one nest, or to the matching leaves of several.

    Args:
        function: called with one leaf of every nest.
        nest: the nest that gives the structure.
        others: nests of the same structure.

    Returns:
        A nest of the results, structured like ``nest``.

    Raises:
        ArgumentError: the nests are not of one structure.

    Example:
        >>> map_leaves(lambda a, b: a + b, {"x": 1, "y": [2]}, {"x": 10, "y": [20]})
        {'x': 11, 'y': [22]}
    """
    for other in others:
        if not _same_node(nest, other):
            raise ArgumentError(
                "Nests of different structure cannot be combined.",
                expected=describe(nest),
                received=describe(other),
            )
    if isinstance(nest, dict):
        return {key: map_leaves(function, nest[key], *(other[key] for other in others)) for key in nest}
    if isinstance(nest, (list, tuple)):
        parts = [map_leaves(function, *column) for column in zip(nest, *others, strict=True)]
        return parts if isinstance(nest, list) else tuple(parts)
    return function(nest, *others)


def leaves(nest: Nest) -> list[Any]:
    """Returns the leaves of a nest, in order.

    Args:
        nest: the nest.

    Returns:
        A list of the leaves, depth first.

    Example:
        >>> leaves({"b": 1, "a": [2, (3,)]})
        [1, 2, 3]
    """
    found: list[Any] = []
    map_leaves(found.append, nest)
    return found


def describe(nest: Nest) -> str:
    """Writes a nest as text, arrays by their shapes.

    Args:
        nest: the nest.

    Returns:
        The text, on one line.

    Example:
        >>> describe({"ids": np.zeros((2, 7)), "image": [np.zeros((2, 4, 4, 3))]})
        '{ids: (2, 7), image: [(2, 4, 4, 3)]}'
    """
    if isinstance(nest, dict):
        return "{" + ", ".join(f"{key}: {describe(part)}" for key, part in nest.items()) + "}"
    if isinstance(nest, (list, tuple)):
        inner = ", ".join(describe(part) for part in nest)
        return f"[{inner}]" if isinstance(nest, list) else f"<{inner}>"
    return str(np.shape(nest))


def to_json(nest: Nest, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Writes the structure of a nest as JSON-able data and puts its arrays aside under fresh names.

    Args:
        nest: the nest of arrays.
        arrays: receives the leaves, by the names that the structure refers to.
        prefix: how these names begin.

    Returns:
        The structure; ``from_json`` turns it back.

    Raises:
        ArgumentError: a dict has a key that is not a string.

    Example:
        >>> arrays = {}
        >>> to_json([np.zeros(1), {"k": np.ones(1)}], arrays, "x")
        {'list': [{'array': 'x.0'}, {'dict': [['k', {'array': 'x.1'}]]}]}
        >>> sorted(arrays)
        ['x.0', 'x.1']
    """
    if isinstance(nest, dict):
        for key in nest:
            if not isinstance(key, str):
                raise ArgumentError("A nest has a key that is not a string.", expected="str", received=repr(key))
        return {"dict": [[key, to_json(part, arrays, prefix)] for key, part in nest.items()]}
    if isinstance(nest, (list, tuple)):
        kind = "list" if isinstance(nest, list) else "tuple"
        return {kind: [to_json(part, arrays, prefix) for part in nest]}
    name = f"{prefix}.{sum(known.rpartition('.')[0] == prefix for known in arrays)}"
    arrays[name] = nest
    return {"array": name}


def from_json(structure: dict[str, Any], arrays: dict[str, np.ndarray]) -> Nest:
    """Builds a nest from what ``to_json`` wrote.

    Args:
        structure: the structure.
        arrays: the leaves, by name; those that are used are taken out, as each has one place.

    Returns:
        The nest.

    Raises:
        KeyError: an array is missing, or is there twice.
        ValueError: the structure is not one that ``to_json`` writes.

    Example:
        >>> from_json({"tuple": [{"array": "x.0"}]}, {"x.0": 5})
        (5,)
    """
    ((kind, content),) = structure.items()
    if kind == "array":
        return arrays.pop(content)
    if kind == "dict":
        return {key: from_json(part, arrays) for key, part in content}
    if kind in ("list", "tuple"):
        parts = [from_json(part, arrays) for part in content]
        return parts if kind == "list" else tuple(parts)
    raise ValueError(f"unknown node {kind!r} in a stored structure")


def concatenate(nests: Sequence[Nest]) -> Nest:
    """Joins nests of arrays along the batch axis.

    Args:
        nests: at least one nest; all of one structure, leaves of one shape but for the first axis.

    Returns:
        One nest.

    Raises:
        ArgumentError: structures or shapes differ.

    Example:
        >>> describe(concatenate([[np.zeros((2, 3))], [np.zeros((5, 3))]]))
        '[(7, 3)]'
    """

    def join(*parts: np.ndarray) -> np.ndarray:
        if len({part.shape[1:] for part in parts}) > 1:
            raise ArgumentError(
                "Batches of different sample shapes cannot be joined.",
                expected=f"(batch, *{parts[0].shape[1:]}) throughout",
                received=", ".join(str(part.shape) for part in parts),
                fix="pad the inputs to one shape before they are explained, or keep the parts apart.",
            )
        return np.concatenate(parts)

    return map_leaves(join, *nests)


def frozen(array: Any) -> np.ndarray:
    """Turns a leaf into a read-only array; one that is read-only already is shared, any other is copied.

    Args:
        array: anything that NumPy takes as an array; bfloat16, which NumPy does not know, becomes float32.

    Returns:
        The read-only array.

    Example:
        >>> frozen([1, 2]).flags.writeable
        False
    """
    array = np.asarray(array)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


def _same_node(left: Nest, right: Nest) -> bool:
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys()
    for kind in (list, tuple):
        if isinstance(left, kind):
            return isinstance(right, kind) and len(left) == len(right)
    return not isinstance(right, (dict, list, tuple))


def pick(nest: Nest, key: str | int | None) -> np.ndarray:
    """Chooses one of a model's inputs.

    Args:
        nest: an array per input.
        key: a key of a dict or an index into a list; None for the only array. 0 is also a single array itself.

    Returns:
        The array.

    Raises:
        ArgumentError: ``key`` is None for several arrays, or what it names is itself a structure.
        UnknownNameError: there is no such input.

    Example:
        >>> pick({"a": np.ones(2), "b": np.zeros(1)}, "a")
        array([1., 1.])
    """
    arrays: list[np.ndarray] = leaves(nest)
    if key is None and len(arrays) == 1:
        return arrays[0]
    if key is None:
        raise ArgumentError(
            "The model has several inputs, and none was chosen.",
            expected="input= a key or an index of the inputs",
            received=f"input=None for {describe(nest)}",
        )
    inputs: Any = dict(enumerate(nest)) if isinstance(nest, (list, tuple)) else nest
    inputs = inputs if isinstance(inputs, dict) else {0: inputs}
    if isinstance(key, bool) or key not in inputs:
        raise UnknownNameError("input", str(key), [str(known) for known in inputs])
    found = inputs[key]
    if isinstance(found, (dict, list, tuple)):
        raise ArgumentError(
            f"The input {key!r} is itself a structure.",
            expected="an input that is one array",
            received=describe(found),
            fix="build an Explanation of that part, or use its arrays.",
        )
    return np.asarray(found)
