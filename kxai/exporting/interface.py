"""The inputs of a model as the signatures of an export name them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np
from keras import tree

from kxai import backend
from kxai.analyzers.analyzer import concrete
from kxai.analyzers.inputs import as_example, to_arrays
from kxai.backend import saved_model
from kxai.backend.saved_model import TensorFacts
from kxai.errors import ExportError
from kxai.graph.trace import InputSpec, check_model, input_specs, predict

HALF = ("float16", "bfloat16")


@final
@dataclass(frozen=True, eq=False)
class Interface:
    """What all signatures that take a model's inputs have in common.

    Attributes:
        model: the model.
        specs: of its inputs, nested as they are, sizes known.
        names: what signatures call the inputs, in flattened order.
    """

    model: Any
    specs: Any
    names: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, TensorFacts]:
        """Shape and dtype per input; 16-bit numbers arrive in 32 bits, as servers' JSON has them."""
        flat = tree.flatten(self.specs)
        return {
            name: TensorFacts(spec.shape, "float32" if spec.dtype in HALF else spec.dtype)
            for name, spec in zip(self.names, flat, strict=True)
        }

    def given(self, tensors: dict[str, Any]) -> list[Any]:
        """The tensors of the inputs in flattened order; what no analyzer takes fails when the graph runs."""
        count = saved_model.rows(tensors[self.names[0]])
        found = []
        for name in self.names:
            tensor = saved_model.finite(tensors[name], f"input {name!r} is not finite")
            size = saved_model.rows(tensor)
            tensor = backend.asserted(tensor, size > 0, f"input {name} is empty")
            found.append(backend.asserted(tensor, size == count, f"input {name}: as many samples as the other inputs"))
        return found

    def predicted(self, tensors: dict[str, Any]) -> list[Any]:
        """The model's outputs, in flattened order."""
        outputs = predict(self.model, tree.pack_sequence_as(self.specs, [tensors[name] for name in self.names]))
        return [in_32_bits(output) for output in tree.flatten(outputs)]

    def zeros(self) -> dict[str, np.ndarray]:
        """One sample of zeros."""
        return {name: np.zeros((1, *facts.sizes), facts.dtype) for name, facts in self.inputs.items()}

    def arrays(self, x: Any) -> dict[str, np.ndarray]:
        """A user's inputs, checked, by name."""
        return dict(zip(self.names, to_arrays(x, self.specs), strict=True))


def interface(model: Any, example: Any) -> Interface:
    """The interface of a model.

    Args:
        model: a built Keras model.
        example: inputs that fix what the model leaves open; None: nothing is.

    Raises:
        ExportError: sizes are left open, or two inputs would have one name.
    """
    check_model(model)
    declares = isinstance(model, (keras.Sequential, keras.Function))
    if example is None and not declares:
        raise ExportError(
            f"Model {model.name!r} does not say what its inputs look like (it is subclassed).",
            expected="an example of its inputs",
            received="none",
            fix="pass example=x, a batch of inputs of the size and type that it will be served with.",
        )
    specs = input_specs(model, None if declares else as_example(example))
    if example is not None:
        specs = concrete(specs, to_arrays(example, specs))
    flat = tree.flatten(specs)
    names = [identifier(name) for name in _names(specs, flat)]
    for spec, name in zip(flat, names, strict=True):
        _check(spec, name, names)
    return Interface(model, specs, tuple(names))


def identifier(name: str) -> str:
    """A name as an argument of a signature can have it: letters, digits and _, a letter first."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    fits = plain[:1].isalpha() and not keyword.iskeyword(plain) and plain != "self"
    return plain if fits else f"input_{plain}"


def in_32_bits(tensor: Any) -> Any:
    """The tensor; float32 instead of 16 bits."""
    return keras.ops.cast(tensor, "float32") if keras.backend.standardize_dtype(tensor.dtype) in HALF else tensor


def _names(specs: Any, flat: list[InputSpec]) -> list[str]:
    """What the inputs are called: by their keys if there are such, as callers of the model know them."""
    if isinstance(specs, Mapping) and len(specs) == len(flat):
        keys = {id(spec): str(key) for key, spec in specs.items()}
        return [keys[id(spec)] for spec in flat]
    return [spec.name for spec in flat]


def _check(spec: InputSpec, name: str, names: list[str]) -> None:
    if any(size is None for size in spec.shape[1:]):
        shown = ", ".join("any" if size is None else str(size) for size in spec.shape[1:])
        raise ExportError(
            f"Input {spec.name!r} has a size that the model leaves open; a signature needs it fixed.",
            expected="an example of the size that will be served",
            received=f"(batch, {shown})",
            fix="pass example=x, a batch of inputs of that size; for images, Image(size=(height, width)) does it, too.",
        )
    if names.count(name) > 1:
        raise ExportError(
            f"Two inputs would both be called {name!r} in a signature.",
            expected="names that differ in letters, digits and _",
            received=", ".join(names),
            fix="name the inputs: keras.Input(..., name=...).",
        )
