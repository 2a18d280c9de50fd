"""SavedModel folders, loaded: the functions that they offer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import tensorflow as tf

from kxai.errors import InputError, LoadError


@final
@dataclass(frozen=True, eq=False)
class SavedFunction:
    """A signature of a SavedModel.

    Attributes:
        inputs: (type, shape) by name; shape None where not even the rank is known.
        outputs: likewise.
    """

    inputs: Mapping[str, tuple[str, tuple[int | None, ...] | None]]
    outputs: Mapping[str, tuple[str, tuple[int | None, ...] | None]]
    function: Any
    model: Any  # its variables live as long as this

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Calls it with arrays of its types; thread-safe.

        Raises:
            InputError: the function itself finds fault with the values.
        """
        tensors = {name: tf.constant(inputs[name], dtype) for name, (dtype, _) in self.inputs.items()}
        try:
            return {name: _array(tensor) for name, tensor in self.function(**tensors).items()}
        except tf.errors.InvalidArgumentError as error:
            raise InputError("The SavedModel does not take these values.", received=_reason(error.message)) from error


def load_signatures(folder: str) -> dict[str, SavedFunction]:
    """The signatures of a SavedModel, by name.

    Raises:
        LoadError: it is damaged, or no SavedModel.
    """
    try:
        model = tf.saved_model.load(folder)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise LoadError(f"{folder} is no SavedModel that can be read.", received=str(error)) from error
    return {
        name: SavedFunction(
            inputs={key: _spec(spec) for key, spec in function.structured_input_signature[1].items()},
            outputs={key: _spec(spec) for key, spec in function.structured_outputs.items()},
            function=function,
            model=model,
        )
        for name, function in model.signatures.items()
    }


def _reason(message: str) -> str:
    """What an operation says, without where in the graph it stands."""
    place = re.compile(r"Graph execution error:|Detected at node |<stack traces|\s*\[\[\{\{node")
    return " ".join(line for line in message.splitlines() if line.strip() and not place.match(line)) or message


def _array(tensor: Any) -> np.ndarray:
    # NumPy alone knows no bfloat16; float32 holds all of its numbers.
    return (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()


def _spec(spec: Any) -> tuple[str, tuple[int | None, ...] | None]:
    return spec.dtype.name, None if spec.shape.rank is None else tuple(spec.shape.as_list())
