"""Weights that are found by the place of their layer: each belongs to exactly one variable, or nothing is loaded."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from kxai.errors import LoadError


@dataclass(frozen=True)
class Stored:
    """An array in a file.

    Args:
        place: where it is, for messages.
        shape: its shape.
        read: reads it.
    """

    place: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Node:
    """What a file holds of one layer.

    Args:
        variables: by name, or by "0", "1", ... in the order in which the layer saves them.
        children: of a model, by the names of its layers; of any other layer, by the names of its attributes.
    """

    variables: dict[str, Stored] = field(default_factory=dict)
    children: dict[str, Node] = field(default_factory=dict)

    def arrays(self) -> Iterator[Stored]:
        """Yields all arrays, also those of the children."""
        yield from self.variables.values()
        for child in self.children.values():
            yield from child.arrays()


# Variables by which Keras 2 and Keras 3 mean the same.
_ALIASES = {"depthwise_kernel": "kernel"}


def assign(model: keras.Model, root: Node, path: Path) -> None:
    """Gives a model the weights of a file: all that the file holds, to all that the model has.

    Args:
        model: built, with any weights.
        root: what the file holds of it.
        path: the file, for messages.

    Raises:
        LoadError: something on either side has no counterpart, or another shape. The model is unchanged then.
    """
    pairs: dict[int, tuple[keras.Layer, list[Stored]]] = {}
    lost = list(_match(model, root, pairs))
    given = {id(variable) for layer, _ in pairs.values() for variable in _own(layer)}
    bare = [variable.path for variable in model.weights if id(variable) not in given]
    if lost or bare:
        raise LoadError(
            f"{path} and the model that it describes do not have the same weights.",
            expected="every stored array in one variable, every variable with one array",
            received="; ".join(
                f"{what} {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
                for what, names in (("arrays without a variable:", lost), ("variables without an array:", bare))
                if names
            ),
            fix="load it with the version of Keras that wrote it and save it as .h5: model.save('name.h5').",
        )
    _check_shapes(pairs, path)
    for layer, arrays in pairs.values():
        layer.load_own_variables({str(index): stored.read() for index, stored in enumerate(arrays)})


def check_counts(model: keras.Model, path: Path) -> None:
    """Refuses weights of Keras 3 that are more, fewer or of other shapes than those of a model.

    Args:
        model: built.
        path: a ``.weights.h5`` file of Keras 3.

    Raises:
        LoadError: they are.
    """
    with tempfile.TemporaryDirectory(prefix="kxai-") as folder:
        # Some layers save other arrays than they have, such as a kernel with what was added to it.
        again = Path(folder) / "again.weights.h5"
        model.save_weights(again)
        wanted = _shapes_in(again)
    found = _shapes_in(path)
    if found != wanted:
        raise LoadError(
            f"{path} does not hold the weights of this model.",
            expected=f"arrays of the shapes {_shapes(wanted - found) or 'that are there'}",
            received=f"arrays of the shapes {_shapes(found - wanted) or 'of the model, and some missing'}",
            fix="give the weights that were saved with this configuration.",
        )


def _shapes_in(path: Path) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()

    def count(name: str, item: Any) -> None:
        # State of the training, and of random numbers, is no weight.
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/") and "seed_generator" not in name:
            found[tuple(item.shape)] += 1

    with h5py.File(path, "r") as stored:
        stored.visititems(count)
    return found


def _shapes(counts: Counter[tuple[int, ...]]) -> str:
    return ", ".join(map(str, sorted(counts)[:5]))


def _match(layer: keras.Layer, node: Node, pairs: dict[int, tuple[keras.Layer, list[Stored]]]) -> Iterator[str]:
    """Pairs layers with their arrays, in ``pairs``; yields the places of arrays that belong nowhere."""
    if node.variables:
        arrays = _ordered(node.variables, [variable.name for variable in _own(layer)])
        if arrays is None or id(layer) in pairs:
            yield from (stored.place for stored in node.variables.values())
        else:
            pairs[id(layer)] = (layer, arrays)
    inner = _inner(layer)
    for name, child in _flat(node, inner):
        if name in inner:
            yield from _match(inner[name], child, pairs)
        else:
            yield from (stored.place for stored in child.arrays())


def _ordered(stored: dict[str, Stored], names: list[str]) -> list[Stored] | None:
    """The arrays in the order of the variables; None if they are not the same."""
    if all(name.isdecimal() for name in stored):
        names = [str(index) for index in range(len(names))]
    else:
        stored = {name if name in names else _ALIASES.get(name, name): array for name, array in stored.items()}
    # Of two variables of one name, one would get the array of both.
    same = set(stored) == set(names) and len(set(names)) == len(names)
    return [stored[name] for name in names] if same else None


def _flat(node: Node, inner: dict[str, keras.Layer]) -> Iterator[tuple[str, Node]]:
    """The children by the names of the layers within, "cells/0" for those of a list."""
    for name, child in node.children.items():
        parts = {f"{name}/{key}": part for key, part in child.children.items()}
        yield from parts.items() if parts and set(parts) <= set(inner) else [(name, child)]


def _inner(layer: keras.Layer) -> dict[str, keras.Layer]:
    """The layers within a layer, by name in a model and by attribute elsewhere.

    Those of a list are there by their place in it, and as files count them by class.
    """
    if isinstance(layer, keras.Model):
        return {inner.name: inner for inner in layer.layers}
    found = {}
    for name, value in vars(layer).items():
        if isinstance(value, keras.Layer):
            found[name] = value
        elif isinstance(value, (list, tuple)) and all(isinstance(part, keras.Layer) for part in value):
            found |= {f"{name}/{index}": part for index, part in enumerate(value)}
            found |= {f"{name}/{key}": part for key, part in zip(counted(_classes(value)), value, strict=True)}
    return found


def _classes(layers: Iterable[keras.Layer]) -> list[str]:
    return [type(layer).__name__ for layer in layers]


def counted(classes: Iterable[str]) -> list[str]:
    """Names of layers as Keras counts them in a file.

    Args:
        classes: names of their classes, in order.

    Example:
        >>> counted(["Dense", "LSTMCell", "Dense"])
        ['dense', 'lstm_cell', 'dense_1']
    """
    counts: Counter[str] = Counter()
    names = []
    for name in map(_snake, classes):
        names.append(f"{name}_{counts[name]}" if counts[name] else name)
        counts[name] += 1
    return names


def _snake(name: str) -> str:
    name = re.sub(r"\W+", "", name.rpartition(">")[2])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _own(layer: keras.Layer) -> list[keras.Variable]:
    """A layer's own weights, in the order in which it saves them."""
    parts = list(_inner(layer).values())
    for value in vars(layer).values():
        if isinstance(value, (list, tuple)):
            parts += [part for part in value if isinstance(part, keras.Layer)]
    inner = {id(weight) for part in parts for weight in part.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def _check_shapes(pairs: dict[int, tuple[keras.Layer, list[Stored]]], path: Path) -> None:
    for layer, arrays in pairs.values():
        for variable, stored in zip(_own(layer), arrays, strict=True):
            if tuple(variable.shape) != stored.shape:
                raise LoadError(
                    f"{path} holds a weight of another shape than the model that it describes.",
                    expected=f"{tuple(variable.shape)} for {variable.path}",
                    received=f"{stored.shape} at {stored.place}",
                    fix="the file is damaged or its parts do not belong together.",
                )
