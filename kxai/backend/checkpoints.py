"""Checkpoints of TensorFlow: their objects and arrays, by name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from kxai.errors import LoadError

_OBJECTS, _VALUE = "_CHECKPOINTABLE_OBJECT_GRAPH", "VARIABLE_VALUE"


@final
class Checkpoint:
    """The checkpoint in a SavedModel.

    Args:
        folder: of the SavedModel.

    Raises:
        LoadError: it has none, it is damaged, or it declares arrays that are larger than its files.
    """

    def __init__(self, folder: Path) -> None:
        prefix = folder / "variables" / "variables"
        try:
            self._reader = tf.train.load_checkpoint(str(prefix))
            self._shapes = {name: tuple(shape) for name, shape in self._reader.get_variable_to_shape_map().items()}
            self._check_sizes(folder)
            self._graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(self._reader.get_tensor(_OBJECTS))
        except LoadError:
            raise
        except Exception as error:  # TensorFlow's own errors, and those of protocol buffers.
            raise LoadError(
                f"{folder} has no checkpoint that can be read.",
                expected="the files variables.index and variables.data-00000-of-00001 in the folder variables",
                received=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}",
                fix="copy the whole folder again.",
            ) from error

    def _check_sizes(self, folder: Path) -> None:
        types = self._reader.get_variable_to_dtype_map()
        declared = sum(math.prod(shape) * types[name].size for name, shape in self._shapes.items() if name != _OBJECTS)
        if declared > (stored := stored_bytes(folder)):
            raise LoadError(
                f"{folder} declares larger arrays than it holds.",
                expected=f"at most {stored} bytes, the size of its files",
                received=f"{declared} bytes",
                fix="copy the whole folder again; if that does not help, do not use it.",
            )

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._graph.nodes)

    def children(self, number: int) -> dict[str, int]:
        """The objects that an object refers to.

        Args:
            number: of the object; 0 is the root.

        Returns:
            Their numbers by name.
        """
        return {str(child.local_name): int(child.node_id) for child in self._graph.nodes[number].children}

    def find(self, names: Iterable[str]) -> int | None:
        """Follows names from the root.

        Args:
            names: one after the other.

        Returns:
            The object's number; None if there is none.
        """
        number: int | None = 0
        for name in names:
            number = None if number is None else self.children(number).get(name)
        return number

    def variable(self, number: int) -> str | None:
        """The key of a variable's value.

        Args:
            number: of an object.

        Returns:
            The key; None if the object is no variable.
        """
        keys: list[Any] = [one.checkpoint_key for one in self._graph.nodes[number].attributes if one.name == _VALUE]
        return str(keys[0]) if keys else None

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of an array.

        Args:
            key: of the array.
        """
        return self._shapes[key]

    def read(self, key: str) -> np.ndarray:
        """Reads an array.

        Args:
            key: of the array.
        """
        return np.asarray(self._reader.get_tensor(key))


def stored_bytes(folder: Path) -> int:
    """The bytes of weights in a SavedModel.

    Args:
        folder: of the SavedModel.
    """
    return sum(file.stat().st_size for file in (folder / "variables").glob("*") if file.is_file())
